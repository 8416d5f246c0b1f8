"""The Python and shell blocks of the README and of docs/ run as they are, and print what the page says.

Two things change. Folders of offline models replace the names of hub models, because this test downloads nothing.
Databases get whole paths in a temporary folder, because pymilvus keeps one connection for each name of a file. The
blocks of a page run one after another in one folder. The Python blocks of a page share their variables, but each block
of the README has its own variables. tests/support/shell.py says how shell blocks run, and which lines do not run.
"""

import json
import re
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from langchain_core.documents import Document

from tests.support import shell
from tests.support.adapters import DIM, HashEmbeddings, WordCounts
from tests.support.random_checkpoints import save_bge_m3

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Matches a block of code. If a text block follows, with at most one line in between, it matches that block, too.
BLOCK = re.compile(
    r"^```(python|bash)\n(.*?)^```\n(?:\n[^`\n]*\n?\n?)?(?:^```text\n(.*?)^```)?", re.DOTALL | re.MULTILINE
)
SERVER = "http://localhost:8080"  # the address of `splade serve` on the pages
BLOCKS = {page: BLOCK.findall(page.read_text(encoding="utf-8")) for page in PAGES}


def run(code, page, names, folder):
    code = code.replace('"./', f'"{folder}/')
    for hub_name, model in shell.models().items():
        code = code.replace(f'"{hub_name}"', repr(model))
    if '"BAAI/bge-m3"' in code:
        save_bge_m3(folder / "bge-m3", hidden_size=1024, num_hidden_layers=1)
        code = code.replace('"BAAI/bge-m3"', repr(str(folder / "bge-m3")))
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


def text_files(folder):
    """Make the files of texts that a page takes for granted."""
    row = {"_id": "faq", "text": "You can cancel your subscription at any time.", "year": 2024}
    (folder / "texts.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    (folder / "document.txt").write_text(row["text"], encoding="utf-8")


def judged_folder(folder):
    """Make a folder in BEIR layout. Each of 48 queries has one right answer among 48 documents."""
    made = folder / "my-folder"
    made.mkdir()
    things = [f"{colour} {animal}" for colour in COLOURS for animal in ANIMALS]
    rows = {
        "corpus": [
            {"_id": f"d{n}", "text": f"A {thing} sleeps in house {n}. Nobody may wake the {thing}."}
            for n, thing in enumerate(things)
        ],
        "queries": [{"_id": f"q{n}", "text": f"where is the {thing}"} for n, thing in enumerate(things)],
    }
    for name, of in rows.items():
        (made / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in of), encoding="utf-8")
    judged = "".join(f"q{n}\td{n}\t1\n" for n in range(len(things)))
    (made / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged, encoding="utf-8")


def dense_collection(folder):
    """Make the collection that a page takes for granted on a server. A file takes the server's place."""
    from splade_integrations.langchain import hybrid_milvus

    place = {"uri": f"{folder}/localhost.db", "collection_name": "documents"}
    store = hybrid_milvus(HashEmbeddings(), None, **place)
    store.add_texts(["Ada wrote.", "Alan computed."], ids=["ada", "alan"])
    store.client.close()


