"""Saves random masked LMs of every architecture and size, for tests and benchmarks.

This module does not import our package.
"""

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    BertTokenizer,
    CamembertConfig,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
)

ARCHITECTURES = ("bert", "distilbert", "roberta", "xlm-roberta", "modernbert")
_LETTERS = string.ascii_lowercase + string.digits + string.punctuation


def wordpiece_tokenizer(folder: Path) -> BertTokenizer:
    """Return a BERT tokenizer whose vocabulary is single characters."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    (folder / "vocab.txt").write_text("\n".join(words))
    return BertTokenizer(str(folder / "vocab.txt"), model_max_length=128)


def bpe_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with RoBERTa's special tokens. A leading space makes a different token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([Path(string.__file__).read_text()], trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=128,
        bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>",
        pad_token="<pad>", unk_token="<unk>", mask_token="<mask>",
    )  # fmt: skip


def save_masked_lm(
    folder: Path,
    architecture: str,
    seed: int = 7,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    typical_texts: Sequence[str] = (),
    active_terms: int = 200,
    **config_options: Any,
) -> None:
    """Save a random masked LM and its tokenizer.

    The model is small by default. Its weights are large, so padding has large logits and a missing mask is noticed.

    Args:
        folder: The folder to save to. It is made if it is missing.
        architecture: One of `ARCHITECTURES`, "camembert" or "electra".
        seed: The seed of the weights.
        tokenizer: The tokenizer. None makes a small one of the architecture's kind.
        typical_texts: If texts are given, the decoder's bias is set so that about `active_terms` terms of each text are
            active, as in a trained model. Without texts the bias is random.
        active_terms: The number of active terms of each typical text.
        config_options: Values that override the configuration, such as `hidden_size=768`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer is None:
        is_bpe = "roberta" in architecture or architecture in ("camembert", "modernbert")
        tokenizer = bpe_tokenizer() if is_bpe else wordpiece_tokenizer(folder)
    tokenizer.save_pretrained(folder)
    common: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "initializer_range": 0.2,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if architecture == "bert":
        config: Any = BertConfig(**common | {"max_position_embeddings": 130} | config_options)
    elif architecture == "distilbert":
        config = DistilBertConfig(
            vocab_size=len(tokenizer), dim=32, n_layers=2, n_heads=2, hidden_dim=64, initializer_range=0.2,
            max_position_embeddings=130, pad_token_id=tokenizer.pad_token_id, **config_options,
        )  # fmt: skip
    elif architecture == "electra":
        config = ElectraConfig(**common | {"max_position_embeddings": 130} | config_options)
    elif architecture == "camembert":
        config = CamembertConfig(**common | {"max_position_embeddings": 132} | config_options)
    elif architecture == "roberta":
        config = RobertaConfig(**common | {"max_position_embeddings": 132} | config_options)
    elif architecture == "xlm-roberta":
        config = XLMRobertaConfig(**common | {"max_position_embeddings": 132} | config_options)
    else:
        tokens = {"bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}
        config = ModernBertConfig(
            **common | tokens | {"max_position_embeddings": 130, "local_attention": 32, "decoder_bias": True},
            initializer_cutoff_factor=2.0,
            **config_options,
        )
    torch.manual_seed(seed)
    model: Any = AutoModelForMaskedLM.from_config(config).eval()
    with torch.no_grad():
        bias = model.get_output_embeddings().bias
        if typical_texts:
            bias -= _threshold(model, tokenizer, typical_texts, active_terms)
        elif bias is not None:  # with zeros, no test would notice a bias that is forgotten or added twice
            bias.normal_(std=0.5)
    model.save_pretrained(folder)


def _threshold(model: Any, tokenizer: Any, texts: Sequence[str], active_terms: int) -> float:
    """Return the logit that `active_terms` terms per text exceed on average.

    It is a quantile of the maximum logits over each text's tokens.
    """
    maxima = []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        maxima.append(model(**inputs).logits[0].amax(dim=0).numpy())
    return float(np.quantile(np.stack(maxima), 1 - active_terms / len(tokenizer)))
