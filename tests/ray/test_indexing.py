"""A Ray dataset becomes a collection with the encoder's rows, also after faults, kills and changes."""

import json

import numpy as np
import pyarrow as pa
import pytest
import ray.data
from pymilvus import MilvusClient

from splade_integrations import SpladeEncoder, to_dicts
from splade_integrations.milvus.defaults import document_terms
from splade_integrations.ray import Actors, BadRows, Columns, TooManyBadRowsError, Writers, index_dataset

pytestmark = pytest.mark.usefixtures("local_ray")
COUNT = 120


class Lengths:
    """A dense model. A text's vector is its number of characters and its number of words."""

    def encode(self, texts):
        return np.array([[len(text), len(text.split())] for text in texts], np.float32)


def corpus(texts, **further):
    return {"key": list(range(len(texts))), "body": texts, "year": [1900 + n for n in range(len(texts))], **further}


def run(uri, columns, model, tmp_path, **how):
    dataset = ray.data.from_arrow(pa.table(columns)).repartition(4)
    return index_dataset(
        dataset,
        model,
        uri=uri,
        collection_name="c",
        columns=Columns(id="key", text="body"),
        bad_rows=how.pop("bad_rows", BadRows(side_file=tmp_path / "bad.jsonl")),
        max_length=64,
        device="cpu",
        **how,
    )


def stored(uri, dense=False):
    client = MilvusClient(uri)
    client.load_collection("c")
    fields = ["id", "text", "sparse", "metadata", *(["dense"] if dense else [])]
    rows = client.query("c", filter="", output_fields=fields, limit=10_000)
    client.close()
    return {row["id"]: row for row in rows}


def check(found, texts, model, years=1900):
    """Compare stored rows with the encoder's rows for the texts."""
    encoder = SpladeEncoder(model, device="cpu", max_length=64)
    assert found.keys() == set(map(str, range(len(texts))))
    for key, terms in enumerate(to_dicts(encoder.encode_documents(texts))):
        row, right = found[str(key)], document_terms(terms, texts[key])
        assert row["text"] == texts[key]
        assert row["metadata"] == {"year": years + key}
        assert row["sparse"].keys() == right.keys()
        assert list(row["sparse"].values()) == pytest.approx(list(right.values()), abs=1e-5)


def test_rows_reruns_and_changes(tmp_path, random_bert_folder, texts):
    """This is a single test, because each run starts actors, and each actor has to load the model."""
    texts, uri = texts[:COUNT], str(tmp_path / "a.db")
    report = run(uri, corpus(texts), random_bert_folder, tmp_path, dense=Lengths, actors=Actors(concurrency=2))
    assert (report.rows, report.written, report.skipped, report.bad) == (COUNT, COUNT, 0, 0)
    assert report.encoded == COUNT
    found = stored(uri, dense=True)
    check(found, texts, random_bert_folder)
    assert [found[str(n)]["dense"] for n in range(COUNT)] == Lengths().encode(texts).tolist()
    assert not (tmp_path / "bad.jsonl").exists()

    # Another run encodes only what has changed: a text, the metadata of another row, and a new row.
    changed = [*texts, "a new text"]
    changed[7] = "a changed text"
    columns = corpus(changed)
    columns["year"][9] = 7
    report = run(uri, columns, random_bert_folder, tmp_path, dense=Lengths)
    assert (report.rows, report.written, report.skipped, report.encoded) == (COUNT + 1, 3, COUNT - 2, 3)
    found = stored(uri)
    assert found["9"]["metadata"] == {"year": 7}
    found["9"]["metadata"] = {"year": 1909}
    check(found, changed, random_bert_folder)


def test_bad_rows_go_to_the_side_file(tmp_path, random_bert_folder):
    columns = {"key": ["a", "", "c", "a", "e"], "body": ["one", "two", None, "four", "five"], "n": [1, 2, 3, 4, 5]}
    uri = str(tmp_path / "a.db")
    dataset = ray.data.from_arrow(pa.table(columns))
    how = {"uri": uri, "collection_name": "c", "columns": Columns(id="key", text="body"), "device": "cpu"}
    with pytest.raises(TooManyBadRowsError, match=r"at most 2 rows may be left out .*, got 3"):
        index_dataset(dataset, random_bert_folder, **how, bad_rows=BadRows(side_file=tmp_path / "bad.jsonl", most=2))
    lines = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert {(line["id"], line["reason"], line["text"]) for line in lines} == {
        ("", "the id must not be empty, got ''", "two"),
        ("c", "the text must be a str, got NoneType", None),
        ("a", "the id must differ from the ids of all other rows, got 'a' again", "four"),
    }
    assert stored(uri).keys() == {"a", "e"}
    with pytest.raises(ValueError, match="milvus-lite must get its rows from one writer, got 2"):
        index_dataset(dataset, random_bert_folder, **how, writers=Writers(actors=2))
