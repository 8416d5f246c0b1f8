"""Reads the text files of a folder, one document for each file, and says which files it leaves out."""

import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from splade_integrations.records.lines import unreadable
from splade_integrations.records.record import Record, RecordError

__all__ = ["DOCUMENT_ENDINGS", "Folder"]

DOCUMENT_ENDINGS = (".txt", ".md", ".rst")
_LOADERS = (
    "Load PDF and HTML with LangChain's PyPDFLoader and BSHTMLLoader or with LlamaIndex's SimpleDirectoryReader, and "
    "add what they return to a store."
)
_LOADED = {".pdf", ".html", ".htm"}
_NAMES_SHOWN = 3
_SKIPPED = "folders that are hidden, links or databases"


@dataclass(frozen=True)
class _Found:
    """The files to read, and the files to leave out as {reason: their names}. Names are relative to the folder."""

    files: list[str]
    left_out: dict[str, list[str]]


@dataclass(frozen=True)
class Folder:
    """The files of a folder and of its subfolders that end in .txt, .md or .rst. Each is one document.

    A document's id is its path in the folder, with "/" between the parts. Documents come in the order of their paths.
    Three things are not read: hidden files and folders, links to folders, and folders whose names end in .db, which are
    milvus-lite's databases.

    Args:
        path: The folder, or one file.
        keep: The metadata to keep. The only metadata is "path", which is the same as the id. None keeps it.
    Raises:
        RecordError: The folder cannot be read, it holds no file to read, or `keep` names anything but "path".

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "notes.md").write_text("Cats purr.")
        >>> _ = (folder / "paper.pdf").write_bytes(b"%PDF")
        >>> documents = Folder(str(folder))
        >>> list(documents)
        [Record(id='notes.md', text='Cats purr.', metadata={'path': 'notes.md'})]
        >>> documents.left_out
        {'.pdf': 1}
    """

    path: str
    keep: Collection[str] | None = None

    def __post_init__(self) -> None:
        """Check `keep`."""
        if wrong := [name for name in self.keep or () if name != "path"]:
            raise RecordError(f"--keep must name only path, got {wrong[0]!r}. Drop it. Files have no other metadata.")

    def __iter__(self) -> Iterator[Record]:
        for name in self._found.files:
            file = self._root / name
            try:
                text = file.read_bytes().decode("utf-8-sig", "replace")
            except OSError as err:
                raise unreadable(str(file), err) from err
            yield Record(name, text, {"path": name} if self.keep is None or self.keep else {})

    def count(self) -> int:
        """Return the number of documents."""
        return len(self._found.files)

    @property
    def left_out(self) -> dict[str, int]:
        """{reason: number of files} for the files that are not read. A reason may be an ending, such as ".pdf"."""
        return {reason: len(names) for reason, names in self._found.left_out.items()}

    def left_out_message(self) -> str:
        """Return a sentence about the files that are left out and what to do with them, or "" if there are none.

        If `path` is one .txt file with several lines, the sentence says instead that the file counts as one text,
        because the user may have meant each of its lines as a text.
        """
        left_out = self._found.left_out
        if not Path(self.path).is_dir() and self.path.lower().endswith(".txt"):
            lines = sum(bool(line.strip()) for line in next(iter(self)).text.splitlines())
            is_one = f"{self.path} is one text. If each of its {lines:,} lines is a text, add --input-format lines."
            return is_one if lines > 1 else ""
        return f"left out of {self.path}: {_reasons(left_out)}. {_advice(left_out)}".rstrip() if left_out else ""

    @property
    def _root(self) -> Path:
        return Path(self.path) if Path(self.path).is_dir() else Path(self.path).parent

    @cached_property
    def _found(self) -> _Found:
        """All files, sorted into those to read and those to leave out. For this, each text file is read once."""
        files: list[str] = []
        left_out: dict[str, list[str]] = {}
        if not Path(self.path).is_dir():
            try:
                Path(self.path).open("rb").close()
            except OSError as err:
                raise unreadable(self.path, err) from err
        for name in sorted(self._names()):
            if reason := _reason_against(self._root, name):
                left_out.setdefault(reason, []).append(name)
            else:
                files.append(name)
        if not files:
            raise RecordError(
                f"{self.path} must hold text files whose names end in {', '.join(DOCUMENT_ENDINGS)}, got "
                f"{_reasons(left_out) or 'no file'}. {_advice(left_out) or 'Add a text file.'}"
            )
        return _Found(files, left_out)

    def _names(self) -> Iterator[str]:
        if not Path(self.path).is_dir():
            yield Path(self.path).name
            return

        def fails(err: OSError) -> None:
            raise unreadable(err.filename or self.path, err) from err

        for folder, folders, names in os.walk(self.path, onerror=fails):
            inside = Path(folder).relative_to(self.path)
            skipped = [name for name in folders if _is_skipped(Path(folder, name))]
            folders[:] = [name for name in folders if name not in skipped]
            yield from ((inside / name).as_posix() for name in names)
            yield from (f"{(inside / name).as_posix()}/" for name in skipped)


def _is_skipped(folder: Path) -> bool:
    return folder.name.startswith(".") or folder.name.endswith(".db") or folder.is_symlink()


def _reason_against(root: Path, name: str) -> str:
    """Return why a file is left out, or "" if it is not. The name of a folder that is left out ends in "/"."""
    path = root / name
    if name.endswith("/"):
        return _SKIPPED
    if path.name.startswith("."):
        return "hidden"
    if path.suffix.lower() not in DOCUMENT_ENDINGS:
        return path.suffix.lower() or "no ending"
    try:
        name.encode()
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeEncodeError:
        return "name not Unicode"
    except UnicodeDecodeError:
        return "not UTF-8"
    except OSError:
        return "unreadable"
    return "" if text.strip() else "empty"


def _advice(left_out: dict[str, list[str]]) -> str:
    return _LOADERS if _LOADED.intersection(left_out) else ""


def _reasons(left_out: dict[str, list[str]]) -> str:
    counts = Counter({reason: len(names) for reason, names in left_out.items()})
    parts = []
    for reason, count in counts.most_common():
        names = [] if reason.startswith(".") or reason in ("hidden", "no ending") else left_out[reason]
        shown = ", ".join(ascii(name)[1:-1] for name in names[:_NAMES_SHOWN]) + (", …" if count > _NAMES_SHOWN else "")
        parts.append(f"{count:,} {reason}" + (f" ({shown})" if names else ""))
    return ", ".join(parts)
