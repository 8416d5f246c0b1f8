"""`splade index` accepts a folder of texts, whole or in chunks, and shows progress also without a terminal."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from splade_integrations.cli import progress as progress_module
from splade_integrations.cli.app import run
from splade_integrations.cli.progress import progress
from splade_integrations.cli.splitting import splitter
from splade_integrations.records import Folder, Record, RecordError, in_chunks

LEFT_OUT = {
    ".pdf": 2, ".html": 1, "no ending": 1, "hidden": 1, "empty": 1, "not UTF-8": 1,
    "folders that are hidden, links or databases": 3,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "my notes"
    texts = {
        "b.TXT": "\ufeffDogs bark.\r\nAt the postman.",
        "a/cats.md": "# Cats\n\nThey purr.",
        "a/deep/it's.rst": "Birds\n=====\n\nThey sing.",
        "z.pdf": "x", "a/y.pdf": "x", "page.html": "<p>", "README": "x", ".env": "secret", "blank.txt": " \n",
        ".git/notes.txt": "hidden", "splade.db/data.txt": "a database",
    }  # fmt: skip
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    (folder / "latin.txt").write_bytes("café".encode("latin-1"))
    (folder / "link").symlink_to(folder / "a", target_is_directory=True)
    return folder


def test_each_file_is_a_document(folder):
    documents = Folder(str(folder))
    assert [(one.id, one.text, one.metadata) for one in documents] == [
        ("a/cats.md", "# Cats\n\nThey purr.", {"path": "a/cats.md"}),
        ("a/deep/it's.rst", "Birds\n=====\n\nThey sing.", {"path": "a/deep/it's.rst"}),
        ("b.TXT", "Dogs bark.\r\nAt the postman.", {"path": "b.TXT"}),
    ]
    assert documents.count() == 3
    assert documents.left_out == LEFT_OUT
    [one] = Folder(str(folder / "a" / "cats.md"))
    assert one.id == "cats.md"


@pytest.mark.usefixtures("models_load_once")
def test_what_is_left_out_is_said_with_what_to_do(folder, place, tmp_path, model_folder, capsys):
    uri = place.options
    for _ in range(2):  # the second run finds the ids in the collection
        assert run(["index", str(folder), "-m", model_folder, *uri, "--json", "--resume"]) == 0
        out, err = capsys.readouterr()
        summary = json.loads(out)
        assert summary["left_out"] == LEFT_OUT
        assert "2 .pdf, " in err
        assert "3 folders that are hidden, links or databases (.git/, link/, splade.db/)" in err
        assert "1 not UTF-8 (latin.txt)" in err
        assert "1 empty (blank.txt)" in err
        assert "PyPDFLoader and BSHTMLLoader or with LlamaIndex's SimpleDirectoryReader" in err
    assert (summary["added"], summary["already_there"]) == (0, 3)
    assert run(["search", "who barks", *uri, "--json", "-k", "1", "--filter", 'path like "b%"']) == 0
    [hit] = json.loads(capsys.readouterr().out)
    assert (hit["id"], hit["metadata"]) == ("b.TXT", {"path": "b.TXT"})
    assert run(["encode", str(folder), "-m", model_folder, "-o", str(tmp_path / "out.npz")]) == 0
    assert "2 .pdf" in capsys.readouterr().err
    assert np.load(tmp_path / "out.npz")["ids"].tolist() == ["a/cats.md", "a/deep/it's.rst", "b.TXT"]


@pytest.mark.usefixtures("models_load_once")
def test_what_a_newcomer_sees_of_chunks(place, tmp_path, model_folder, capsys):
    """The summary counts chunks and texts, and a hit does not repeat what its id states."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "gym.txt").write_text("To cancel, write a letter.")
    (tmp_path / "notes" / "whales.txt").write_text("Whales sing in the deep sea. " * 60)
    command = ["index", str(tmp_path / "notes"), "-m", model_folder, *place.options, "--chunk", "--max-length", "64"]
    assert run([*command, "--json"]) == 0
    count = json.loads(capsys.readouterr().out)["added"]
    assert count > 2
    assert run([*command, "--resume"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.startswith(f"0 chunks added, {count} already in ")
    assert out.endswith("They come from 2 texts.")
    for options in ([], ["--explain"]):
        assert run(["search", "how do I cancel", *place.options, "-k", "1", *options]) == 0
        out = " ".join(capsys.readouterr().out.split())
        assert "path: gym.txt start: 0" in out
        assert "document: " not in out
        assert "position: " not in out
    assert "Stored vectors do not tell which word it expands" in out
    assert "the word in the last column" not in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--text-field", "body"], "--text-field must not be given with a folder"),
        (["--keep", "year"], "--keep must name only path"),
        (["--chunk", "-m", "http://localhost:1"], "the model must be a folder or a name on the hub for this"),
    ],
)
def test_options_without_a_meaning_are_refused(folder, model_folder, capsys, options, message):
    uri = ["--uri", str(folder.parent / "a.db")]
    assert run(["index", str(folder), "-m", model_folder, *uri, *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("models_load_once")
def test_one_txt_file_is_one_text_unless_lines_are_asked_for(place, tmp_path, model_folder, capsys):
    (tmp_path / "notes.txt").write_text("Cats purr.\n\nDogs bark.\n")
    command = ["index", str(tmp_path / "notes.txt"), "-m", model_folder, *place.options, "--json"]
    assert run(command) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["added"] == 1
    assert "notes.txt is one text. If each of its 2 lines is a text, add --input-format lines." in err
    assert run([*command, "--replace", "--input-format", "lines"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["added"] == 3
    assert "is one text" not in err


def test_a_folder_without_texts_names_the_loaders(tmp_path):
    with pytest.raises(RecordError, match=r"must hold text files whose names end in \.txt, \.md, \.rst, got no file"):
        Folder(str(tmp_path)).count()
    (tmp_path / "b.py").write_text("x")
    with pytest.raises(RecordError, match=r"got 1 \.py\. Add a text file\."):
        Folder(str(tmp_path)).count()
    (tmp_path / "b.py").unlink()
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(RecordError, match=r"got 1 \.pdf\. Load PDF and HTML with LangChain's PyPDFLoader"):
        Folder(str(tmp_path)).count()


LONG = "\n\n".join(f"## Part {part}\n\n" + f"Sentence {part} about whales 😀 and ships. " * 30 for part in range(12))
LONG += "\n\n" + "whale " * 900  # can be split only between words, so its chunks have the largest length


@pytest.mark.parametrize("name", ["whales.md", "whales.txt"])
def test_chunks_fit_the_encoder_and_lose_nothing(encoder, name, caplog):
    record = Record(name, LONG, {"path": name})
    chunks = list(in_chunks([record], splitter(encoder)))
    assert len(chunks) > 5
    encoder.encode_documents([chunk.text for chunk in chunks])
    assert "truncated" not in caplog.text
    for number, chunk in enumerate(chunks):
        start = chunk.metadata["start"]
        assert chunk.id == f"{name}#{number}"
        assert chunk.metadata == {"path": name, "document": name, "position": number, "start": start}
        assert LONG[start : start + len(chunk.text)] == chunk.text
    assert "".join("".join(chunk.text for chunk in chunks).split()) == "".join(LONG.split())
    if name.endswith(".md"):
        assert all(chunk.text.startswith("## Part") for chunk in chunks[:3])


def test_chunks_fit_the_dense_model_too(encoder):
    dense = SimpleNamespace(max_length=40)
    chunks = in_chunks([Record("a", LONG)], splitter(encoder, dense))
    assert all(len(encoder.tokenizer(chunk.text)["input_ids"]) <= 40 for chunk in chunks)


def test_odd_texts_in_chunks(encoder):
    word = "x" * 100_000  # one unknown token, but too long for Milvus
    records = [Record("a", ""), Record("b", "  \n"), Record("d#0", "z"), Record("word", word)]
    found = list(in_chunks(records, splitter(encoder)))
    assert [(one.id, one.metadata["start"]) for one in found[:3]] == [("a#0", 0), ("b#0", 0), ("d#0#0", 0)]
    assert "".join(one.text for one in found[3:]) == word
    assert all(len(one.text.encode()) < 65_536 for one in found)
    with pytest.raises(RecordError, match="the field 'start' must not be kept"):
        list(in_chunks([Record("a", "b", {"start": 1})], splitter(encoder)))


@pytest.mark.usefixtures("models_load_once")
def test_an_index_of_chunks(folder, place, model_folder, capsys):
    (folder / "long.md").write_text(LONG)
    uri = place.options
    command = ["index", str(folder), "-m", model_folder, "--max-length", "64", *uri, "--json"]
    assert run([*command, "--chunk"]) == 0
    out, err = capsys.readouterr()
    added = json.loads(out)["added"]
    assert added > 30
    assert "truncated" not in err
    assert run([*command, "--chunk", "--resume"]) == 0
    assert json.loads(capsys.readouterr().out)["already_there"] == added
    assert run([*command, "--resume"]) == 2
    assert "was made (True), got False" in capsys.readouterr().err
    assert run(["search", "part 7", *uri, "--mode", "sparse", "--json", "--filter", "position > 3"]) == 0
    hits = json.loads(capsys.readouterr().out)
    assert hits
    assert all(hit["metadata"]["path"] == "long.md" and hit["metadata"]["position"] > 3 for hit in hits)


def test_a_text_that_is_cut_is_said(tmp_path, model_folder, capsys):
    (tmp_path / "long.md").write_text("whale " * 12_000)
    assert run(["index", str(tmp_path / "long.md"), "-m", model_folder, "--uri", str(tmp_path / "a.db"), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["cut"] == 1
    assert "1 texts are longer than the 65,535 bytes that Milvus stores" in err
    assert "--chunk" in err


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys, monkeypatch):
    now = iter([0, 10, 31, 40, 70])
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(now))
    with progress("Indexing", 4000) as advance:
        for _ in range(4):
            advance(1000)
    assert capsys.readouterr().err.splitlines() == [
        "Indexing: 2,000 of 4,000 texts, 65 texts/s, about 31 s left",
        "Indexing: 4,000 of 4,000 texts, 57 texts/s, about 0 s left",
    ]
    now = iter([0, 100])
    with progress("Indexing", None) as advance:
        advance(500)
    assert capsys.readouterr().err == "Indexing: 500 texts, 5 texts/s\n"
