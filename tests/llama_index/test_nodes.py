"""Nodes of every class, with any metadata, are read back whole."""

import asyncio
import json

import pytest
from llama_index.core.schema import (
    Document,
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeRelationship,
    ObjectType,
    RelatedNodeInfo,
    TextNode,
)

from splade_integrations.llama_index.nodes import node_of, row_of, source_of, text_to_embed
from splade_integrations.milvus.rows import Hit
from tests.llama_index.support import all_of, ask, embedded, where

METADATA = {
    "z": 1,
    "a": 1.0,
    "true": True,
    "null": None,
    "list": [1, "b", [None, {"x": 0.5}]],
    "dict": {"k": {"deep": [True]}},
    "blank": "",
    "none": [],
    "big": 2**60 + 1,
    "year.month": "dotted",
    "with space": "spaced",
    'quote"d': 'it\'s\\n "so"',
    "日本": "naïve 😀",
    "id": "a key like any other",
    "text": "so is this",
    "doc_id": "mine",
    "_node_content": "{",
    "$meta": 1,
}


def related(name, kind=ObjectType.TEXT):
    return RelatedNodeInfo(node_id=name, node_type=kind, metadata={"page": 1}, hash="abc")


def nodes():
    text = TextNode(
        id_="text",
        text="Alan Turing\n\nwas born in London.",
        metadata=METADATA,
        excluded_embed_metadata_keys=["z"],
        excluded_llm_metadata_keys=["a", "true"],
        metadata_template="{key}={value}",
        metadata_separator="; ",
        text_template="{metadata_str} / {content}",
        start_char_idx=5,
        end_char_idx=50,
        mimetype="text/markdown",
        relationships={
            NodeRelationship.SOURCE: related("book", ObjectType.DOCUMENT),
            NodeRelationship.PREVIOUS: related("before"),
            NodeRelationship.NEXT: related("after"),
            NodeRelationship.PARENT: related("parent"),
            NodeRelationship.CHILD: [related("child 1"), related("child 2")],
        },
    )
    return [
        text,
        TextNode(id_="plain", text="plain"),
        Document(id_="document", text="A document.", metadata={"a": 1}),
        IndexNode(id_="index", text="An index node.", index_id="other", metadata={"a": 1}),
        ImageNode(id_="image", text="A caption.", image="aGVsbG8=", image_mimetype="image/png"),
        Node(
            id_="node",
            text_resource=MediaResource(text="A node.", mimetype="text/plain", url="https://example.org/a"),
            image_resource=MediaResource(data=b"aGVsbG8=", mimetype="image/png"),
        ),
    ]


@pytest.mark.parametrize("node", nodes(), ids=lambda node: node.node_id)
def test_a_node_comes_back_whole(store, node):
    store.add([embedded(node)])
    for found in (
        *store.get_nodes([node.node_id]),
        *asyncio.run(store.aget_nodes([node.node_id])),
        *store.query(ask("x", "default", k=1)).nodes,
        *asyncio.run(store.aquery(ask("x", "default", k=1))).nodes,
    ):
        assert type(found) is type(node)
        expected, got = node.model_dump(mode="json"), found.model_dump(mode="json")
        expected.pop("embedding"), got.pop("embedding")
        assert json.dumps(got) == json.dumps(expected), "the order of keys counts, too"
        assert found.hash == node.hash
        for mode in MetadataMode:
            assert found.get_content(mode) == node.get_content(mode)
        assert found.ref_doc_id == node.ref_doc_id
        assert found.relationships == node.relationships


def test_each_key_of_the_metadata_can_be_asked_for(store):
    store.add([embedded(node) for node in nodes()])
    for key, value in METADATA.items():
        if isinstance(value, str | int | float) and not isinstance(value, bool) and "$" not in key:
            assert "text" in store.query(ask("x", k=9, filters=all_of(where(key, value)))).ids, key


@pytest.mark.parametrize("in_json", [True, False])
def test_rows_and_nodes_agree_in_both_layouts(in_json):
    for node in nodes():
        row = row_of(node, "doc_id", in_json=in_json, needs_embedding=False)
        hit = Hit(id=row.id, score=0.0, text=row.text, metadata=dict(row.metadata), columns=dict(row.columns))
        assert node_of(hit) == node
        assert source_of(hit, "doc_id") == node.ref_doc_id
    assert row_of(nodes()[1], "doc_id", in_json=False, needs_embedding=False).columns["doc_id"] == "None"
    assert row_of(nodes()[0], "other", in_json=False, needs_embedding=False).metadata["doc_id"] == "book"


def test_what_json_cannot_hold_beside_the_metadata_names_the_node(store):
    bad = embedded(IndexNode(id_="bad", text="x", index_id="y"))
    bad.obj = object()
    with pytest.raises(ValueError, match=r"nodes\[0\] \('bad'\) must hold only values that JSON can hold, got a field"):
        store.add([bad])
    source = embedded(TextNode(id_="bad", text="x"))
    source.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id="s", metadata={"path": {1}})
    with pytest.raises(TypeError, match=r"nodes\[0\] \('bad'\)\.relationships\['source'\]\.metadata\['path'\] must be"):
        store.add([source])
    picture = embedded(ImageNode(id_="picture", text="x", image="x" * 70_000))
    with pytest.raises(
        ValueError, match=r"nodes\[0\] \('picture'\) without its text must be at most 65535 bytes .* by path or URL"
    ):
        store.add([picture])


@pytest.mark.parametrize("in_json", [True, False], ids=["our store", "LlamaIndex's store"])
@pytest.mark.parametrize("node", nodes()[:5], ids=lambda node: node.node_id)
def test_the_text_to_embed_is_the_nodes_own(node, in_json):
    if not in_json:
        node = node.model_copy(update={"metadata": {"z": 1, "a": 1.0, "list": [1, "b"]}})
    row = row_of(node, "doc_id", needs_embedding=False, in_json=in_json)
    stored = {"body": row.text, **row.columns, **({"metadata": row.metadata} if in_json else row.metadata)}
    assert text_to_embed(stored, "body") == node.get_content(metadata_mode=MetadataMode.EMBED)
