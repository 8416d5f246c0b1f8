"""Each room imports only rooms below it, only some rooms import heavy packages, and the picture is up to date.

A room is a folder of the package, or a module at its root. CONTRIBUTING.md shows a picture of all rooms.
"""

import shutil
import subprocess
import sys

import pytest

from tests.support.architecture import PACKAGE, ROOT, faults, picture


def test_imports_keep_to_the_picture():
    assert faults() == []


@pytest.mark.parametrize(
    ("file", "line", "fault"),
    [
        ("models/spec.py", "from splade_integrations.engine import model", "arrows point from engine upward"),
        ("sparse.py", "from splade_integrations.errors import first_line", "arrows point from errors upward"),
        ("langchain/store.py", "import llama_index.core", "only llama_index may"),
        ("encoder.py", "def late():\n    import torch", "only engine may"),
        ("encoding/terms.py", "if TYPE_CHECKING:\n    from torch import Tensor", "only engine may"),
        ("models/repository.py", "import transformers", "import it in the function that needs it"),
        ("encoding/tokenizer.py", "def late():\n    from transformers import AutoModel", "only engine may"),
        ("encoding/terms.py", "from splade_integrations.encoding import explain", "circle: "),
        ("encoding/lookup.py", "def late():\n    from splade_integrations.encoding.roles import Role", "circle: "),
        ("helpers.py", "", "helpers is in no room of the picture"),
    ],
)
def test_what_breaks_the_rules_is_found(tmp_path, file, line, fault):
    shutil.copytree(ROOT / PACKAGE, tmp_path / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / PACKAGE / file).open("a") as module:
        module.write(f"\n{line}\n")
    assert any(fault in found for found in faults(tmp_path))


@pytest.mark.parametrize(
    "code",
    [
        "import splade_integrations",
        "from splade_integrations import OptionalDependencyError, Pruning, UnsupportedModelError, to_dicts",
        "import splade_integrations.errors, splade_integrations.sparse, splade_integrations.records",
        "import splade_integrations.options, splade_integrations.adapter, splade_integrations.reference",
        "import splade_integrations.models.layouts, splade_integrations.models.fingerprint",
        "import splade_integrations.encoder, splade_integrations.milvus",
    ],
)
def test_light_doors(code):
    """Importing these modules loads neither torch nor transformers. Only loading an encoder loads them."""
    code += "; import sys; print(sorted({'torch', 'transformers'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_contributing_shows_the_picture():
    """To print the current picture, run: python -m tests.support.architecture."""
    assert picture() in (ROOT / "CONTRIBUTING.md").read_text()
