"""The behaviour that the embeddings of all adapters share."""

import asyncio
import copy
import pickle
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

from splade_integrations import SpladeEncoder
from tests.support.adapters import EMBEDDINGS, HashEmbeddings, WordCounts

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning")


@pytest.fixture(params=EMBEDDINGS)
def adapter(request):
    return EMBEDDINGS[request.param]


@pytest.fixture
def made(adapter, encoder, model_folder):
    if adapter.of_encoder is None:
        return adapter.by_name(model_name=model_folder, max_length=256)
    return adapter.of_encoder(encoder=encoder)


def over(adapter, encoder):
    """Return an embedding of the adapter around an encoder that the test has made."""
    if adapter.of_encoder is None:
        pytest.skip("made by name alone")
    return adapter.of_encoder(encoder=encoder)


@pytest.fixture
def some_texts(texts):
    return [text for text in texts if len(text) < 500][-24:]


def assert_close(rows, expected):
    assert len(rows) == len(expected)
    for row, wanted in zip(rows, expected, strict=True):
        assert row == pytest.approx(wanted, abs=1e-5)


def test_values_are_the_encoders_in_order_as_plain_numbers(adapter, made, encoder, some_texts):
    some_texts = [text for text in some_texts if text.strip()]  # a blank text has no terms, or one placeholder term
    for rows, matrix in [
        (adapter.documents(made, some_texts), encoder.encode_documents(some_texts)),
        (adapter.queries(made, some_texts), encoder.encode_queries(some_texts)),
    ]:
        assert len(rows) == matrix.shape[0]
        for row, (start, end) in zip(rows, pairwise(matrix.indptr), strict=True):
            assert list(row) == matrix.indices[start:end].tolist()
            np.testing.assert_allclose(list(row.values()), matrix.data[start:end], atol=1e-5)
            assert {type(term) for term in row} == {int}
            assert {type(weight) for weight in row.values()} == {float}


def test_a_batch_equals_its_texts_one_by_one(adapter, made, some_texts):
    alone = [adapter.documents(made, [text])[0] for text in some_texts]
    assert_close(adapter.documents(made, some_texts), alone)


def test_nothing_in_nothing_out(adapter, made):
    assert adapter.documents(made, []) == adapter.queries(made, []) == []
    if adapter.adocuments is not None:
        assert asyncio.run(adapter.adocuments(made, [])) == asyncio.run(adapter.aqueries(made, [])) == []


def test_sync_equals_async_in_two_event_loops(adapter, made, some_texts):
    if adapter.adocuments is None:
        pytest.skip("has no async methods")
    documents, queries = adapter.documents(made, some_texts), adapter.queries(made, some_texts)
    for _ in range(2):
        assert_close(asyncio.run(adapter.adocuments(made, some_texts)), documents)
        assert_close(asyncio.run(adapter.aqueries(made, some_texts)), queries)


