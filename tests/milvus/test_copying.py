"""A copy is complete, even if a run is interrupted or its original changes meanwhile. Runs leave the original alone."""

import importlib.metadata
import itertools
from pathlib import Path

import numpy as np
import pytest
from pymilvus import DataType, Function, FunctionType

from splade_integrations import to_dicts
from splade_integrations.adapter import document_terms
from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.copying import (
    add_sparse,
    compact,
    copy_collection,
    estimate_copy,
    estimate_sparse,
)
from splade_integrations.milvus.filters import Engine
from tests.support.adapters import WordCounts, unit_vector
from tests.support.collections import dump, shape
from tests.support.server import milvus_lite_server

pytestmark = pytest.mark.skipif(
    importlib.metadata.version("milvus-lite").startswith("2."), reason="milvus-lite 2 has no aliases and partitions"
)
KEYS = ["it's", 'a "quote"', "C:\\new", "tab\there", "ä", "😀", *(f"row {number:04}" for number in range(40))]


@pytest.fixture(scope="module")
def server():
    with milvus_lite_server() as uri:
        yield uri


@pytest.fixture
def file(tmp_path):
    return Connection(str(tmp_path / "place.db"))


@pytest.fixture(params=["file", "server"])
def place(request):
    if request.param == "file":
        yield request.getfixturevalue("file")
        return
    connection = Connection(request.getfixturevalue("server"))
    yield connection
    for name in connection.client.list_collections():
        connection.client.drop_collection(name)


def make_rich(client, name="rich"):
    """Make a collection with everything that a copy must keep. Its metadata even has the key "sparse"."""
    schema = client.create_schema(enable_dynamic_field=True)
    schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=200)
    schema.add_field("body", DataType.VARCHAR, max_length=5000, enable_analyzer=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=16)
    schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_field("year", DataType.INT16, nullable=True)
    schema.add_field("grade", DataType.FLOAT, default_value=0.5)
    schema.add_field("tags", DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=9, max_length=50)
    schema.add_field("note", DataType.JSON, nullable=True)
    schema.add_function(Function("bm25", FunctionType.BM25, ["body"], ["words"]))
    indexes = client.prepare_index_params()
    indexes.add_index("vector", index_type="HNSW", metric_type="L2", params={"M": 8, "efConstruction": 50})
    indexes.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
    indexes.add_index("year", index_type="INVERTED")
    client.create_collection(name, schema=schema, index_params=indexes, properties={"mine": "kept"})
    client.create_partition(name, "other")
    for partition, keys in (("_default", KEYS[::2]), ("other", KEYS[1::2])):
        client.insert(name, [rich_row(key) for key in keys], partition_name=partition)
    return name


def rich_row(key, **changed):
    number = KEYS.index(key) if key in KEYS else 7
    row = {
        "key": key,
        "body": f"the text of {key}" if number % 9 else "",
        "vector": unit_vector(key),
        "year": None if number % 3 else number,
        "tags": [f"tag {number}"] * (number % 4),
        "note": None if number % 5 else {"a": [1, 2.5, None, "x"], "n": number},
        "colour": ["red", {"deep": True}][number % 2],
    }
    row |= {"grade": number / 7} if number % 2 else {}
    return row | ({"sparse": number} if number % 8 == 0 else {}) | changed


def sparse_of(encoder, texts):
    """Return the texts' SPLADE vectors as Milvus stores them, in float32."""
    rows = zip(to_dicts(encoder.encode_documents(texts)), texts, strict=True)
    return [
        {term: float(np.float32(weight)) for term, weight in document_terms(terms, text).items()}
        for terms, text in rows
    ]


def assert_right(client, original, copy, encoder, field, text="body"):
    """Assert that a copy holds every row and field of the original, and the right SPLADE vectors."""
    rows = dump(client, copy)
    assert {
        part: {key: {k: v for k, v in row.items() if k != field} for key, row in found.items()}
        for part, found in rows.items()
    } == dump(client, original)
    every = [row for found in rows.values() for row in found.values()]
    assert [row[field] for row in every] == sparse_of(encoder, [row[text] or "" for row in every])
    hits = client.search(
        copy, [sparse_of(encoder, ["text"])[0]], anns_field=field, limit=16_000, search_params={"metric_type": "IP"}
    )
    assert len(hits[0]) == sum("text" in row[text].split() for row in every)


