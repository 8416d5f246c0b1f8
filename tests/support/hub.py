"""A model hub on this machine with one repository. It answers only what huggingface_hub and transformers ask for."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from huggingface_hub import constants

__all__ = ["COMMIT", "hub_at", "model_hub"]

COMMIT = "a" * 40


@contextmanager
def model_hub(name: str, folder: Path) -> Iterator[str]:
    """Serve a folder as the repository `name`, and yield the hub's address. At the end, the hub is gone."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(self._content(self.path.partition("?")[0]))

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

        def _content(self, path: str) -> bytes | None:
            if path.startswith(f"/{name}/resolve/"):
                file = folder / path.split("/", 5)[5]
                return file.read_bytes() if file.is_file() else None
            files = [file for file in folder.iterdir() if file.is_file()]
            if path.startswith(f"/api/models/{name}/tree"):
                entries = [{"type": "file", "path": file.name, "size": 1, "oid": "x"} for file in files]
                return json.dumps(entries).encode()
            siblings = [{"rfilename": file.name} for file in files]
            return json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode()

        def _answer(self, content: bytes | None) -> None:
            self.send_response(404 if content is None else 200)
            if content is None:
                self.send_header("X-Error-Code", "EntryNotFound")
            content = content or b""
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def hub_at(address: str, monkeypatch: object) -> None:
    """Let huggingface_hub ask the hub at an address."""
    set_to = monkeypatch.setattr  # type: ignore[attr-defined]
    set_to(constants, "ENDPOINT", address)
    set_to(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    set_to(constants, "HF_HUB_OFFLINE", False)
