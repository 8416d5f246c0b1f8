"""Provide the texts and models of the benchmarks, and count the arithmetic operations per token."""

import logging
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging as transformers_logging

from splade_integrations.evaluation.dataset import Dataset, DatasetError
from splade_integrations.evaluation.dataset import load_dataset as read_collection
from splade_integrations.models.offline import splade_model_path
from tests.support.random_checkpoints import save_masked_lm

__all__ = [
    "CACHE",
    "Dataset",
    "evenly_spaced",
    "flops_per_token",
    "load_dataset",
    "made_up_queries",
    "model_flops_per_token",
    "model_path",
    "quiet",
    "random_bert_base",
    "token_lengths",
]

# The folder of the random models and of the exported files. Git ignores it, and `make clean` removes it.
CACHE = Path(__file__).resolve().parents[1] / ".cache" / "benchmarks"
_ACTIVE_TERMS = 200
_TEXTS_FOR_BIAS = 40
_BERT_BASE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "initializer_range": 0.02,
}


def quiet() -> None:
    """Switch off progress bars during loading, and warnings about texts that the benchmarks truncate on purpose."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("splade_integrations").setLevel(logging.ERROR)


def load_dataset(folder: str | Path) -> Dataset:
    """Load a dataset in BEIR layout.

    Raises:
        SystemExit: The folder is not a dataset in this layout. The message says why.
    """
    try:
        return read_collection(folder)
    except DatasetError as err:
        raise SystemExit(str(err)) from err


def model_path(name: str, dataset: Dataset) -> str:
    """Return the folder of the model "tiny" (the demo's) or "base" (`random_bert_base`), or else the folder `name`."""
    if name == "tiny":
        return splade_model_path()
    if name == "base":
        return str(random_bert_base(dataset.name, dataset.documents))
    if not (Path(name) / "config.json").is_file():
        raise SystemExit(f"A model must be tiny, base or a folder with a checkpoint, got {name!r}. Name one of them.")
    return name


def random_bert_base(name: str, texts: Sequence[str]) -> Path:
    """Return the folder of a random checkpoint of BERT-base's size (110 M parameters). It is made only once.

    No trained model of that size can be installed offline. The tokenizer is the tiny model's. The decoder's bias is
    shifted so that about 200 terms of each text are active, as in a trained model.

    The checkpoint is good for measuring time and memory. It says nothing about quality, because its weights are random.
    It also differs from a trained model in two ways that can affect a figure. First, its active terms are nearly the
    same for every text, and its logits lie close to 0, the threshold above which a term is active. So the first pass of
    the two-pass head rules out fewer terms than with a trained model (benchmarks/head.py prints how many are left).
    Second, its weights have no outliers, so rounding to 8 bits causes other errors than in a trained model.

    Args:
        name: The name of `texts`, which becomes part of the folder's name below `CACHE`.
        texts: Typical texts. 40 of them are used to shift the bias.
    """
    folder = CACHE / f"random-bert-base-{name}"
    complete = folder / "complete"
    if not complete.is_file():
        print(f"Making a random BERT-base in {folder} (once) …", file=sys.stderr, flush=True)
        save_masked_lm(
            folder,
            "bert",
            seed=0,
            tokenizer=AutoTokenizer.from_pretrained(splade_model_path()),
            typical_texts=evenly_spaced(texts, _TEXTS_FOR_BIAS),
            active_terms=_ACTIVE_TERMS,
            **_BERT_BASE,
        )
        complete.touch()  # the last step, so a folder without this file is incomplete and is made again
    return folder


def made_up_queries(count: int, *, seed: int = 0) -> list[str]:
    """Return `count` queries of 4 to 12 random words from the vocabulary of the tiny model's tokenizer."""
    words = sorted(word for word in AutoTokenizer.from_pretrained(splade_model_path()).get_vocab() if word.isalpha())
    generator = random.Random(seed)
    return [" ".join(generator.choices(words, k=generator.randint(4, 12))) for _ in range(count)]


def evenly_spaced(texts: Sequence[str], number: int) -> list[str]:
    """Return `number` evenly spaced items of `texts`, or all of them if there are fewer.

    Example:
        >>> evenly_spaced(["a", "b", "c", "d", "e"], 2)
        ['a', 'c']
    """
    number = min(number, len(texts))
    return [texts[place * len(texts) // number] for place in range(number)]


def token_lengths(folder: str, texts: Sequence[str], max_length: int) -> list[int]:
    """Return each text's number of tokens, including special tokens. The number is at most `max_length`."""
    ids = AutoTokenizer.from_pretrained(folder)(list(texts), truncation=True, max_length=max_length)["input_ids"]
    return [len(text_ids) for text_ids in ids]


def flops_per_token(*, layers: int, hidden: int, intermediate: int, vocabulary: int) -> int:
    """Return the floating-point operations of one real token in the matrix products with weights.

    The number is 2 · (layers · (4 H² + 2 H I) + H² + H V). The factor 2 is for a multiplication and an addition. The
    terms are:

    - 4 H² per layer for attention's four projections
    - 2 H I per layer for the feed-forward layer's two products
    - H² for the head's transform
    - H V for the full head, even if the encoder skips part of it

    Products between tokens are left out. For a text of L tokens, they are 4 · layers · L · H per token, which is about
    3 % of BERT-base's operations at 200 tokens. So shares of a peak are slightly too low.

    Example:
        >>> flops_per_token(layers=12, hidden=768, intermediate=3072, vocabulary=30522)
        217930752
    """
    layer = 4 * hidden**2 + 2 * hidden * intermediate
    return 2 * (layers * layer + hidden**2 + hidden * vocabulary)


def model_flops_per_token(folder: str) -> int:
    """Return `flops_per_token` of a BERT-like checkpoint, from its config.json."""
    config: Any = AutoConfig.from_pretrained(folder)
    return flops_per_token(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        vocabulary=config.vocab_size,
    )
