"""`RayEncoder` returns the encoder's rows, and `splade add-sparse --ray` makes the same collection as without Ray."""

import os
import signal

import numpy as np
import pytest
from pymilvus import MilvusClient

from benchmarks.processes import descendants, title
from splade_integrations import SpladeEncoder
from splade_integrations.cli.app import run
from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.collection import Collection
from splade_integrations.milvus.rows import Row
from splade_integrations.milvus.schema import Schema
from splade_integrations.ray import RayEncoder

pytestmark = pytest.mark.usefixtures("local_ray")

TEXTS = [f"text {n} of the cat" + " and the dog" * (n % 7) for n in range(90)]


@pytest.fixture(scope="module")
def by_ray(random_bert_folder):
    return RayEncoder(random_bert_folder, actors=2, rows_per_batch=20, max_length=32)


@pytest.fixture(scope="module")
def plain(random_bert_folder):
    return SpladeEncoder(random_bert_folder, max_length=32)


def same(left, right):
    assert left.shape == right.shape
    np.testing.assert_allclose(left.toarray(), right.toarray(), atol=1e-5)


def test_rows_are_the_encoders_in_the_same_order(by_ray, plain):
    same(by_ray.encode_documents(TEXTS), plain.encode_documents(TEXTS))
    same(by_ray.encode_queries(TEXTS[:3]), plain.encode_queries(TEXTS[:3]))
    same(by_ray.encode_documents([]), plain.encode_documents([]))
    assert by_ray.fingerprint == plain.fingerprint


def test_an_actor_that_is_killed_is_started_again(by_ray, plain):
    actors = [process for process in descendants(os.getpid()) if title(process).startswith("ray::_Model")]
    assert len(actors) == 2
    for process in actors:
        os.kill(process, signal.SIGKILL)
    same(by_ray.encode_documents(TEXTS), plain.encode_documents(TEXTS))


def test_errors_are_the_encoders(by_ray, tmp_path):
    with pytest.raises(TypeError, match=r"texts\[1\] must be a str"):
        by_ray.encode_documents(["a text", 7])
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        RayEncoder(str(tmp_path))
    with pytest.raises(ValueError, match="actors must be at least 1, got 0"):
        RayEncoder(str(tmp_path), actors=0)
    with pytest.raises(ValueError, match=r"6 actors must fit on this machine, but they reserve 2\.4 CPUs and it has 2"):
        RayEncoder(str(tmp_path), actors=6)
    with pytest.raises(ValueError, match="1 actors must fit on this machine, but they reserve 1 GPUs and it has 0"):
        RayEncoder(str(tmp_path), num_gpus=1)
    same(by_ray.encode_documents(TEXTS[:2]), by_ray.encode_documents(TEXTS)[:2])


def dump(uri, name):
    client = MilvusClient(uri)
    client.load_collection(name)
    rows = client.query(name, filter="", output_fields=["*"], limit=1000)
    client.close()
    return {row["pk"]: row for row in rows}


def test_add_sparse(tmp_path, random_bert_folder, capsys):
    uri = str(tmp_path / "a.db")
    documents = Collection("documents", Schema(sparse_field=None), Connection(uri))
    documents.write([Row(id=f"it's {n}", text=text, dense=[1.0, n]) for n, text in enumerate(TEXTS)])
    how = ["add-sparse", "--uri", uri, "-c", "documents", "-m", random_bert_folder, "--max-length", "32"]
    assert run([*how, "--into", "plain"]) == 0
    assert run([*how, "--into", "by_ray", "--ray", "--encoders", "2", "--rows-per-batch", "20"]) == 0
    capsys.readouterr()
    left, right = dump(uri, "plain"), dump(uri, "by_ray")
    assert len(left) == len(TEXTS)
    assert left.keys() == right.keys()
    for key, row in left.items():
        terms, others = row.pop("sparse"), right[key].pop("sparse")
        assert row == right[key]
        assert terms.keys() == others.keys()
        assert list(terms.values()) == pytest.approx(list(others.values()), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--encoders", "2"], "--encoders must be given with --ray, got it alone"),
        (["--ray", "--dry-run"], "--dry-run must be given without --ray"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message, tmp_path, random_bert_folder, capsys):
    uri = str(tmp_path / "a.db")
    Collection("documents", Schema(sparse_field=None), Connection(uri)).write([Row(id="a", text="a", dense=[1.0, 0.0])])
    assert run(["add-sparse", "--uri", uri, "-c", "documents", "-m", random_bert_folder, *options]) == 2
    assert message in capsys.readouterr().err
