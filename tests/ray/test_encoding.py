"""A Ray dataset gets the encoder's vectors, and these vectors survive Parquet in Ray and in pyarrow."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data

from splade_integrations.arrow import sparse_rows
from splade_integrations.ray import encode_dataset
from splade_integrations.ray.encoding import Encode, EncodeStage

pytestmark = pytest.mark.usefixtures("local_ray")


class Lengths:
    """A dense model. A text's vector is its number of characters and its number of words."""

    def encode(self, texts):
        return np.array([[len(text), len(text.split())] for text in texts], np.float32)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory, random_bert_folder, texts):
    """Return a folder of Parquet files that Ray has written, with dense and SPLADE vectors from two actors."""
    table = pa.table(
        {"id": [str(n) for n in range(len(texts))], "text": texts, "number": [2**60 + n for n in range(len(texts))]}
    )
    dataset = encode_dataset(
        ray.data.from_arrow(table).repartition(4),
        random_bert_folder,
        dense=Lengths,
        concurrency=2,
        rows_per_batch=40,
        max_length=64,
        device="cpu",
    )
    folder = tmp_path_factory.mktemp("encoded")
    dataset.write_parquet(str(folder))
    return folder


def test_rows_are_the_encoders(encoded, random_bert_folder, texts):
    from splade_integrations import SpladeEncoder

    table = pq.read_table(encoded)
    assert table.schema.field("sparse").type.field("indices").type.value_type == pa.uint32()
    assert table.schema.field("sparse").type.field("values").type.value_type == pa.float32()
    assert table.schema.field("dense").type.value_type == pa.float32()
    order = np.argsort([int(one) for one in table["id"].to_pylist()])
    table = table.take(pa.array(order))
    assert table["text"].to_pylist() == texts
    assert table["number"].to_pylist() == [2**60 + n for n in range(len(texts))]
    encoder = SpladeEncoder(random_bert_folder, device="cpu", max_length=64)
    right = encoder.encode_documents(texts)
    assert right.nnz > len(texts)
    assert abs(sparse_rows(table["sparse"], encoder.dim) - right).max() < 1e-5
    assert table["dense"].to_pylist() == Lengths().encode(texts).tolist()


def test_the_column_survives_ray(encoded, tmp_path):
    """Ray's Parquet files, default batches and pyarrow batches keep the sparse column. `map` only widens its types."""
    first = pq.read_table(encoded).sort_by("id")
    dataset = ray.data.read_parquet(str(encoded))
    same = dataset.map_batches(lambda batch: batch).map_batches(lambda table: table, batch_format="pyarrow")
    # Default batches turn dense vectors, whose lengths are equal, into tensors of the same numbers.
    same.write_parquet(str(tmp_path / "again"))
    again = pq.read_table(tmp_path / "again").sort_by("id")
    assert again.schema.field("sparse").type.equals(first.schema.field("sparse").type)
    assert abs(sparse_rows(again["sparse"], 30522) - sparse_rows(first["sparse"], 30522)).nnz == 0
    widened = pa.concat_tables(
        dataset.map(lambda row: row).iter_batches(batch_format="pyarrow", batch_size=None)
    ).sort_by("id")
    assert abs(sparse_rows(widened["sparse"], 30522) - sparse_rows(first["sparse"], 30522)).nnz == 0


class Short:
    """A dense model that refuses long texts."""

    def encode(self, texts):
        if any(len(text) > 5 for text in texts):
            raise RuntimeError("too long\nfor me")
        return np.ones((len(texts), 2), np.float32)


def test_texts_that_cannot_be_encoded(random_bert_folder):
    """Run the actor's code in this process, because this is faster than Ray."""
    table = pa.table({"text": ["a", None, "b", "too long"]})
    stage = EncodeStage(model_name=random_bert_folder, dense=Short(), error_column="error")
    found = Encode(stage)(table)
    assert found["error"].to_pylist() == [
        None,
        "the text must be a str, got NoneType",
        None,
        "RuntimeError: too long",
    ]
    assert [sparse is None for sparse in found["sparse"].to_pylist()] == [False, True, False, True]
    assert found["dense"].to_pylist() == [[1, 1], None, [1, 1], None]
    strict = Encode(EncodeStage(model_name=random_bert_folder))
    with pytest.raises(ValueError, match="row 1 cannot be encoded: the text must be a str, got NoneType"):
        strict(table)
    with pytest.raises(ValueError, match="must have the column 'text', got the columns body"):
        strict(table.rename_columns(["body"]))
    with pytest.raises(ValueError, match="must not have a column 'sparse' yet"):
        strict(found)


def test_a_pool_needs_actors(random_bert_folder):
    for wrong in (0, (2, 1), (0, 3)):
        with pytest.raises(ValueError, match="concurrency must be the number of actors"):
            encode_dataset(ray.data.range(1), random_bert_folder, concurrency=wrong)
