"""LlamaIndex: hybrid retrieval over a few of the standard library's docstrings, with the models of the demo.

python examples/llama_index_hybrid.py ["your question"]
"""

import sys
import tempfile

from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from side_by_side import MODULES, read_slice

from splade_integrations.llama_index import HybridMilvusVectorStore, SpladeSparseEmbedding
from splade_integrations.models.offline import dense_model_path, splade_model_path

QUESTION = "decode Ascii85"


def build_index(uri: str) -> VectorStoreIndex:
    """An index over the slice of the corpus, filled."""
    store = HybridMilvusVectorStore(
        uri,  # a server: "http://localhost:19530", and token="user:password"
        dim=384,
        sparse_embedding_function=SpladeSparseEmbedding(
            model_name=splade_model_path(),  # with a network: "prithivida/Splade_PP_en_v2"
            max_length=256,
        ),
        consistency_level="Strong",  # a server's reads then see every earlier write; milvus-lite's always do
    )
    return VectorStoreIndex(
        [TextNode(id_=entry.name, text=entry.page, metadata={"module": entry.module}) for entry in read_slice()],
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=HuggingFaceEmbedding(model_name=dense_model_path()),  # "sentence-transformers/all-MiniLM-L6-v2"
    )


def main(question: str) -> None:
    """Ask both sides, either one, and one module alone."""
    with tempfile.TemporaryDirectory() as folder:
        index = build_index(f"{folder}/llama_index.db")
        print(f"{question!r} among {', '.join(MODULES)}")
        for mode in ("default", "sparse", "hybrid"):  # default is dense
            retriever = index.as_retriever(vector_store_query_mode=mode, similarity_top_k=3)
            print(f"  {mode:7}", *(hit.node.node_id for hit in retriever.retrieve(question)))
        filters = MetadataFilters(filters=[MetadataFilter(key="module", value="base64")])  # binds both sides
        retriever = index.as_retriever(vector_store_query_mode="hybrid", similarity_top_k=3, filters=filters)
        print("  in base64 alone:", *(hit.node.node_id for hit in retriever.retrieve(question)))


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or QUESTION)
