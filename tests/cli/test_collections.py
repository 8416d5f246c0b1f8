"""`splade index` and its collections: metadata, ids, failures, names, databases, and which stores can open them.

The tests run on a milvus-lite file and, if MILVUS_URI is set, on that server.
"""

import json
import uuid

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, VectorStoreQuery
from llama_index.core.vector_stores.types import VectorStoreQueryMode
from pymilvus import DataType, MilvusClient

from splade_integrations.cli import milvus_store
from splade_integrations.cli.app import run
from splade_integrations.langchain import SpladeSparseEmbedding, hybrid_milvus
from splade_integrations.llama_index import HybridMilvusVectorStore
from splade_integrations.llama_index import SpladeSparseEmbedding as LlamaSparse
from splade_integrations.milvus import opening
from splade_integrations.milvus.opening import Opening
from tests.support.adapters import DIM, HashEmbeddings

ROWS = [
    {"_id": "cat", "title": "Cats", "text": "They purr, and sleep all day.", "year": 1999, "tags": ["pet"]},
    {"_id": "dog", "text": "Dogs bark at the postman.", "year": 2004, "tags": ["pet", "loud"], "by": {"name": "Ada"}},
    {"_id": "bird", "text": "Birds sing in the morning.", "year": 2010, "text_id": 7, "a key": "x"},
]
ODD_IDS = [
    "it's", 'say "x"', "back\\slash", "\\", "'", '"', "\\n", "tab\t", "line\nbreak", "cr\r", "nul\x00", "\x01\x1b\x7f",
    " spaces ", "%_", "naïve 😀\u2028\u0085", "[1]", "{x}", 'id in ["cat"]',
]  # fmt: skip


pytestmark = pytest.mark.usefixtures("models_load_once")


@pytest.fixture
def index(place, tmp_path, model_folder, capsys):
    """Index rows, and return the exit code, what was printed as JSON, and stderr."""

    def index(rows, *options, code=0):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert run(["index", str(path), "-m", model_folder, *place.options, "--json", *options]) == code
        out, err = capsys.readouterr()
        return json.loads(out) if code == 0 else err

    return index


@pytest.fixture
def found(place, capsys):
    """Search, and return {id: metadata} of the hits."""

    def found(query, *options):
        assert run(["search", query, *place.options, "--json", "-k", "50", *options]) == 0
        return {hit["id"]: hit["metadata"] for hit in json.loads(capsys.readouterr().out)}

    return found


def without(row, *names):
    return {name: value for name, value in row.items() if name not in ("_id", "text", *names)}


def test_all_fields_become_metadata_to_filter_by_and_to_print(place, index, found, capsys):
    index(ROWS)
    everything = "purr bark sing"
    assert found(everything) == {row["_id"]: without(row) for row in ROWS}
    assert found(everything, "--filter", "year > 2000").keys() == {"dog", "bird"}
    assert found(everything, "--filter", 'json_contains(tags, "loud")').keys() == {"dog"}
    assert found(everything, "--filter", 'metadata["by"]["name"] == "Ada"').keys() == {"dog"}
    assert found(everything, "--filter", 'metadata["a key"] == "x"').keys() == {"bird"}
    capsys.readouterr()
    for options in ([], ["--explain"]):
        assert run(["search", "who barks", *place.options, "-k", "1", *options]) == 0
        assert "year: 2004" in " ".join(capsys.readouterr().out.split())


def test_keep_chooses_the_metadata_and_belongs_to_the_collection(index, found):
    index(ROWS[:2], "--keep", "year, by")
    assert found("purr bark") == {"cat": {"year": 1999}, "dog": {"year": 2004, "by": {"name": "Ada"}}}
    assert "was made ('by,year'), got not given" in index(ROWS, "--resume", code=2)
    assert index(ROWS, "--resume", "--keep", "year,by")["added"] == 1
    assert found("sing")["bird"] == {"year": 2010}
    index(ROWS, "--replace", "--keep", "")
    assert found("sing")["bird"] == {}
    err = index(ROWS, "--replace", "--keep", "yaer", code=2)
    assert "no record has a value for 'yaer', got the fields _id, text, year" in err
    assert found("sing")["bird"] == {}