COLOURS = ("red", "green", "blue", "black", "white", "brown")
ANIMALS = ("cat", "dog", "horse", "mouse", "bird", "fish", "cow", "sheep")
# {page: functions that make the files and collections that the page takes for granted}
FILES = {
    "README.md": [judged_folder, dense_collection],
    "evaluating.md": [text_files, judged_folder],
    "existing-collections.md": [dense_collection],
    "fusion.md": [judged_folder],
    "re-indexing.md": [dense_collection],
}
# {page: for each of its Python blocks, {name that the page takes for granted: function that makes it in a folder}}
GIVEN = {
    "around-a-store.md": [{"dense": llama_index_dense, "store": llama_index_store}, {"store": langchain_store}],
    "existing-collections.md": [{}, {"dense": langchain_dense, "sparse": langchain_sparse}],
    "fusion.md": [
        {"dense": langchain_dense, "sparse": langchain_sparse},
        {"sparse": llama_index_sparse},
        {},
    ],
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
# What a page needs beyond the package's extras. If a package is missing, the page is skipped.
NEEDS = {
    "around-a-store.md": ("llama_index.core", "langchain_classic"),
    "chunking.md": ("llama_index.core", "langchain_text_splitters"),
    "evaluating.md": ("typer", "ir_measures", "matplotlib"),
    "existing-collections.md": ("typer",),
    "fusion.md": ("typer", "ir_measures"),
    "indexing.md": ("typer", "semantic_text_splitter"),
    "models.md": ("llama_index.core",),
    "serving.md": ("starlette", "uvicorn", "httpx", "orjson", "prometheus_client"),
}


@pytest.fixture
def models_of_the_command_load_once(monkeypatch):
    """Let the commands of a page share the models that they load."""
    pytest.importorskip("typer")
    from splade_integrations.cli import loading

    for name in ("load_encoder", "load_dense_encoder"):
        load, loaded = getattr(loading, name), {}

        def once(*arguments, load=load, loaded=loaded, **options):
            key = repr((arguments, options))
            if key not in loaded:
                loaded[key] = load(*arguments, **options)
            return loaded[key]

        monkeypatch.setattr(loading, name, once)
        with suppress(ImportError):  # without the extra "evaluate"
            from splade_integrations.cli import run_evaluation

            monkeypatch.setattr(run_evaluation, name, once)


@pytest.mark.usefixtures("models_of_the_command_load_once")
@pytest.mark.parametrize("page", [page for page in PAGES if BLOCKS[page]], ids=lambda page: page.stem)
def test_page(page, tmp_path, capsys, encoder, monkeypatch):
    for module in NEEDS.get(page.name, ()):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack:
        address = SERVER
        if any(SERVER in code for kind, code, _ in BLOCKS[page] if kind == "python"):
            from tests.support.serving import in_thread

            address = stack.enter_context(in_thread(encoder))
        for make in FILES.get(page.name, ()):
            make(tmp_path)
        run_page(page, address, tmp_path, capsys)


def run_page(page, address, tmp_path, capsys):
    names = {"__name__": page.stem}
    given = iter(GIVEN.get(page.name, [{}] * sum(kind == "python" for kind, _, _ in BLOCKS[page])))
    for kind, code, printed in BLOCKS[page]:
        if kind == "bash":
            shell.run_block(code, tmp_path, capsys)
            said = capsys.readouterr().out
            assert not printed or said == printed
            continue
        if page == PAGES[0]:
            names = {"__name__": "readme"}
        names |= {name: make(tmp_path) for name, make in next(given).items()}
        if SERVER in code and "query_prompt_name" in code:
            continue  # needs a server of TEI, which only tests/serving/test_remote.py has
        run(code.replace(SERVER, address), page, names, tmp_path)
        assert capsys.readouterr().out == printed
    assert not [*given]


def test_the_first_block_can_be_run_again(tmp_path, capsys):
    block = next(code for kind, code, _ in BLOCKS[PAGES[0]] if kind == "python")
    for _ in range(2):
        names = {"__name__": "readme"}
        run(block, PAGES[0], names, tmp_path)
    assert names["store"].collection.count() == 2


def test_every_block_is_run():
    for page, blocks in BLOCKS.items():
        text = page.read_text(encoding="utf-8")
        fences = re.findall(r"^```([a-z]*)", text, re.MULTILINE)
        assert set(fences[0::2]) <= {"python", "bash", "text"}, page
        assert [kind for kind in fences[0::2] if kind != "text"] == [kind for kind, _, _ in blocks], page
    assert BLOCKS[PAGES[0]]


def test_every_line_that_is_not_run_is_on_a_page():
    lines = [line for blocks in BLOCKS.values() for kind, code, _ in blocks if kind == "bash"
             for line, _ in shell.lines_of(code)]  # fmt: skip
    for beginning in shell.NOT_RUN:
        assert any(line.startswith(beginning) for line in lines), beginning