def test_everything_is_kept_and_the_original_untouched(place):
    client, encoder = place.client, WordCounts()
    make_rich(client)
    before = dump(client, "rich"), shape(client, "rich"), client.describe_collection("rich")["properties"]
    report = add_sparse(encoder, "rich", place, text_field="body")
    # The new field has another name than "sparse", because "sparse" is a dynamic key of some rows.
    assert (report.collection, report.sparse_field) == ("rich_splade", "splade")
    assert (report.rows, report.written, report.deleted, report.passes, report.unsettled) == (46, 46, 0, 2, 0)
    assert_right(client, "rich", "rich_splade", encoder, "splade")
    assert shape(client, "rich_splade", without=["splade"]) == before[1]
    assert client.describe_collection("rich_splade")["properties"]["mine"] == "kept"
    assert (dump(client, "rich"), shape(client, "rich"), client.describe_collection("rich")["properties"]) == before
    assert client.describe_index("rich_splade", "splade")["metric_type"] == "IP"
    found = client.search("rich_splade", ["text"], anns_field="words", limit=3, search_params={"metric_type": "BM25"})
    assert len(found[0]) == 3


class Interrupted(WordCounts):
    """An encoder that fails at its n-th call, or calls a function before each call."""

    def __init__(self, fails_at=None, before=lambda: None):
        super().__init__()
        self.fails_at, self.before, self.texts = fails_at, before, 0

    def encode_documents(self, texts):
        if len(self.batches) == self.fails_at:
            raise RuntimeError("interrupted")
        self.before()
        self.texts += len(texts)
        return super().encode_documents(texts)


def make_many(client, name, rows=700):
    client.create_collection(name, dimension=16, auto_id=False)  # the short form stores texts under dynamic keys
    data = [{"id": n, "vector": unit_vector(str(n)), "text": f"text {n % 50}", "n": n} for n in range(rows)]
    client.insert(name, data)
    return data


def test_an_interrupted_run_is_continued_without_encoding_twice(place):
    client = place.client
    make_many(client, "many")
    killed, again = Interrupted(fails_at=2), Interrupted()
    again.vocabulary = killed.vocabulary
    with pytest.raises(RuntimeError, match=r"interrupted"):
        add_sparse(killed, "many", place)
    with pytest.raises(
        ValueError, match=r"must be free, got 'many_splade', the name of a copy of 'many' in .* Continue that"
    ):
        add_sparse(WordCounts(), "many", place)
    with pytest.raises(ValueError, match=r"must be continued as it was begun \(.*\), got .*'text': 'n'|text 'n'"):
        add_sparse(WordCounts(), "many", place, text_field="n", resume=True)
    report = add_sparse(again, "many", place, resume=True)
    assert again.texts == report.written == 700 - 2 * 256
    assert [field["name"] for field in client.describe_collection("many_splade")["fields"]] == [
        "id", "vector", "sparse", "text",
    ]  # fmt: skip
    again.batches.clear()
    assert_right(client, "many", "many_splade", again, "sparse", text="text")
    assert add_sparse(again, "many", place, resume=True).written == 0  # the last run only compares


def test_rows_that_change_meanwhile_are_found(place):
    client, steps = place.client, itertools.count()
    make_rich(client)

    def change():
        if next(steps) == 0:
            client.insert("rich", [rich_row("new"), rich_row(KEYS[1], body="other text"), rich_row(KEYS[3], year=9)])
            client.delete("rich", filter=f'key in ["{KEYS[8]}", "{KEYS[9]}", "ä"]')
            client.insert("rich", [rich_row(KEYS[5])], partition_name="_default")  # this row was in the other partition
            client.create_partition("rich", "late")
            client.insert("rich", [rich_row("late one")], partition_name="late")

    encoder = Interrupted(before=change)
    report = add_sparse(encoder, "rich", place, text_field="body")
    assert report.unsettled == 0
    assert report.passes == 3
    encoder.before = lambda: None
    assert_right(client, "rich", "rich_splade", encoder, "splade")


def strip(row, field="splade"):
    return {key: value for key, value in row.items() if key != field}


def test_an_original_that_never_rests_is_reported_with_a_number(place):
    client, numbers = place.client, itertools.count(1000)
    make_many(client, "many", 10)

    def add():
        client.insert("many", [{"id": next(numbers), "vector": unit_vector("x"), "text": "more text"}] * 1)

    encoder = Interrupted(before=add)
    report = add_sparse(encoder, "many", place, most_passes=3)
    assert (report.passes, report.unsettled) == (3, 1)
    encoder.before = lambda: None
    report = add_sparse(encoder, "many", place, resume=True)
    assert (report.unsettled, report.written) == (0, 1)
    assert_right(client, "many", "many_splade", encoder, "sparse", text="text")


