"""Scripts and notebooks of examples/ run, over fewer texts; the notebooks have been run before they were committed."""

import nbformat
import pytest
import side_by_side
from run_notebooks import NOTEBOOKS, run

# In place of all the modules whose texts they are over, which `make notebooks` takes minutes for.
FEW = ("base64", "copy", "shlex", "shutil", "tempfile")


@pytest.mark.parametrize("file", [file for file in NOTEBOOKS if "rag" in file.stem], ids=lambda file: file.stem)
def test_notebook_runs_and_has_its_outputs(file):
    committed = [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]
    executed = [
        cell
        for cell in run(file, f"import side_by_side; side_by_side.MODULES = {FEW}").cells
        if cell.cell_type == "code"
    ]
    for then, now in zip(committed, executed, strict=True):
        assert [output.output_type for output in then.outputs] == [output.output_type for output in now.outputs]
    tables = "".join(output.data["text/html"] for cell in executed for output in cell.outputs if "data" in output)
    assert tables.count("<table") == 4
    assert "found in the top 5" in tables


@pytest.mark.parametrize("name", ["langchain_hybrid", "llama_index_hybrid"])
def test_script_runs(name, capsys, monkeypatch):
    script = __import__(name)
    monkeypatch.setattr(side_by_side, "MODULES", FEW)
    script.main(script.QUESTION)
    *sides, filtered = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[1] for line in sides if line.split()[0] != "dense"][-1] == "base64.a85decode"
    assert all(found.startswith("base64.") for found in filtered.split(": ")[1].split())
