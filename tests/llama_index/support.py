"""Nodes, queries and a dense model with meaningless vectors, for the tests of the LlamaIndex store."""

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import MetadataMode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from tests.support.adapters import unit_vector

MODES = ["default", "sparse", "text_search", "hybrid", "semantic_hybrid"]
ANIMALS = {
    "cat": ("Cats purr when they are content.", {"legs": 4, "home": True}),
    "dog": ("Dogs bark at strangers.", {"legs": 4}),
    "sparrow": ("Sparrows sing at dawn.", {"legs": 2, "colour": "brown"}),
    "spider": ("Spiders weave webs.", {"legs": 8}),
}


class HashEmbedding(BaseEmbedding):
    """A dense model with unit vectors that depend only on the text and have no meaning."""

    def _get_text_embedding(self, text):
        return unit_vector(text)

    _get_query_embedding = _get_text_embedding

    async def _aget_query_embedding(self, query):
        return self._get_text_embedding(query)


def embedded(made):
    """Return the node with its embedding set."""
    made.embedding = unit_vector(made.get_content(metadata_mode=MetadataMode.EMBED))
    return made


def node(id_, text, metadata=None, ref_doc_id=None, **fields):
    made = TextNode(id_=id_, text=text, metadata=metadata or {}, **fields)
    if ref_doc_id:
        made.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=ref_doc_id)
    return embedded(made)


def animals():
    return [node(name, text, metadata, ref_doc_id=f"{name}-book") for name, (text, metadata) in ANIMALS.items()]


def ask(text, mode="hybrid", k=4, **fields):
    fields = {"query_embedding": unit_vector(text), "query_str": text} | fields
    return VectorStoreQuery(mode=VectorStoreQueryMode(mode), similarity_top_k=k, **fields)


def where(key, value=None, operator="=="):
    return MetadataFilter(key=key, value=value, operator=FilterOperator(operator))


def all_of(*filters):
    return MetadataFilters(filters=list(filters))


def any_of(*filters):
    return MetadataFilters(filters=list(filters), condition=FilterCondition.OR)


def none_of(*filters):
    return MetadataFilters(filters=list(filters), condition=FilterCondition.NOT)
