"""The README's Python blocks run as they are, and print what the README says.

The only change is that folders of offline models replace the names of hub models, because this test downloads nothing.
"""

import re
from pathlib import Path

import pytest

from splade_integrations.models.offline import dense_model_path, splade_model_path

README = Path(__file__).parent.parent / "README.md"
# Matches a block of Python. If a text block follows, with at most one line in between, it matches that block, too.
BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n[^`\n]*\n?\n?)?(?:```text\n(.*?)```)?", re.DOTALL)
BLOCKS = BLOCK.findall(README.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("code", "printed"), BLOCKS, ids=[f"block {n}" for n in range(1, len(BLOCKS) + 1)])
def test_block(code, printed, tmp_path, monkeypatch, capsys):
    for hub_name, folder in {
        "prithivida/Splade_PP_en_v2": splade_model_path(),
        "sentence-transformers/all-MiniLM-L6-v2": dense_model_path(),
    }.items():
        code = code.replace(f'"{hub_name}"', repr(folder))
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out == printed


def test_every_block_is_run():
    assert 0 < len(BLOCKS) == README.read_text(encoding="utf-8").count("```python")
