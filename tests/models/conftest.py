"""Random checkpoints and texts for the tests of layouts."""

import string
from pathlib import Path

import pytest

from tests.support.random_checkpoints import save_masked_lm


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """Return a function that makes a plain masked-LM checkpoint for (architecture, seed), and returns its folder."""
    folders = {}

    def make(architecture: str, seed: int = 7) -> Path:
        if (architecture, seed) not in folders:
            folder = tmp_path_factory.mktemp(f"{architecture}-{seed}")
            save_masked_lm(folder, architecture, seed)
            folders[architecture, seed] = folder
        return folders[architecture, seed]

    return make


@pytest.fixture(scope="session")
def odd_texts() -> list[str]:
    """Return 120 texts: prose of mixed length, Unicode, very long and empty texts, duplicates, and special tokens."""
    words = Path(string.__file__).read_text().split()
    prose = [" ".join(words[start : start + (1, 4, 15, 60)[start % 4]]) for start in range(108)]
    return [
        *prose, "", " ", "naïve café ÀÉÎ", "日本語のテキスト", "😀🏳️‍🌈", "a\x00b", "tab\tand\nnewline", "x" * 5000,
        "[SEP] [MASK] [CLS] [PAD] x", "<s> </s> <mask> <pad> x", prose[0], prose[0],
    ]  # fmt: skip
