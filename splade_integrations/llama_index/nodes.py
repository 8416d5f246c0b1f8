"""Turns nodes into rows of a collection, and rows back into nodes, without loss."""

import json
from collections.abc import Mapping
from typing import Any

from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageDocument,
    ImageNode,
    IndexNode,
    MetadataMode,
    Node,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)

from splade_integrations.milvus.defaults import CONTENT_COLUMN, DOCUMENT_COLUMN, check_varchar
from splade_integrations.milvus.rows import Hit, Row
from splade_integrations.milvus.values import check_metadata

__all__ = ["NO_SOURCE", "SOURCE_KEYS", "node_of", "row_of", "source_of", "text_to_embed"]

# The key under which a row holds the name of the node's class. LlamaIndex's own stores use this key and
# `CONTENT_COLUMN` as well, so this module can read their nodes.
_TYPE_KEY = "_node_type"
# LlamaIndex's own stores write the source document's id under each of these keys, or the str "None" if a node has no
# source document.
NO_SOURCE = "None"
SOURCE_KEYS = ("document_id", "doc_id", "ref_doc_id")

_IN_OTHER_FIELDS: Any = {"embedding": True, "metadata": True, "text": True, "text_resource": {"text"}}

_RESOURCES = ("text_resource", "image_resource", "audio_resource", "video_resource")
_CLASSES: dict[str, type[BaseNode]] = {
    kind.class_name(): kind for kind in (TextNode, ImageNode, IndexNode, Node, Document, ImageDocument)
}


def row_of(
    node: BaseNode, doc_id_field: str, *, name: str = "node", needs_embedding: bool = True, in_json: bool = True
) -> Row:
    """Return a node as a row without a sparse embedding. Raise an error if the node could not be read back unchanged.

    Args:
        node: The node.
        doc_id_field: The column that holds the source document's id.
        name: The name of the node in error messages, such as "nodes[3]".
        needs_embedding: Whether the node must have a dense embedding.
        in_json: Whether the collection keeps metadata in one JSON field. If not, it keeps each metadata key in a
            separate field, and the row has the form that LlamaIndex's `MilvusVectorStore` writes.
    Raises:
        ValueError, TypeError: The node has no embedding, its text is too long, or it holds a value that JSON or a
            Milvus VARCHAR cannot hold. The message names the key.
    """
    name = f"{name} ({node.node_id!r})"
    if needs_embedding and node.embedding is None:
        raise ValueError(
            f"{name} must have an embedding, got None. Add the node through a VectorStoreIndex or an IngestionPipeline "
            "with an embedding model, or set node.embedding."
        )
    text = node.get_content(metadata_mode=MetadataMode.NONE)
    check_varchar(text, name, "Split its text: SentenceSplitter(chunk_size=256).")
    metadata = check_metadata(node.metadata, f"{name}.metadata")
    for relationship, related in node.relationships.items():
        for one in [related] if isinstance(related, RelatedNodeInfo) else related:
            if one.metadata:
                check_metadata(one.metadata, f"{name}.relationships[{relationship.name.lower()!r}].metadata")
    source = node.ref_doc_id or ""
    try:
        content = node.model_dump(mode="json", exclude=_IN_OTHER_FIELDS)
    except ValueError as err:
        raise ValueError(
            f"{name} must hold only values that JSON can hold, got a field that cannot be written: {err}. Set the "
            "field to None before adding the node."
        ) from err
    # Empty fields are left out, because pymilvus needs less time for a shorter text. When the node is read back, these
    # fields get the defaults of the node's class, which are also empty.
    content = {key: value for key, value in content.items() if key in _RESOURCES or value not in (None, [], {})}
    for field in _RESOURCES:  # model_dump leaves out the bytes of these fields
        if (resource := getattr(node, field, None)) is not None and resource.data is not None:
            content[field]["data"] = resource.data.decode()
    if not in_json:
        source, content["metadata"] = source or NO_SOURCE, metadata
        metadata = {key: value for key, value in metadata.items() if key not in SOURCE_KEYS}
        metadata |= {key: source for key in SOURCE_KEYS if key != doc_id_field}
        metadata[_TYPE_KEY] = node.class_name()
    kept = json.dumps(content, ensure_ascii=False)
    check_varchar(kept, f"the JSON of {name} without its text", "Store images by path or URL. Shorten the metadata.")
    return Row(
        id=node.node_id,
        text=text,
        metadata=metadata,
        dense=node.embedding,
        columns={doc_id_field: source, CONTENT_COLUMN: kept},
    )


def node_of(hit: Hit) -> BaseNode:
    """Return the node that a row was made from.

    A row that was not made from a node becomes a `TextNode` with the row's id. If `splade index` wrote the row, the
    node's source is the document that the row is a part of.
    """
    content = hit.columns.get(CONTENT_COLUMN)
    if not content:
        node = TextNode(id_=hit.id, text=hit.text, metadata=hit.metadata, embedding=hit.dense)
        if source := hit.columns.get(DOCUMENT_COLUMN):
            node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=source)
        return node
    fields = {"metadata": hit.metadata} | json.loads(content) | {"id_": hit.id, "embedding": hit.dense}
    if fields.get("text_resource") is not None:
        fields["text_resource"] = fields["text_resource"] | {"text": hit.text}
    elif "text_resource" not in fields:
        fields["text"] = hit.text
    return _CLASSES.get(fields.get("class_name", hit.metadata.get(_TYPE_KEY)), TextNode).from_dict(fields)


def text_to_embed(row: Mapping[str, Any], text_field: str) -> str:
    """Return the text that the store encodes for a stored node: the metadata, as the node formats it, and the text.

    If a row was not made from a node, for example if `splade index` wrote the row, return only the row's text.

    Args:
        row: {field or dynamic key: value}, from a collection of this store or of LlamaIndex's own store.
        text_field: The field that holds the node's text.
    """
    if not row.get(CONTENT_COLUMN):
        return str(row.get(text_field) or "")
    hit = Hit(
        id="",
        score=0.0,
        text=row.get(text_field) or "",
        metadata=dict(row.get("metadata") or {}),
        columns={CONTENT_COLUMN: row.get(CONTENT_COLUMN)},
    )
    return node_of(hit).get_content(metadata_mode=MetadataMode.EMBED)


def source_of(hit: Hit, doc_id_field: str) -> str | None:
    """Return the id of the source document of a row's node, or None if the node has no source document."""
    source = hit.columns.get(doc_id_field)
    # "None" may be the id of a source document, or may mean that there is no source document. The stored node shows
    # which of the two is true.
    if source == NO_SOURCE:
        return node_of(hit).ref_doc_id
    return str(source) if source else None
