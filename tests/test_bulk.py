"""Our files for Milvus's bulk import equal those of pymilvus's writer, and our import requests equal pymilvus's."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pymilvus import DataType, MilvusClient
from pymilvus.bulk_writer import BulkFileType, LocalBulkWriter
from pymilvus.bulk_writer.buffer import Buffer

from splade_integrations.arrow import sparse_type
from splade_integrations.milvus.bulk_files import BulkFolder, fields_of, sparse_form
from splade_integrations.milvus.bulk_import import FILES_PER_JOB, Importer

DIM = 8


def schema(**options):
    made = MilvusClient.create_schema(**options)
    made.add_field("id", DataType.VARCHAR, is_primary=True, max_length=20)
    made.add_field("text", DataType.VARCHAR, max_length=100)
    made.add_field("dense", DataType.FLOAT_VECTOR, dim=DIM)
    made.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    made.add_field("year", DataType.INT32, nullable=True)
    made.add_field("score", DataType.DOUBLE)
    made.add_field("good", DataType.BOOL)
    made.add_field("kind", DataType.VARCHAR, max_length=10, default_value="none")
    made.add_field("note", DataType.JSON)
    made.add_field("tags", DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=4, max_length=10)
    made.verify()
    return made


def rows(count=20):
    rng = np.random.default_rng(0)
    return [
        {
            "id": f"key {n}",
            "text": f"naïve text {n}",
            "dense": rng.normal(size=DIM).astype(np.float32).tolist(),
            "sparse": {
                int(term): float(np.float32(weight))
                for term, weight in zip(rng.choice(30522, 5, replace=False), rng.random(5), strict=True)
            },
            "year": None if n % 3 else 1900 + n,
            "score": n / 7,
            "good": n % 2 == 0,
            "kind": "book",
            "note": {"n": n, "parts": ["é", None, 1.5]},
            "tags": ["a", "b"][: n % 3],
        }
        for n in range(count)
    ]


def as_table(rows):
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    order = [sorted(row["sparse"]) for row in rows]
    columns["sparse"] = pa.array(
        [
            {"indices": terms, "values": [row["sparse"][term] for term in terms]}
            for terms, row in zip(order, rows, strict=True)
        ],
        sparse_type(),
    )
    columns["note"] = [json.dumps(note) for note in columns["note"]]
    return pa.table(columns)


def parsed(value):
    """Return {token id: weight} of a sparse row in any of its forms."""
    if isinstance(value, str):
        return {int(term): float(np.float32(weight)) for term, weight in json.loads(value).items()}
    return dict(zip(value["indices"], value["values"], strict=True))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("form", ["struct", "json"])
def test_equal_to_pymilvus(tmp_path, form, dynamic):
    fields, given = schema(enable_dynamic_field=dynamic), rows()
    if dynamic:
        given = [{**row, "extra": n, "more": {"deep": [n]}} for n, row in enumerate(given)]
    writer = LocalBulkWriter(fields, str(tmp_path / "theirs"), file_type=BulkFileType.PARQUET)
    for row in given:
        writer.append_row(dict(row))
    writer.commit()
    theirs = pq.read_table(writer.batch_files[0][0])
    folder = BulkFolder(tmp_path / "ours", fields, form)
    written = folder.write(as_table(given), "one")
    ours = pq.read_table(tmp_path / "ours" / written.file)
    right = Buffer(fields, BulkFileType.PARQUET)._deduce_arrow_schema()
    if form == "struct":
        place = right.get_field_index("sparse")
        right = right.set(place, pa.field("sparse", sparse_type()))
    found = pq.read_schema(tmp_path / "ours" / written.file).remove_metadata()
    assert {field.name: str(field.type).replace("element", "item") for field in found} == {
        field.name: str(field.type).replace("element", "item") for field in right
    }
    assert ours.column_names == theirs.column_names
    for name in theirs.column_names:
        if name == "sparse":
            assert list(map(parsed, ours[name].to_pylist())) == list(map(parsed, theirs[name].to_pylist()))
        elif name in ("note", "$meta"):
            assert list(map(json.loads, ours[name].to_pylist())) == list(map(json.loads, theirs[name].to_pylist()))
        else:
            assert ours[name].to_pylist() == theirs[name].to_pylist()


def test_defaults_nulls_and_wider_types():
    table = as_table(rows()).drop_columns(["kind", "year"])
    wide = pa.struct([("indices", pa.list_(pa.int64())), ("values", pa.list_(pa.float64()))])
    table = table.set_column(3, "sparse", table["sparse"].cast(wide))
    made = fields_of(table, schema())
    assert set(made["kind"].to_pylist()) == {"none"}
    assert set(made["year"].to_pylist()) == {None}
    assert made.schema.field("sparse").type == sparse_type()
    assert made["sparse"].to_pylist() == as_table(rows())["sparse"].to_pylist()


def changed(name, row, value, kind=None):
    table = as_table(rows())
    values = table[name].to_pylist()
    values[row] = value
    return table.set_column(table.column_names.index(name), name, pa.array(values, kind or table[name].type))


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        (changed("text", 3, "é" * 51), ValueError, "row 3 of the column 'text' must have at most 100 bytes"),
        (changed("text", 4, None), ValueError, "row 4 of the column 'text' must have a value"),
        (changed("dense", 5, [1.0]), ValueError, "row 5 of the column 'dense' must have 8 items"),
        (changed("dense", 6, [float("nan")] * DIM), ValueError, "'dense' must be finite, got NaN or inf in row 6"),
        (changed("score", 7, float("inf")), ValueError, "'score' must be finite, got NaN or inf in row 7"),
        (changed("year", 8, 2**40, pa.int64()), TypeError, "'year' must fit its field, whose type in a file is int32"),
        (changed("note", 9, "{'a': 1}"), ValueError, "row 9 of the column 'note' must be a JSON text"),
        (
            changed("sparse", 2, {"indices": [1], "values": [float("nan")]}),
            ValueError,
            "'sparse' must be finite, got NaN or inf in row 2",
        ),
        (
            changed("sparse", 2, {"indices": [2**32 - 1], "values": [1.0]}),
            ValueError,
            "'sparse' must be at most 4294967294, got 4294967295",
        ),
        (as_table(rows()).drop_columns(["text"]), ValueError, "must have the column 'text'"),
        (as_table(rows()).append_column("other", [list(range(20))]), ValueError, "got 'other'.* no dynamic field"),
        (as_table([{**row, "id": 3} for row in rows()]), TypeError, "'id' must fit its field"),
    ],
)
def test_what_no_field_can_hold_is_refused(table, error, message):
    with pytest.raises(error, match=message):
        fields_of(table, schema())


def test_a_folder_and_its_manifest(tmp_path):
    folder = BulkFolder(tmp_path, schema())
    assert folder.manifest()["complete"] is False
    folder.write(as_table(rows(3)), "a")
    folder.write(as_table(rows(20)), "b")
    with pytest.raises(ValueError, match="at most 100 bytes"):
        folder.write(changed("text", 3, "é" * 51), "c")
    folder.write(as_table(rows(5)), "a")
    manifest = BulkFolder(tmp_path, schema()).finish()
    assert manifest["complete"] is True
    assert manifest["rows"] == 25
    assert [(one["file"], one["rows"]) for one in manifest["files"]] == [("a.parquet", 5), ("b.parquet", 20)]
    assert manifest["bytes"] == sum(path.stat().st_size for path in tmp_path.glob("*.parquet"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "b.parquet", "manifest.json"]
    with pytest.raises(ValueError, match="describes other fields or another form"):
        BulkFolder(tmp_path, schema(), "json")


def test_versions():
    assert [sparse_form(version) for version in ("v2.4.23", "2.5.7", "2.5.10", "v3.0.0-beta", "2.6")] == [
        "json",
        "json",
        "struct",
        "struct",
        "struct",
    ]


@pytest.fixture
def recorder():
    """Yield a server that records requests, and answers them as Milvus's documentation says."""
    seen, states = [], [("Pending", 0), ("Importing", 50), ("Completed", 100)]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.path, self.headers["Authorization"], body))
            data = {"jobId": f"job {len(seen)}"}
            if self.path.endswith("/describe"):
                state, progress = states.pop(0) if states else ("Failed", 0)
                data = {"jobId": body["jobId"], "state": state, "progress": progress, "importedRows": progress}
                data |= {"reason": "a broken file"} if state == "Failed" else {}
            if self.path.endswith("/list"):
                data = {"records": [{"jobId": "7", "collectionName": "c", "state": "Importing", "progress": 3}]}
            answer = json.dumps({"code": 0, "data": data}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", seen
    server.shutdown()
    server.server_close()


def test_requests_of_an_import(recorder):
    uri, seen = recorder
    importer = Importer(uri, "corpus", token="user:word", db_name="lab")
    paths = [f"wiki/{n}.parquet" for n in range(FILES_PER_JOB + 1)]
    ids = importer.start(paths, options={"timeout": "300s"})
    assert ids == ["job 1", "job 2"]
    (path, token, first), (_, _, second) = seen
    assert path == "/v2/vectordb/jobs/import/create"
    assert token == "Bearer user:word"
    assert (first["collectionName"], first["dbName"]) == ("corpus", "lab")
    assert first["files"] == [[one] for one in paths[:FILES_PER_JOB]]
    assert second["files"] == [[paths[-1]]]
    assert first["options"] == {"timeout": "300s"}
    states = []
    (ended,) = importer.wait(ids[:1], every=0.01, report=lambda job: states.append((job.state, job.progress)))
    assert states == [("Pending", 0), ("Importing", 50), ("Completed", 100)]
    assert (ended.id, ended.rows) == ("job 1", 100)
    assert seen[2][0] == "/v2/vectordb/jobs/import/describe"
    assert seen[2][2]["jobId"] == "job 1"
    with pytest.raises(RuntimeError, match="job 2 must complete, got a failure: a broken file"):
        importer.wait(ids[1:], every=0.01)
    (job,) = importer.jobs()
    assert (job.id, job.state, job.progress) == ("7", "Importing", 3)
    assert seen[-1][0] == "/v2/vectordb/jobs/import/list"
    assert seen[-1][2]["collectionName"] == "corpus"
    with pytest.raises(ValueError, match="at least one file"):
        importer.start([])
