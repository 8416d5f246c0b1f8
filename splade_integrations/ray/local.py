"""Connects to a Ray cluster, or starts a local Ray, which runs only on this machine.

Ray's messages and usage reports are turned off.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import ray
from ray.data import DataContext

from splade_integrations.errors import first_line

__all__ = ["OBJECT_STORE_BYTES", "connected", "on_this_machine"]

# The size of the object store of a local Ray in bytes. Batches wait there between two stages. Ray Data fills at most
# half of the store. By default, Ray would take 30 % of the machine's memory.
OBJECT_STORE_BYTES = 512 * 1024 * 1024

# The largest size in bytes of a block of rows. A task hands on a block when it is full, and a block goes to one actor.
# Ray's default is 128 MiB. So until a task has read 128 MiB of text, at most one actor would have work.
_BLOCK_BYTES = 4 * 1024 * 1024

# Ray reads these environment variables when it starts its processes.
_SETTINGS = {
    # Send no reports about the use of Ray.
    "RAY_USAGE_STATS_ENABLED": "0",
    # Hide GPUs from actors that reserve no GPU, so that these actors do not compute on GPUs.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    # Give workers the usual priority. With Ray's default, the niceness 15, a worker gets only 3 % of a core that it
    # shares with one busy process, such as a database on the same machine.
    "RAY_worker_niceness": "0",
}


@contextmanager
def connected(
    address: str | None = None, *, num_cpus: int | None = None, object_store_bytes: int = OBJECT_STORE_BYTES
) -> Iterator[None]:
    """Connect to Ray, and disconnect at the end. If the process is connected already, use that connection.

    A local Ray shows no dashboard, sends no usage report and is shut down at the end. Its workers have the same
    priority as other programs. For both a local Ray and a cluster, the output of the workers stays in Ray's log files.
    During the connection, Ray Data shows no progress bars, and new datasets have blocks of at most 4 MiB.

    Args:
        address: The address of a cluster, such as "ray-head:6379" or "auto". None starts Ray on this machine.
        num_cpus: The number of CPUs that a local Ray may use. None means all CPUs.
        object_store_bytes: The size of the object store of a local Ray.
    Raises:
        ConnectionError: There is no cluster at the address, or Ray failed twice in a row to start on this machine.
        ValueError: An address is given, but the process is connected already.
    """
    if address is not None and ray.is_initialized():
        raise ValueError(
            f"address must be None in a process that is connected to Ray already, got {address!r}. Leave it out to use "
            "that connection, or call ray.shutdown() first."
        )
    logger = logging.getLogger("ray.data")
    level = logger.level
    with _environment(_SETTINGS):
        starts = not ray.is_initialized()
        if starts and address is None:
            _start(num_cpus, object_store_bytes)
        elif starts:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    context = DataContext.get_current()
    before = context.enable_progress_bars, context.target_max_block_size
    context.enable_progress_bars, context.target_max_block_size = False, _BLOCK_BYTES
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        context.enable_progress_bars, context.target_max_block_size = before
        if starts:
            ray.shutdown()


def _start(num_cpus: int | None, object_store_bytes: int) -> None:
    """Start Ray on this machine. If Ray's processes do not answer within a time limit, try once more.

    Ray sets the limit to 30 s, and it cannot be changed. Ray can need more time on a machine that is busy with other
    work.
    """
    for tries_left in (1, 0):
        try:
            ray.init(
                num_cpus=num_cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=object_store_bytes,
            )
        except (TypeError, ValueError):  # an option is wrong: another try cannot help
            raise
        except Exception as error:  # Ray raises RuntimeError, TimeoutError or a plain Exception
            ray.shutdown()  # ends the processes that did start
            if not tries_left:
                raise ConnectionError(
                    f"Ray did not start on this machine: {first_line(error)} Try again when the machine is less busy, "
                    "or connect to a running cluster by its address. Ray's temporary folder has the log "
                    "files, in session_latest/logs."
                ) from error
        else:
            return


def on_this_machine() -> bool:
    """Return whether the connected Ray runs only on this machine."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return len(nodes) == 1 and nodes[0]["NodeID"] == ray.get_runtime_context().get_node_id()


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables that are not set yet, for the duration of the block."""
    new = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            with suppress(KeyError):
                del os.environ[name]
