"""Runs the shell blocks of the documentation: `splade` in this process, and other commands in bash.

If each `splade` command had its own process, each process would take seconds to import torch and to load the models.
"""

import importlib.util
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

from splade_integrations.models.offline import dense_model_path, splade_model_path

ROOT = Path(__file__).parent.parent.parent
# {beginning of a line: why it is not run}. A test fails if no page has such a line.
NOT_RUN = {
    "git clone ": "it downloads this repository",
    "make demo": "tests/test_examples.py runs the demo",
    "milvus-lite server ": "it runs until it is stopped; tests/support/server.py starts the same server",
    "splade serve ": "it runs until it is stopped; tests/serving/test_server.py starts the same server",
    "splade index corpus.parquet ": "it starts Ray; tests/ray runs the same command",
    "curl localhost:8080/": "the server of the line above; tests/serving/test_server.py sends such requests",
}
PIP = "pip install "  # such lines are not run: their extras are checked, and checks/installs.py installs them
_SERVER = re.compile(r"http://([a-z.]+):19530")
_EXTRAS = re.compile(r"(?:\.|splade-integrations)\[([a-z,-]+)\]")


def models():
    """Return {a name on the pages: the folder of an offline model}."""
    return {
        "prithivida/Splade_PP_en_v2": splade_model_path(),
        "MODEL": splade_model_path(),
        "sentence-transformers/all-MiniLM-L6-v2": dense_model_path(),
    }


def lines_of(block):
    """Yield the commands of a block, without comments and empty lines."""
    for line in block.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield line, words


def run_block(block, folder, capsys):
    """Run a block in a folder. Files of databases get whole paths, and offline models replace the hub's models."""
    from splade_integrations.cli.app import run

    for line, words in lines_of(block):
        if is_not_run(line):
            continue
        if line.startswith(PIP):
            check_extras(line)
        elif words[:2] == ["splade", "evaluate"] and importlib.util.find_spec("ir_measures") is None:
            continue  # in a test environment without the extra "evaluate"
        elif words[0] == "splade":
            arguments = [in_folder(models().get(word, word), folder) for word in words[1:]]
            code = run(arguments)
            assert code == 0, f"{line}\n{capsys.readouterr().err}"
        else:
            subprocess.run(["bash", "-ec", line], cwd=folder, check=True, timeout=60)


def in_folder(word, folder):
    """Return the whole path of a milvus-lite file. A file also takes the place of each server."""
    if server := _SERVER.fullmatch(word):
        return f"{folder}/{server[1]}.db"
    return f"{folder}/{word}" if word.endswith(".db") else word


def is_not_run(line):
    return any(line.startswith(beginning) for beginning in NOT_RUN)


def check_extras(line):
    """Assert that the package has the extras that a line of pip installs, and that the line has no other brackets."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    asked = {extra for found in _EXTRAS.findall(line) for extra in found.split(",")}
    assert asked <= known.keys(), line
    assert "[" not in _EXTRAS.sub("", line.partition("#")[0]), line
