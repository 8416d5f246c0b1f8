"""Importing the installed package loads no heavy library, and the error for a missing extra names the pip command."""

import subprocess
import sys

import pytest

WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
{code}
"""


def run_without(absent: set[str], code: str) -> subprocess.CompletedProcess:
    script = WITHOUT.format(absent=absent, code=code)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)


def test_core_works_without_any_framework(model_folder):
    frameworks = {"langchain_core", "langchain_milvus", "llama_index", "pymilvus", "milvus_lite", "openvino", "triton"}
    code = f"""
from splade_integrations import SpladeEncoder, to_dicts
from splade_integrations.milvus import SpladeEmbeddingFunction
print(SpladeEncoder({model_folder!r}).encode_documents(["a"]).shape)
"""
    done = run_without(frameworks, code)
    assert done.stdout == "(1, 30522)\n", done.stderr
    assert done.stderr == ""


def test_light_imports_bring_neither_torch_nor_a_framework():
    doors = ("errors", "options", "records", "sparse")
    imports = ", ".join(["splade_integrations", *(f"splade_integrations.{door}" for door in doors)])
    code = f"import {imports}, sys; print(sorted({{m.split('.')[0] for m in sys.modules}}))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("torch", "transformers", "langchain", "llama_index", "pymilvus", "openvino", "pandas", "sklearn"):
        assert f"'{heavy}" not in modules


@pytest.mark.parametrize("framework", ["langchain", "llama_index"])
def test_an_adapter_does_not_import_the_store(framework):
    package = f"splade_integrations.{framework}"
    code = f"""
import sys
import {package}
assert {{"DenseEmbedding", "SpladeSparseEmbedding"}} < set(dir({package}))
{package}.SpladeSparseEmbedding
print(sorted({{"store", "dense"}} & {{name.removeprefix("{package}.") for name in sys.modules}}))
try:
    {package}.Other
except AttributeError as err:
    print(err)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"[]\nmodule '{package}' has no attribute 'Other'\n"


@pytest.mark.parametrize(
    ("module", "absent", "extra"),
    [
        ("splade_integrations.langchain", "langchain_core", "langchain"),
        ("splade_integrations.llama_index", "llama_index", "llama-index"),
        ("splade_integrations.milvus.lite", "pymilvus", "milvus"),
    ],
)
def test_missing_extra_names_the_pip_line(module, absent, extra):
    code = f"""
from splade_integrations import OptionalDependencyError
try:
    import {module}
except OptionalDependencyError as err:
    print(err)
"""
    done = run_without({absent}, code)
    assert done.stdout.strip().endswith(f"Install it with: pip install 'splade-integrations[{extra}]'."), done.stderr
    assert done.stdout.startswith(f"{module}")
