"""Small random checkpoints of every architecture, in memory or on disk. Nothing here knows our package."""

import string
from pathlib import Path

import torch
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    BertTokenizer,
    CamembertConfig,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
)

ARCHITECTURES = ("bert", "distilbert", "roberta", "xlm-roberta", "modernbert")
_LETTERS = string.ascii_lowercase + string.digits + string.punctuation


def wordpiece_tokenizer(folder: Path) -> BertTokenizer:
    """BERT's tokenizer over single characters."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    (folder / "vocab.txt").write_text("\n".join(words))
    return BertTokenizer(str(folder / "vocab.txt"), model_max_length=128)


def bpe_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with RoBERTa's special tokens, which care for a leading space."""
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


def save_masked_lm(folder: Path, architecture: str, seed: int = 7, **config_options) -> None:
    """Save a random masked LM and its tokenizer. Weights are large, so that padding has large logits."""
    folder.mkdir(parents=True, exist_ok=True)
    is_bpe = "roberta" in architecture or architecture in ("camembert", "modernbert")
    tokenizer = bpe_tokenizer() if is_bpe else wordpiece_tokenizer(folder)
    tokenizer.save_pretrained(folder)
    common = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "initializer_range": 0.2,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if architecture == "bert":
        config = BertConfig(**common | {"max_position_embeddings": 130} | config_options)
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
    model = AutoModelForMaskedLM.from_config(config)
    with torch.no_grad():
        bias = model.get_output_embeddings().bias
        if bias is not None:  # initialised to zeros, which would hide a bias that is forgotten or added twice
            bias.normal_(std=0.5)
    model.save_pretrained(folder)
