"""Search some docstrings of Python's standard library with LangChain and the two small models of `make demo`.

python examples/langchain_hybrid.py ["your question"]
"""

import sys
import tempfile

from langchain_core.documents import Document
from langchain_huggingface import HuggingFaceEmbeddings
from side_by_side import MODULES, read_slice

from splade_integrations.langchain import HybridMilvus, SpladeSparseEmbedding, hybrid_milvus
from splade_integrations.models.offline import dense_model_path, splade_model_path

QUESTION = "decode Ascii85"


def build_store(uri: str) -> HybridMilvus:
    """Return a store that holds the docstrings of `MODULES`."""
    store = hybrid_milvus(
        HuggingFaceEmbeddings(model_name=dense_model_path()),  # or "sentence-transformers/all-MiniLM-L6-v2"
        SpladeSparseEmbedding(model_name=splade_model_path(), max_length=256),  # or "prithivida/Splade_PP_en_v2"
        uri=uri,  # for a server, "http://localhost:19530" and token="user:password"
        consistency_level="Strong",  # so that a search on a server finds every earlier write, as in milvus-lite
    )
    store.add_documents(
        [Document(entry.page, id=entry.name, metadata={"module": entry.module}) for entry in read_slice()]
    )
    return store


def main(question: str) -> None:
    """Search with dense vectors, with SPLADE and with both. Then search only the docstrings of the module base64."""
    with tempfile.TemporaryDirectory() as folder:
        store = build_store(f"{folder}/langchain.db")
        print(f"{question!r} among {', '.join(MODULES)}")
        for mode in ("dense", "sparse", "hybrid"):
            retriever = store.as_retriever(search_kwargs={"k": 3, "mode": mode})
            print(f"  {mode:7}", *(document.id for document in retriever.invoke(question)))
        # The filter applies to the dense and to the sparse search.
        retriever = store.as_retriever(search_kwargs={"k": 3, "expr": 'module == "base64"'})
        print("  in base64 alone:", *(document.id for document in retriever.invoke(question)))


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or QUESTION)
