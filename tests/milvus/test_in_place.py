"""Tests of the requests that add a SPLADE field in place. They have not been sent to a full Milvus server yet."""

import importlib.metadata

import grpc
import pytest
from pymilvus import DataType
from pymilvus.client.utils import sparse_parse_single_row
from pymilvus.grpc_gen import common_pb2, milvus_pb2, schema_pb2

from splade_integrations import to_dicts
from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.copying import add_sparse_in_place
from tests.support.adapters import WordCounts, unit_vector
from tests.support.proxy import milvus_proxy
from tests.support.server import milvus_lite_server

pytestmark = pytest.mark.skipif(
    importlib.metadata.version("milvus-lite").startswith("2."), reason="milvus-lite 2 has no server"
)


class AddsFields:
    """Adds to milvus-lite's server what only a full server has: nullable fields, and updates of single fields.

    Attributes:
        vectors: {key: the vector in the new field}. For a key that is missing here, the field holds null.
        before_update: Called before each update.
    """

    def __init__(self, proxy):
        self.proxy, self.field, self.vectors, self.before_update = proxy, None, {}, lambda: None
        proxy.pretend("v3.0.0")
        names = {"AddCollectionField": self.add, "DescribeCollection": self.describe, "Query": self.query}
        names |= {"Upsert": self.upsert, "CreateIndex": lambda *_: common_pb2.Status()}
        # milvus-lite does not report the progress of a second load.
        loaded = milvus_pb2.GetLoadingProgressResponse(status=common_pb2.Status(), progress=100, refresh_progress=100)
        proxy.answers |= names | {"GetLoadingProgress": loaded}

    def add(self, request, _):
        self.field = schema_pb2.FieldSchema.FromString(request.schema)
        return common_pb2.Status()

    def describe(self, request, ask):
        found = milvus_pb2.DescribeCollectionResponse.FromString(ask(request.SerializeToString()))
        if self.field is not None:
            found.schema.fields.append(self.field)
        return found

    def query(self, request, ask):
        added = self.field is not None and self.field.name in request.output_fields
        if added:
            request.output_fields.remove(self.field.name)
        found = milvus_pb2.QueryResults.FromString(ask(request.SerializeToString()))
        if added:
            keys = next(one for one in found.fields_data if one.field_name == "key").scalars.string_data.data
            data = found.fields_data.add(type=DataType.SPARSE_FLOAT_VECTOR, field_name=self.field.name)
            data.valid_data.extend(key in self.vectors for key in keys)
            data.vectors.sparse_float_vector.contents.extend(self.vectors[key] for key in keys if key in self.vectors)
        return found

    def upsert(self, request, ask):
        self.before_update()
        assert request.partial_update
        fields = {one.field_name: one for one in request.fields_data}
        assert set(fields) == {"key", self.field.name}
        keys = list(fields["key"].scalars.string_data.data)
        if "gone" in keys and self.is_gone():
            return milvus_pb2.MutationResult(status=common_pb2.Status(code=1100, reason="no fieldData passed in"))
        self.vectors |= dict(zip(keys, fields[self.field.name].vectors.sparse_float_vector.contents, strict=True))
        ids = schema_pb2.IDs(str_id=schema_pb2.StringArray(data=keys))
        return milvus_pb2.MutationResult(status=common_pb2.Status(), upsert_cnt=len(keys), IDs=ids)

    def is_gone(self):
        return False


@pytest.fixture(scope="module")
def server():
    with milvus_lite_server() as uri:
        yield uri


@pytest.fixture
def full(server):
    with milvus_proxy(server) as proxy:
        direct = Connection(server).client
        schema = direct.create_schema()
        schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=100)
        schema.add_field("text", DataType.VARCHAR, max_length=100)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=16)
        direct.create_collection("docs", schema=schema, properties={"mine": "kept"})
        direct.create_partition("docs", "other")
        for partition, numbers in (("_default", range(130)), ("other", range(130, 150))):
            direct.insert("docs", [row(f"k{n}", f"text {n}") for n in numbers], partition_name=partition)
        direct.insert("docs", [row("gone", "text")])
        yield AddsFields(proxy), direct
        direct.drop_collection("docs")


