"""Tests of docs/around-a-store.md: the frameworks have each trap that the page names, and its advice avoids the trap.

If a test of a trap fails with a new version of a framework, the trap is gone: remove its line from the page.
"""

import asyncio

import pytest
from langchain_core.documents import Document
from langchain_core.stores import InMemoryStore
from langchain_text_splitters import CharacterTextSplitter

from splade_integrations.langchain import SpladeSparseEmbedding, hybrid_milvus
from tests.support.adapters import DIM, HashEmbeddings, WordCounts

pytest.importorskip("llama_index.core")
pytest.importorskip("langchain_classic")
from langchain_classic.retrievers import EnsembleRetriever, ParentDocumentRetriever
from llama_index.core import Document as Source
from llama_index.core import VectorStoreIndex
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import TransformComponent
from llama_index.core.storage.docstore import SimpleDocumentStore

from splade_integrations.llama_index import HybridMilvusVectorStore
from splade_integrations.llama_index import SpladeSparseEmbedding as LlamaIndexSparse
from tests.llama_index.support import HashEmbedding, all_of


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "store.db")


@pytest.fixture
def store(uri):
    """Return a LlamaIndex store."""
    return HybridMilvusVectorStore(uri, dim=DIM, sparse_embedding_function=LlamaIndexSparse(encoder=WordCounts()))


@pytest.fixture
def chain(uri):
    """Return a LangChain store."""
    return hybrid_milvus(HashEmbeddings(), SpladeSparseEmbedding(encoder=WordCounts()), uri=uri)


def pipeline_into(store, strategy=None, **options):
    kept = {} if strategy is None else {"docstore": SimpleDocumentStore(), "docstore_strategy": strategy}
    transformations = [SentenceSplitter(chunk_size=64, chunk_overlap=0), HashEmbedding()]
    return IngestionPipeline(transformations=transformations, vector_store=store, **kept, **options)


def nodes_in(store):
    return store.get_nodes(filters=all_of())


def sources_in(store):
    return sorted(node.ref_doc_id for node in nodes_in(store))


def index_again(store, documents):
    """Index documents as the page recommends."""
    for document in documents:
        store.delete(document.id_)
    pipeline_into(store, disable_cache=True).run(documents=documents)


@pytest.mark.parametrize(("options", "stored"), [({}, ["draft"]), ({"disable_cache": True}, ["draft", "final"])])
def test_the_pipelines_cache_gives_another_documents_nodes(store, options, stored):
    pipeline = pipeline_into(store, **options)
    pipeline.run(documents=[Source(id_="draft", text="Same words.")])
    pipeline.run(documents=[Source(id_="final", text="Same words.")])
    assert sources_in(store) == stored


class First(TransformComponent):
    def __call__(self, nodes, **kwargs):
        return nodes


class Second(First):
    def __call__(self, nodes, **kwargs):
        for node in nodes:
            node.metadata["seen"] = True
        return nodes


@pytest.mark.parametrize("options", [{}, {"disable_cache": True}])
def test_the_pipelines_cache_skips_own_steps(options):
    pipeline = IngestionPipeline(transformations=[First(), Second()], **options)
    [node] = pipeline.run(documents=[Source(id_="a", text="Words.")])
    assert node.metadata.get("seen", False) is bool(options)


