"""Rows of any dataset are brought into one form, which states why a row cannot be indexed. The tests need no Ray."""

import datetime
import json

import pyarrow as pa
import pytest

from splade_integrations.ray.rows import CUT, ERROR, ID, METADATA, TEXT, Columns, without_repeated_ids


def test_columns_become_documents():
    table = pa.table(
        {
            "key": [2**60 + 1, 7, None],
            "body": ["one", "two", "three"],
            "day": [datetime.date(2020, 1, 2), None, None],
            "tags": [["a"], [], None],
        }
    )
    made = Columns(id="key", text="body")(table)
    assert made[ID].to_pylist() == [str(2**60 + 1), "7", None]
    assert made[TEXT].to_pylist() == ["one", "two", "three"]
    assert [json.loads(text) for text in made[METADATA].to_pylist()] == [
        {"day": "2020-01-02", "tags": ["a"]},
        {"tags": []},
        {},
    ]
    assert made[ERROR].to_pylist() == [None, None, "the id must not be empty, got None"]
    few = Columns(id="key", text="body", metadata=["day"])(table)
    assert json.loads(few[METADATA][0].as_py()) == {"day": "2020-01-02"}


def test_texts_are_cut_to_what_milvus_stores():
    made = Columns()(pa.table({"id": ["a", "b"], "text": ["é" * 40_000, "é" * 30_000]}))
    assert made[CUT].to_pylist() == [True, False]
    assert len(made[TEXT][0].as_py().encode()) == 65_534
    assert made[TEXT][1].as_py() == "é" * 30_000


def test_what_cannot_be_indexed():
    table = pa.table({"id": ["a", "b", "c", "a"], "text": ["x", None, "y", "z"], "n": [1.0, 2.0, float("inf"), 3.0]})
    reasons = without_repeated_ids(Columns()(table))[ERROR].to_pylist()
    assert reasons[0] is None
    assert reasons[1] == "the text must be a str, got NoneType"
    assert "must be a finite number" in reasons[2]
    assert reasons[3] == "the id must differ from the ids of all other rows, got 'a' again"
    with pytest.raises(ValueError, match="must have the column 'body', got the columns id, text, n"):
        Columns(text="body")(table)
    with pytest.raises(TypeError, match="'n' must hold strings or integers, got double"):
        Columns(id="n")(table)