def make_numbered(client, name, rows=20):
    schema = client.create_schema(auto_id=True)
    schema.add_field("number", DataType.INT64, is_primary=True)
    schema.add_field("text", DataType.VARCHAR, max_length=100)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=16)
    client.create_collection(name, schema=schema)
    return client.insert(name, [{"text": f"text {n}", "vector": unit_vector(str(n))} for n in range(rows)])["ids"]


def test_numbers_stay_and_are_not_given_again(place):
    client, encoder = place.client, WordCounts()
    ids = make_numbered(client, "numbered")
    client.delete("numbered", ids=ids[:15])
    add_sparse(encoder, "numbered", place)
    assert_right(client, "numbered", "numbered_splade", encoder, "sparse", text="text")
    kept = dump(client, "numbered_splade")["_default"]
    assert sorted(kept) == ids[15:]
    new = [{"text": "new", "vector": unit_vector("new"), "sparse": {1: 1.0}}] * 3
    client.insert("numbered_splade", [dict(row) for row in new])
    after = dump(client, "numbered_splade")["_default"]
    assert len(after) == 8
    assert {key: after[key] for key in kept} == kept


def test_numbers_that_would_be_given_again_are_refused_before_a_row_is_written(file):
    client = file.client
    make_numbered(client, "numbered", 3)
    client.insert("numbered", [{"number": 4 * 10**17, "text": "far", "vector": unit_vector("far")}])
    with pytest.raises(ValueError, match=r"to be kept on milvus-lite, got the key 400000000000000000. milvus-lite"):
        add_sparse(WordCounts(), "numbered", file)
    assert not client.has_collection("numbered_splade")


def test_what_cannot_be_copied_is_refused(file):
    client = file.client
    make_rich(client)
    for message, options in [
        ("must be in a field of type VARCHAR, got 'year'. The collection has the fields key", {"text_field": "year"}),
        ("name that is not taken in collection 'rich', got 'vector'", {"text_field": "body", "sparse_field": "vector"}),
        ("name that is not taken in collection 'rich', got 'sparse'", {"text_field": "body", "sparse_field": "sparse"}),
        ("must have a different name from the original, got 'rich' for both", {"text_field": "body", "into": "rich"}),
    ]:
        with pytest.raises(ValueError, match=message):
            add_sparse(WordCounts(), "rich", file, **options)
    with pytest.raises(ValueError, match=r"the collection 'none' must be in .*, but it is not"):
        add_sparse(WordCounts(), "none", file)
    make_many(client, "taken", 2)
    with pytest.raises(ValueError, match=r"must be free, or be .*, got 'taken', the name of another collection"):
        add_sparse(WordCounts(), "rich", file, text_field="body", into="taken", resume=True)
    assert sorted(client.list_collections()) == ["rich", "taken"]


def test_a_complete_copy_that_is_in_use_is_left_alone(place):
    client = place.client
    make_many(client, "many", 5)
    add_sparse(WordCounts(), "many", place)
    client.create_alias("many_splade", "in_use")
    client.insert("many_splade", [{"id": 99, "vector": unit_vector("x"), "text": "t", "sparse": {1: 1.0}}])
    with pytest.raises(ValueError, match=r"must have no alias when it is compared .* got the alias 'in_use'"):
        add_sparse(WordCounts(), "many", place, resume=True)
    assert 99 in dump(client, "many_splade")["_default"]


def test_replace_gives_the_copy_the_name_and_the_aliases(place):
    client, encoder = place.client, WordCounts()
    make_many(client, "many", 5)
    client.create_alias("many", "current")
    before = dump(client, "many")
    report = add_sparse(encoder, "current", place, replace=True)
    assert (report.original, report.collection, report.aliases) == ("many", "many", ("current",))
    assert client.list_collections() == ["many"]
    after = dump(client, "many")["_default"]
    assert {key: strip(row, "sparse") for key, row in after.items()} == before["_default"]
    assert client.describe_collection("current")["collection_name"] == "many"


