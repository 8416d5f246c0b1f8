"""Writes encoded records to files: JSON lines and Parquet for Milvus, and .npz for scipy.

A file appears under its own name only when it is complete.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from splade_integrations.arrow import sparse_column, sparse_type
from splade_integrations.cli.blocks import Block
from splade_integrations.dependencies import require_extra
from splade_integrations.sparse import concatenate, to_dicts

__all__ = ["WRITERS", "WriteError", "Writer", "whole_file", "writer_of"]


class Writer(Protocol):
    """A function that writes blocks of encoded records to a file, and returns the number of records written."""

    def __call__(self, file: IO[bytes], blocks: Iterator[Block], *, keep_text: bool = False) -> int: ...


class WriteError(OSError):
    """A file could not be written. The message says why."""


@contextmanager
def whole_file(path: str) -> Iterator[IO[bytes]]:
    """Open a temporary file that is renamed to `path` at the end.

    After an error, the temporary file is deleted, and an older file at `path` is unchanged.

    Args:
        path: The name of the file, or "-" for standard output. Standard output and devices are written to directly,
            without a temporary file.
    Raises:
        WriteError: The file cannot be written, for example because the folder is not writable or the disk is full.
    """
    target = Path(path)
    try:
        if path == "-":
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
            return
        if target.exists() and not target.is_file():
            if target.is_dir():
                raise WriteError(f"{path} must be a file, but it is a folder. Name a file in that folder.")
            with target.open("wb") as file:  # a device or a pipe, which no temporary file can replace
                yield file
            return
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
        try:
            with open(handle, "wb") as file:  # noqa: PTH123  # Path cannot open a file descriptor
                yield file
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(target)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
    except BrokenPipeError:
        raise
    except OSError as err:
        if isinstance(err, WriteError) or err.errno is None:
            raise
        raise WriteError(
            f"{path} cannot be written: {os.strerror(err.errno)}. Nothing was kept. Free some space, allow writing "
            "there, or name another place with --output."
        ) from err


def write_jsonl(file: IO[bytes], blocks: Iterator[Block], *, keep_text: bool = False) -> int:
    """Write lines of {"id": …, "text": …, "sparse": {token id: weight}}, which `MilvusClient.insert` accepts."""
    count = 0
    for block in blocks:
        for position, terms in enumerate(to_dicts(block.weights)):
            row: dict[str, Any] = {"id": block.ids[position]}
            if keep_text:
                row["text"] = block.texts[position]
            # 9 significant digits restore a float32 exactly.
            row["sparse"] = {str(term): float(f"{weight:.9g}") for term, weight in terms.items()}
            file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
        count += len(block.ids)
    return count


def write_parquet(file: IO[bytes], blocks: Iterator[Block], *, keep_text: bool = False) -> int:
    """Write Parquet with the columns id, text and sparse for Milvus's bulk import. `sparse` has indices and values."""
    with require_extra("cli", module="Writing Parquet"):
        import pyarrow
        import pyarrow.parquet
    columns = {"id": pyarrow.string()} | ({"text": pyarrow.string()} if keep_text else {}) | {"sparse": sparse_type()}
    schema = pyarrow.schema(list(columns.items()))
    count = 0
    # Parquet can store each distinct value of a column once, in a dictionary. Only the token ids get a dictionary.
    # Equal weights are rare, so a dictionary of weights would only cost time. We do not use Arrow's default memory
    # pool, because it grows from block to block if other threads allocate memory between the blocks.
    pool, keyed = pyarrow.system_memory_pool(), ["sparse.indices.list.element"]
    with pyarrow.parquet.ParquetWriter(file, schema, use_dictionary=keyed, memory_pool=pool) as writer:
        for block in blocks:
            arrays = [pyarrow.array(block.ids, pyarrow.string(), memory_pool=pool)]
            if keep_text:
                texts = [text.encode("utf-8", "replace").decode() for text in block.texts]
                arrays.append(pyarrow.array(texts, pyarrow.string(), memory_pool=pool))
            arrays.append(sparse_column(block.weights))
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
            count += len(block.ids)
    return count


def write_npz(file: IO[bytes], blocks: Iterator[Block], *, keep_text: bool = False) -> int:
    """Write a matrix for `scipy.sparse.load_npz`. The ids are in `numpy.load(…)["ids"]`. All rows stay in memory."""
    if keep_text:
        raise ValueError(".npz cannot hold texts. Leave --keep-text out, or name an --output in .parquet or .jsonl.")
    ids: list[str] = []
    parts = []
    for block in blocks:
        ids += block.ids
        parts.append(block.weights)
    matrix = concatenate(parts, parts[0].shape[1] if parts else 0)
    np.savez_compressed(
        file,
        data=matrix.data,
        indices=matrix.indices,
        indptr=matrix.indptr,
        shape=np.array(matrix.shape),
        format=np.array(b"csr"),
        _is_array=np.array(True),
        ids=np.array(ids, dtype=np.str_),
    )
    return len(ids)


WRITERS: dict[str, Writer] = {
    ".jsonl": write_jsonl,
    ".parquet": write_parquet,
    ".npz": write_npz,
}


def writer_of(path: str) -> Writer:
    """Return the writer that fits the ending of a file's name. "-" is standard output, which gets JSON lines.

    Raises:
        ValueError: `WRITERS` has no writer for this ending.
    """
    suffix = ".jsonl" if path == "-" else Path(path).suffix.lower()
    if suffix not in WRITERS:
        raise ValueError(
            f"--output must end in {', '.join(WRITERS)}, or be - for JSON lines on stdout, got {path!r}. Name "
            "a file with one of these endings."
        )
    return WRITERS[suffix]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
