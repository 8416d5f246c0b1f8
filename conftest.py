"""What every test and doctest may use: the real tiny model, and a small random one."""

import importlib
import logging
import os
import signal
import string
from pathlib import Path

import pytest
import torch

from splade_integrations import SpladeEncoder
from splade_integrations.models.offline import splade_model_path
from tests.support.random_checkpoints import save_masked_lm

try:
    from milvus_lite.server_manager import server_manager_instance
except ImportError:  # Windows, or an environment without milvus-lite
    server_manager_instance = None


def pytest_configure(config):
    """Hide GPUs from CUDA, which reads this when it is first used, unless `-m gpu` asks for them.

    Device "auto" is then the CPU on every machine, where the results that most tests expect are float32's.

    If the tests run in the background of a script, Ctrl-C is ignored in them and in all programs that they start. Tests
    that interrupt a program need the default.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if not torch.cuda.is_available():  # Triton reads it when it is first imported
        os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def model_folder() -> str:
    """Folder of the trained 4.4 M parameter SPLADE model."""
    return splade_model_path()


@pytest.fixture(scope="session")
def encoder(model_folder) -> SpladeEncoder:
    return SpladeEncoder(model_folder, device="cpu", max_length=256)


@pytest.fixture(scope="session")
def random_bert_folder(tmp_path_factory) -> str:
    """A random BERT whose padding positions have large logits, as a trained model's may not."""
    folder = tmp_path_factory.mktemp("random-bert")
    save_masked_lm(folder, "bert", max_position_embeddings=512)
    return str(folder)


@pytest.fixture(scope="session")
def random_encoder(random_bert_folder) -> SpladeEncoder:
    return SpladeEncoder(random_bert_folder, device="cpu", max_length=256)


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
def texts() -> list[str]:
    """200 texts of mixed length: real prose, duplicates, empty, blank, odd characters."""
    words = Path(string.__file__).read_text().split()
    lengths = [3, 9, 40, 200, 700] * 38
    prose = [" ".join(words[start : start + length]) for start, length in enumerate(lengths)]
    odd = ["", "   ", "\n", "naïve café", "日本語のテキスト", "😀 emoji", "nul \x00 byte", "[SEP] [MASK] x", "a", "a"]
    return prose + odd


@pytest.fixture
def import_example(monkeypatch):
    """Import a module of examples/ by its bare name, as the scripts there import each other."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "examples")
    return importlib.import_module


@pytest.fixture(autouse=True)
def restored_logging():
    """Undo what commands, examples and benchmarks change in the loggers of the whole process."""
    root, package = logging.getLogger(), logging.getLogger("splade_integrations")
    handlers, levels = root.handlers[:], (root.level, package.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    package.setLevel(levels[1])
    logging.captureWarnings(False)


@pytest.fixture(autouse=True)
def closed_files():
    """Close the milvus-lite files that a test has opened.

    milvus-lite would keep them open to the end of the process, each with a server of several threads. After a thousand
    tests, so many threads slow down the whole machine. Files of fixtures with a wider scope stay open.
    """
    files = server_manager_instance._servers if server_manager_instance else {}
    before = set(files)
    yield
    for path in set(files) - before:
        server_manager_instance.release_server(path)


@pytest.fixture(autouse=True)
def doctest_model_folder(doctest_namespace, model_folder):
    """Docstrings may say `model_folder`."""
    doctest_namespace["model_folder"] = model_folder