@pytest.mark.parametrize("strategy", [DocstoreStrategy.DUPLICATES_ONLY, DocstoreStrategy.UPSERTS])
def test_a_strategy_loses_documents_when_a_failed_run_is_repeated(store, monkeypatch, strategy):
    pipeline = pipeline_into(store, strategy, disable_cache=True)
    old, new = [Source(id_="a", text="Old words.")], [Source(id_="a", text="New words.")]
    pipeline.run(documents=old)
    assert sources_in(store) == ["a"]
    with monkeypatch.context() as patch:
        patch.setattr(HybridMilvusVectorStore, "add", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            pipeline.run(documents=new)
    again = new if strategy == DocstoreStrategy.DUPLICATES_ONLY else old
    assert pipeline.run(documents=again) == []
    expected = [] if strategy == DocstoreStrategy.UPSERTS else ["Old words."]
    assert [node.text for node in nodes_in(store)] == expected  # the text of the last run is not there
    for _ in range(2):
        index_again(store, new)
        assert [node.text for node in nodes_in(store)] == ["New words."]


def test_a_removed_twin_stays(store):
    pipeline = pipeline_into(store, DocstoreStrategy.UPSERTS_AND_DELETE, disable_cache=True)
    twins = [Source(id_="a", text="Same words."), Source(id_="b", text="Same words.")]
    other = Source(id_="c", text="Others.")
    pipeline.run(documents=[*twins, other])
    pipeline.run(documents=[other])
    assert sources_in(store) == ["a", "c"]
    store.delete("a")
    assert sources_in(store) == ["c"]


def test_ensemble_counts_each_copy_of_a_text(chain):
    chain.add_documents(
        [
            Document("the red lever resets the pump", id="answer", metadata={"key": "answer"}),
            *(Document("lever manual", id=f"footer{n}", metadata={"key": f"footer{n}"}) for n in range(3)),
        ]
    )
    retrievers = [chain.as_retriever(search_kwargs={"k": 4, "mode": "sparse"})] * 2
    question = "red lever pump"
    assert retrievers[0].invoke(question)[0].id == "answer"
    assert EnsembleRetriever(retrievers=retrievers).invoke(question)[0].id != "answer"
    by_key = EnsembleRetriever(retrievers=retrievers, id_key="key").invoke(question)
    assert by_key[0].id == "answer"
    assert len(by_key) == 4


def test_fusion_retriever_shares_one_query_vector(uri):
    class Other(HashEmbedding):
        def _get_text_embedding(self, text):
            return [-value for value in super()._get_text_embedding(text)]

    def retriever(model, name):
        store = HybridMilvusVectorStore(
            uri,
            collection_name=name,
            dim=DIM,
            sparse_embedding_function=LlamaIndexSparse(encoder=WordCounts()),
        )
        pipeline = IngestionPipeline(transformations=[model], vector_store=store)
        pipeline.run(documents=[Source(id_=text, text=text) for text in ("dog", "cat", "bird", "fish")])
        return VectorStoreIndex.from_vector_store(store, embed_model=model).as_retriever(similarity_top_k=1)

    retrievers = [retriever(HashEmbedding(), "first"), retriever(Other(), "second")]
    found = {}
    for use_async in (True, False):
        fusion = QueryFusionRetriever(
            retrievers, num_queries=1, mode="simple", similarity_top_k=2, use_async=use_async, llm=MockLLM()
        )
        found[use_async] = {hit.node.get_content() for hit in fusion.retrieve("dog")}
    assert found[True] == {"dog"}
    assert found[False] != {"dog"}


def test_a_similarity_cutoff_drops_every_score_of_a_fusion(store):
    pipeline_into(store).run(documents=[Source(id_="a", text="dogs bark")])
    index = VectorStoreIndex.from_vector_store(store, embed_model=HashEmbedding())
    hits = index.as_retriever(vector_store_query_mode="hybrid", similarity_top_k=1).retrieve("dogs bark")
    assert [hit.node.ref_doc_id for hit in hits] == ["a"]
    assert 0 < hits[0].score < 0.04
    assert SimilarityPostprocessor(similarity_cutoff=0.5).postprocess_nodes(hits) == []
    dense = index.as_retriever(similarity_top_k=1).retrieve("dogs bark")
    assert len(SimilarityPostprocessor(similarity_cutoff=0.5).postprocess_nodes(dense)) == 1


def test_parent_retriever_keeps_old_children(chain):
    retriever = ParentDocumentRetriever(
        vectorstore=chain,
        docstore=InMemoryStore(),
        child_splitter=CharacterTextSplitter(separator=".", chunk_size=20, chunk_overlap=0),
        search_kwargs={"mode": "sparse"},
    )
    retriever.add_documents([Document("Dogs are barking")], ids=["pets"])
    retriever.add_documents([Document("Only fish here")], ids=["pets"])
    assert retriever.invoke("barking")[0].page_content == "Only fish here"
    chain.delete(expr='doc_id == "pets"')
    retriever.add_documents([Document("Only fish here")], ids=["pets"])
    assert retriever.invoke("barking") == []
    assert retriever.invoke("fish")[0].page_content == "Only fish here"


def test_the_recipes_work_in_async_code(store):
    async def run():
        await store.adelete("a")
        return await pipeline_into(store, disable_cache=True).arun(documents=[Source(id_="a", text="Words.")])

    assert len(asyncio.run(run())) == 1
    assert sources_in(store) == ["a"]