def test_a_filter_can_use_the_id(place, index, found, model_folder, tmp_path):
    index(ROWS)
    assert found("purr bark sing", "--filter", 'id != "dog"').keys() == {"cat", "bird"}
    assert found("purr bark sing", "--filter", 'year > 2000 and id in ["cat", "bird"]').keys() == {"bird"}
    place.ask("drop_collection", place.name)
    store = hybrid_milvus(
        DeterministicFakeEmbedding(size=8), SpladeSparseEmbedding(model_name=model_folder), uri=place.uri,
        collection_name=place.name, consistency_level="Strong",
    )  # fmt: skip
    store.add_texts(["id bark", "id purr"], [{"id": 1}, {"id": 2}], ids=["dog", "cat"])
    sparse = ["--mode", "sparse"]
    assert found("bark purr", *sparse, "--filter", 'id == "dog"').keys() == {"dog"}
    assert found("bark purr", *sparse, "--filter", 'metadata["id"] == 2').keys() == {"cat"}


def test_odd_ids_resume(index, found):
    rows = [{"id": key, "text": f"birds {number}"} for number, key in enumerate(ODD_IDS)]
    assert index(rows[:-1])["added"] == len(rows) - 1
    again = index(rows, "--resume")
    assert (again["added"], again["already_there"]) == (1, len(rows) - 1)
    assert found("birds").keys() == set(ODD_IDS)
    for key in ODD_IDS[:5]:
        assert found("birds", "--filter", f"id == {json.dumps(key)}").keys() == {key}


class TestAFailedRun:
    def test_leaves_no_collection_if_nothing_was_stored(self, place, index, monkeypatch):
        def fails(*_, **__):
            raise OSError("the disk is full.")

        for owner, method in ((milvus_store.Store, "add"), (Opening, "load")):
            with monkeypatch.context() as patch:
                patch.setattr(owner, method, fails)
                err = index(ROWS, code=2)
                assert "the disk is full." in err
                assert not place.ask("has_collection", place.name)
        assert index(ROWS)["added"] == 3

    def test_ctrl_c_before_the_first_document(self, place, index, monkeypatch):
        def interrupted(*_, **__):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(milvus_store.Store, "add", interrupted)
            assert "interrupted; nothing was stored." in index(ROWS, code=130)
            patch.setattr("splade_integrations.cli.loading.load_encoder", interrupted)
            assert f"interrupted; 0 documents were added to {place.name!r} of" in index(ROWS, code=130)
        assert not place.ask("has_collection", place.name)

    def test_a_broken_line_is_found_before_anything_is_stored_or_dropped(self, place, index, found):
        index(ROWS)
        assert "line 2: must have the text under 'text'" in index([ROWS[0], {"_id": "x"}], "--replace", code=2)
        assert found("bark purr sing").keys() == {"cat", "dog", "bird"}

    @pytest.mark.parametrize("stage", ["record", "create_index", "load_collection"])
    def test_a_kill_during_the_creation_leaves_what_resume_completes(self, place, index, found, monkeypatch, stage):
        class Killed(BaseException):
            """Stands for a kill, after which nothing can be cleaned up."""

        def killed(*_, **__):
            raise Killed

        do = Opening._do

        def dies(self, method, **arguments):
            return killed() if method in (stage, "drop_collection") else do(self, method, **arguments)

        with monkeypatch.context() as patch:
            patch.setattr(Opening, "_do", dies)
            if stage == "record":
                patch.setattr(opening, "record", killed)
            with pytest.raises(Killed):
                index(ROWS)
        assert place.ask("has_collection", place.name)
        assert "Add to it with --resume" in index(ROWS, code=2)
        assert index(ROWS, "--resume")["added"] == 3
        assert found("who barks").keys() >= {"dog"}
        assert sorted(place.ask("list_indexes", place.name)) == ["_doc_id", "sparse"]
        assert "continued with the models" in index(ROWS, "--resume", "--max-length", "32", code=2)


def test_replace_drops_nothing_that_was_not_named(place, index, found):
    index(ROWS)
    alias = f"{place.name}_alias"
    place.ask("create_alias", place.name, alias)
    try:
        err = index(ROWS[:1], "-c", alias, "--replace", code=2)
        assert f"got '{alias}', which is an alias of '{place.name}'" in err
        assert place.ask("describe_collection", alias)["collection_name"] == place.name
        assert found("purr bark sing").keys() == {"cat", "dog", "bird"}
        assert index(ROWS[:1], "-c", alias, "--resume")["already_there"] == 1
    finally:
        place.ask("drop_alias", alias)
    assert index(ROWS[:1], "--replace")["added"] == 1
    assert found("purr bark sing").keys() == {"cat"}


