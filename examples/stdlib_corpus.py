"""Read the demo's corpus: the docstrings of Python's standard library, which every Python programmer has on disk.

The source files are parsed and never imported, so reading them does not run their code. This command prints the number
of entries, and three of the entries:

    python examples/stdlib_corpus.py
"""

import ast
import hashlib
import json
import re
import sys
import sysconfig
import time
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

__all__ = ["Entry", "read_corpus", "read_corpus_once"]

Kind = Literal["function", "class", "method"]
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

MIN_WORDS = 7  # a shorter docstring, such as "Return the name.", says too little to search for
MAX_SIGNATURE = 200  # characters
MAX_TEXT = 1200  # characters, so that name, signature and text have about 256 tokens, as many as the demo reads

LEFT_OUT = {
    *("test", "tests", "idlelib", "turtledemo"),  # programs, not libraries
    *("site-packages", "dist-packages", "ensurepip"),  # not a part of the library that users import
    *("distutils", "asynchat", "imp", "smtpd", "lib2to3"),  # removed in Python 3.12 or 3.13
    *("tkinter", "turtle"),  # not installed everywhere, and they would be a sixth of the corpus
    "ntpath",  # os.path for Windows, with the same functions
}
KNOWN_AS = {  # {module that holds the source: module that programs import}
    "posixpath": "os.path",
    "genericpath": "os.path",
    "_collections_abc": "collections.abc",
    "_pydecimal": "decimal",
}

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})")  # splits "SSLObject", but not "IPv6"
_SELF = re.compile(r"^(self|cls)(, /)?(, |$)")


@dataclass(frozen=True)
class Entry:
    """One documented function, class or method.

    Args:
        name: The dotted name that a program would use. It is unique in the corpus.
        kind: The kind of the documented object. A property counts as a method.
        module: The module to import.
        signature: The parameters in parentheses, without `self`. It is empty for a property, and for a class that
            defines no constructor.
        text: The docstring without its indentation.
    """

    name: str
    kind: Kind
    module: str
    signature: str
    text: str

    @property
    def page(self) -> str:
        """The text to embed: name and signature, the words of a CamelCase name, and the beginning of the docstring.

        Example:
            >>> print(Entry("queue.LifoQueue", "class", "queue", "(maxsize=0)", "Most recently added first.").page)
            queue.LifoQueue(maxsize=0)
            queue.Lifo Queue
            Most recently added first.
        """
        signature = self.signature if len(self.signature) <= MAX_SIGNATURE else self.signature[:MAX_SIGNATURE] + "…)"
        # BERT's tokenizer splits names at dots and underscores, but does not find the words of a CamelCase name. So the
        # page also contains the name with spaces between these words.
        words = _HUMP.sub(" ", self.name)
        return "\n".join(dict.fromkeys([self.name + signature, words, _beginning(self.text, MAX_TEXT)]))


@dataclass(frozen=True)
class _Module:
    """The facts about one source file.

    The module's syntax tree is not kept. If all trees stayed in memory, garbage collection would make reading take
    three times as long.

    Args:
        name: The dotted name of the module.
        definitions: {name of a public function or class: its entry, and the entries of its methods}. The names of the
            entries do not yet include the module.
        declared: The names in `__all__`, or None if `__all__` is absent or computed.
        imports: (absolute name of the source, names) for each statement `from source import names`.
    """

    name: str
    definitions: dict[str, list[Entry]]
    declared: frozenset[str] | None
    imports: list[tuple[str, frozenset[str]]]


