"""The Python blocks of the README and of docs/ run as they are, and print what the page says.

Two things change: folders of offline models replace the names of hub models, because this test downloads nothing. And
files are in a temporary folder, named by whole paths, because pymilvus keeps one connection for each name.
Each block of the README runs alone. The blocks of another page run one after another and share their names.
"""

import re
from contextlib import ExitStack
from pathlib import Path

import pytest
from langchain_core.documents import Document

from splade_integrations.models.offline import dense_model_path, splade_model_path
from tests.support.adapters import DIM, HashEmbeddings, WordCounts

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Matches a block of Python. If a text block follows, with at most one line in between, it matches that block, too.
BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n[^`\n]*\n?\n?)?(?:```text\n(.*?)```)?", re.DOTALL)
SERVER = "http://localhost:8080"  # the address of `splade serve` on the pages
BLOCKS = {page: BLOCK.findall(page.read_text(encoding="utf-8")) for page in PAGES}
README = [pytest.param(*block, id=f"block {n}") for n, block in enumerate(BLOCKS[PAGES[0]], start=1)]


def run(code, page, names, folder):
    code = code.replace('"./', f'"{folder}/')
    for hub_name, model in {
        "prithivida/Splade_PP_en_v2": splade_model_path(),
        "sentence-transformers/all-MiniLM-L6-v2": dense_model_path(),
    }.items():
        code = code.replace(f'"{hub_name}"', repr(model))
    exec(compile(code, str(page), "exec"), names)


def langchain_dense(folder):
    return HashEmbeddings()


def langchain_sparse(folder):
    from splade_integrations.langchain import SpladeSparseEmbedding

    return SpladeSparseEmbedding(encoder=WordCounts())


def langchain_store(folder):
    from splade_integrations.langchain import hybrid_milvus

    return hybrid_milvus(HashEmbeddings(), langchain_sparse(folder), uri=f"{folder}/langchain.db")


def llama_index_sparse(folder):
    from splade_integrations.llama_index import SpladeSparseEmbedding

    return SpladeSparseEmbedding(encoder=WordCounts())


def llama_index_store(folder):
    from splade_integrations.llama_index import HybridMilvusVectorStore

    return HybridMilvusVectorStore(
        f"{folder}/llama_index.db", dim=DIM, sparse_embedding_function=llama_index_sparse(folder)
    )


def llama_index_dense(folder):
    from tests.llama_index.support import HashEmbedding

    return HashEmbedding()


def indexed_notes(folder):
    from typer.testing import CliRunner

    from splade_integrations.cli.app import app

    notes = Path(folder) / "notes" / "contracts"
    notes.mkdir(parents=True)
    (notes / "gym.md").write_text("# Gym\n\nTo cancel, write a letter.\n", encoding="utf-8")
    command = ["index", str(notes.parent), "-m", splade_model_path(), "--chunk", "--uri", f"{folder}/notes.db"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output


# {page: for each of its blocks, the names that the page says are given, and how to make them in a folder}
GIVEN = {
    "around-a-store.md": [{"dense": llama_index_dense, "store": llama_index_store}, {"store": langchain_store}],
    "existing-collections.md": [{}, {"dense": langchain_dense, "sparse": langchain_sparse}],
    "fusion.md": [
        {"dense": langchain_dense, "sparse": langchain_sparse},
        {"sparse": llama_index_sparse},
        {},
    ],
    "indexing.md": [{"collection": indexed_notes}],
    "re-indexing.md": [
        {
            "dense": langchain_dense,
            "old": langchain_sparse,
            "new": langchain_sparse,
            "uri": lambda folder: f"{folder}/again.db",
            "documents": lambda folder: [Document("Ada wrote.", id="ada")],
        }
    ],
}
# What a page needs beyond the package's extras. Without it, as in some lanes, the page is skipped.
NEEDS = {
    "around-a-store.md": ("llama_index.core", "langchain_classic"),
    "chunking.md": ("llama_index.core", "langchain_text_splitters"),
    "indexing.md": ("typer",),
    "serving.md": ("starlette", "uvicorn", "httpx", "orjson", "prometheus_client"),
}


@pytest.mark.parametrize(("code", "printed"), README)
def test_block_of_the_readme(code, printed, tmp_path, capsys):
    run(code, PAGES[0], {"__name__": "readme"}, tmp_path)
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize("page", [page for page in PAGES[1:] if BLOCKS[page]], ids=lambda page: page.stem)
def test_page(page, tmp_path, capsys, encoder):
    for module in NEEDS.get(page.name, ()):
        pytest.importorskip(module)
    with ExitStack() as stack:
        address = SERVER
        if any(SERVER in code for code, _ in BLOCKS[page]):
            from tests.support.serving import in_thread

            address = stack.enter_context(in_thread(encoder))
        run_page(page, address, tmp_path, capsys)


def run_page(page, address, tmp_path, capsys):
    names = {"__name__": page.stem}
    given = GIVEN.get(page.name, [{}] * len(BLOCKS[page]))
    for (code, printed), makers in zip(BLOCKS[page], given, strict=True):
        names |= {name: make(tmp_path) for name, make in makers.items()}
        if SERVER in code and "query_prompt_name" in code:
            continue  # for a server of TEI, which tests/serving/test_remote.py has
        run(code.replace(SERVER, address), page, names, tmp_path)
        assert capsys.readouterr().out == printed


def test_every_block_is_run():
    for page, blocks in BLOCKS.items():
        assert len(blocks) == page.read_text(encoding="utf-8").count("```python"), page
    assert README
