"""What the benchmarks encode, by which models, and how much arithmetic that is."""

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoTokenizer, BertConfig, BertForMaskedLM
from transformers.utils import logging as transformers_logging

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

from models import splade_model_path

from splade_integrations.evaluation.dataset import Dataset as Collection
from splade_integrations.evaluation.dataset import DatasetError as CollectionError
from splade_integrations.evaluation.dataset import load_dataset as read_collection

__all__ = [
    "CACHE",
    "Collection",
    "evenly_spaced",
    "flops_per_token",
    "load_collection",
    "model_flops_per_token",
    "model_path",
    "quiet",
    "token_lengths",
]

# Models made here, and peers' exported files. Ignored by git, removed by `make clean`.
CACHE = Path(__file__).resolve().parents[1] / ".cache" / "benchmarks"
_ACTIVE_TERMS = 200
_TEXTS_FOR_BIAS = 40


def quiet() -> None:
    """No progress bars for loading and no warnings of texts that are cut on purpose."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("splade_integrations").setLevel(logging.ERROR)


def load_collection(folder: str | Path) -> Collection:
    """A test collection in BEIR layout.

    Raises:
        SystemExit: It is none; the message says why.
    """
    try:
        return read_collection(folder)
    except CollectionError as err:
        raise SystemExit(str(err)) from err


def model_path(name: str, collection: Collection) -> str:
    """Folder of "tiny" (the demo's trained model) or "base" (`random_bert_base`); anything else is a folder itself."""
    if name == "tiny":
        return splade_model_path()
    if name == "base":
        return str(random_bert_base(collection))
    if not (Path(name) / "config.json").is_file():
        raise SystemExit(f"A model must be tiny, base or a folder with a checkpoint, got {name!r}. Name one of them.")
    return name


def random_bert_base(collection: Collection) -> Path:
    """A checkpoint of BERT-base's size, of random weights, made once; no model of that size installs offline.

    Its decoder bias is shifted so that about 200 terms a text are active on `collection`, as in a trained model:
    the quantile of the texts' maxima over tokens that leaves so many above 0. The tokenizer is the tiny model's.

    What it is good for: the time of a body and of a head of that size. What it is not: its term weights mean nothing,
    so it says nothing of quality. Its active terms are nearly the same for each text and its maxima lie close together
    around the threshold, unlike a trained model's, so a bound meets more terms that it cannot decide
    (benchmarks/head.py prints how many). And errors of 8-bit weights differ from a trained model's, which has outliers.

    Returns:
        The folder, below `CACHE`.
    """
    folder = CACHE / f"random-bert-base-{collection.name}"
    if (folder / "complete.json").is_file():
        return folder
    print(f"Making a random BERT-base in {folder} (once) …", file=sys.stderr, flush=True)
    tokenizer = AutoTokenizer.from_pretrained(splade_model_path())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), architectures=["BertForMaskedLM"])).eval()
    maxima = []
    with torch.inference_mode():
        for text in evenly_spaced(collection.documents, _TEXTS_FOR_BIAS):
            inputs = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
            maxima.append(model(**inputs).logits[0].amax(dim=0).numpy())
    threshold = float(np.quantile(np.stack(maxima), 1 - _ACTIVE_TERMS / len(tokenizer)))
    with torch.no_grad():
        model.cls.predictions.bias -= threshold
        model.cls.predictions.decoder.bias = model.cls.predictions.bias
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # Last: a folder without it was interrupted, and is made again.
    (folder / "complete.json").write_text(json.dumps({"active_terms": _ACTIVE_TERMS, "threshold": threshold}) + "\n")
    return folder


def evenly_spaced(texts: Sequence[str], number: int) -> list[str]:
    """`number` texts (all, if there are fewer) from all over `texts`.

    Example:
        >>> evenly_spaced(["a", "b", "c", "d", "e"], 2)
        ['a', 'c']
    """
    number = min(number, len(texts))
    return [texts[place * len(texts) // number] for place in range(number)]


def token_lengths(folder: str, texts: Sequence[str], max_length: int) -> list[int]:
    """Tokens that the checkpoint in `folder` makes of each text, special ones included, cut at `max_length`."""
    ids = AutoTokenizer.from_pretrained(folder)(list(texts), truncation=True, max_length=max_length)["input_ids"]
    return [len(text_ids) for text_ids in ids]


def flops_per_token(*, layers: int, hidden: int, intermediate: int, vocabulary: int) -> int:
    """Floating-point operations of one real token, two a multiplication: the matrix products with weights.

    2 · (layers · (4 H² + 2 H I) + H² + H V): attention's four projections and the two products between (12 H² a layer
    where I = 4 H), the head's transform, and the full head, whatever it may be spared. The products between tokens
    (4 · layers · L · H, about 3 % of BERT-base at 200 tokens) are left out, so shares of a peak are understated.

    Example:
        >>> flops_per_token(layers=12, hidden=768, intermediate=3072, vocabulary=30522)
        217930752
    """
    layer = 4 * hidden**2 + 2 * hidden * intermediate
    return 2 * (layers * layer + hidden**2 + hidden * vocabulary)


def model_flops_per_token(folder: str) -> int:
    """`flops_per_token` of a BERT-like checkpoint, from its config.json."""
    config: Any = AutoConfig.from_pretrained(folder)
    return flops_per_token(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        vocabulary=config.vocab_size,
    )
