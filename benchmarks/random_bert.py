"""A random BERT masked LM of any size, and queries for it: what speed depends on, without a download.

Its decoder's bias is set so that a text has about as many active terms as a trained SPLADE model gives it.
"""

import random
from pathlib import Path

import torch
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

__all__ = ["queries", "save_random_bert"]

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_ACTIVE_TERMS = 120
_VOCABULARY = 30_522


def save_random_bert(folder: Path, *, layers: int = 12, hidden: int = 768, seed: int = 0) -> None:
    """Save a random BERT, by default of BERT-base's size (110 M parameters), with a tokenizer of V = 30522."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=_VOCABULARY,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        intermediate_size=4 * hidden,
        architectures=["BertForMaskedLM"],
    )
    model = BertForMaskedLM(config).eval()
    with torch.inference_mode():
        ids = torch.randint(len(_SPECIAL), _VOCABULARY, (8, 12))
        maxima = model(ids).logits.amax(dim=1)  # (8, V)
        enough = maxima.topk(_ACTIVE_TERMS, dim=1).values[:, -1].mean()
        model.cls.predictions.bias.fill_(-enough)
    words = [*_SPECIAL, *(f"word{number}" for number in range(_VOCABULARY - len(_SPECIAL)))]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(folder / "vocab.txt"), model_max_length=512).save_pretrained(folder)
    model.save_pretrained(folder)


def queries(count: int, *, seed: int = 0, words: tuple[int, int] = (4, 12)) -> list[str]:
    """Distinct queries of some known words each, of random length."""
    chance = random.Random(seed)
    return [
        " ".join(f"word{chance.randrange(_VOCABULARY - len(_SPECIAL))}" for _ in range(chance.randint(*words)))
        for _ in range(count)
    ]
