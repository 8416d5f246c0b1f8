"""Cuts texts into chunks that fit into an encoder's maximum length."""

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING

from splade_integrations.dependencies import require_extra
from splade_integrations.records import Record, Split

if TYPE_CHECKING:
    from splade_integrations.encoder import SpladeEncoder
    from splade_integrations.evaluation.retrievers import DenseEncoder

__all__ = ["splitter"]

# The largest number of characters of a chunk. Milvus stores at most 65,535 bytes of a text, and a character has at most
# 4 bytes. A limit on tokens alone is not enough, because a tokenizer may turn a very long word into one unknown token.
_MOST_CHARACTERS = 16_383


def splitter(encoder: "SpladeEncoder", dense_encoder: "DenseEncoder | None" = None) -> Split:
    """Return a function that cuts a record's text where sections, paragraphs, sentences or words end.

    Each chunk is short enough for both the SPLADE model and the dense model. The SPLADE model's tokenizer counts the
    tokens. Chunks do not overlap, and white space around a chunk is left out. If the `path` in a record's metadata ends
    in .md, the text is cut at Markdown's sections.

    Args:
        encoder: The SPLADE encoder.
        dense_encoder: The dense model, if there is one.
    Raises:
        OptionalDependencyError: The package semantic-text-splitter is not installed.
        ValueError: The model's tokenizer is written in Python, so semantic-text-splitter cannot use it.
    """
    with require_extra("cli", module="--chunk"):
        from semantic_text_splitter import MarkdownSplitter, TextSplitter
    if not getattr(encoder.tokenizer, "is_fast", False):
        raise ValueError(
            f"--chunk must be used with a model that has a fast tokenizer, got {type(encoder.tokenizer).__name__}. Cut "
            "the texts beforehand, and leave --chunk out."
        )
    tokenizer = copy.deepcopy(encoder.tokenizer.backend_tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    prompt = len(tokenizer.encode(encoder.spec.document.prompt, add_special_tokens=False).ids)
    longest = min(encoder.max_length, getattr(dense_encoder, "max_length", None) or encoder.max_length)
    capacity = max(1, longest - encoder.tokenizer.num_special_tokens_to_add() - prompt)
    markdown, plain = (
        kind.from_huggingface_tokenizer(tokenizer, capacity) for kind in (MarkdownSplitter, TextSplitter)
    )

    def split(record: Record) -> Iterator[tuple[int, str]]:
        chosen = markdown if str(record.metadata.get("path", "")).lower().endswith(".md") else plain
        for start, chunk in chosen.chunk_indices(record.text.encode("utf-8", "replace").decode()):
            for offset in range(0, len(chunk), _MOST_CHARACTERS):
                yield start + offset, chunk[offset : offset + _MOST_CHARACTERS]

    return split
