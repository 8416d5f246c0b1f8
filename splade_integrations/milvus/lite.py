"""Open milvus-lite files with clients that take turns to write, and find milvus-lite's version and a file's address.

If a file cannot be opened, the error says why. Index files that were not written completely are built again. This
module needs pymilvus, but not LangChain, LlamaIndex or an encoder.
"""

import asyncio
import importlib.metadata
import logging
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from threading import RLock
from typing import Any

from splade_integrations.dependencies import check_installed, require_extra
from splade_integrations.errors import OptionalDependencyError

with require_extra("milvus", module=__name__):
    from pymilvus import AsyncMilvusClient, MilvusClient
    from pymilvus.exceptions import MilvusException

__all__ = [
    "AsyncLiteClient",
    "LiteClient",
    "address_for_processes",
    "cannot_open",
    "is_lite",
    "lite_version",
    "write_lock",
]

logger = logging.getLogger(__name__)

# With this option of pymilvus 3, each client has a connection of its own. Without it, clients with the same address
# share one. pymilvus 2 does not have the option. Its clients share a connection if they use the same alias.
_DEDICATED: dict[str, Any] = {} if importlib.metadata.version("pymilvus").startswith("2.") else {"dedicated": True}
# Two options of gRPC for milvus-lite files. The first gives each connection its own subchannel pool. With a shared
# pool, gRPC remembers for up to two minutes that an address did not answer. A new database may get the port of a closed
# database, and would then seem not to answer. The second option prevents keepalive pings. Without it, pymilvus 3 would
# send a ping every 10 seconds. After two minutes without a call, milvus-lite would treat these pings as abuse and close
# the connection, and gRPC would log an error.
_LITE_OPTIONS = (
    {"grpc_options": {"grpc.use_local_subchannel_pool": 1, "grpc.keepalive_time_ms": 2**31 - 1}} if _DEDICATED else {}
)
_write_locks: dict[str, Any] = {}
# Parts of messages about a lack of memory, disk or time. They are phrases, because a path may contain any single word,
# such as "space" in /workspace.
_OTHER_CAUSES = ("out of memory", "unable to allocate", "cannot allocate", "bad_alloc", "malloc of size",
                 "no space left", "retry timeout")  # fmt: skip
_UNEXPECTED = 1  # the code with which milvus-lite 3 reports, among other errors, a file that it cannot read


def lite_version(uri: str) -> str:
    """Return the installed version of milvus-lite if `uri` names a milvus-lite file, or "" if `uri` names a server.

    Raises:
        OptionalDependencyError: milvus-lite is not installed, or the installed version is known to compute wrong
            scores.
    """
    if "://" in uri and not uri.startswith("file:"):
        return ""
    try:
        version = importlib.metadata.version("milvus-lite")
    except importlib.metadata.PackageNotFoundError as err:
        raise OptionalDependencyError(
            f"The database file {uri!r} needs milvus-lite. Install it with: pip install 'splade-integrations[milvus]'."
        ) from err
    check_installed("milvus-lite")
    return version


def is_lite(uri: str) -> bool:
    """Return whether `uri` names a milvus-lite file rather than a server. Raises the errors of `lite_version`."""
    return lite_version(uri) != ""


def address_for_processes(uri: str) -> str:
    """Return the address at which all processes of this machine can reach a server or a milvus-lite file.

    Only one process can open a milvus-lite file. In that process, milvus-lite 3 runs a server for the file. For a file,
    this function returns the address of that server, which answers as long as the process lives.

    Args:
        uri: A milvus-lite file or a server.
    Raises:
        OSError: The file cannot be opened.
        ValueError: `uri` is a file, and the installed version is milvus-lite 2, which offers no address.
    """
    version = lite_version(uri)
    if not version:
        return uri
    if version.startswith("2."):
        raise ValueError(
            f"several processes can share only a Milvus server or a file of milvus-lite 3, got {uri!r} with "
            f"milvus-lite {version}. Install milvus-lite 3, or use a server."
        )
    from milvus_lite.server_manager import server_manager_instance

    address = server_manager_instance.start_and_get_uri(uri)
    if address is None:
        raise cannot_open(uri)
    return str(address)


def write_lock(uri: str) -> Any:
    """Return the reentrant lock for writing to a milvus-lite file or to a server.

    milvus-lite numbers its rows but does not lock the counter, so two threads that write could get the same number.
    Also, a flush of milvus-lite fails while another thread writes. Only one process can open a file, so a lock inside
    that process is enough. On a server, the lock prevents two threads of a process from creating the same collection.
    """
    key = os.path.realpath(uri) if is_lite(uri) else uri
    return _write_locks.setdefault(key, RLock())


def _in_turn(name: str) -> Callable[..., Any]:
    method = getattr(MilvusClient, name)

    @wraps(method)
    def call(self: "LiteClient", *args: Any, **kwargs: Any) -> Any:
        with self.writing:
            return method(self, *args, **kwargs)

    return call


