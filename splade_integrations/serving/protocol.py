"""What a server and its clients have in common: names of headers and prompts, and error types with HTTP statuses.

The statuses of the error types are those of Text Embeddings Inference 1.7 (router/src/http/server.rs and its
docs/openapi.json).
"""

from typing import Literal

from splade_integrations.encoding.roles import Role

__all__ = ["FINGERPRINT_HEADER", "ROLES", "STATUS", "TRUNCATED_HEADER", "ErrorType", "Refusal"]

ErrorType = Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]

STATUS: dict[ErrorType, int] = {
    "Unhealthy": 503,
    "Backend": 424,
    "Overloaded": 429,
    "Validation": 413,
    "Tokenizer": 422,
    "Empty": 400,
}
# The prompt names that our server accepts. They are the two roles that a text can have. Queries and documents can have
# different prompts, pruning and encoders.
ROLES: tuple[Role, ...] = ("query", "document")
# Each answer with sparse vectors has this header. It holds the fingerprint that identifies the encoder, in the form
# that `Fingerprint.to_json` returns.
FINGERPRINT_HEADER = "x-splade-fingerprint"
# This header holds the number of texts that were cut. It is sent only if the request's `truncate` is true and
# a text was cut.
TRUNCATED_HEADER = "x-splade-truncated"


class Refusal(Exception):  # noqa: N818 (a refusal is an answer)
    """A request that the server does not fulfil.

    Args:
        error_type: The type in the answer's JSON.
        message: One or more sentences that say what the server requires, what it got, and what the client should do.
        status: The HTTP status. None means the error type's status.
    """

    def __init__(self, error_type: ErrorType, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.status = STATUS[error_type] if status is None else status
