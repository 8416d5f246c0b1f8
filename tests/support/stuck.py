"""Stands for a call of a gRPC client that a Ctrl-C has interrupted while it held a lock."""

import threading


def wait_for_ever() -> None:
    """Wait for a minute, which is as long as for ever in a test. Then raise an error, so that the test fails."""
    threading.Event().wait(60)
    raise AssertionError("somebody has waited for the whole minute")
