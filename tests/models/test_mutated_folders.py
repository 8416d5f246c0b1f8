"""A damaged folder loads, or is refused with one of two errors. `make fuzz` tries many more folders."""

import pytest

from tests.support.mutated_folders import KINDS, outcomes


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_folders_end_in_two_errors(kind, tmp_path):
    found = outcomes(kind, tmp_path, 12)
    assert found["UnsupportedModelError"] > 0
    assert found["undamaged: loads"] == (kind != "ONNX alone")
