"""The scripts and notebooks in examples/ run on a few texts, and the committed notebooks hold the outputs of a run."""

import io
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from rich.console import Console
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


def test_demo_on_a_few_modules(import_example, capsys, monkeypatch, tmp_path):
    demo, slices = import_example("demo"), import_example("side_by_side")
    monkeypatch.setattr(slices, "MODULES", FEW)
    entries = slices.read_slice()
    monkeypatch.setattr(demo, "read_corpus_once", lambda _: entries)
    monkeypatch.setattr(demo, "_database_file", lambda: str(tmp_path / "demo.db"))
    monkeypatch.delenv("MILVUS_URI", raising=False)
    pages = {}
    for width in (80, 120):  # the second run reuses the collections
        demo.console = Console(file=io.StringIO(), width=width)
        demo.main([])
        printed = demo.console.file.getvalue()
        assert max(map(len, printed.splitlines())) <= width
        pages[width] = " ".join(printed.split())
        assert "both give the same first 5 hits" in pages[width]
        assert "\x1b" not in pages[width]
        assert "  .venv/bin/splade index --help" in printed.splitlines()  # it is not wrapped, so that users can copy it
    assert "Encoded by SPLADE" in pages[80]
    assert "opened: LangChain" in pages[120]
    assert "✓ tempfile.TemporaryDirectory" in pages[120]
    assert "decode Ascii85" in pages[120]
    assert re.search(r"hybrid search finds \d+ of 30 answers", pages[120])


def test_demo_counts_wins_and_losses(import_example):
    tables, questions = import_example("demo_tables"), import_example("stdlib_questions").QUESTIONS
    nothing = {"dense": [], "sparse": [], "hybrid": []}
    rankings = {question.text: dict(nothing) for question in questions}
    answers = [question.expected[0] for question in questions[:2]]
    rankings[questions[0].text] = {"dense": ["x", answers[0]], "sparse": [], "hybrid": [answers[0]]}
    rankings[questions[1].text] = {"dense": [], "sparse": [answers[1]], "hybrid": ["x"] * 5 + [answers[1]]}
    said = tables.closing(rankings)
    assert "hybrid search finds 1 of 30 answers, dense search 1, and SPLADE search 1." in said
    assert f"above both of its sides for 1 of the 30 questions, for instance “{questions[0].text}”." in said
    assert (
        f"loses the answer, which one of its sides finds, for 1 of the 30 questions, for instance “{questions[1].text}”"
        in said
    )
    assert "No search finds the answer to 28 of the 30 questions" in said
