"""A run that is interrupted ends, even if Milvus no longer answers."""

import pytest

from splade_integrations.cli.filling import Counts, keeping_what_is_stored
from splade_integrations.cli.interrupting import InterruptedRun
from splade_integrations.milvus import interrupted
from tests.support.stuck import wait_for_ever


class Stuck:
    """A store with a client that waits for ever, like a client after a Ctrl-C inside gRPC."""

    name, uri = "splade", "a.db"
    finish = drop = staticmethod(wait_for_ever)


@pytest.mark.parametrize(("added", "message"), [(3, "3 documents are in 'splade' of a.db"), (0, "nothing was stored")])
def test_ctrl_c_does_not_wait_for_milvus(monkeypatch, added, message):
    monkeypatch.setattr(interrupted, "LONGEST_WAIT", 0.1)
    with pytest.raises(InterruptedRun, match=message), keeping_what_is_stored(Stuck(), Counts(added), created=True):
        raise KeyboardInterrupt
