"""Saves random masked LMs of every architecture and size, for tests and benchmarks.

This module does not import our package.
"""

import json
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertConfig,
    BertTokenizer,
    CamembertConfig,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen3Config,
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
    """Return a byte-level BPE tokenizer with RoBERTa's special tokens. After a space, a word has another token."""
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


def unigram_tokenizer() -> PreTrainedTokenizerFast:
    """Return a small tokenizer of XLM-R's kind: Unigram pieces with ▁, <s> and </s> around a text, and <unk>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=[*special, "<mask>"], unk_token="<unk>")
    tokenizer.train_from_iterator(Path(string.__file__).read_text().splitlines(), trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=128,
        bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>",
        pad_token="<pad>", unk_token="<unk>", mask_token="<mask>",
    )  # fmt: skip


def decoder_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of Qwen3's kind. It adds no special tokens to a text, and pads on the left."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([Path(string.__file__).read_text()], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=128,
        eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left",
    )  # fmt: skip


def save_decoder(
    folder: Path, architecture: str = "qwen3", seed: int = 7, *, bidirectional: bool = True, **config_options: Any
) -> None:
    """Save a small random decoder with the files of naver/splade-code-06B.

    sentence-transformers can load it only with the code in `splade.py`, because transformers has no masked LM of these
    architectures.

    Args:
        folder: The folder to save to. It is made if it is missing.
        architecture: "qwen3" or "llama".
        seed: The seed of the weights.
        bidirectional: Whether tokens attend to later tokens.
        config_options: Values that override the configuration, such as `tie_word_embeddings=False`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # This import is not at the top, because it would load Triton before conftest.py can select Triton's interpreter.
    from transformers import LlamaConfig

    tokenizer = decoder_tokenizer()
    tokenizer.save_pretrained(folder)
    config_class: Any = {"qwen3": Qwen3Config, "llama": LlamaConfig}[architecture]
    config = config_class(
        **{
            "vocab_size": len(tokenizer) + 24,  # as in Qwen3, there are more embeddings than tokens
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "head_dim": 16, "intermediate_size": 64, "max_position_embeddings": 256, "initializer_range": 0.2,
            "tie_word_embeddings": True, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
        } | config_options
    )  # fmt: skip
    torch.manual_seed(seed)
    model: Any = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(folder)
    name = type(model).__name__
    code = f"from transformers import {name} as Own\n\n\nclass {name}(Own):\n    pass\n"
    (folder / "splade.py").write_text(code)
    stated = json.loads((folder / "config.json").read_text())
    stated["auto_map"] = {"AutoModelForMaskedLM": f"splade.{name}", "AutoModelForCausalLM": f"splade.{name}"}
    if bidirectional:
        stated["is_causal"] = False
    (folder / "config.json").write_text(json.dumps(stated))
    package = "sentence_transformers.sparse_encoder.models"
    listed = [("", "MLMTransformer"), ("1_SpladePooling", "SpladePooling")]
    for file, content in {
        "modules.json": [
            {"idx": index, "name": str(index), "path": path, "type": f"{package}.{kind}"}
            for index, (path, kind) in enumerate(listed)
        ],
        "1_SpladePooling/config.json": {"pooling_strategy": "max", "activation_function": "relu"},
        "config_sentence_transformers.json": {"model_type": "SparseEncoder", "prompts": {"query": "", "document": ""}},
    }.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(json.dumps(content))


def save_bge_m3(folder: Path, seed: int = 7, **config_options: Any) -> None:
    """Save a small random checkpoint with the files of BAAI/bge-m3.

    The files are a transformer without a head in `pytorch_model.bin`, the linear layers of the token weights and of the
    multi-vectors in 16 bits, and the files of sentence-transformers for its dense vectors.

    Args:
        folder: The folder to save to. It is made if it is missing.
        seed: The seed of the weights.
        config_options: Values that override the configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = unigram_tokenizer()
    tokenizer.save_pretrained(folder)
    config = XLMRobertaConfig(
        **{
            "vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 64, "initializer_range": 0.2, "max_position_embeddings": 130,
            "pad_token_id": tokenizer.pad_token_id, "architectures": ["XLMRobertaModel"],
        } | config_options
    )  # fmt: skip
    torch.manual_seed(seed)
    model: Any = AutoModel.from_config(config).eval()
    config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    hidden = config.hidden_size
    for name, size in (("sparse_linear", 1), ("colbert_linear", hidden)):
        layer = torch.nn.Linear(hidden, size)
        torch.save({key: value.half() for key, value in layer.state_dict().items()}, folder / f"{name}.pt")
    package = "sentence_transformers.models"
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    listed = [
        {"idx": index, "name": str(index), "path": path, "type": f"{package}.{kind}"}
        for index, (path, kind) in enumerate(modules)
    ]
    pooling = {"word_embedding_dimension": hidden, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    for file, content in {
        "modules.json": listed,
        "sentence_bert_config.json": {"max_seq_length": 128, "do_lower_case": False},
        "config_sentence_transformers.json": {"__version__": {"sentence_transformers": "2.2.2"}},
        "1_Pooling/config.json": pooling,
    }.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(json.dumps(content))


def _threshold(model: Any, tokenizer: Any, texts: Sequence[str], active_terms: int) -> float:
    """Return the logit that `active_terms` terms per text exceed on average.

    It is a quantile of the maximum logits over each text's tokens.
    """
    maxima = []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        maxima.append(model(**inputs).logits[0].amax(dim=0).numpy())
    return float(np.quantile(np.stack(maxima), 1 - active_terms / len(tokenizer)))
