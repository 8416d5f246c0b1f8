"""`splade index --ray` makes the same collection as `splade index`, and says what it did."""

import json

import pytest
from pymilvus import MilvusClient

from splade_integrations.cli.app import run

pytestmark = pytest.mark.usefixtures("local_ray")

ROWS = [
    {"_id": f"it's {n}", "title": f"Number {n}", "text": f"text {n} of the cat", "year": 1900 + n} for n in range(40)
]
ROWS.append({"_id": "blank", "text": " "})
ROWS.append({"_id": "long", "text": "One sentence here. " * 20})


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def dump(uri):
    client = MilvusClient(uri)
    client.load_collection("splade")
    rows = client.query("splade", filter="", output_fields=["id", "text", "sparse", "metadata", "_doc_id"], limit=1000)
    properties = client.describe_collection("splade")["properties"]
    client.close()
    return {row["id"]: row for row in rows}, properties


def test_index(tmp_path, random_bert_folder, capsys):
    file = write(tmp_path / "rows.jsonl", ROWS)
    plain, by_ray = str(tmp_path / "plain.db"), str(tmp_path / "ray.db")
    how = ["-m", random_bert_folder, "--max-length", "32", "--chunk", "--json"]
    assert run(["index", file, *how, "--uri", plain]) == 0
    ray_options = ["--ray", "--encoders", "2", "--bad-rows", str(tmp_path / "bad.jsonl")]
    capsys.readouterr()
    assert run(["index", file, *how, "--uri", by_ray, *ray_options]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert all(line.startswith("Indexing") for line in err.splitlines())  # progress, if it takes long
    count = len(dump(plain)[0])
    assert count > len(ROWS)
    assert (report["rows"], report["added"], report["already_there"], report["bad"]) == (count, count, 0, 0)
    assert report["texts_per_second"].keys() == {"encode", "write", "all"}
    (left, left_properties), (right, right_properties) = dump(plain), dump(by_ray)
    assert left_properties == right_properties
    assert left.keys() == right.keys()
    for key, row in left.items():
        for name in ("text", "metadata", "_doc_id"):
            assert row[name] == right[key][name]
        assert row["_doc_id"] == key.rpartition("#")[0]
        assert row["sparse"].keys() == right[key]["sparse"].keys()
        assert list(row["sparse"].values()) == pytest.approx(list(right[key]["sparse"].values()), abs=1e-5)

    file = write(tmp_path / "rows.jsonl", [*ROWS[:-1], {"_id": "new", "text": "a new text"}])
    assert run(["index", file, *how[:-1], "--uri", by_ray, *ray_options, "--resume"]) == 0
    out, _ = capsys.readouterr()
    assert "1 chunks added, 41 already in 'splade'" in out
    assert "0 left out" in out
    assert "encoding alone" in out
    assert dump(by_ray)[0].keys() == {*left, "new#0"}
    assert run(["search", "cat", "--uri", by_ray, "--json", "-k", "1"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["id"] in left


def test_options_that_do_not_go_together(tmp_path, random_bert_folder, capsys):
    file = write(tmp_path / "rows.jsonl", ROWS)
    how = ["-m", random_bert_folder, "--uri", str(tmp_path / "a.db")]
    for options, message in {
        ("--writers", "2"): "--writers must be given with --ray",
        ("--bad-rows", "x"): "--bad-rows must be given with --ray",
        ("--gpus", "0.5"): "--gpus must be given with --ray",
    }.items():
        assert run(["index", file, *how, *options]) == 2
        assert message in capsys.readouterr().err
    assert run(["index", "-", *how, "--ray"]) == 2
    assert "must be a file or a folder with --ray, got standard input" in capsys.readouterr().err
