"""Files of every format yield records with the same ids, texts and metadata."""

import io
import json
import sys
from datetime import date, datetime
from decimal import Decimal
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet
import pytest

from splade_integrations.records import RecordError, Records, format_of

ROWS = [
    {"_id": "a", "title": "1984", "text": "A novel.", "year": 1949, "price": 7.5, "code": "01067", "seen": "true"},
    {"_id": "b", "title": "2666", "text": "Another.", "year": 2004, "price": 9, "code": "10115", "seen": "1e400"},
    {"_id": "c", "title": "", "text": "A third.", "year": None, "price": None, "code": "", "seen": ""},
]


def write(path, rows=ROWS):
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        mark = "," if path.suffix == ".csv" else "\t"
        cells = [["" if value is None else str(value) for value in row.values()] for row in rows]
        path.write_text("".join(mark.join(line) + "\n" for line in [list(rows[0]), *cells]))
    return str(path)


def metadata_of(path, **options):
    options = {"keep": None, **options}
    return {record.id: record.metadata for record in Records(path, format_of(path), **options)}


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "parquet"])
def test_every_format_gives_the_same_metadata(tmp_path, suffix):
    path = write(tmp_path / f"rows.{suffix}")
    empty = {} if suffix in ("csv", "tsv") else {"title": "", "code": "", "seen": ""}
    expected = {
        "a": {"title": "1984", "year": 1949, "price": 7.5, "code": "01067", "seen": "true"},
        "b": {"title": "2666", "year": 2004, "price": 9.0, "code": "10115", "seen": "1e400"},
        "c": empty,
    }
    found = metadata_of(path)
    assert found == expected
    assert [type(value) for value in found["b"].values()][1] is int
    assert metadata_of(path, keep=["year", "code"])["a"] == {"year": 1949, "code": "01067"}
    assert metadata_of(path, keep=()) == {"a": {}, "b": {}, "c": {}}
    with pytest.raises(RecordError, match=r"no record has a value for 'yaer'.*Correct --keep"):
        metadata_of(path, keep=["year", "yaer"])


def test_numbers_are_told_from_texts_column_by_column(tmp_path):
    (tmp_path / "a.csv").write_text(
        ",text,version,big,float,mixed,gap\n0,a,1.1,9223372036854775807,-1e3,1,\n1,b,1.10,1,2,x,\n2,c,2,1,3.5,2,5\n"
    )
    first, second, third = metadata_of(str(tmp_path / "a.csv")).values()
    assert first == {"version": 1.1, "big": 2**63 - 1, "float": -1000.0, "mixed": "1"}
    assert second == {"version": 1.1, "big": 1, "float": 2.0, "mixed": "x"}
    assert third["gap"] == 5
    (tmp_path / "b.csv").write_text(f"id,text,n\n1,a,{2**63}\n2,b,007\n")
    assert [one["n"] for one in metadata_of(str(tmp_path / "b.csv")).values()] == [str(2**63), "007"]


def test_standard_input_is_read_once_so_its_columns_stay_texts(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"id,text,year\n1,a,1949\n")))
    records = Records("-", "csv", keep=None)
    assert records.count() is None
    assert [record.metadata for record in records] == [{"year": "1949"}]


def test_types_that_json_does_not_have(tmp_path):
    row = {
        "text": "a", "day": date(1912, 6, 23), "at": datetime(1912, 6, 23, 1, 2), "price": Decimal("1.50"),
        "nan": float("nan"), "in": {"list": [1, None, float("nan")], "at": date(2000, 1, 1)},
    }  # fmt: skip
    path = write(tmp_path / "a.parquet", [row])
    assert metadata_of(path)["1"] == {
        "day": "1912-06-23", "at": "1912-06-23T01:02:00", "price": 1.5,
        "in": {"list": [1, None, None], "at": "2000-01-01"},
    }  # fmt: skip
    surrogate = write(tmp_path / "a.jsonl", [{"text": "a", "k\ud800": ["\ud83d"]}])
    assert metadata_of(surrogate)["1"] == {"k?": ["?"]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a", "n": 9223372036854775808}', "line 1: 'n' must be a number of at most 64 bits, got 92233720368"),
        ('{"text": "a", "n": [Infinity]}', "line 1: 'n' must be a finite number, got inf. Change the value, or list"),
        ('{"text": "a", "n": ' + "1" * 5000 + "}", "line 1: must be one JSON object, but does not parse"),
        ('{"text": "a", "_id": ""}', "line 1: the id must not be empty, got ''. Add one."),
    ],
)
def test_what_no_store_can_hold_is_refused(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_text(line)
    with pytest.raises(RecordError) as refused:
        metadata_of(str(tmp_path / "a.jsonl"))
    assert message in str(refused.value)


def test_bytes_are_refused_unless_they_are_not_kept(tmp_path):
    path = write(tmp_path / "a.parquet", [{"text": "a", "image": b"\x89", "year": 1}])
    with pytest.raises(RecordError, match=r"row 1: 'image' must be a value that JSON can hold, got bytes"):
        metadata_of(path)
    assert metadata_of(path, keep=["year"])["1"] == {"year": 1}


def test_plain_lines_have_no_fields_to_keep(tmp_path):
    (tmp_path / "a.txt").write_text("one\n")
    assert metadata_of(str(tmp_path / "a.txt")) == {"1": {}}
    with pytest.raises(RecordError, match="no record has a value for 'year', got no field"):
        metadata_of(str(tmp_path / "a.txt"), keep=["year"])
