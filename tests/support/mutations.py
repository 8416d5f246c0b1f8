"""Damages model folders at random, for tests of what an encoder refuses."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

from splade_integrations import SpladeEncoder, UnsupportedModelError

__all__ = ["loads_or_is_refused", "mutate"]

# A damaged value of a configuration. Large numbers are left out, because they would only take long.
_ODD_VALUES: tuple[Any, ...] = (None, "x", "", -1, 0, 7, 0.5, True, [], {}, [1], {"a": 1})


def mutate(folder: Path, target: Path, chance: random.Random) -> tuple[Path, str]:
    """Copy a model's folder to `target`, and damage one file of the copy.

    Returns:
        The copy, and a sentence that says what was done.
    """
    shutil.copytree(folder, target)
    files = sorted(path for path in target.rglob("*") if path.is_file() and path.name != "README.md")
    file = chance.choice(files)
    name = file.relative_to(target).as_posix()
    kinds = [_remove, _truncate, _flip, _empty]
    if file.suffix == ".json" and file.name != "tokenizer.json":
        kinds += [_change_value] * 4
    what = chance.choice(kinds)(file, chance)
    return target, f"{name}: {what}"


def loads_or_is_refused(folder: Path, what: str) -> bool:
    """Load a damaged folder, encode two texts, and delete the folder. Return whether it was refused.

    Args:
        folder: The folder.
        what: A sentence that says what was done to it.
    Raises:
        AssertionError: The error is neither of the two documented ones.
    """
    try:
        rows = SpladeEncoder(folder).encode_documents(["the string", "a"])
    except (UnsupportedModelError, FileNotFoundError):
        return True
    except Exception as err:
        raise AssertionError(what) from err
    finally:
        shutil.rmtree(folder)
    assert (rows.data > 0).all(), what
    return False


def _remove(file: Path, chance: random.Random) -> str:
    file.unlink()
    return "removed"


def _empty(file: Path, chance: random.Random) -> str:
    file.write_bytes(b"")
    return "emptied"


def _truncate(file: Path, chance: random.Random) -> str:
    content = file.read_bytes()
    kept = chance.randrange(len(content))
    file.write_bytes(content[:kept])
    return f"cut after {kept} bytes"


def _flip(file: Path, chance: random.Random) -> str:
    content = bytearray(file.read_bytes())
    places = [chance.randrange(len(content)) for _ in range(20)]
    for place in places:
        content[place] = chance.randrange(256)
    file.write_bytes(bytes(content))
    return f"bytes {places} changed"


def _change_value(file: Path, chance: random.Random) -> str:
    content = json.loads(file.read_text())
    place, key = _somewhere(content, chance)
    if chance.random() < 0.3 and isinstance(place, dict):
        del place[key]
        done = f"{key!r} removed"
    else:
        place[key] = chance.choice(_ODD_VALUES)
        done = f"{key!r} set to {place[key]!r}"
    file.write_text(json.dumps(content))
    return done


def _somewhere(content: Any, chance: random.Random) -> tuple[Any, Any]:
    """Return a container within `content`, and one of its keys."""
    while True:
        keys = list(content) if isinstance(content, dict) else list(range(len(content)))
        if not keys:
            content["added"] = None
            return content, "added"
        key = chance.choice(keys)
        inner = content[key]
        if not (isinstance(inner, dict | list) and inner and chance.random() < 0.7):
            return content, key
        content = inner
