"""Runs the tests of the stores over the network, on the Milvus server at MILVUS_URI.

If MILVUS_URI is not set, this module starts milvus-lite's own server for the tests.

python -m tests.support.server [PYTEST ARGUMENT …]
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS_TO_START = 60


@contextmanager
def milvus_lite_server(data: Path | None = None) -> Iterator[str]:
    """Start milvus-lite's server in its own process, on a free port, and yield its address.

    Args:
        data: The folder of the collections. None means an empty folder.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, RestartedServer(data or folder) as server:
        yield server.uri


class RestartedServer:
    """milvus-lite's server in its own process, on a free port. It can be killed, and started again with its data."""

    def __init__(self, data: Path | str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._data = str(data)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(Path(sys.executable).with_name("milvus-lite")), "server", "--data-dir", self._data]
        command += ["--host", "127.0.0.1", "--port", str(self._port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _wait_for(self._port, self._process)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> "RestartedServer":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()


def _wait_for(port: int, server: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end and server.poll() is None:
        with socket.socket() as connection:
            if connection.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit(
        "milvus-lite's server must start, got no answer. Try by hand: milvus-lite server --data-dir folder"
    )


def main(arguments: list[str]) -> int:
    """Run the tests, and return pytest's exit status."""
    command = [sys.executable, "-m", "pytest", "-m", "server", *(arguments or ["--quiet", "tests"])]
    if os.environ.get("MILVUS_URI"):
        return subprocess.run(command).returncode
    with milvus_lite_server() as uri:
        return subprocess.run(command, env=os.environ | {"MILVUS_URI": uri}).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
