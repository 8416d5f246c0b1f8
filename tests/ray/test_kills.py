"""If a worker, the server and the command are killed, a run still ends with the encoder's rows."""

import random

import pyarrow.parquet as pq

from checks.ray_kills import Server, differences, disturbed_run, dump, write_corpus
from splade_integrations import SpladeEncoder, to_dicts

TEXTS = 800


def test_kills(tmp_path, model_folder):
    corpus = tmp_path / "corpus.parquet"
    write_corpus(corpus, TEXTS)
    server = Server(tmp_path / "data")
    try:
        outcome = disturbed_run(["worker", "store", "driver"], corpus, server, "c", TEXTS, random.Random(1))
        found = dump(server.uri, "c")
    finally:
        server.kill()
    assert outcome.faults == []
    assert outcome.killed == {"worker": 1, "store": 1, "driver": 1}
    assert outcome.starts == 2
    assert outcome.encoded >= TEXTS
    table = pq.read_table(corpus)
    rows = to_dicts(SpladeEncoder(model_folder, device="cpu").encode_documents(table["text"].to_pylist()))
    right = {
        row["id"]: {"text": row["text"], "metadata": {"n": row["n"]}, "sparse": terms}
        for row, terms in zip(table.to_pylist(), rows, strict=True)
    }
    assert differences(found, right) == []
