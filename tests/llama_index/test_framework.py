"""Tests of the store through LlamaIndex itself: indexes, retrievers, query engines and ingestion."""

import asyncio

import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import ImageNode
from llama_index.core.storage.docstore import SimpleDocumentStore

from tests.llama_index.support import ANIMALS, MODES, all_of, ask, where
from tests.support.adapters import count

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning")


def index_of(store, dense, documents=None):
    context = StorageContext.from_defaults(vector_store=store)
    documents = documents or [
        Document(id_=f"{name}-book", text=text, metadata=meta) for name, (text, meta) in ANIMALS.items()
    ]
    return VectorStoreIndex.from_documents(documents, storage_context=context, embed_model=dense)


def test_vector_store_index_retriever_and_query_engine(store, dense):
    index = index_of(store, dense)
    for mode in [*MODES, "mmr"]:
        retriever = index.as_retriever(
            vector_store_query_mode=mode, similarity_top_k=4, filters=all_of(where("legs", 4))
        )
        found = retriever.retrieve("a dog that barks")
        assert {hit.node.ref_doc_id for hit in found} == {"cat-book", "dog-book"}
        assert asyncio.run(retriever.aretrieve("a dog that barks")) == found
    [best] = index.as_retriever(vector_store_query_mode="sparse", similarity_top_k=1).retrieve("a dog that barks")
    assert best.text == "Dogs bark at strangers."
    engine = index.as_query_engine(llm=MockLLM(), vector_store_query_mode="hybrid", similarity_top_k=2)
    assert len(engine.query("a dog that barks").source_nodes) == 2
    index.insert(Document(id_="whale-book", text="Whales dive deep."))
    index.delete_ref_doc("dog-book")
    assert count(store) == 4
    [best] = index.as_retriever(vector_store_query_mode="sparse", similarity_top_k=1).retrieve("diving whales")
    assert best.node.ref_doc_id == "whale-book"


def test_an_index_is_persisted_and_loaded_beside_the_store(store, dense, tmp_path):
    index_of(store, dense).storage_context.persist(str(tmp_path / "storage"))
    context = StorageContext.from_defaults(vector_store=store, persist_dir=str(tmp_path / "storage"))
    index = load_index_from_storage(context, embed_model=dense)
    [best] = index.as_retriever(vector_store_query_mode="sparse", similarity_top_k=1).retrieve("a dog that barks")
    assert best.node.ref_doc_id == "dog-book"


@pytest.mark.parametrize("mode", [*MODES, "mmr"])
def test_an_empty_question_is_no_error(store, dense, mode):
    """Such a question once failed with "object of type 'NoneType' has no len()"."""
    retriever = index_of(store, dense).as_retriever(vector_store_query_mode=mode)
    assert retriever.retrieve("") == asyncio.run(retriever.aretrieve("")) == []


@pytest.mark.parametrize("name", ["C:\\scans\\a.txt", "notes\\table.txt", "docs\\new.txt", "it's", 'say "hi"'])
def test_a_document_whose_id_is_a_path_is_updated_and_deleted(store, dense, name):
    index = index_of(store, dense, [Document(id_=name, text="Old words."), Document(id_="other", text="Others.")])
    index.update_ref_doc(Document(id_=name, text="New words."))
    assert sorted(one.text for one in store.get_nodes(filters=all_of())) == ["New words.", "Others."]
    index.refresh_ref_docs([Document(id_=name, text="Newer words.")])
    assert sorted(one.text for one in store.get_nodes(filters=all_of())) == ["Newer words.", "Others."]
    found = index.as_retriever(doc_ids=[name], vector_store_query_mode="hybrid").retrieve("words")
    assert [hit.text for hit in found] == ["Newer words."]
    index.delete_ref_doc(name)
    assert [one.text for one in store.get_nodes(filters=all_of())] == ["Others."]
    asyncio.run(index.adelete_ref_doc("other"))
    assert count(store) == 0


def test_nodes_of_an_index_are_deleted_by_id(store, dense):
    index = index_of(store, dense)
    [cat] = index.as_retriever(doc_ids=["cat-book"]).retrieve("cats")
    index.delete_nodes([])
    index.delete_nodes([cat.node_id])
    assert count(store) == 3


def test_ingestion_pipeline_leaves_no_duplicates(store, dense):
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(chunk_size=64, chunk_overlap=0), dense],
        vector_store=store,
        docstore=SimpleDocumentStore(),
        docstore_strategy=DocstoreStrategy.UPSERTS,
    )

    def documents(last):
        texts = ["Cats purr. " * 40, last]
        return [Document(id_=f"books\\{i}.txt", text=text) for i, text in enumerate(texts)]

    assert len(pipeline.run(documents=documents("Dogs bark."))) > 2
    rows = count(store)
    assert pipeline.run(documents=documents("Dogs bark.")) == []
    assert asyncio.run(pipeline.arun(documents=documents("Dogs bark."))) == []
    assert len(asyncio.run(pipeline.arun(documents=documents("Wolves howl.")))) == 1
    assert count(store) == rows
    found = store.query(ask("howling wolves", "sparse", k=rows)).nodes
    assert found[0].text == "Wolves howl."
    assert "Dogs bark." not in [one.text for one in found]


def test_one_hit_a_document_through_a_retriever(store, dense):
    splitter = SentenceSplitter(chunk_size=24, chunk_overlap=0)
    documents = [Document(id_=name, text=f"Dogs bark at {name}. " * 30) for name in "abc"]
    VectorStoreIndex(
        splitter.get_nodes_from_documents(documents),
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=dense,
    )
    index = VectorStoreIndex.from_vector_store(store, embed_model=dense)
    retriever = index.as_retriever(
        vector_store_query_mode="hybrid", similarity_top_k=3, vector_store_kwargs={"group_by": "doc_id"}
    )
    assert count(store) > 10
    assert sorted(hit.node.ref_doc_id for hit in retriever.retrieve("dogs that bark")) == ["a", "b", "c"]


def test_image_nodes_pass_through_an_index(store, dense):
    index = VectorStoreIndex([], storage_context=StorageContext.from_defaults(vector_store=store), embed_model=dense)
    index.insert_nodes([ImageNode(id_="picture", text="A dog barks.", image="aGVsbG8=")])
    [hit] = index.as_retriever(vector_store_query_mode="hybrid").retrieve("a dog")
    assert hit.node.image == "aGVsbG8="