def _with_whole_indexes(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return `method`, which loads a collection. If it fails, it deletes index files and tries again.

    milvus-lite 3 writes the index files of a segment after its data. If the process is killed or the disk is full in
    between, the latest file stays incomplete, and each later attempt to load the collection fails. The data are not
    affected, and loading builds the index files that do not exist.
    """

    @wraps(method)
    def call(self: "LiteClient", collection_name: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, collection_name, *args, **kwargs)
        except MilvusException as err:
            if not _may_be_damaged(err):
                raise
        with self.writing:  # so that another thread does not delete what this one builds
            for files in (slice(0), slice(1), slice(None)):  # no file, the latest file, all files
                deleted = self.delete_index_files(collection_name, files)
                try:
                    return method(self, collection_name, *args, **kwargs)
                except MilvusException as err:
                    if not _may_be_damaged(err) or (files.stop is None and not deleted):
                        raise
                    failed = err
        raise failed

    return call


def _may_be_damaged(err: MilvusException) -> bool:
    """Return whether an error of milvus-lite may mean that it cannot read a file."""
    message = str(err).lower()
    return err.code == _UNEXPECTED and not any(words in message for words in _OTHER_CAUSES)


def _in_thread(name: str) -> Callable[..., Any]:
    async def call(self: "AsyncLiteClient", *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(getattr(self.in_turn, name), *args, **kwargs)

    return wraps(getattr(AsyncMilvusClient, name))(call)


class LiteClient(MilvusClient):  # type: ignore[misc]  # pymilvus is untyped
    """A `MilvusClient` for a milvus-lite file. Before each write, it waits until no other client writes to the file.

    If index files cannot be read while a collection is loaded, they are built again.

    Args:
        **connection_args: The arguments of `MilvusClient`.
    """

    def __init__(self, **connection_args: Any) -> None:
        database = connection_args.get("db_name") or "default"
        self._collections = Path(os.path.realpath(connection_args["uri"]))
        if database != "default":
            self._collections /= f"databases/{database}"
        self.writing = write_lock(connection_args["uri"])
        super().__init__(**{**_LITE_OPTIONS, **connection_args, **_DEDICATED})

    insert, upsert, delete, flush = map(_in_turn, ("insert", "upsert", "delete", "flush"))
    create_collection, drop_collection = map(_in_turn, ("create_collection", "drop_collection"))
    load_collection = _with_whole_indexes(MilvusClient.load_collection)

    def delete_index_files(self, collection_name: str, which: slice) -> int:
        """Delete index files of a collection, and return their number. Loading the collection builds them again.

        Files that a snapshot lists are kept, because nothing would build them again.

        Args:
            collection_name: The collection's name, or an alias.
            which: The files to delete, out of all files from the latest to the oldest.
        """
        name = self.describe_collection(collection_name)["collection_name"]
        folder = self._collections / "collections" / name
        pinned = "".join(file.read_text("utf-8") for file in folder.glob("snapshots/metadata/*.json"))
        files = [file for file in folder.glob("partitions/*/indexes/*.*idx") if file.name not in pinned]
        chosen = sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True)[which]
        for file in chosen:
            logger.info("The index file %s may be incomplete, so it is built again.", file)
            file.unlink(missing_ok=True)
        return len(chosen)


class AsyncLiteClient(AsyncMilvusClient):  # type: ignore[misc]  # pymilvus is untyped
    """An `AsyncMilvusClient` for a milvus-lite file. It writes in a thread, through a `LiteClient`.

    Args:
        in_turn: The sync client that writes.
        **connection_args: The arguments of `AsyncMilvusClient`.
    """

    def __init__(self, in_turn: LiteClient, **connection_args: Any) -> None:
        self.in_turn = in_turn
        super().__init__(**{**_LITE_OPTIONS, **connection_args})

    insert, upsert, delete, flush = map(_in_thread, ("insert", "upsert", "delete", "flush"))
    load_collection = _in_thread("load_collection")


def cannot_open(uri: str) -> OSError:
    """Return an error that says why a milvus-lite file cannot be opened."""
    path = Path(uri)
    if path.suffix != ".db":
        found, advice = "a path with another ending", "Give a path that ends in .db"
    elif not path.parent.is_dir():
        found, advice = "a folder that does not exist", "Create the folder"
    elif path.is_file():
        found = "a file, but milvus-lite 3 keeps its database in a folder of that name"
        advice = "Give another path, or move the file away"
    elif not os.access(path if path.is_dir() else path.parent, os.W_OK):
        found, advice = "a folder that is not writable", "Give a path in a writable folder"
    else:
        found = "a path that cannot be opened, most likely because another process has it open"
        advice = "End the other process, or use a Milvus server, which several processes can share"
    return OSError(
        f"The milvus-lite database {uri!r} must be a path that ends in .db, in a writable folder, and not open in "
        f"another process, got {found}. {advice}."
    )
