"""The web application: its routes, and how a request reaches the encoder and is answered.

A request's body is read and checked first. Then its texts wait in a queue. The role "query" and the role
"document" have a queue each. A `QueryBatcher` encodes the texts of several waiting requests in one call. If a client
disconnects, its texts leave the queue.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from splade_integrations.dependencies import require_extra
from splade_integrations.dynamic_batching import QueryBatcher
from splade_integrations.encoding.roles import Role
from splade_integrations.serving.protocol import FINGERPRINT_HEADER, ROLES, TRUNCATED_HEADER, Refusal

with require_extra("serve", module=__name__):
    import orjson
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import Response
    from starlette.routing import Route

    from splade_integrations.serving.metrics import Metrics

from splade_integrations.serving.requests import BodyReader, EmbedRequest, Limits, parse

if TYPE_CHECKING:
    from splade_integrations.encoder import SpladeEncoder

__all__ = ["make_app", "rows_as_json"]

logger = logging.getLogger(__name__)

# The tokens of a text are counted if the text may be too long. Counting many tokens takes milliseconds and would block
# the event loop. So if such texts of one request have more characters in total than this number, a separate thread
# counts their tokens.
_CHECKED_AT_ONCE = 4096


def make_app(encoder: "SpladeEncoder", limits: Limits | None = None) -> Starlette:
    """Return the web application that serves an encoder.

    Args:
        encoder: The encoder. Its models for queries and documents should be loaded already. If they are not, the first
            requests wait until they are loaded.
        limits: The limits on requests.

    Example:
        >>> from splade_integrations import SpladeEncoder
        >>> app = make_app(SpladeEncoder(model_folder))
        >>> [route.path for route in app.routes]
        ['/embed_sparse', '/info', '/health', '/metrics']
    """
    server = _Server(encoder, limits or Limits())
    routes = [
        Route("/embed_sparse", server.embed_sparse, methods=["POST"]),
        Route("/info", server.info, methods=["GET"]),
        Route("/health", server.health, methods=["GET"]),
        Route("/metrics", server.metrics, methods=["GET"]),
    ]
    handlers: dict[Any, Callable[[Request, Any], Awaitable[Response]]] = {
        HTTPException: _http_error,
        Refusal: _refusal,
    }
    return Starlette(routes=routes, exception_handlers=handlers)


class _Server:
    def __init__(self, encoder: "SpladeEncoder", limits: Limits) -> None:
        self._encoder = encoder
        self._limits = limits
        self._reader = BodyReader(limits)
        self._batchers = {role: QueryBatcher(encoder, role=role, max_texts=limits.max_batch_texts) for role in ROLES}
        self._checking = ThreadPoolExecutor(1, thread_name_prefix="splade-lengths")
        self._in_progress = 0
        self._metrics = Metrics()
        self._fingerprint = encoder.fingerprint.to_json()
        self._info = orjson.dumps(self._facts())

    async def embed_sparse(self, request: Request) -> Response:
        started = time.perf_counter()
        self._metrics.requests.inc()
        try:
            body = await self._reader.read(request.stream(), request.headers.get("content-length"))
            answer = await self._answer(parse(body, self._limits), request)
        except ClientDisconnect:
            return _gone()
        except Refusal as refusal:
            self._metrics.failed.labels(err=refusal.error_type.lower()).inc()
            raise
        self._metrics.seconds.observe(time.perf_counter() - started)
        return answer

    async def info(self, request: Request) -> Response:
        return Response(self._info, media_type="application/json")

    async def health(self, request: Request) -> Response:
        return Response(status_code=200)

    async def metrics(self, request: Request) -> Response:
        return Response(self._metrics.page(), media_type="text/plain; version=0.0.4")

    async def _answer(self, asked: EmbedRequest, request: Request) -> Response:
        if self._in_progress >= self._limits.max_concurrent_requests:
            raise Refusal(
                "Overloaded",
                f"At most {self._limits.max_concurrent_requests} requests can wait, and that many wait already. "
                "Send this request again later.",
            )
        self._in_progress += 1
        self._metrics.waiting.inc()
        try:
            truncated = await self._check_lengths(asked)
            rows = await _unless_gone(self._batchers[asked.role].encode(asked.texts), request)
        except (Refusal, asyncio.CancelledError):
            raise
        except Exception as err:
            logger.exception("Encoding failed.")
            raise Refusal("Backend", f"The encoder failed: {type(err).__name__}. The server's log says more.") from err
        finally:
            self._in_progress -= 1
            self._metrics.waiting.dec()
        if rows is None:
            return _gone()
        self._metrics.succeeded.inc()
        self._metrics.texts.inc(len(rows))
        headers = {FINGERPRINT_HEADER: self._fingerprint}
        if truncated:
            headers[TRUNCATED_HEADER] = str(truncated)
        return Response(rows_as_json(rows), media_type="application/json", headers=headers)

    async def _check_lengths(self, asked: EmbedRequest) -> int:
        """Return the number of texts that are too long. If there are any, refuse a request that forbids cutting."""
        texts, role = asked.texts, asked.role
        suspects = [place for place, text in enumerate(texts) if not self._encoder.surely_fits(role, text)]
        if not suspects:
            return 0
        if sum(len(texts[place]) for place in suspects) > _CHECKED_AT_ONCE:
            # One thread counts for all requests, so that long texts neither block the event loop nor occupy all
            # processors.
            loop = asyncio.get_running_loop()
            long = await loop.run_in_executor(self._checking, self._too_long, role, texts, suspects)
        else:
            long = self._too_long(role, texts, suspects)
        if long and not asked.truncate:
            place, tokens = long[0]
            name = "inputs" if len(texts) == 1 else f"inputs[{place}]"
            raise Refusal(
                "Validation",
                f"{name} must have at most {self._encoder.max_length} tokens, got {tokens}. Send a shorter text, or "
                "send truncate as true to have it cut.",
            )
        return len(long)

    def _too_long(self, role: Role, texts: list[str], suspects: list[int]) -> list[tuple[int, int]]:
        """Return the position and the number of tokens of each text that would be cut."""
        counts = self._encoder.count_tokens(role, [texts[place] for place in suspects])
        return [(place, count.tokens) for place, count in zip(suspects, counts, strict=True) if count.tokens_lost > 0]

    def _facts(self) -> dict[str, Any]:
        encoder, limits = self._encoder, self._limits
        fingerprint = encoder.fingerprint
        return {
            # The facts of TEI's schema Info.
            "model_id": encoder.model_name,
            "model_sha": fingerprint.commit,
            "model_dtype": str(encoder.dtype).removeprefix("torch."),
            "served_model_name": encoder.model_name,
            "model_type": {"embedding": {"pooling": "splade"}},
            "max_concurrent_requests": limits.max_concurrent_requests,
            "max_input_length": encoder.max_length,
            "max_batch_tokens": limits.max_batch_texts * encoder.max_length,
            "max_batch_requests": None,
            "max_client_batch_size": limits.max_client_batch_size,
            "auto_truncate": False,
            "tokenization_workers": 1,
            "version": version("splade-integrations"),
            "sha": None,
            "docker_label": None,
            # Facts that only our server reports.
            "prompts": {"query": encoder.spec.query.prompt, "document": encoder.spec.document.prompt},
            "dim": encoder.dim,
            "max_body_bytes": limits.max_body_bytes,
            "fingerprint": orjson.loads(self._fingerprint),
        }


async def _unless_gone(encoding: Awaitable[list[dict[int, float]]], request: Request) -> list[dict[int, float]] | None:
    """Return the rows. If the client disconnects first, return None, and take its texts out of the queue."""
    rows = asyncio.ensure_future(encoding)
    gone = asyncio.ensure_future(request.receive())  # after the body, the only message is that the client has gone
    gone.add_done_callback(lambda _: rows.cancel())
    try:
        return await rows
    except asyncio.CancelledError:
        if gone.done():
            return None
        raise
    finally:
        gone.cancel()


def rows_as_json(rows: list[dict[int, float]]) -> bytes:
    """Return rows as JSON. Each weight is written so that it is read as the same float32 again."""
    return orjson.dumps([[{"index": term, "value": weight} for term, weight in row.items()] for row in rows])


def _gone() -> Response:
    return Response(status_code=499)  # nobody reads this answer


async def _refusal(request: Request, refusal: Refusal) -> Response:
    headers = {"retry-after": "1"} if refusal.status in (429, 503) else {}
    if refusal.status in (408, 413):
        headers["connection"] = "close"  # the body may not be read to its end, so the connection cannot be reused
    answer = {"error": str(refusal), "error_type": refusal.error_type}
    return Response(orjson.dumps(answer), refusal.status, headers, media_type="application/json")


async def _http_error(request: Request, err: HTTPException) -> Response:
    known = "/embed_sparse (POST), /info, /health and /metrics"
    answer = {
        "error": f"{request.method} {request.url.path[:80]} must be one of {known}. {err.detail}.",
        "error_type": "Validation",
    }
    return Response(orjson.dumps(answer), err.status_code, dict(err.headers or {}), media_type="application/json")
