"""Ray is started on this machine. If it does not answer at first, it is started a second time.

These tests are outside tests/ray, because the tests there share one Ray that runs all the time.
"""

import os

import pytest
import ray

from splade_integrations.ray.local import connected

SLOW = Exception("The current node timed out during startup. This could happen because Ray is overloaded.")


def _fails_first(times, error, monkeypatch):
    """Let the first starts of Ray fail, as on a busy machine, and return a list that all calls are added to."""
    calls, start = [], ray.init

    def init(**options):
        calls.append(options)
        if len(calls) <= times:
            raise error
        return start(**options)

    monkeypatch.setattr(ray, "init", init)
    return calls


def test_a_slow_start_is_tried_once_more(monkeypatch):
    calls = _fails_first(1, SLOW, monkeypatch)
    with connected(num_cpus=1):
        worker_niceness = ray.get(ray.remote(lambda: os.nice(0)).remote())
        assert worker_niceness == os.nice(0)  # Ray's default is 15, which starves workers on a busy machine
    assert len(calls) == 2
    assert calls[0] == calls[1]
    assert not ray.is_initialized()


def test_two_slow_starts_are_an_error_with_a_next_step(monkeypatch):
    calls = _fails_first(2, SLOW, monkeypatch)
    message = r"Ray did not start .* timed out during startup.*less busy.*address"
    with pytest.raises(ConnectionError, match=message), connected(num_cpus=1):
        pass
    assert len(calls) == 2


def test_a_wrong_option_is_not_tried_again(monkeypatch):
    calls = _fails_first(0, SLOW, monkeypatch)
    with pytest.raises(ValueError, match="object store"), connected(object_store_bytes=1):
        pass
    assert len(calls) == 1