def test_a_database_of_its_own(place, index, found, capsys):
    database = f"splade_{uuid.uuid4().hex}"
    place.ask("create_database", database)
    there = ["--db-name", database]
    try:
        index(ROWS, *there)
        assert not place.ask("has_collection", place.name)
        assert found("purr bark sing", *there).keys() == {"cat", "dog", "bird"}
        assert run(["info", *place.options, *there, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["documents"] == 3
        assert run(["search", "a", *place.options]) == 2
        assert f"the collection '{place.name}' must be in {place.uri}" in capsys.readouterr().err
        place.ask("drop_collection", place.name, db_name=database)
        assert run(["search", "a", *place.options, *there]) == 2
        assert f"must be in the database '{database}' of {place.uri}" in capsys.readouterr().err
        assert "database 'nowhere' does not exist" in index(ROWS, "--db-name", "nowhere", code=2)
    finally:
        place.ask("drop_collection", place.name, db_name=database)
        place.ask("drop_database", database)


def test_it_opens_in_both_stores_with_stable_ids(place, index, model_folder):
    index(ROWS, "--bm25")
    where = {"uri": place.uri, "collection_name": place.name, "bm25": True}
    lang = hybrid_milvus(None, SpladeSparseEmbedding(model_name=model_folder), **where)
    llama = HybridMilvusVectorStore(
        sparse_embedding_function=LlamaSparse(model_name=model_folder), enable_dense=False, **where
    )
    expected = {row["_id"]: (row["text"], without(row)) for row in ROWS[1:]}
    for _ in range(2):
        for mode in ("hybrid", "sparse"):
            documents = lang.similarity_search("bark sing", mode=mode, filter={"year": {"$gt": 2000}})
            assert {one.id: (one.page_content, one.metadata) for one in documents} == expected
            query = VectorStoreQuery(
                query_str="bark sing", mode=VectorStoreQueryMode(mode), similarity_top_k=3,
                filters=MetadataFilters(filters=[MetadataFilter(key="year", value=2000, operator=">")]),
            )  # fmt: skip
            nodes = llama.query(query).nodes
            assert {node.node_id: (node.text, node.metadata) for node in nodes} == expected
    assert [one.id for one in lang.get_by_ids(["dog", "cat"])] == ["dog", "cat"]
    assert [node.node_id for node in llama.get_nodes(["dog"])] == ["dog"]
    lang.add_texts(["Bees hum."], [{"year": 2020}], ids=["bee"])
    llama.delete_nodes(["dog"])
    assert {one.id for one in lang.iterate()} == {"cat", "bird", "bee"}


def test_llama_index_adds_nodes_and_deletes_documents(place, index, found, model_folder):
    long = "Owls hunt at night. " * 80
    index([*ROWS, {"_id": "owl", "text": long, "doc_id": 7}], "--chunk", "--max-length", "128")
    chunks = {key for key in found("owls hunt") if key.startswith("owl#")}
    assert len(chunks) > 1
    store = HybridMilvusVectorStore(
        uri=place.uri, collection_name=place.name, enable_dense=False,
        sparse_embedding_function=LlamaSparse(model_name=model_folder, max_length=128),
    )  # fmt: skip
    asked = VectorStoreQuery(query_str="owls", mode=VectorStoreQueryMode.SPARSE, doc_ids=["owl"], similarity_top_k=50)
    nodes = store.query(asked).nodes
    assert {(node.node_id, node.ref_doc_id, node.metadata["doc_id"]) for node in nodes} == {
        (key, "owl", 7) for key in chunks
    }
    added = TextNode(id_="bee", text="Bees hum.", metadata={"year": 2020})
    added.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id="insects")
    store.add([added])
    [read] = store.get_nodes(["bee"])
    assert (read.text, read.metadata, read.ref_doc_id) == ("Bees hum.", {"year": 2020}, "insects")
    store.delete("owl")
    assert found("owls bees bark purr sing").keys() == {"cat#0", "dog#0", "bird#0", "bee"}


def test_a_filter_that_takes_a_key_for_the_id_is_said(place, index, model_folder, caplog):
    index(ROWS)
    where = {"uri": place.uri, "collection_name": place.name}
    llama = HybridMilvusVectorStore(
        sparse_embedding_function=LlamaSparse(model_name=model_folder), enable_dense=False, **where
    )
    lang = hybrid_milvus(None, SpladeSparseEmbedding(model_name=model_folder), **where)
    for _ in range(2):  # the warning for each key comes only once
        filters = MetadataFilters(filters=[MetadataFilter(key=key, value="dog") for key in ("pk", "year")])
        asked = VectorStoreQuery(query_str="bark", mode=VectorStoreQueryMode.SPARSE, filters=filters)
        assert llama.query(asked).nodes == []
        assert lang.similarity_search("bark", filter={"id": "dog"}) == []
        assert lang.similarity_search("bark", expr='pk == "dog"') == []
    keys = [record.args[0] for record in caplog.records if record.name == "splade_integrations.milvus.fetching"]
    assert sorted(keys) == ["id", "pk", "pk"]
    assert "The documents' ids are in the field 'id'" in caplog.text
    caplog.clear()
    assert [one.id for one in lang.similarity_search("bark", expr='id == "dog"')] == ["dog"]
    lang.add_texts(["Bees hum."], [{"pk": "queen"}], ids=["bee"])
    store = hybrid_milvus(None, SpladeSparseEmbedding(model_name=model_folder), **where)
    assert [one.id for one in store.similarity_search("bees", filter={"pk": "queen"})] == ["bee"]
    assert not caplog.records


class TestCollectionsOfOthers:
    """`splade info`, `splade search` and `splade evaluate --write` open every collection that the stores open."""

    DENSE = HashEmbeddings()

    @pytest.fixture(params=["our LlamaIndex store", "our LangChain store", "plain pymilvus"])
    def other(self, request, place, model_folder):
        """Make a collection of dense and SPLADE vectors, and return the options that its fields need."""
        texts = {row["_id"]: row["text"] for row in ROWS}
        if request.param == "our LlamaIndex store":
            store = HybridMilvusVectorStore(
                uri=place.uri, collection_name=place.name, dim=DIM,
                sparse_embedding_function=LlamaSparse(model_name=model_folder),
            )  # fmt: skip
            store.add([
                TextNode(id_=key, text=text, embedding=self.DENSE.embed_query(text)) for key, text in texts.items()
            ])  # fmt: skip
            store.client.close()
            return []
        sparse = SpladeSparseEmbedding(model_name=model_folder)
        if request.param == "our LangChain store":
            names = {"text_field": "page", "vector_field": ["one", "two"], "metadata_fields": {"kind": str}}
            store = hybrid_milvus(self.DENSE, sparse, uri=place.uri, collection_name=place.name, **names)
            store.add_texts(list(texts.values()), [{"kind": "animal"}] * 3, ids=list(texts))
            store.client.close()
            return ["--fields", "text=page"]
        schema = MilvusClient.create_schema()
        schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=99)
        schema.add_field("body", DataType.VARCHAR, max_length=9999)
        schema.add_field("vec", DataType.FLOAT_VECTOR, dim=DIM)
        schema.add_field("terms", DataType.SPARSE_FLOAT_VECTOR)
        indexes = MilvusClient.prepare_index_params()
        indexes.add_index("vec", index_type="FLAT", metric_type="COSINE")
        indexes.add_index("terms", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
        rows = [
            {"key": key, "body": text, "vec": self.DENSE.embed_query(text), "terms": sparse.embed_documents([text])[0]}
            for key, text in texts.items()
        ]
        place.ask("create_collection", place.name, None, "id", "int", "vector", "COSINE", False, None, schema, indexes)
        place.ask("insert", place.name, rows)
        return []

    def test_info_search_and_fit(self, place, other, found, model_folder, tmp_path, capsys):
        if other:
            assert run(["info", *place.options]) == 2
            assert "text field, got page and kind. The collection's fields are" in capsys.readouterr().err
        assert run(["info", *place.options, *other, "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["documents"] == 3
        assert facts["text_field"] in ("text", "page", "body")
        assert "in the field" in facts["sparse_side"]
        assert "COSINE" in facts["dense_side"]
        model = ["-m", model_folder]
        assert next(iter(found("who barks", *other, *model))) == "dog"
        assert run(["search", "who barks", *place.options, *other, *model, "-k", "1", "--explain"]) == 0
        assert "bark" in capsys.readouterr().out
        for name, rows in {
            "corpus": [{"_id": row["_id"], "text": row["text"]} for row in ROWS],
            "queries": [{"_id": str(n), "text": text} for n, text in enumerate(["bark", "purr", "sing"] * 14)],
        }.items():
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        judged = "".join(f"{n}\t{key}\t1\n" for n, key in enumerate(["dog", "cat", "bird"] * 14))
        (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
        command = ["evaluate", str(tmp_path), "--fit", "--write", place.uri, "-c", place.name, "-m", model_folder]
        assert run([*command, "--dense", "none", *other]) == 0
        capsys.readouterr()
        assert run(["info", *place.options, *other, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["fusion"] == "sparse"


def test_only_scores_of_splade_are_explained(place, index, capsys):
    index(ROWS, "--bm25")
    ask = ["search", "who barks", *place.options, "--explain"]
    assert run([*ask, "--mode", "bm25"]) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert "got a search by bm25. Give --mode sparse" in err
    assert run([*ask, "--mode", "hybrid"]) == 0
    assert "bm25 " in capsys.readouterr().out
