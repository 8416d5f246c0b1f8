"""`splade serve`: serves a model over HTTP, so that one model in memory serves many processes."""

import logging
import sys
from typing import Annotated

import typer

from splade_integrations.cli.options import Model, ModelOptions

__all__ = ["serve"]


def serve(
    model: Model,
    host: Annotated[str, typer.Option(help="Address to listen on. 0.0.0.0 takes requests from other machines.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to listen on, or 0 for any free one.", min=0, max=65535)] = 8080,
    max_concurrent_requests: Annotated[
        int, typer.Option(help="Number of requests that may wait. Further ones get status 429.", min=1)
    ] = 512,
    max_client_batch_size: Annotated[int, typer.Option(help="Number of texts that a request may have.", min=1)] = 32,
    payload_limit: Annotated[int, typer.Option(help="Number of bytes that a request may have.", min=1)] = 2_000_000,
    *,
    model_options: ModelOptions,
) -> None:
    """Serve a model over HTTP to many processes.

    The routes and the JSON are those of Text Embeddings Inference for sparse models. Python programs ask it with
    RemoteEncoder, and splade encode, index and search with -m http://HOST:PORT. The command stops at Ctrl-C or SIGTERM,
    after it has answered the requests that are in progress. The server has no passwords, so let only machines that you
    trust reach it.

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
    with listen(
        host, port
    ) as listening:  # before the model is loaded, which takes seconds, so that errors come at once
        pruning = model_options.pruning()
        options = model_options.for_encoder(query_pruning=pruning, document_pruning=pruning)
        encoder = load_encoder(model, options, itself=True)
        # Each answer says how many texts were cut, so the encoder's warnings would only fill the log.
        logging.getLogger("splade_integrations.encoding.pipeline").setLevel(logging.ERROR)
        encoder.encode_queries(["warm up"])
        encoder.encode_documents(["warm up"])
        address = listening.getsockname()
        sys.stderr.write(f"Serving {model} on http://{host}:{address[1]}\n")
        sys.stderr.flush()
        serve_encoder(encoder, listening, limits)