def read_corpus() -> list[Entry]:
    """Read the documented public functions, classes and methods of this Python's standard library.

    A name is public if it has no leading underscore. If its module has `__all__`, the name must also be in `__all__`.
    Entries have the names that programs use. For example, `decimal.Decimal` is the name of a class whose source is in
    `_pydecimal`. The corpus does not contain the modules in `LEFT_OUT`, modules that announce their removal, docstrings
    of fewer than `MIN_WORDS` words, or anything written in C.

    Returns:
        About 3,200 entries, sorted by name. The entries differ slightly between versions of Python.

    Raises:
        FileNotFoundError: This Python has no source files.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    modules = {module.name: module for module in _read_modules(folder)}
    homes = _homes(modules)
    entries: dict[str, Entry] = {}
    for module in modules.values():
        for definition, found in module.definitions.items():
            home = homes.get((module.name, definition))
            if home is None:
                continue
            for entry in found:
                name = f"{home}.{entry.name}"
                if name not in entries:  # the first entry stays: a property's setter has the same name as the property
                    entries[name] = replace(entry, name=name, module=home)
    if not entries:
        raise FileNotFoundError(
            f"The standard library must have .py files, got none in {folder}. Use a Python that comes with its sources."
        )
    return [entries[name] for name in sorted(entries)]


def read_corpus_once(folder: Path) -> list[Entry]:
    """Return the entries of `read_corpus`. Parsing takes seconds, so the entries are stored for later calls.

    Args:
        folder: The folder for the stored entries. It has one file for each version of Python and of this module.
    """
    version = hashlib.sha256(sys.version.encode() + Path(__file__).read_bytes()).hexdigest()[:16]
    file = folder / f"stdlib-{version}.json"
    if file.is_file():
        return [Entry(**fields) for fields in json.loads(file.read_text(encoding="utf-8"))]
    entries = read_corpus()
    unfinished = file.with_suffix(".part")
    unfinished.write_text(json.dumps([asdict(entry) for entry in entries]), encoding="utf-8")
    unfinished.replace(file)  # so that no other process reads an incomplete file
    return entries


def _read_modules(folder: Path) -> Iterator[_Module]:
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        if not LEFT_OUT.isdisjoint(parts) or not all(part.isidentifier() for part in parts):
            continue
        try:
            with tokenize.open(path) as file:  # in the encoding that the file declares
                source = file.read()
            tree = ast.parse(source)
        except (SyntaxError, ValueError):  # the syntax of another Python version, or bytes that cannot be decoded
            continue
        if "warnings._deprecated(__name__" in source:  # the module announces its removal
            continue
        package = parts[:-1]
        name = ".".join(package if parts[-1] == "__init__" else parts)
        declared = None if re.search(r"__all__(\.| *\+=)", source) else _declared(tree.body)
        definitions: dict[str, list[Entry]] = {}
        for node in _definitions(tree.body):
            definitions.setdefault(node.name, []).extend(_entries(node, name, node.name, "function"))
        yield _Module(name, definitions, declared, list(_imports(tree.body, package)))


def _declared(body: Sequence[ast.stmt]) -> frozenset[str] | None:
    for node in body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            items = node.value.elts if isinstance(node.value, ast.List | ast.Tuple) else []
            names = (item.value for item in items if isinstance(item, ast.Constant))
            return frozenset(name for name in names if isinstance(name, str)) or None
    return None


def _imports(body: Sequence[ast.stmt], package: tuple[str, ...]) -> Iterator[tuple[str, frozenset[str]]]:
    for node in _statements(body):
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            names = frozenset(alias.name for alias in node.names if alias.asname in (None, alias.name))
            yield ".".join([*above, *([node.module] if node.module else [])]), names


def _homes(modules: dict[str, _Module]) -> dict[tuple[str, str], str]:
    """Return {(source module, name): module to import} for each public definition.

    The source module contains the definition. The module to import is the source module itself, or a module that
    imports the definition from it and is one of these:

    - a package that contains the source module
    - if the source module is private, a module of the same top-level package
    - if the source module is private, a module that imports `*` from it, or lists the name in `__all__`

    If there are several such modules, the one with the fewest dots in its name is chosen. If several names have equally
    few dots, the first of these names in alphabetical order is chosen.
    """
    places: dict[tuple[str, str], set[str]] = {}

    def publish(names: frozenset[str], source: str, module: _Module) -> None:
        home = KNOWN_AS.get(module.name, module.name)
        if _is_public(home):
            for name in names if module.declared is None else names & module.declared:
                places.setdefault((source, name), set()).add(home)

    for module in modules.values():
        publish(frozenset(module.definitions), module.name, module)
        for source, names in module.imports:
            if source not in modules or source in KNOWN_AS:
                continue
            takes_all = "*" in names
            is_around = source.startswith(module.name + ".")
            is_neighbour = source.partition(".")[0] == module.name.partition(".")[0]
            if is_around or (not _is_public(source) and (is_neighbour or takes_all or module.declared)):
                defined = frozenset(modules[source].definitions)
                exported = modules[source].declared or defined
                publish(defined & (exported if takes_all else names), source, module)
    return {key: min(homes, key=lambda home: (home.count("."), home)) for key, homes in places.items()}


def _is_public(module: str) -> bool:
    return not any(part.startswith("_") for part in module.split("."))


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a body, including those under `if` and `try`, but not those in functions and classes."""
    for node in body:
        yield node
        if not isinstance(node, Definition):
            for part in ("body", "handlers", "orelse", "finalbody"):
                yield from _statements(getattr(node, part, ()))


def _definitions(body: Sequence[ast.stmt]) -> Iterator[Definition]:
    for node in _statements(body):
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node


def _entries(node: Definition, module: str, name: str, kind: Kind) -> Iterator[Entry]:
    text = ast.get_docstring(node) or ""
    if len(text.split()) >= MIN_WORDS:
        yield Entry(name, "class" if isinstance(node, ast.ClassDef) else kind, module, _signature(node), text)
    if isinstance(node, ast.ClassDef):
        for member in _definitions(node.body):
            yield from _entries(member, module, f"{name}.{member.name}", "method")


def _signature(node: Definition) -> str:
    if isinstance(node, ast.ClassDef):
        functions = {member.name: member for member in node.body if isinstance(member, ast.FunctionDef)}
        constructor = functions.get("__init__") or functions.get("__new__")
        return _signature(constructor) if constructor else ""
    if any(ast.unparse(decorator).endswith("property") for decorator in node.decorator_list):
        return ""
    return f"({_SELF.sub('', ast.unparse(node.args))})"


def _beginning(text: str, limit: int) -> str:
    """Cut `text` to at most `limit` characters: after a paragraph if possible, otherwise after a sentence or a word.

    Example:
        >>> _beginning("One. Two three four five.", limit=14)
        'One.'
    """
    if len(text) <= limit:
        return text
    text = text[:limit]
    ends = (text.rfind("\n\n"), max(text.rfind(". "), text.rfind(".\n")) + 1, text.rfind(" "))
    # A paragraph or a sentence that ends in the first quarter does not count: cutting there would lose too much.
    return text[: next((end for end in ends if end > limit // 4), limit)].rstrip()


if __name__ == "__main__":
    started = time.perf_counter()
    corpus = read_corpus()
    print(f"{len(corpus):,} entries in {time.perf_counter() - started:.1f} s\n")
    for entry in corpus[len(corpus) // 6 :: len(corpus) // 3]:
        print(entry.page, end="\n\n")
