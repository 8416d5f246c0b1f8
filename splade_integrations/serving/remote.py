"""`RemoteEncoder` encodes with a server instead of its own model, so that one model serves many processes."""

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from threading import Lock
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from splade_integrations.encoding.progress import ShowProgress, reporting
from splade_integrations.encoding.roles import Role
from splade_integrations.encoding.texts import check_texts, iterate_texts, replace_surrogates
from splade_integrations.models.fingerprint import Fingerprint
from splade_integrations.serving.answers import ServerFacts, check_same, read_error, read_facts, read_rows
from splade_integrations.serving.connection import Connection
from splade_integrations.serving.protocol import FINGERPRINT_HEADER, TRUNCATED_HEADER
from splade_integrations.sparse import concatenate, from_terms, is_integer

__all__ = ["RemoteEncoder"]

logger = logging.getLogger(__name__)

_BLOCK_ROWS = 512
# The texts of a request may fill this share of the server's limit on the bytes of a body. The rest is for JSON's quotes
# and escapes.
_FILLED = 0.5
# The largest number of requests that one call of an async method has in progress at the same time.
_AT_ONCE = 4


class RemoteEncoder:
    """Encodes texts with a server: `splade serve`, or Hugging Face's Text Embeddings Inference (TEI) for SPLADE models.

    It can take the place of a `SpladeEncoder` in adapters, in stores, and in the commands `splade encode`, `index` and
    `search`. The returned rows are exactly those that the server computed. One object serves any number of threads,
    event loops and forked processes. The object can be pickled. Its pickle holds the address and the options, including
    the headers.

    Like a `SpladeEncoder`, it cuts texts that are too long, and logs one warning per call. TEI does not say which texts
    it has cut, so with TEI there is no such warning. TEI refuses empty texts. So with TEI, "" is not sent, and its
    row has no terms.

    Args:
        url: The server's address, such as "http://localhost:8080".
        dim: The size of the vocabulary. It is required for TEI, which does not report it. Our own server reports it.
        query_prompt_name: For TEI, the name of the prompt of queries, or None for no prompt.
        document_prompt_name: For TEI, the name of the prompt of documents, or None for no prompt.
        headers: Headers of every request, such as {"Authorization": "Bearer …"}.
        timeout: The number of seconds that the server may take for one request. A request has at most as many texts as
            the server allows (32 by default).
        connect_timeout: The number of seconds that connecting may take.
        retries: How many times a request is sent again if the server is not reached, is overloaded or breaks the
            connection.

    Attributes:
        url: The server's address.

    Raises:
        ConnectionError: The server is not reached, or it is overloaded.
        TimeoutError: The server took too long.
        ValueError: The server does not serve a SPLADE model, refuses a request, or serves another model than before. A
            ValueError is also raised if an option has an invalid value, or does not fit the kind of server (TEI or our
            own).
        OptionalDependencyError: httpx is missing.

    Example:
        >>> encoder = RemoteEncoder("http://localhost:8080")  # doctest: +SKIP
        >>> encoder.encode_queries(["Where was Turing born?"]).shape  # doctest: +SKIP
        (1, 30522)
    """

    def __init__(
        self,
        url: str,
        *,
        dim: int | None = None,
        query_prompt_name: str | None = None,
        document_prompt_name: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
        connect_timeout: float = 5.0,
        retries: int = 5,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"url must begin with http:// or https://, got {url!r}. Pass the server's address.")
        if not is_integer(retries) or retries < 0:
            raise ValueError(f"retries must be an int of 0 or more, got {retries!r}. The default is 5.")
        if not (timeout > 0 and connect_timeout > 0):
            raise ValueError(f"timeout and connect_timeout must be above 0, got {timeout!r} and {connect_timeout!r}.")
        self.url = url.rstrip("/")
        self._stated_dim = dim
        self._prompt_names: dict[Role, str | None] = {"query": query_prompt_name, "document": document_prompt_name}
        self._connection_options: dict[str, Any] = {
            "headers": dict(headers or {}), "timeout": timeout, "connect_timeout": connect_timeout, "retries": retries,
        }  # fmt: skip
        self._start()
        _ = self._server

    def _start(self) -> None:
        self._connection = Connection(self.url, **self._connection_options)
        self._facts: ServerFacts | None = None
        self._asking = Lock()

    @property
    def _server(self) -> ServerFacts:
        """What the server says about itself. The server is asked once, and again after unpickling."""
        if self._facts is None:
            with self._asking:
                if self._facts is None:
                    response = self._connection.get("/info")
                    if response.status_code != 200:
                        raise read_error(self.url, response)
                    self._facts = read_facts(self.url, response, dim=self._stated_dim, prompt_names=self._prompt_names)
        return self._facts

    @property
    def dim(self) -> int:
        """The size of the vocabulary."""
        return self._server.dim

    @property
    def max_length(self) -> int:
        """The largest number of tokens of a text."""
        return self._server.max_length

    @property
    def model_name(self) -> str:
        """The name of the model, as the server reports it."""
        return self._server.model_name

    @property
    def fingerprint(self) -> Fingerprint | None:
        """The fingerprint of the server's encoder, or None for TEI, which does not report one."""
        return self._server.fingerprint

    def encode_documents(self, texts: Iterable[str], show_progress: ShowProgress = False) -> csr_array:
        """Encode documents.

        Args:
            texts: A list or another ordered iterable of str. "" is a valid text.
            show_progress: As in `SpladeEncoder.encode_documents`.
        Returns:
            (len(texts), dim) float32, exactly as the server computed it.
        Raises:
            TypeError: `texts` is a bare str, or one of its items is not a str. The message names the item's position.
            ConnectionError, TimeoutError, ValueError: See the class.
        """
        return self._encode("document", check_texts(texts), show_progress)

    def encode_queries(self, texts: Iterable[str], show_progress: ShowProgress = False) -> csr_array:
        """Encode queries. The arguments, results and errors are as in `encode_documents`."""
        return self._encode("query", check_texts(texts), show_progress)

    async def aencode_documents(self, texts: Iterable[str]) -> csr_array:
        """Do the same as `encode_documents`, without blocking the event loop."""
        return await self._aencode("document", check_texts(texts))

    async def aencode_queries(self, texts: Iterable[str]) -> csr_array:
        """Do the same as `encode_queries`, without blocking the event loop."""
        return await self._aencode("query", check_texts(texts))

    def stream_documents(
        self, texts: Iterable[str], show_progress: ShowProgress = False, *, block_rows: int | None = None
    ) -> Iterator[csr_array]:
        """Encode documents as they arrive. Yields matrices of `block_rows` rows, in the order of the texts.

        The default of `block_rows` is 512. The arguments and errors are as in `SpladeEncoder.stream_documents`.
        """
        drawn = iterate_texts(texts)
        with reporting(show_progress, None) as report:
            while block := list(islice(drawn, block_rows or _BLOCK_ROWS)):
                yield self._encode("document", block, report)

    def _encode(self, role: Role, texts: list[str], show_progress: ShowProgress) -> csr_array:
        blocks, truncated = [], 0
        with reporting(show_progress, len(texts)) as report:
            for part in self._requests(texts):
                response = None if part == [""] and self._is_tei else self._connection.post(*self._asked(role, part))
                rows, cut = self._rows(response, len(part))
                blocks.append(rows)
                truncated += cut
                report(len(part))
        self._warn(truncated, len(texts))
        return concatenate(blocks, self.dim)

    async def _aencode(self, role: Role, texts: list[str]) -> csr_array:
        if self._facts is None:  # this object was unpickled, and has not asked the server yet
            await asyncio.to_thread(lambda: self._server)
        free = asyncio.Semaphore(_AT_ONCE)

        async def ask(part: list[str]) -> tuple[csr_array, int]:
            if part == [""] and self._is_tei:
                return self._rows(None, 1)
            async with free:
                return self._rows(await self._connection.apost(*self._asked(role, part)), len(part))

        answers = await asyncio.gather(*map(ask, self._requests(texts)))
        self._warn(sum(cut for _, cut in answers), len(texts))
        return concatenate([rows for rows, _ in answers], self.dim)

    @property
    def _is_tei(self) -> bool:
        return self._server.fingerprint is None

    def _asked(self, role: Role, texts: list[str]) -> tuple[str, dict[str, Any]]:
        """Return the route and the body of a request."""
        # JSON in UTF-8 cannot hold lone surrogates. So they are replaced here, in the same way as by the tokenizer.
        body: dict[str, Any] = {"inputs": [replace_surrogates(text) for text in texts], "truncate": True}
        prompt_name = self._prompt_names[role] if self._is_tei else role
        if prompt_name is not None:
            body["prompt_name"] = prompt_name
        return "/embed_sparse", body

    def _requests(self, texts: list[str]) -> Iterator[list[str]]:
        """Yield the texts of each request. For TEI, yield each empty text alone, because it will not be sent."""
        server = self._server
        part: list[str] = []
        held = 0
        for text in texts:
            size = len(text.encode("utf-8", "replace"))
            alone = self._is_tei and not text
            full = len(part) == server.max_texts or held + size > _FILLED * server.max_bytes
            if part and (full or alone or part == [""]):
                yield part
                part, held = [], 0
            part.append(text)
            held += size
        if part:
            yield part

    def _rows(self, response: Any, number: int) -> tuple[csr_array, int]:
        """Return the rows in an answer, and the number of cut texts. If `response` is None, the rows are empty."""
        if response is None:
            return from_terms(np.empty(0), np.empty(0), [0] * number, self.dim), 0
        if response.status_code != 200:
            raise read_error(self.url, response)
        check_same(self.url, self._server, response.headers.get(FINGERPRINT_HEADER))
        rows = read_rows(self.url, response.content, number, self.dim)
        return rows, int(response.headers.get(TRUNCATED_HEADER, 0))

    def _warn(self, truncated: int, texts: int) -> None:
        if truncated:
            logger.warning(
                "%d of %d texts are longer than max_length=%d tokens and were truncated by %s. Split texts into "
                "smaller chunks, or start the server with a larger --max-length if the model allows it.",
                truncated, texts, self.max_length, self.url,
            )  # fmt: skip

    def __getstate__(self) -> dict[str, Any]:
        names = ("url", "_stated_dim", "_prompt_names", "_connection_options")
        return {name: self.__dict__[name] for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def __copy__(self) -> "RemoteEncoder":
        return self  # an encoder may be shared

    def __deepcopy__(self, memo: dict[int, Any]) -> "RemoteEncoder":
        return self

    def __repr__(self) -> str:
        return f"RemoteEncoder({self.url!r}, model={self.model_name!r}, max_length={self.max_length}, dim={self.dim})"
