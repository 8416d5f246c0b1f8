"""With the splitter settings of docs/chunking.md, no chunk is truncated. The default settings lose text."""

import asyncio
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
    """Return our warnings, without transformers' warning about texts that are too long for the model."""
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


def langchain_embedding(encoder):
    from splade_integrations.langchain import SpladeSparseEmbedding

    return SpladeSparseEmbedding(encoder=encoder).embed_documents


def llama_index_embedding(encoder):
    from splade_integrations.llama_index import SpladeSparseEmbedding

    return SpladeSparseEmbedding(encoder=encoder).encode_documents


def llama_index_async(encoder):
    from splade_integrations.llama_index import SpladeSparseEmbedding

    embedding = SpladeSparseEmbedding(encoder=encoder)
    return lambda texts: asyncio.run(embedding.async_encode_documents(texts))


@pytest.mark.parametrize(
    ("caller", "splitter"),
    [
        (lambda encoder: encoder.encode_documents, None),
        (
            langchain_embedding,
            "RecursiveCharacterTextSplitter.from_huggingface_tokenizer(encoder.tokenizer, chunk_size=62",
        ),
        (llama_index_embedding, "SentenceSplitter(chunk_size=62, tokenizer=encoder.tokenizer.tokenize)"),
        (llama_index_async, "SentenceSplitter(chunk_size=62, tokenizer=encoder.tokenizer.tokenize)"),
    ],
)
def test_the_warning_says_what_fits_and_names_the_callers_splitter(model_folder, book, caplog, caller, splitter):
    encode = caller(SpladeEncoder(model_folder, max_length=64))
    with caplog.at_level(logging.WARNING, logger="splade_integrations"):
        encode([book])
    (message,) = warnings_of_ours(caplog)
    assert "chunks of 62 tokens at most" in message
    assert [name for name in ("SentenceSplitter", "RecursiveCharacterTextSplitter") if name in message] == (
        [splitter.split("(")[0].split(".")[0]] if splitter else []
    )
    assert splitter is None or splitter in message
