"""Stands for a call of a gRPC client that a Ctrl-C has interrupted while it held a lock."""

import threading


def wait_for_ever() -> None:
    """Wait for a minute, which is for ever to a test. Then let the test fail."""
    threading.Event().wait(60)
    raise AssertionError("somebody has waited for the whole minute")