def row(key, text):
    return {"key": key, "text": text, "vector": unit_vector(text)}


def test_a_field_is_added_filled_and_indexed(full):
    server, direct = full
    encoder = WordCounts()
    report = add_sparse_in_place(encoder, "docs", Connection(server.proxy.uri), rows_per_second=1e6)
    assert (report.collection, report.sparse_field, report.rows, report.written) == ("docs", "sparse", 151, 151)
    assert (report.passes, report.unsettled) == (2, 0)
    assert (server.field.name, server.field.data_type, server.field.nullable) == ("sparse", 104, True)
    stored = {one["key"]: one["text"] for one in direct.query("docs", filter="", limit=200, output_fields=["text"])}
    right = dict(zip(stored, to_dicts(encoder.encode_documents(list(stored.values()))), strict=True))
    assert {key: sparse_parse_single_row(data) for key, data in server.vectors.items()} == right
    upserts = [(one.partition_name, one.num_rows) for one in server.proxy.seen["Upsert"]]
    assert upserts == [("_default", 100), ("_default", 31), ("other", 20)]
    [created] = server.proxy.seen["CreateIndex"]
    assert created.field_name == "sparse"
    assert {pair.key: pair.value for pair in created.extra_params}["metric_type"] == "IP"
    assert server.proxy.seen["LoadCollection"][-1].refresh
    calls = server.proxy.seen
    assert not calls["Insert"] + calls["Delete"] + calls["DropCollection"] + calls["CreateCollection"]
    assert direct.describe_collection("docs")["properties"]["mine"] == "kept"
    with pytest.raises(ValueError, match=r"no SPLADE field from an earlier call with --in-place, got 'sparse'"):
        add_sparse_in_place(encoder, "docs", Connection(server.proxy.uri))


def test_rows_that_change_meanwhile_get_the_right_vectors(full):
    server, direct = full
    encoder = WordCounts()

    def change():  # before the first update: a text changes, a row comes, and a row goes
        server.before_update = lambda: None
        direct.upsert("docs", [row("k5", "quite another"), row("new", "a new row")])
        direct.delete("docs", filter='key == "gone"')
        server.is_gone = lambda: True

    server.before_update = change
    report = add_sparse_in_place(encoder, "docs", Connection(server.proxy.uri), rows_per_second=1e6)
    assert report.unsettled == 0
    found = {key: sparse_parse_single_row(data) for key, data in server.vectors.items()}
    assert found["k5"] == pytest.approx(to_dicts(encoder.encode_documents(["quite another"]))[0], abs=1e-5)
    assert found["new"] == pytest.approx(to_dicts(encoder.encode_documents(["a new row"]))[0], abs=1e-5)
    assert len(found) == 151
    assert "gone" not in found


def test_an_interrupted_run_fills_only_what_is_missing(full):
    server, _ = full

    server.proxy.faults["Upsert"] = [None, grpc.StatusCode.PERMISSION_DENIED]
    with pytest.raises(grpc.RpcError, match=r"injected"):
        add_sparse_in_place(WordCounts(), "docs", Connection(server.proxy.uri), rows_per_second=1e6)
    encoder = WordCounts()
    report = add_sparse_in_place(encoder, "docs", Connection(server.proxy.uri), rows_per_second=1e6, resume=True)
    assert report.written == sum(encoder.batches) == 51
    assert len(server.proxy.seen["AddCollectionField"]) == 1


def test_where_it_would_do_harm_it_is_refused(full):
    server, direct = full
    server.proxy.answers.pop("GetVersion")
    with pytest.raises(ValueError, match=r"must be on a Milvus server, got milvus-lite 3, which cannot add"):
        add_sparse_in_place(WordCounts(), "docs", Connection(server.proxy.uri))
    server.proxy.pretend("v3.0.0")
    direct.create_collection("numbered", dimension=16, auto_id=True)
    with pytest.raises(ValueError, match=r"must have keys that the user gave, got keys that Milvus gave"):
        add_sparse_in_place(WordCounts(), "numbered", Connection(server.proxy.uri))
    direct.drop_collection("numbered")
    assert not server.proxy.seen["AddCollectionField"]