def test_threads_with_texts_of_different_lengths_share_an_encoder(adapter, made, texts):
    parts = [texts[start : start + 10] for start in range(0, 60, 10)]
    expected = [adapter.documents(made, part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        for rows, wanted in zip(pool.map(lambda part: adapter.documents(made, part), parts), expected, strict=True):
            assert_close(rows, wanted)


def test_async_methods_leave_the_event_loop_free(adapter):
    class Slow(WordCounts):
        def encode_documents(self, texts):
            time.sleep(0.2)
            return super().encode_documents(texts)

        encode_queries = encode_documents

    slow = over(adapter, Slow())

    async def ticks(call):
        task, ticks = asyncio.create_task(call), 0
        while not task.done():
            await asyncio.sleep(0.01)
            ticks += 1
        return ticks

    assert asyncio.run(ticks(adapter.adocuments(slow, ["a"]))) > 5
    assert asyncio.run(ticks(adapter.aqueries(slow, ["a"]))) > 5


def test_queries_are_encoded_as_queries(adapter):
    class Sided(WordCounts):
        def encode_queries(self, texts):
            return 2 * self.encode_documents(texts)

    sided = over(adapter, Sided())
    assert adapter.documents(sided, ["a"]) == asyncio.run(adapter.adocuments(sided, ["a"])) == [{0: 1.0}]
    assert adapter.queries(sided, ["a"]) == asyncio.run(adapter.aqueries(sided, ["a"])) == [{0: 2.0}]


def test_documents_reach_the_encoder_together(adapter):
    encoder = WordCounts()
    counting = over(adapter, encoder)
    adapter.documents(counting, [f"word{i}" for i in range(500)])
    asyncio.run(adapter.adocuments(counting, [f"word{i}" for i in range(500)]))
    assert encoder.batches == [500, 500]


def test_async_queries_that_arrive_together_are_encoded_together(adapter):
    encoder = WordCounts()
    adapters = [over(adapter, encoder), over(adapter, encoder)]
    texts = [f"word{i}" for i in range(40)]

    async def ask():
        return await asyncio.gather(*(adapter.aqueries(adapters[i % 2], [text]) for i, text in enumerate(texts)))

    found = asyncio.run(ask())
    assert found == [adapter.queries(adapters[0], [text]) for text in texts]
    batches = encoder.batches[: -len(texts)]
    assert sum(batches) == 40
    assert len(batches) < 20, "there are as many batches as queries, so no two queries were encoded together"
    apart = adapter.of_encoder(encoder=encoder, dynamic_batching=False)
    encoder.batches.clear()
    asyncio.run(adapter.aqueries(apart, ["a"]))
    assert encoder.batches == [1]


def test_by_name_it_pickles_as_name_and_options_and_loads_again_when_used(adapter, model_folder, tmp_path):
    folder, away = tmp_path / "model", tmp_path / "away"
    shutil.copytree(model_folder, folder)
    named = adapter.by_name(model_name=str(folder), max_length=8)
    text = "Where was Alan Turing born, and when, and why there of all places?"
    rows = adapter.documents(named, [text])
    for _ in range(2):
        pickled = pickle.dumps(named)
        assert len(pickled) < 10_000
        folder.rename(away)
        named = pickle.loads(pickled)
        away.rename(folder)
        assert adapter.documents(named, [text]) == rows
        assert named.encoder.max_length == 8


def test_of_an_encoder_it_pickles_that_encoder(adapter, encoder):
    with pytest.raises(TypeError, match="SpladeEncoder cannot be pickled, because its model is large"):
        pickle.dumps(over(adapter, encoder))
    counting = over(adapter, WordCounts())
    rows = adapter.documents(counting, ["one two", "two"])
    if adapter.aqueries is not None:
        asyncio.run(adapter.aqueries(counting, ["one"]))  # the batcher's thread must not prevent pickling
    loaded = pickle.loads(pickle.dumps(counting))
    assert adapter.documents(loaded, ["one two", "two"]) == rows
    assert loaded.encoder is not counting.encoder


def test_copies_share_the_encoder(made):
    assert copy.deepcopy(made).encoder is copy.copy(made).encoder is made.encoder


def test_takes_exactly_one_source_of_vectors(adapter, encoder, model_folder):
    with pytest.raises(TypeError, match="no_such_option"):
        adapter.by_name(model_name=model_folder, no_such_option=1)
    if adapter.of_encoder is None:
        return
    with pytest.raises(TypeError, match="got neither"):
        adapter.of_encoder()
    with pytest.raises(TypeError, match="got model_name as well"):
        adapter.of_encoder(encoder=encoder, model_name=model_folder)
    with pytest.raises(TypeError, match="got max_length as well"):
        adapter.of_encoder(encoder=encoder, max_length=8)
    with pytest.raises(TypeError, match="HashEmbeddings without encode_documents and encode_queries"):
        adapter.of_encoder(encoder=HashEmbeddings())


def test_bad_texts_are_named(adapter, made):
    with pytest.raises(TypeError, match=r"texts\[1\] must be a str, got NoneType"):
        adapter.documents(made, ["a", None])
    if adapter is not EMBEDDINGS.get("LlamaIndex core"):  # LlamaIndex splits a str into letters before it calls us
        with pytest.raises(TypeError, match="got one str"):
            adapter.documents(made, "a bare string")


def test_an_encoder_says_what_decides_its_rows(model_folder, random_bert_folder):
    def of(folder=model_folder, **options):
        return SpladeEncoder(folder, **options).fingerprint

    plain = of()
    assert of(query_pruning=None, device="cpu") == plain
    for options in [
        {"max_length": 100},
        {"query_prompt": "query: "},
        {"document_prompt": "passage: "},
        {"pooling_strategy": "sum"},
        {"activation_function": "log1p_relu"},
        {"special_terms": "drop"},
    ]:
        assert of(**options) != plain, options
    assert of(random_bert_folder).weights != plain.weights
