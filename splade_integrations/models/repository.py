"""Files of a model repository, local or on a hub. Knows where files lie, nothing of what is in them."""

import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from splade_integrations.errors import UnsupportedModelError

__all__ = ["Repository", "not_reached", "path_in"]


@dataclass(frozen=True)
class Repository:
    """A local folder or a hub repository, with the options to reach it.

    Args:
        name: A local folder, or `org/model`.
        hub_options: `revision`, `cache_dir`, `token`, `local_files_only`: as in transformers.

    Attributes:
        local_folder: The folder, absolute, or None for a hub repository. Settled once: what is read later, such as
            weights that are loaded when first wanted, comes from there whatever the working directory has become.
    """

    name: str
    hub_options: dict[str, Any] = field(default_factory=dict)
    local_folder: Path | None = field(init=False, compare=False)

    def __post_init__(self) -> None:
        folder = Path(self.name)
        object.__setattr__(self, "local_folder", folder.absolute() if folder.is_dir() else None)

    def path(self, file: str) -> Path | None:
        """Local path of a file, fetched if need be; None where the repository has no such file.

        Raises:
            UnsupportedModelError: The path would leave the repository.
        """
        if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts or "\\" in file or ":" in file:
            raise UnsupportedModelError(
                f"{self.name!r} must name its own files only, got {file!r} in its configuration. Do not trust it."
            )
        if self.local_folder is not None:
            path = self.local_folder / file
            return path if path.is_file() else None
        from transformers.utils import cached_file  # heavy, and a local folder does without it

        try:
            found = cached_file(self.name, file, _raise_exceptions_for_missing_entries=False, **self.hub_options)
        except OSError as err:
            first_line = str(err).strip().split("\n", 1)[0]
            raise FileNotFoundError(not_reached(self.name, first_line)) from err
        return None if found is None else Path(found)

    def json(self, file: str) -> Any:
        """Content of a JSON file; None where the repository has no such file.

        Raises:
            UnsupportedModelError: The file is no JSON.
        """
        path = self.path(file)
        if path is None:
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as err:
            raise UnsupportedModelError(f"{self.name!r} has a {file} that is no JSON: {err}. Fetch it again.") from err


def path_in(folder: str, file: str) -> str:
    """The path of a file in a folder of a repository, "" its root."""
    return str(PurePosixPath(folder) / file)


def not_reached(name: str, reason: str) -> str:
    """The words for a name that is neither a folder nor a repository in reach."""
    return (
        f"{name!r} must be a folder, or a model repository that can be reached, and is neither. "
        f"Check the name, the network and, for a gated model, the token. ({reason})"
    )
