"""Search some docstrings of Python's standard library with LlamaIndex and the two small models of `make demo`.

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
    """Return an index that holds the docstrings of `MODULES`."""
    store = HybridMilvusVectorStore(
        uri,  # for a server, "http://localhost:19530" and token="user:password"
        dim=384,
        sparse_embedding_function=SpladeSparseEmbedding(
            model_name=splade_model_path(),  # or "prithivida/Splade_PP_en_v2"
            max_length=256,
        ),
        consistency_level="Strong",  # so that a search on a server finds every earlier write, as in milvus-lite
    )
    return VectorStoreIndex(
        [TextNode(id_=entry.name, text=entry.page, metadata={"module": entry.module}) for entry in read_slice()],
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=HuggingFaceEmbedding(model_name=dense_model_path()),  # or a hub name, as in the README
    )


def main(question: str) -> None:
    """Search with dense vectors, with SPLADE and with both. Then search only the docstrings of the module base64."""
    with tempfile.TemporaryDirectory() as folder:
        index = build_index(f"{folder}/llama_index.db")
        print(f"{question!r} among {', '.join(MODULES)}")
        for mode in ("default", "sparse", "hybrid"):  # "default" searches with dense vectors
            retriever = index.as_retriever(vector_store_query_mode=mode, similarity_top_k=3)
            print(f"  {mode:7}", *(hit.node.node_id for hit in retriever.retrieve(question)))
        # The filter applies to the dense and to the sparse search.
        filters = MetadataFilters(filters=[MetadataFilter(key="module", value="base64")])
        retriever = index.as_retriever(vector_store_query_mode="hybrid", similarity_top_k=3, filters=filters)
        print("  in base64 alone:", *(hit.node.node_id for hit in retriever.retrieve(question)))


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or QUESTION)
