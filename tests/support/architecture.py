"""Checks which rooms of the package import which others, by reading the import statements.

A room is a folder of the package, or a module at its root. `python -m tests.support.architecture` prints the picture
of the rooms that CONTRIBUTING.md shows.
"""

import ast
import gc
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGE = "splade_integrations"

# The rooms from the bottom up. A room may import only rooms on the lines before its own line.
ROOMS = [
    ["errors", "forks", "fusion", "lazy_names", "sparse"],
    ["dependencies", "pruning"],
    ["arrow"],
    ["records"],
    ["models"],
    ["engine", "reference"],
    ["options", "encoding"],
    ["encoder"],
    ["dynamic_batching", "one_pass"],
    ["adapter"],
    ["milvus", "serving"],
    ["langchain", "llama_index", "evaluation"],
    ["ray"],
    ["cli"],
]
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}

# Packages that only these rooms may import. The rule also holds inside functions and under `if TYPE_CHECKING`.
ONLY_IN = {
    "torch": {"engine"},
    "triton": {"engine"},
    "openvino": {"engine"},
    "peft": {"engine"},
    "transformers": {"engine", "models", "encoding", "evaluation", "cli"},
    "pymilvus": {"milvus", "langchain", "llama_index", "evaluation", "ray", "cli"},
    "langchain_core": {"langchain"},
    "langchain_milvus": {"langchain"},
    "llama_index": {"llama_index"},
    "ray": {"ray"},
    "httpx": {"serving"},
    "starlette": {"serving"},
    "uvicorn": {"serving"},
    "prometheus_client": {"serving"},
    "typer": {"cli"},
    "rich": {"cli", "encoding"},
    "sentence_transformers": {"evaluation"},
    "matplotlib": {"encoding", "evaluation", "cli"},
}
# Packages that only these rooms may import at the top of a module. Other rooms import them in the functions that need
# them.
AT_THE_TOP_ONLY_IN: dict[str, set[str]] = {
    "transformers": {"engine"},
    "tqdm": set(),
    "rich": {"cli"},
    "matplotlib": set(),
    "openvino": set(),
    "peft": set(),
}


class Import(NamedTuple):
    """One import.

    Args:
        module: The module that imports.
        target: The module that is imported.
        names: The names that are imported from it.
        at_the_top: Whether the import is outside functions and outside `if TYPE_CHECKING`.
        ours: Whether the imported module is in our package. The room `ray` and the package `ray` differ only in this.
    """

    module: str
    target: str
    names: tuple[str, ...]
    at_the_top: bool
    ours: bool


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Return the path of every module of the package, by its dotted name without the name of the package."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root / PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imports(root: Path = ROOT) -> list[Import]:
    """Return all imports in the package, including those in functions and under `if TYPE_CHECKING`."""
    paths = modules(root)
    return [one for module, path in paths.items() for one in _imports_of(module, path, paths)]


@cache
def _parsed(text: str) -> ast.Module:
    """Parse with the garbage collector switched off. CPython 3.11 fails if objects are finalized during parsing."""
    collects = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(text)
    finally:
        if collects:
            gc.enable()


def _imports_of(module: str, path: Path, paths: dict[str, Path]) -> Iterator[Import]:
    tree = _parsed(path.read_text(encoding="utf-8"))
    top = {id(node) for node in _at_the_top(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, _ours(alias.name), (), id(node) in top, _is_ours(alias.name))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports must be absolute"
            target, names = _ours(node.module or ""), tuple(alias.name for alias in node.names)
            parts = [f"{target}.{name}".strip(".") for name in names] if _is_ours(node.module or "") else []
            submodules = [part for part in parts if part in paths]
            for submodule in submodules:
                yield Import(module, submodule, names, id(node) in top, True)
            if len(submodules) < len(names):
                yield Import(module, target, names, id(node) in top, _is_ours(node.module or ""))


def _at_the_top(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yield the statements that run on import, including those in `with` and `try`.

    Statements under `if TYPE_CHECKING` are left out.
    """
    pending = list(tree.body)
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, ast.With | ast.Try):
            pending += node.body
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            pending += node.body + node.orelse


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == PACKAGE


def _ours(name: str) -> str:
    """Return a dotted name without our package's name in front. "" is the root of the package."""
    if name == PACKAGE:
        return ""
    return name.removeprefix(f"{PACKAGE}.")


def room_of(module: str) -> str:
    """Return the room of a module, which is the first part of its name."""
    return module.partition(".")[0]


def faults(root: Path = ROOT) -> list[str]:
    """Return one sentence for each import or module that breaks the rules."""
    paths, found = modules(root), []
    for module in paths:
        if module and room_of(module) not in LEVEL:
            found.append(f"{module} is in no room of the picture: add it to ROOMS, or move it")
    for room in LEVEL:
        if room not in {room_of(module) for module in paths}:
            found.append(f"{room} is in the picture and not in the package: take it out of ROOMS")
    ours = [one for one in imports(root) if one.ours and one.target in paths]
    for one in ours:
        below, above = LEVEL.get(room_of(one.target), 0), LEVEL.get(room_of(one.module), len(ROOMS))
        same = room_of(one.module) == room_of(one.target)
        if one.module and one.target and not same and below >= above:
            found.append(f"{one.module} imports {one.target}: arrows point from {room_of(one.target)} upward")
    for one in imports(root):
        package, room = room_of(one.target), room_of(one.module)
        if one.ours and one.target in paths:
            continue
        if package in ONLY_IN and room not in ONLY_IN[package]:
            found.append(f"{one.module} imports {package}: only {', '.join(sorted(ONLY_IN[package]))} may")
        elif one.at_the_top and package in AT_THE_TOP_ONLY_IN and room not in AT_THE_TOP_ONLY_IN[package]:
            found.append(f"{one.module} imports {package} at its top: import it in the function that needs it")
        elif package == "transformers" and room != "engine" and any("Model" in name for name in one.names):
            found.append(f"{one.module} imports a model of transformers: only engine may")
    found += [f"circle: {' -> '.join(circle)}" for circle in _circles(ours)]
    return found


def _circles(ours: list[Import]) -> list[list[str]]:
    """Return the circles of modules that import each other, directly or through other modules."""
    targets: dict[str, set[str]] = {}
    for one in ours:
        if one.module and one.target:
            targets.setdefault(one.module, set()).add(one.target)
    found, done = [], set()

    def visit(module: str, way: list[str]) -> None:
        if module in way:
            found.append([*way[way.index(module) :], module])
            return
        if module in done:
            return
        for target in sorted(targets.get(module, ())):
            visit(target, [*way, module])
        done.add(module)

    for module in sorted(targets):
        visit(module, [])
    return found


def picture() -> str:
    """Return the rooms from the top down, each with the first line of its docstring and the rooms that it imports."""
    paths, known = modules(), {room: set() for room in LEVEL}
    for one in imports():
        if (
            one.ours
            and one.target in paths
            and one.module
            and one.target
            and room_of(one.module) != room_of(one.target)
        ):
            known[room_of(one.module)].add(room_of(one.target))
    lines = []
    for rooms in reversed(ROOMS):
        for room in rooms:
            name = f"{room}/" if (ROOT / PACKAGE / room).is_dir() else f"{room}.py"
            says = ast.get_docstring(_parsed(paths[room].read_text(encoding="utf-8"))) or ""
            lines.append(f"    {name:<20}{says.splitlines()[0]}")
            imported = sorted(known[room], key=lambda other: (-LEVEL[other], other))
            lines.append(f"    {'':<20}  imports {', '.join(imported) or 'none of the others'}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(picture(), end="")
