"""Reads texts, their ids and their metadata from files and folders.

Only one text at a time is in memory, or 1 024 texts of a Parquet file. Every fault raises `RecordError`, which names
the file and the line, and says what to do. This package knows nothing about models and stores.
"""

from splade_integrations.records.chunks import Split, in_chunks
from splade_integrations.records.files import Format, Records, format_of
from splade_integrations.records.folder import DOCUMENT_ENDINGS, Folder
from splade_integrations.records.lines import numbered_lines
from splade_integrations.records.record import Record, RecordError

__all__ = [
    "DOCUMENT_ENDINGS",
    "Folder",
    "Format",
    "Record",
    "RecordError",
    "Records",
    "Split",
    "format_of",
    "in_chunks",
    "numbered_lines",
]
