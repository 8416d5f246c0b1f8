"""Run a library in a process of its own. The process encodes when it is asked to."""

import argparse
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch

from benchmarks.peers import UnavailableError, set_up
from benchmarks.workload import quiet

__all__ = ["Worker"]

_ENDED = "its process ended. If it failed, the output above says why."
# A process that has not ended by itself after this time is killed.
_PATIENCE_SECONDS = 10


class Worker:
    """A process that holds one library's encoders (`Contestant`) until `close` is called.

    Args:
        name: As in `set_up`.
        folder: The checkpoint.
        options: As in `set_up`.
    Raises:
        UnavailableError: The library cannot run here.
    """

    def __init__(self, name: str, folder: str, options: argparse.Namespace) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, folder, options), daemon=True)
        self._process.start()
        theirs.close()
        try:
            made = self._answer()
        except UnavailableError:
            self.close()
            raise
        self.contestants = [
            replace(contestant, seconds=partial(self._ask, "seconds", place), rows=partial(self._ask, "rows", place))
            for place, contestant in enumerate(made)
        ]

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a module-level function in the worker's process, and return the function's result."""
        return self._ask("call", function, *arguments)

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(_PATIENCE_SECONDS)
        if self._process.is_alive():
            self._process.kill()

    def _ask(self, *question: Any) -> Any:
        try:
            self._connection.send(question)
        except OSError as err:
            raise UnavailableError(_ENDED) from err
        return self._answer()

    def _answer(self) -> Any:
        try:
            answer = self._connection.recv()
        except (EOFError, OSError) as err:
            raise UnavailableError(_ENDED) from err
        if isinstance(answer, UnavailableError):
            raise answer
        return answer


def _serve(connection: Connection, name: str, folder: str, options: argparse.Namespace) -> None:
    quiet()
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        made = set_up(name, folder, options)
    except UnavailableError as err:
        connection.send(UnavailableError(str(err)))  # without the error's cause, because pickling the cause may fail
        return
    connection.send([replace(contestant, seconds=_elsewhere, rows=_elsewhere) for contestant in made])
    while True:
        try:
            question, subject, *arguments = connection.recv()
        except EOFError:
            return
        call = subject if question == "call" else getattr(made[subject], question)
        connection.send(call(*arguments))


def _elsewhere(texts: Sequence[str], *_: Any) -> Any:
    """Take the place of a contestant's function in the copy that is sent to another process."""
    raise NotImplementedError