@pytest.mark.parametrize("method", ["rename_collection", "alter_alias", "drop_collection", "list_aliases"])
@pytest.mark.parametrize("times", [0, 1])
def test_an_interrupted_replacement_is_finished(file, monkeypatch, method, times):
    client, encoder = file.client, WordCounts()
    make_many(client, "many", 5)
    client.create_alias("many", "current")
    calls, real = itertools.count(), getattr(type(client), method)

    def fail(self, *args, **how):
        if next(calls) == times:
            raise KeyboardInterrupt
        return real(self, *args, **how)

    with monkeypatch.context() as patch:
        patch.setattr(type(client), method, fail)
        try:
            add_sparse(encoder, "many", file, replace=True)
        except KeyboardInterrupt:
            add_sparse(encoder, "many", file, replace=True, resume=True)
    assert client.list_collections() == ["many"]
    assert sorted(dump(client, "many")["_default"]) == list(range(5))
    assert client.describe_collection("current")["collection_name"] == "many"
    assert "sparse" in dump(client, "many")["_default"][0]


def test_compacting_keeps_everything(place):
    client = place.client
    make_rich(client)
    client.create_alias("rich", "current")
    client.delete("rich", KEYS[6:12])
    client.upsert("rich", [rich_row(KEYS[13], body="another text")], partition_name="other")
    before = dump(client, "rich"), shape(client, "rich")
    report = compact("current", place)
    assert (report.collection, report.rows, report.unsettled, report.aliases) == ("rich", 40, 0, ("current",))
    assert (dump(client, "rich"), shape(client, "rich")) == before
    assert client.describe_collection("current")["properties"]["mine"] == "kept"
    assert client.list_collections() == ["rich"]
    found = client.search("rich", ["another"], anns_field="words", limit=3, search_params={"metric_type": "BM25"})
    assert [hit["key"] for hit in found[0]] == [KEYS[13]]
    assert compact("rich", place).rows == 40  # once more, from a collection that was compacted


def test_compacting_frees_space(file):
    make_many(file.client, "many", 2000)
    file.client.flush("many")
    file.client.delete("many", list(range(1900)))
    file.client.flush("many")
    before = bytes_in(file.uri)
    compact("many", file)
    assert bytes_in(file.uri) < before / 4


def bytes_in(folder):
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


@pytest.mark.parametrize("method", ["insert", "rename_collection", "drop_collection"])
def test_interrupted_compacting_is_finished(file, monkeypatch, method):
    make_many(file.client, "many", 5)
    before = dump(file.client, "many")

    def fail(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(file.client), method, fail)
        with pytest.raises(KeyboardInterrupt):
            compact("many", file)
    compact("many", file, resume=True)
    assert file.client.list_collections() == ["many"]
    assert dump(file.client, "many") == before


def test_a_server_compacts_by_itself(file):
    make_many(file.client, "many", 5)
    file.engine = Engine.SERVER
    with pytest.raises(ValueError, match="must be in milvus-lite, got a Milvus server"):
        compact("many", file)
    assert file.client.list_collections() == ["many"]


def test_a_new_encoder_fills_the_same_field(place, encoder):
    make_many(place.client, "many", 5)
    add_sparse(encoder, "many", place)
    report = add_sparse(encoder, "many_splade", place, into="again")
    assert report.sparse_field == "sparse"
    assert dump(place.client, "again") == dump(place.client, "many_splade")
    assert shape(place.client, "again").count("SPARSE") == shape(place.client, "many_splade").count("SPARSE")


def test_a_copy_to_another_place_needs_no_encoder(tmp_path, server):
    here, there, back = Connection(str(tmp_path / "a.db")), Connection(server), Connection(str(tmp_path / "b.db"))
    make_rich(here.client)
    add_sparse(WordCounts(), "rich", here, text_field="body")
    estimate = estimate_copy("rich_splade", here, there)
    assert (estimate.rows, estimate.hours) == (46, 0.0)
    report = copy_collection("rich_splade", here, there, into="moved")
    assert (report.rows, report.written, report.unsettled, report.sparse_field) == (46, 46, 0, None)
    copy_collection("moved", there, back)
    for connection in (there, back):
        assert dump(connection.client, "moved") == dump(here.client, "rich_splade")
        assert shape(connection.client, "moved") == shape(here.client, "rich_splade")
    there.client.drop_collection("moved")


def test_an_estimate_writes_nothing(file):
    make_many(file.client, "many", 300)
    estimate = estimate_sparse(WordCounts(), "many", file)
    assert estimate.rows == 300
    assert estimate.sparse_bytes == 300 * 2 * 8  # two words in each text
    assert 300 * 16 * 4 < estimate.bytes < 300 * 16 * 4 * 3
    assert 0 < estimate.hours < 1
    assert file.client.list_collections() == ["many"]
