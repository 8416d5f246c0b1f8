"""The example script indexes docstrings, and finds one of them."""

import pytest

pytestmark = pytest.mark.usefixtures("local_ray")


def test_ray_index(import_example, capsys):
    import_example("ray_index").main(150)
    out = capsys.readouterr().out
    assert "150 texts in" in out
    hits = out.splitlines()[-1].partition(": ")[2].split(", ")
    assert len(hits) == 5
