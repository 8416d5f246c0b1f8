"""Tests of the sparse embedding, through the interfaces of LlamaIndex's core and of LlamaIndex's own Milvus store."""

import asyncio
import pickle
import subprocess
import sys

import pytest
from llama_index.core.base.embeddings.base_sparse import BaseSparseEmbedding
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler

from splade_integrations.llama_index import SpladeSparseEmbedding
from splade_integrations.llama_index.sparse_function import BaseSparseEmbeddingFunction
from tests.support.adapters import WordCounts

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning")


class Events(BaseEventHandler):
    seen: list

    def handle(self, event, **_):
        if "SparseEmbedding" in event.class_name():
            self.seen.append(event)


@pytest.fixture
def events():
    handler, dispatcher = Events(seen=[]), get_dispatcher()
    dispatcher.add_event_handler(handler)
    yield handler.seen
    dispatcher.event_handlers.remove(handler)


def test_is_both_of_the_frameworks_sparse_embeddings():
    assert {BaseSparseEmbedding, BaseSparseEmbeddingFunction} < set(SpladeSparseEmbedding.__mro__)
    stock = pytest.importorskip("llama_index.vector_stores.milvus.utils")
    assert BaseSparseEmbeddingFunction is stock.BaseSparseEmbeddingFunction


WITHOUT_THE_STOCK_STORE = "import sys; sys.modules['llama_index.vector_stores.milvus'] = None; "


def test_is_the_same_without_the_stock_store(model_folder):
    """A pickle made with LlamaIndex's own store installed also loads without that store, with the same methods."""
    made = SpladeSparseEmbedding(model_name=model_folder, max_length=64)
    script = WITHOUT_THE_STOCK_STORE + (
        "import asyncio, pickle; made = pickle.load(sys.stdin.buffer); "
        "assert type(made).__mro__[-3].__module__ == 'splade_integrations.llama_index.sparse_function'; "
        "assert asyncio.run(made.async_encode_documents(['a cat'])) == made.encode_documents(['a cat']); "
        "sys.stdout.buffer.write(pickle.dumps(made.encode_queries(['a cat'])))"
    )
    run = subprocess.run([sys.executable, "-c", script], input=pickle.dumps(made), capture_output=True, check=False)
    assert run.returncode == 0, run.stderr.decode()
    [found], [expected] = pickle.loads(run.stdout), made.encode_queries(["a cat"])
    assert found == pytest.approx(expected, abs=1e-5)


def test_texts_reach_the_encoder_together():
    encoder = WordCounts()
    embedding = SpladeSparseEmbedding(encoder=encoder)
    texts = [f"word{i}" for i in range(600)]
    embedding.encode_documents(texts)
    embedding.encode_queries(texts)
    assert encoder.batches == [600, 600]
    embedding.get_text_embedding_batch(texts, show_progress=True)
    asyncio.run(embedding.aget_text_embedding_batch(texts))
    assert sorted(encoder.batches[2:]) == [88, 88, 512, 512]
    SpladeSparseEmbedding(encoder=encoder, embed_batch_size=300).get_text_embedding_batch(texts)
    assert encoder.batches[6:] == [300, 300]


def test_each_call_is_one_start_and_one_end_event(events):
    embedding = SpladeSparseEmbedding(encoder=WordCounts())
    asyncio.run(embedding.async_encode_queries(["a"]))
    for call, argument in [
        (embedding.encode_documents, ["a", ""]),
        (embedding.encode_queries, ["a", ""]),
        (embedding.get_text_embedding_batch, ["a", ""]),
        (embedding.get_query_embedding, "a"),
        (lambda texts: asyncio.run(embedding.async_encode_documents(texts)), ["a"]),
    ]:
        events.clear()
        rows = call(argument)
        start, end = events
        assert [start.class_name(), end.class_name()] == ["SparseEmbeddingStartEvent", "SparseEmbeddingEndEvent"]
        assert start.model_dict == {
            "class_name": "SpladeSparseEmbedding",
            "model_name": "WordCounts",
            "embed_batch_size": 512,
        }
        assert end.chunks == ([argument] if isinstance(argument, str) else argument)
        assert end.embeddings == ([rows] if isinstance(rows, dict) else rows)


def test_dumps_to_its_settings_alone(sparse, encoder):
    assert sparse.model_dump() == {
        "model_name": encoder.model_name,
        "embed_batch_size": 512,
        "num_workers": None,
        "class_name": "SpladeSparseEmbedding",
    }


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_a_blank_text_has_no_terms(sparse, encoder, text):
    assert encoder.encode_documents([text]).nnz > 0, "the model gives it some"
    assert sparse.get_text_embedding(text) == sparse.get_query_embedding(text) == {}
    assert asyncio.run(sparse.aget_text_embedding(text)) == asyncio.run(sparse.aget_query_embedding(text)) == {}
    [document], [query] = sparse.encode_documents([text]), sparse.encode_queries([text])
    assert len(document) == len(query) == 1, "milvus-lite 3 refuses an empty row"
    assert not document.keys() & query.keys()
    assert min(*document, *query) > encoder.dim
    assert asyncio.run(sparse.async_encode_documents([text, "a cat"])) == sparse.encode_documents([text, "a cat"])
    assert asyncio.run(sparse.async_encode_queries([text, "a cat"])) == sparse.encode_queries([text, "a cat"])


def test_without_llama_index_the_import_names_the_pip_line():
    script = "import sys; sys.modules['llama_index.core'] = None; import splade_integrations.llama_index"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "OptionalDependencyError: splade_integrations.llama_index needs llama_index.core" in result.stderr
    assert "pip install 'splade-integrations[llama-index]'" in result.stderr
