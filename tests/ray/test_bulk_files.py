"""Files for the bulk import hold the rows of a live collection. A run that is started again finishes the files."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data

from splade_integrations import SpladeEncoder, to_dicts
from splade_integrations.milvus.defaults import document_terms
from splade_integrations.ray import BadRows, Columns, write_bulk_files

pytestmark = pytest.mark.usefixtures("local_ray")


def run(texts, folder, model, **how):
    columns = {"key": list(range(len(texts))), "body": texts, "text": ["a name of a field"] * len(texts), "n": 7}
    columns["n"] = list(range(len(texts)))
    dataset = ray.data.from_arrow(pa.table(columns)).repartition(3)
    return write_bulk_files(
        dataset,
        model,
        folder,
        columns=Columns(id="key", text="body"),
        rows_per_file=50,
        bad_rows=BadRows(side_file=folder.parent / "bad.jsonl"),
        max_length=64,
        device="cpu",
        **how,
    )


def read(folder):
    rows = [row for file in folder.glob("*.parquet") for row in pq.read_table(file).to_pylist()]
    found = {row["id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def test_files_and_a_second_run(tmp_path, random_bert_folder, texts):
    folder = tmp_path / "files"
    report = run(texts, folder, random_bert_folder)
    assert (report.written, report.bad, report.encoded) == (len(texts), 0, len(texts))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["complete"] is True
    assert manifest["rows"] == len(texts)
    assert max(one["rows"] for one in manifest["files"]) == 50
    found = read(folder)
    encoder = SpladeEncoder(random_bert_folder, device="cpu", max_length=64)
    assert found.keys() == set(map(str, range(len(texts))))
    for n, terms in enumerate(to_dicts(encoder.encode_documents(texts))):
        row, right = found[str(n)], document_terms(terms, texts[n])
        assert row["text"] == texts[n]
        assert json.loads(row["metadata"]) == {"text": "a name of a field", "n": n}
        assert json.loads(row["$meta"]) == {"n": n}
        assert row["sparse"]["indices"] == list(right)
        assert row["sparse"]["values"] == pytest.approx(list(right.values()), abs=1e-5)

    # The state after a kill: one file is missing, another is not finished, and a row of a finished file has changed.
    first, second, *_ = sorted(folder.glob("*.parquet"))
    lost = pq.read_metadata(first).num_rows + pq.read_metadata(second).num_rows
    first.unlink()
    second.rename(second.with_name(f".{second.stem}.1.partial"))
    kept = next(n for n in range(len(texts)) if str(n) in read(folder))
    changed = [*texts[:kept], "changed", *texts[kept + 1 :]]
    report = run(changed, folder, random_bert_folder)
    assert (report.written, report.encoded, report.skipped) == (lost, lost, len(texts) - lost - 1)
    (bad,) = map(json.loads, (tmp_path / "bad.jsonl").read_text().splitlines())
    assert bad["id"] == str(kept)
    assert "holds this id with another text" in bad["reason"]
    assert read(folder).keys() == found.keys()
