"""Versions of dependencies that are known to fail are reported at once, by name. Versions that work are accepted."""

import importlib.metadata
import subprocess
import sys

import pytest

from splade_integrations import OptionalDependencyError, SpladeEncoder
from splade_integrations.dependencies import check_installed, known_problem

NAMES = ("pymilvus", "milvus-lite", "setuptools")


@pytest.mark.parametrize(
    ("versions", "named", "pip_line"),
    [
        # pymilvus, milvus-lite, setuptools
        (("3.0.2", "3.2.2", None), None, None),
        (("2.6.7", "3.2.2", None), None, None),
        (("2.6.7", "2.5.1", "81.0.0"), None, None),
        (("2.6.17", "3.2.2", "84.2.1"), None, None),
        (("2.6.8", "3.2.2", None), "pymilvus 2.6.8 and milvus-lite 3.2.2", "'pymilvus>=2.6.7,!=2.6.8,!=2.6.9,<4'"),
        (("2.6.9", "3.0.0", None), "pymilvus 2.6.9 and milvus-lite 3.0.0", "'pymilvus>=2.6.7,!=2.6.8,!=2.6.9,<4'"),
        (("2.6.8", "2.5.1", None), None, None),
        (("2.6.10", "3.2.2", None), None, None),
        (("2.6.7", "3.1.0", None), "milvus-lite 3.1.0", "'milvus-lite>=3.2.2,<4'"),
        (("3.0.2", "3.2.1", None), "milvus-lite 3.2.1", "'milvus-lite>=3.2.2,<4'"),
        (("2.6.7", "3.0.0", "84.2.1"), None, None),
        (("2.6.7", "2.5.1", "82.0.0"), "setuptools 82.0.0", "'setuptools<82'"),
        ((None, None, None), None, None),
    ],
)
def test_table_of_versions(versions, named, pip_line):
    found = known_problem(dict(zip(NAMES, versions, strict=True)))
    if named is None:
        assert found is None
    else:
        assert named in found
        assert found.endswith(".")
        assert f"pip install {pip_line}" in found


def test_what_is_installed_here_goes_together():
    check_installed(*NAMES, "tokenizers")


def test_windows_need_tokenizers_that_give_them(monkeypatch, model_folder, caplog):
    SpladeEncoder(model_folder)  # imports transformers, which also asks for versions
    caplog.clear()
    installed = {"tokenizers": "0.23.2"}
    monkeypatch.setattr(importlib.metadata, "version", installed.__getitem__)
    with pytest.raises(OptionalDependencyError, match=r"tokenizers 0\.23\.2 loses .* pip install 'tokenizers"):
        SpladeEncoder(model_folder, long_documents="max")
    assert not caplog.records
    SpladeEncoder(model_folder)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "truncated without being counted or reported: tokenizers 0.23.2 loses" in caplog.text
    caplog.clear()
    for installed["tokenizers"] in ("0.22.2", "0.23.3"):
        SpladeEncoder(model_folder, long_documents="max")
    assert not caplog.records


@pytest.mark.parametrize(
    ("adapter", "distribution", "version"),
    [
        ("langchain", "pymilvus", "2.6.9"),
        ("langchain", "milvus-lite", "3.2.0"),
        ("llama_index", "pymilvus", "2.6.8"),
        ("llama_index", "milvus-lite", "3.1.4"),
    ],
)
def test_importing_an_adapter_over_a_known_problem_names_it(adapter, distribution, version):
    framework = {"langchain": "langchain_core", "llama_index": "llama_index.core"}[adapter]
    pytest.importorskip(framework, reason="the framework is not installed in this environment")
    if importlib.metadata.version("milvus-lite").startswith("2.") and distribution == "pymilvus":
        pytest.skip("milvus-lite 2 works with this version of pymilvus")
    code = f"""
import importlib.metadata
real = importlib.metadata.version
importlib.metadata.version = lambda name: {version!r} if name == {distribution!r} else real(name)
import splade_integrations.{adapter}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    last = done.stderr.strip().splitlines()[-1]
    assert f"{OptionalDependencyError.__name__}: " in last
    assert f"{distribution} {version}" in last
    assert "pip install '" in last
