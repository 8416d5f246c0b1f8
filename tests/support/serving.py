"""Starts our server in a thread of the test process, or as a process of its own."""

import re
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from splade_integrations.serving.application import make_app
from splade_integrations.serving.server import listen


@contextmanager
def in_thread(app_or_encoder, limits=None):
    """Serve an encoder, or an ASGI application, on a free port, and yield the server's address."""
    app = make_app(app_or_encoder, limits) if hasattr(app_or_encoder, "encode_documents") else app_or_encoder
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
        listening.close()


def start_process(model, *options, port=0) -> tuple[subprocess.Popen, str]:
    """Run `splade serve`, wait until it listens, and return the process and its address."""
    command = [str(Path(sys.executable).parent / "splade"), "serve", "-m", str(model), "--port", str(port), *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    line = process.stderr.readline()
    return process, re.search(r"http://\S+", line)[0]


def raw_request(url, head, *chunks):
    """Send bytes to a server on a connection of its own, and return the socket."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.sendall(head)
    for chunk in chunks:
        connection.sendall(chunk)
    return connection
