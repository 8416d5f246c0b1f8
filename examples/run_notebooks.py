"""Run the notebooks in this folder, and store the outputs in the notebooks.

python examples/run_notebooks.py
"""

from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

__all__ = ["NOTEBOOKS", "run"]

FOLDER = Path(__file__).resolve().parent
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def run(file: Path, before: str = "") -> Any:
    """Run a notebook and return it with its new outputs.

    Args:
        file: The notebook.
        before: Code to run before the first cell, for instance code that makes the notebook use fewer texts.
    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed.
    """
    notebook = nbformat.read(file, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(before))
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(FOLDER)}}, record_timing=False).execute()
    del notebook.cells[0]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata.clear()
            cell.outputs = [
                output for output in cell.outputs if output.get("name") != "stderr"
            ]  # leaves out stderr, which has only messages about loading models
    return notebook


if __name__ == "__main__":
    for file in NOTEBOOKS:
        nbformat.write(run(file), file)
        print(file.relative_to(FOLDER.parent))
