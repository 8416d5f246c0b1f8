"""Runs the web application on uvicorn until a signal comes. Then it answers the requests in progress, and stops."""

import socket
from typing import TYPE_CHECKING

from splade_integrations.dependencies import require_extra
from splade_integrations.serving.application import make_app
from splade_integrations.serving.requests import Limits

with require_extra("serve", module=__name__):
    import uvicorn

if TYPE_CHECKING:
    from splade_integrations.encoder import SpladeEncoder

__all__ = ["listen", "serve"]

# Connections beyond this number get the status 503. The number is large because most connections are idle: clients keep
# them open for later requests.
_MOST_CONNECTIONS = 4096
# When the server is asked to stop, requests in progress have this number of seconds to finish.
_GRACE_SECONDS = 30


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: A name or an address of this machine.
        port: The port, or 0 for any free port.
    Raises:
        OSError: The address is in use, or it is not an address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as err:
        raise OSError(
            f"{host}:{port} must be an address of this machine that is free, got an error: {err.strerror or err}. "
            "Choose another --port or --host."
        ) from err


def serve(encoder: "SpladeEncoder", listening: socket.socket, limits: Limits | None = None) -> None:
    """Serve an encoder until SIGINT or SIGTERM comes. Then answer the requests in progress, and stop.

    Args:
        encoder: The encoder.
        listening: The socket that `listen` returned. It is closed at the end.
        limits: The limits on requests.
    """
    config = uvicorn.Config(
        make_app(encoder, limits),
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[listening])
