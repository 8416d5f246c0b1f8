"""Clean up after an error or Ctrl-C, and give up after a while if the client no longer answers.

Ctrl-C can interrupt gRPC while gRPC holds a lock. Each later call of the same client then waits for ever, even the call
that closes the client.
"""

from collections.abc import Callable
from threading import Thread

__all__ = ["LONGEST_WAIT", "clean_up"]

LONGEST_WAIT = 10.0  # seconds


def clean_up(work: Callable[[], None]) -> None:
    """Call `work` in a thread, and wait for the thread at most `LONGEST_WAIT` seconds.

    If the thread has not finished by then, it keeps running until the process ends.

    Args:
        work: The function to call. It drops a collection or closes a client.
    Raises:
        Exception: The error that `work` has raised.

    Example:
        >>> clean_up(lambda: print("closed"))
        closed
    """
    errors: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as err:  # raised again below, in the caller's thread
            errors.append(err)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(LONGEST_WAIT)
    if errors:
        raise errors[0]
