"""Print the path of a text through the package: the modules whose functions run when our LangChain adapter embeds it.

    python -m checks.path [--verbose]

The exit status is 1 if the path has more than 12 modules, or goes from one module to another more than 30 times.
"""

import argparse
import sys
from itertools import pairwise
from pathlib import Path
from types import FrameType

import splade_integrations
from splade_integrations.langchain import SpladeSparseEmbedding
from splade_integrations.models.offline import splade_model_path

__all__ = ["main", "way"]

_PACKAGE = str(Path(splade_integrations.__file__).parent)
_MOST_MODULES, _MOST_CHANGES = 12, 30
_TEXTS = ["Alan Turing was born in London.", "The Enigma machine was a cipher device."]


def main() -> int:
    """Print the path and return the exit status."""
    parser = argparse.ArgumentParser(prog="path", description="Print the path of a text through the package.")
    parser.add_argument("--verbose", action="store_true", help="also print each function")
    options = parser.parse_args()
    embedding = SpladeSparseEmbedding(model_name=splade_model_path(), device="cpu")
    embedding.embed_documents(_TEXTS)  # the first call also does work that later calls do not repeat, such as loading
    calls = way(embedding)
    stations = [module for module, _ in calls]
    changes = sum(before != after for before, after in pairwise(stations))
    last = ""
    for module, function in calls:
        if module != last:
            print(module)
        if options.verbose:
            print(f"    {function}")
        last = module
    print(f"{len(set(calls))} functions in {len(set(stations))} modules, with {changes} changes of module")
    return int(len(set(stations)) > _MOST_MODULES or changes > _MOST_CHANGES)


def way(embedding: SpladeSparseEmbedding) -> list[tuple[str, str]]:
    """Embed two texts. For each call of one of the package's functions, return its module and name, in order."""
    calls: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(_PACKAGE):
            module = Path(code.co_filename).relative_to(_PACKAGE).with_suffix("")
            calls.append((str(module), code.co_qualname))

    sys.setprofile(note)
    try:
        embedding.embed_documents(_TEXTS)
    finally:
        sys.setprofile(None)
    return calls


if __name__ == "__main__":
    sys.exit(main())
