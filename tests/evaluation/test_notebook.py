"""The notebook that chooses a model, a pruning and a fusion runs completely, and its outputs agree with its text."""

import re
from pathlib import Path

import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "choosing.ipynb"
SYSTEM = re.compile(r"^(.+?) +nDCG@10 ([\d.]+)  \[([\d.]+), ([\d.]+)\]", re.MULTILINE)


def outputs_of(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.fixture(scope="module")
def outputs():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(NOTEBOOK.parent)
        from run_notebooks import run

        return outputs_of(run(NOTEBOOK))


@pytest.fixture(scope="module")
def printed(outputs):
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


def test_is_committed_with_the_outputs_of_a_run(outputs):
    committed = outputs_of(nbformat.read(NOTEBOOK, as_version=4))
    assert [output.output_type for output in committed] == [output.output_type for output in outputs]


def test_compares_systems_on_half_of_the_questions(printed):
    assert "15 queries to report on, 15 to tune on" in printed
    systems = {name: (float(low), float(figure), float(high)) for name, figure, low, high in SYSTEM.findall(printed)}
    assert {"BM25", "dense", "SPLADE", "dense + SPLADE, RRF", "dense + SPLADE, weights"} <= systems.keys()
    for low, figure, high in systems.values():
        assert 0 < low <= figure <= high <= 1


def test_indexes_with_the_pruning_that_it_chose(printed):
    (terms,) = re.findall(r"([\d.]+) terms a document on average", printed)
    assert 32 < float(terms) <= 64


def test_explains_the_wrong_hit_and_then_the_answer(outputs, printed):
    shown = [output.data["text/html"] for output in outputs if "Query" in output.get("data", {}).get("text/html", "")]
    assert len(shown) == 2
    assert shown[0] != shown[1]
    (asked,) = re.findall(r"^Asked: (.+?) - first found", printed, re.MULTILINE)
    assert all(word in html for html in shown for word in asked.split())
