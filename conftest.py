"""What every test and doctest may use: the real tiny model, and small random checkpoints made on the spot."""

import importlib.util
import string
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

from splade_integrations import SpladeEncoder


def real_model_folder() -> str:
    spec = importlib.util.find_spec("cognition")  # found, not imported: importing it would run its own code
    assert spec is not None, "The tests need the demo extra. Run: make install"
    return str(Path(spec.submodule_search_locations[0]) / "model")


@pytest.fixture(scope="session")
def model_folder() -> str:
    """Folder of the trained 4.4 M parameter SPLADE model."""
    return real_model_folder()


@pytest.fixture(scope="session")
def encoder(model_folder) -> SpladeEncoder:
    return SpladeEncoder(model_folder, max_length=256)


@pytest.fixture(scope="session")
def random_bert_folder(tmp_path_factory) -> str:
    """A random BERT whose padding positions have large logits, as a trained model's may not."""
    folder = tmp_path_factory.mktemp("random-bert")
    letters = string.ascii_lowercase + string.digits + string.punctuation
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=512,
        initializer_range=0.2,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def random_encoder(random_bert_folder) -> SpladeEncoder:
    return SpladeEncoder(random_bert_folder, max_length=256)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """200 texts of mixed length: real prose, duplicates, empty, blank, odd characters."""
    words = Path(string.__file__).read_text().split()
    lengths = [3, 9, 40, 200, 700] * 38
    prose = [" ".join(words[start : start + length]) for start, length in enumerate(lengths)]
    odd = ["", "   ", "\n", "naïve café", "日本語のテキスト", "😀 emoji", "nul \x00 byte", "[SEP] [MASK] x", "a", "a"]
    return prose + odd


@pytest.fixture(autouse=True)
def doctest_model_folder(doctest_namespace, model_folder):
    """Docstrings may say `model_folder`."""
    doctest_namespace["model_folder"] = model_folder
