"""The splitter settings of docs/chunking.md fit: no chunk is truncated, although the defaults lose text."""

import logging
import re
import string
from pathlib import Path

import pytest

from splade_integrations import SpladeEncoder

PAGE = Path(__file__).parent.parent / "docs" / "chunking.md"
CODE = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def book():
    return Path(string.__file__).read_text() * 2


def warnings_of_ours(caplog):
    """Return our warnings, without transformers' one about whole texts that are longer than the model reads."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("splade_integrations")]


@pytest.mark.parametrize(("block", "framework"), [(1, "llama_index.core"), (2, "langchain_text_splitters")])
def test_no_chunk_is_truncated(block, framework, model_folder, book, caplog):
    pytest.importorskip(framework)
    names: dict = {}
    exec(CODE[0].replace('"prithivida/Splade_PP_en_v2"', repr(model_folder)), names)
    exec(CODE[block], names)
    chunks = names["splitter"].split_text(book)
    assert len(chunks) > 10
    with caplog.at_level(logging.WARNING, logger="splade_integrations"):
        names["encoder"].encode_documents(chunks)
    assert warnings_of_ours(caplog) == []


def test_the_warning_says_what_fits(model_folder, book, caplog):
    encoder = SpladeEncoder(model_folder, max_length=64)
    with caplog.at_level(logging.WARNING, logger="splade_integrations"):
        encoder.encode_documents([book])
    (message,) = warnings_of_ours(caplog)
    assert "chunks of 62 tokens at most" in message
    assert "SentenceSplitter(chunk_size=…)" in message
