"""No public name, method or parameter disappears or changes its place, because users' programs rely on them.

A test that fails here says what a change breaks. Add new names to the lists. Remove a name only in a release that says
so in CHANGELOG.md.
"""

import importlib
import inspect

import pytest

from splade_integrations import RemoteEncoder, SpladeEncoder
from splade_integrations.langchain import HybridMilvus, hybrid_milvus
from splade_integrations.llama_index import HybridMilvusVectorStore
from splade_integrations.milvus import SpladeEmbeddingFunction

NAMES = {
    "splade_integrations": "Fusion OptionalDependencyError Pruning RemoteEncoder SparseTextEncoder SpladeEncoder "
    "UnsupportedModelError to_dicts __version__",
    "splade_integrations.langchain": "HybridMilvus SpladeSparseEmbedding hybrid_milvus",
    "splade_integrations.llama_index": "HybridMilvusVectorStore SpladeSparseEmbedding",
    "splade_integrations.milvus": "SpladeEmbeddingFunction SparseRows",
    "splade_integrations.evaluation": "Bm25 Comparison Dataset DatasetError Dense Splade evaluate load_dataset "
    "load_dense",
    "splade_integrations.errors": "NotFiniteError OptionalDependencyError UnsupportedModelError",
    "splade_integrations.options": "EncoderOptions LongDocuments",
    "splade_integrations.records": "Folder Record RecordError Records",
    "splade_integrations.models.offline": "dense_model_path splade_model_path",
}
MEMBERS = {
    SpladeEncoder: "backend decode device dtype encode_documents encode_documents_with_dense encode_queries "
    "encode_queries_with_dense explain explain_stored fingerprint stream_documents tokenizer",
    RemoteEncoder: "aencode_documents aencode_queries dim encode_documents encode_queries fingerprint max_length "
    "model_name stream_documents",
    SpladeEmbeddingFunction: "device dim doc_instruction encode_documents encode_queries k_tokens_document "
    "k_tokens_query model_name query_instruction",
    HybridMilvus: "aadd_texts add_embeddings add_texts aupsert as_retriever client collection_name delete fusion "
    "iterate similarity_search similarity_search_many similarity_search_with_score upsert",
}
# In this order, because callers may pass the first ones by position.
PARAMETERS = {
    SpladeEncoder: "model_name device dtype backend max_length long_documents max_windows revision max_batch_tokens "
    "batch_size query_prompt document_prompt query_pruning document_pruning pooling_strategy activation_function "
    "special_terms lower_case cache_dir token local_files_only trust_remote_code",
    RemoteEncoder: "url dim query_prompt_name document_prompt_name headers timeout connect_timeout retries",
    SpladeEmbeddingFunction: "model_name batch_size query_instruction doc_instruction device k_tokens_query "
    "k_tokens_document",
    hybrid_milvus: "dense sparse bm25 uri token collection_name connection_args",
    HybridMilvusVectorStore: "uri token collection_name sparse_embedding_function dim enable_dense enable_sparse bm25",
}


@pytest.mark.parametrize("module", NAMES)
def test_names(module):
    assert [name for name in NAMES[module].split() if not hasattr(importlib.import_module(module), name)] == []


@pytest.mark.parametrize("owner", MEMBERS)
def test_members(owner):
    assert [name for name in MEMBERS[owner].split() if not hasattr(owner, name)] == []


@pytest.mark.parametrize("function", PARAMETERS)
def test_parameters(function):
    found = list(inspect.signature(function).parameters)
    expected = PARAMETERS[function].split()
    assert [name for name in found if name in expected] == expected
