"""`splade serve`: serves a model over HTTP, so that one model in memory serves many processes."""

import logging
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import typer

from splade_integrations.cli.options import Model, ModelOptions

__all__ = ["serve"]


def serve(
    model: Model,
    host: Annotated[str, typer.Option(help="Address to listen on. 0.0.0.0 accepts requests from other machines.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to listen on, or 0 for any free port.", min=0, max=65535)] = 8080,
    max_concurrent_requests: Annotated[
        int, typer.Option(help="Largest number of requests that wait. Further requests get status 429.", min=1)
    ] = 512,
    max_client_batch_size: Annotated[int, typer.Option(help="Largest number of texts in a request.", min=1)] = 32,
    payload_limit: Annotated[int, typer.Option(help="Largest number of bytes in a request.", min=1)] = 2_000_000,
    *,
    model_options: ModelOptions,
) -> None:
    """Serve a model over HTTP to many processes.

    The server has the same routes and JSON as Text Embeddings Inference has for sparse models. Python programs use the
    server through RemoteEncoder. With -m http://HOST:PORT, four commands can use the server: encode, index, search and
    add-sparse. On Ctrl-C or SIGTERM, the server answers the requests that are in progress, and then stops. The server
    asks for no password, so let only machines that you trust reach it.

    Examples:

      splade serve -m prithivida/Splade_PP_en_v2 --port 8080

      curl localhost:8080/embed_sparse -d '{"inputs": "a cat"}'
    """
    from splade_integrations.cli.loading import load_encoder
    from splade_integrations.serving.requests import Limits
    from splade_integrations.serving.server import listen
    from splade_integrations.serving.server import serve as serve_encoder

    limits = Limits(
        max_concurrent_requests=max_concurrent_requests,
        max_client_batch_size=max_client_batch_size,
        max_body_bytes=payload_limit,
    )
    # Loading the model takes seconds. The port is opened first, so that an error about the port comes at once.
    with listen(host, port) as listening:
        pruning = model_options.pruning()
        options = model_options.for_encoder(query_pruning=pruning, document_pruning=pruning)
        encoder = load_encoder(model, options, itself=True)
        # Each answer says how many texts were cut, so the encoder's warnings would only fill the log.
        logging.getLogger("splade_integrations.encoding").setLevel(logging.ERROR)
        encoder.count_tokens("document", [])  # loads the model of documents here, where Ctrl-C can interrupt it
        from splade_integrations.engine.memory import keep_less_memory  # imports torch, which is loaded by now

        keep_less_memory()  # a server shares its machine with its clients
        # Another thread than the main thread warms up, as requests are computed in other threads as well. Otherwise the
        # main thread would get helper threads of OpenMP, and with more helper threads than cores, a lone request takes
        # a quarter longer (see engine/threads.py).
        with ThreadPoolExecutor(1) as other:
            other.submit(encoder.encode_queries, ["warm up"]).result()
            other.submit(encoder.encode_documents, ["warm up"]).result()
        address = listening.getsockname()
        sys.stderr.write(f"Serving {model} on http://{host}:{address[1]}\n")
        sys.stderr.flush()
        # While the server runs, it handles SIGTERM itself. When it has stopped, it raises the signal again. The default
        # handler, which is set here, then ends the process.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        serve_encoder(encoder, listening, limits)
