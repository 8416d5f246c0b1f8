"""Files of a model repository, local or on a hub. Knows where files lie, nothing of what is in them."""

import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from transformers.utils import cached_file

from splade_integrations.errors import UnsupportedModelError

__all__ = ["Repository", "not_reached"]


@dataclass(frozen=True)
class Repository:
    """A local folder or a hub repository, with the options to reach it.

    Args:
        name: A local folder, or `org/model`.
        hub_options: `revision`, `cache_dir`, `token`, `local_files_only`: as in transformers.
    """

    name: str
    hub_options: dict[str, Any] = field(default_factory=dict)

    @property
    def is_local(self) -> bool:
        return Path(self.name).is_dir()

    def path(self, file: str) -> Path | None:
        """Local path of a file, fetched if need be; None where the repository has no such file.

        Raises:
            UnsupportedModelError: The path would leave the repository.
        """
        if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts or "\\" in file or ":" in file:
            raise UnsupportedModelError(
                f"{self.name!r} must name its own files only, got {file!r} in its configuration. Do not trust it."
            )
        if self.is_local:
            path = Path(self.name) / file
            return path if path.is_file() else None
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


def not_reached(name: str, reason: str) -> str:
    """The words for a name that is neither a folder nor a repository in reach."""
    return (
        f"{name!r} must be a folder, or a model repository that can be reached, and is neither. "
        f"Check the name, the network and, for a gated model, the token. ({reason})"
    )
