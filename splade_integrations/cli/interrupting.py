"""Ends a command after Ctrl-C or SIGTERM, and says what is kept.

After Ctrl-C or SIGTERM, KeyboardInterrupt is raised wherever the program happens to be. If the program is then
importing a compiled package, the package can turn the KeyboardInterrupt into an ImportError or a SystemError. So this
module remembers the signal, and treats each later error as an interruption.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["InterruptedRun", "interruptible", "saying_if_interrupted", "was_interrupted", "was_terminated"]

_received: set[int] = set()  # the signals that have arrived in this run


class InterruptedRun(Exception):  # noqa: N818  # the user wanted to stop, so the name does not end in Error
    """Ctrl-C or SIGTERM ended the run. The message says what is kept, and how to continue."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Make SIGTERM raise KeyboardInterrupt as Ctrl-C does, and remember which of the two arrived.

    The exception lets the command delete half-written files. In a thread other than the main thread, signals are
    handled as before, because only the main thread may set a signal handler. If Ctrl-C is ignored, as in a background
    command of a script, it stays ignored.
    """
    _received.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        _received.add(number)
        raise KeyboardInterrupt

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, interrupt)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()  # an error after this run is not an interruption


def was_interrupted(err: BaseException) -> bool:
    """Tell whether `err` is a KeyboardInterrupt, or an error that followed Ctrl-C or SIGTERM."""
    return isinstance(err, KeyboardInterrupt) or bool(_received)


def was_terminated() -> bool:
    """Tell whether SIGTERM has arrived."""
    return signal.SIGTERM in _received


@contextmanager
def saying_if_interrupted(kept: Callable[[], str]) -> Iterator[None]:
    """Turn the error of an interrupted run into an `InterruptedRun`. Its message ends with what `kept` returns."""
    try:
        yield
    except InterruptedRun:  # code inside the `with` block has already said what is kept
        raise
    except BaseException as err:
        if was_interrupted(err):
            raise InterruptedRun(f"interrupted; {kept()}") from err
        raise
