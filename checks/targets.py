"""Functions that the fuzzers call. Each passes an input to code that reads data from outside.

A function ignores the errors that this code documents, and lets all other errors through. This module loads neither
torch nor a model, so that a fuzzer that follows the branches of the code can run it.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pymilvus import DataType

from splade_integrations.evaluation.dataset import load_dataset
from splade_integrations.milvus.defaults import check_varchar
from splade_integrations.milvus.filters import Engine, FilterError, Layout, from_dict, to_expr
from splade_integrations.milvus.rows import Row, check_rows
from splade_integrations.milvus.values import check_dense, check_metadata, sparse_row
from splade_integrations.records import RecordError, Records
from splade_integrations.serving.answers import read_rows
from splade_integrations.serving.protocol import Refusal
from splade_integrations.serving.requests import Limits, parse

__all__ = ["TARGETS"]

_FOLDER = Path(tempfile.mkdtemp(prefix="splade-fuzz-"))


def _records(content: bytes) -> None:
    for ending, form in ((".jsonl", "jsonl"), (".csv", "csv"), (".tsv", "tsv"), (".txt", "lines")):
        file = _FOLDER / f"records{ending}"
        file.write_bytes(content)
        try:
            for record in Records(str(file), form, keep=None):  # type: ignore[arg-type]
                json.dumps(record.metadata, allow_nan=False).encode()
        except RecordError as err:
            assert str(file) in str(err), f"the message does not name the file: {err}"


def _dataset(content: bytes) -> None:
    corpus, _, rest = content.partition(b"\0")
    queries, _, qrels = rest.partition(b"\0")
    for name, part in (("corpus.jsonl", corpus), ("queries.jsonl", queries), ("qrels.tsv", qrels)):
        (_FOLDER / name).write_bytes(part)
    try:
        load_dataset(_FOLDER)
    except RecordError as err:
        assert str(_FOLDER) in str(err), f"the message does not name the file: {err}"


def _body(content: bytes) -> None:
    try:
        parse(content, Limits())
    except Refusal:
        return


def _answer(content: bytes) -> None:
    try:
        rows = read_rows("http://server", content, 2, 100)
    except ValueError as err:
        assert "http://server" in str(err), f"the message does not name the server: {err}"
        return
    assert np.isfinite(rows.data).all()
    assert rows.shape == (2, 100)


def _filter(conditions: Any) -> None:
    layout = Layout(columns={"year": DataType.INT64, "name": DataType.VARCHAR})
    try:
        made = from_dict(conditions)
        made.matches({"year": 1936, "name": "a", "tags": ["x", 1]})
        for engine in Engine:
            to_expr(made, layout, engine).encode()
    except FilterError:
        return


def _rows(value: Any) -> None:
    metadata = value if isinstance(value, dict) else {"a": value}
    for check in (
        lambda: check_rows([Row(text="a", id=value), Row(text=value if isinstance(value, str) else "b")]),
        lambda: json.dumps(check_metadata(metadata, "metadatas[0]"), allow_nan=False),
        lambda: check_varchar(str(value), "ids[0]"),
        lambda: sparse_row(metadata, 0),  # type: ignore[arg-type]
        lambda: check_dense(value, "texts[0]"),
    ):
        try:
            check()
        except (TypeError, ValueError) as err:
            assert str(err)


# {name: (function, whether its input is bytes instead of a JSON value)}. A function raises an error only if it finds a
# bug.
TARGETS: dict[str, tuple[Callable[[Any], None], bool]] = {
    "input files": (_records, True),
    "evaluation folders": (_dataset, True),
    "bodies of requests": (_body, True),
    "answers of servers": (_answer, True),
    "filters": (_filter, False),
    "ids, metadata and vectors": (_rows, False),
}
