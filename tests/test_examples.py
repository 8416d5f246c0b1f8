"""The scripts and notebooks in examples/ run on a few texts, and the committed notebooks hold the outputs of a run."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from splade_integrations.models.offline import dense_model_path

NOTEBOOKS = sorted((Path(__file__).parent.parent / "examples").glob("*_rag.ipynb"))
# The notebooks run on these few modules here. On their full list of modules, `make notebooks` takes minutes.
FEW = ("base64", "copy", "shlex", "shutil", "tempfile")


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_notebook_runs_and_has_its_outputs(file, import_example):
    run = import_example("run_notebooks").run
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
def test_script_runs(name, import_example, capsys, monkeypatch):
    script = import_example(name)
    monkeypatch.setattr(import_example("side_by_side"), "MODULES", FEW)
    script.main(script.QUESTION)
    *sides, filtered = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[1] for line in sides if line.split()[0] != "dense"][-1] == "base64.a85decode"
    assert all(found.startswith("base64.") for found in filtered.split(": ")[1].split())


def test_the_dense_model_equals_the_plain_formula_in_any_batch_and_thread(import_example):
    texts = ["short", "", "a longer text about temporary folders", "word " * 400, "naïve café 日本語"]
    model = AutoModel.from_pretrained(dense_model_path())
    tokenizer = AutoTokenizer.from_pretrained(dense_model_path())
    expected = []
    with torch.inference_mode():
        for text in texts:
            inputs = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
            mean = model(**inputs).last_hidden_state.mean(dim=1)[0]
            expected.append((mean / mean.norm()).numpy())
    dense = import_example("dense").MiniLM(device="cpu")
    with ThreadPoolExecutor(8) as pool:
        for rows in pool.map(dense.encode, [texts * 3] * 16):
            assert rows.dtype == np.float32
            np.testing.assert_allclose(rows, expected * 3, atol=1e-5)
    np.testing.assert_allclose(dense.embed_documents(texts), expected, atol=1e-5)
    np.testing.assert_allclose(dense.embed_query(texts[2]), expected[2], atol=1e-5)
    assert dense.encode([]).shape == (0, 384)
