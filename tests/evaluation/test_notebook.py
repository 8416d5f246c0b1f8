"""The notebook that chooses model, pruning and fusion runs from top to bottom, and shows what it says."""

from pathlib import Path

NOTEBOOK = Path(__file__).parents[2] / "examples" / "choosing.ipynb"


def test_runs_and_shows_its_pictures(import_example):
    notebook = import_example("run_notebooks").run(NOTEBOOK)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [output.data for output in outputs if "data" in output]
    assert sum("image/png" in data for data in shown) == 3
    assert sum("Query" in data.get("text/html", "") for data in shown) == 2  # explanations
    printed = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert "15 queries to report on, 15 to tune on" in printed
    assert "dense + SPLADE, RRF" in printed
