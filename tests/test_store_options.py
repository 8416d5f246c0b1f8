"""docs/store-options.md lists all options and methods of the frameworks' own stores, and describes ours correctly."""

import inspect
import re
from pathlib import Path

import pytest

pytest.importorskip("pymilvus")

PAGE = (Path(__file__).parents[1] / "docs" / "store-options.md").read_text()
VERDICTS = {"same", "renamed", "refused"}


def table(heading):
    """Return the rows of the table under a heading, as {name: (verdict, remark)}."""
    section = re.search(rf"^### {re.escape(heading)}$(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ?(.*?) ?\|$", section[1], re.MULTILINE)
    assert len(rows) == len(re.findall(r"^\| `", section[1], re.MULTILINE)), "a row is not understood"
    assert {verdict for _, verdict, _ in rows} <= VERDICTS
    assert len(dict.fromkeys(name for name, *_ in rows)) == len(rows), "a name is listed twice"
    return {name: (verdict, remark) for name, verdict, remark in rows}


def options(cls):
    return set(inspect.signature(cls.__init__).parameters) - {"self"}


def methods(cls, *left_out):
    """Return the public names of a class, without its pydantic fields and the names in the classes `left_out`."""
    fields = set(getattr(cls, "model_fields", ()))
    others = {name for base in left_out for name in dir(base)}
    return {name for name in dir(cls) if not name.startswith("_")} - fields - others


def check(stock, ours, listed_options, listed_methods, *left_out):
    assert set(listed_options) == options(stock)
    assert set(listed_methods) == methods(stock, *left_out)
    for name, (verdict, remark) in listed_options.items():
        if verdict == "same" and name != "kwargs":
            assert name in options(ours), f"{name} is said to be the same"
        if verdict == "renamed":
            assert options(ours) & set(re.findall(r"`(\w+)`", remark)), f"{name}: no such option in {remark!r}"
        if verdict == "refused":
            assert name not in options(ours), f"{name} is said to be refused"
    for name, (verdict, remark) in listed_methods.items():
        if verdict == "same":
            assert hasattr(ours, name), f"{name} is said to be the same"
        if verdict == "renamed":
            assert any(hasattr(ours, word) for word in re.findall(r"`(\w+)`", remark)), f"{name}: {remark!r}"
        if verdict == "refused" and not name.startswith("from_"):
            assert not hasattr(ours, name), f"{name} is said to be refused"


@pytest.fixture(scope="module")
def llama_index_store():
    pytest.importorskip("llama_index.core")
    from splade_integrations.llama_index import HybridMilvusVectorStore

    return HybridMilvusVectorStore


def test_llama_index(llama_index_store):
    pydantic = pytest.importorskip("pydantic")
    stock = pytest.importorskip("llama_index.vector_stores.milvus").MilvusVectorStore
    check(
        stock,
        llama_index_store,
        table("Options of `MilvusVectorStore`"),
        table("Methods of `MilvusVectorStore`"),
        pydantic.BaseModel,
    )


def test_llama_index_queries(llama_index_store):
    from dataclasses import fields

    from llama_index.core.vector_stores.types import VectorStoreQuery

    from splade_integrations.llama_index.queries import KEYWORDS

    listed = table("Keywords of a query and fields of `VectorStoreQuery`")
    plain = {"query_embedding", "similarity_top_k", "query_str", "mode", "filters"}
    ours = {"fusion", "group_by", "reranker", "timeout"}
    of_query = {field.name for field in fields(VectorStoreQuery)}
    assert set(listed) >= (of_query - plain) | (set(KEYWORDS) - ours)
    for name, (verdict, _) in listed.items():
        if verdict == "same":
            assert name in of_query | set(KEYWORDS)
    stock = pytest.importorskip("llama_index.vector_stores.milvus.base")
    # The file is read, because inspect.getsource would parse it, and CPython 3.11 fails if objects are finalized during
    # parsing.
    read = set(re.findall(r'kwargs(?:\.get\(|\.pop\(|\[)"(\w+)"', Path(stock.__file__).read_text("utf-8")))
    assert {name for name in read if name.startswith(("milvus_", "mmr_", "string"))} <= set(listed) | {
        "milvus_partition_name"
    }


def test_llama_index_refuses_what_the_page_says(llama_index_store):
    from splade_integrations.llama_index.options import REFUSED

    refused = {name: remark for name, (verdict, remark) in table("Options of `MilvusVectorStore`").items()
               if verdict == "refused"}  # fmt: skip
    assert refused == REFUSED
    for name, reason in refused.items():
        with pytest.raises(TypeError, match=f"{name} must not be given, got None. Leave it out: {re.escape(reason)}"):
            llama_index_store("x.db", enable_dense=False, enable_sparse=False, **{name: None})


def test_langchain():
    from splade_integrations.langchain import HybridMilvus

    stock = pytest.importorskip("langchain_milvus").Milvus
    check(stock, HybridMilvus, table("Options of `Milvus`"), table("Methods of `Milvus`"))


def test_langchain_refuses_what_the_page_says():
    from langchain_core.embeddings import DeterministicFakeEmbedding

    from splade_integrations.langchain import HybridMilvus

    refused = [name for name, (verdict, _) in table("Options of `Milvus`").items() if verdict == "refused"]
    assert refused
    for name in refused:
        with pytest.raises(TypeError, match=f"got '{name}'"):
            HybridMilvus(DeterministicFakeEmbedding(size=8), uri="x.db", **{name: None})
