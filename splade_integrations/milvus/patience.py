"""Repeat calls while Milvus is unavailable or limits the rate of requests, and write at a limited rate.

pymilvus itself retries each call until the call's timeout has passed. If the call still fails, this module repeats it,
so that a long run survives an outage of several minutes.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from splade_integrations.dependencies import require_extra

with require_extra("milvus", module=__name__):
    import grpc
    from pymilvus.exceptions import MilvusException

__all__ = ["Pace", "Patience", "is_passing"]

T = TypeVar("T")

# Milvus's codes for temporary errors: the service is unavailable, short of memory or overloaded, or it limits the rate
# of requests. Source: milvus-io/milvus, pkg/util/merr/errors.go.
_PASSING_CODES = (2, 3, 4, 8, 9)
_FINAL = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
)
_PASSING_WORDS = ("rate limit", "unavailable", "not ready", "fail connecting", "failed to connect", "retry timeout")


def is_passing(err: BaseException) -> bool:
    """Return whether a call to Milvus that failed with this error may succeed later.

    Example:
        >>> is_passing(TimeoutError("no answer")), is_passing(ValueError("a wrong row"))
        (True, False)
    """
    if isinstance(err, grpc.RpcError):
        return getattr(err, "code", lambda: None)() not in _FINAL
    if isinstance(err, MilvusException):
        return err.code in _PASSING_CODES or any(words in str(err).lower() for words in _PASSING_WORDS)
    return isinstance(err, TimeoutError | ConnectionError)


@dataclass
class Patience:
    """Repeats a failed call to Milvus after a pause, if the call may succeed later.

    Args:
        seconds: The longest time for which one call is repeated, in seconds.
        first_pause: The first pause, in seconds. Each further pause is twice as long, up to `longest_pause`. Each pause
            is shortened at random, so that several writers do not repeat their calls at the same moment.
        longest_pause: The longest pause, in seconds.
        waited: The seconds spent in failed calls and pauses so far.

    Example:
        >>> answers = iter([TimeoutError("no answer"), "written"])
        >>> def call():
        ...     answer = next(answers)
        ...     if isinstance(answer, Exception):
        ...         raise answer
        ...     return answer
        >>> Patience(first_pause=0.01).call(call)
        'written'
    """

    seconds: float = 600.0
    first_pause: float = 0.5
    longest_pause: float = 30.0
    waited: float = field(default=0.0, init=False)

    def call(self, make: Callable[[], T]) -> T:
        """Call `make` until it succeeds, and return its result.

        Raises:
            Exception: The error of the last attempt. It is raised if another attempt cannot succeed, or if no time is
                left for one.
        """
        start, pause = time.monotonic(), self.first_pause
        while True:
            began = time.monotonic()
            try:
                return make()
            except Exception as err:
                if not is_passing(err) or time.monotonic() - start + pause > self.seconds:
                    raise
            time.sleep(pause * random.uniform(0.5, 1.0))
            self.waited += time.monotonic() - began
            pause = min(2 * pause, self.longest_pause)


class Pace:
    """Limits the rate of writes.

    Args:
        rows_per_second: The largest number of rows per second. None sets no limit.
    """

    def __init__(self, rows_per_second: float | None) -> None:
        self._rows_per_second = rows_per_second
        self._free_at = time.monotonic()

    def wait(self, rows: int) -> float:
        """Wait until `rows` more rows may be written, and return the number of seconds waited, which may be 0."""
        if self._rows_per_second is None:
            return 0.0
        now = time.monotonic()
        pause = max(0.0, self._free_at - now)
        time.sleep(pause)
        self._free_at = max(now, self._free_at) + rows / self._rows_per_second
        return pause
