"""Finds the files of a model repository, which is a local folder or a repository on a hub.

This module knows where files are, but not what they mean.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from splade_integrations.errors import UnsupportedModelError, first_line

__all__ = ["Repository", "not_reached", "path_in"]

_COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class Repository:
    """A local folder or a hub repository, with the options to reach it.

    Args:
        name: A local folder, or `org/model`.
        hub_options: `revision`, `cache_dir`, `token` and `local_files_only`, as in transformers and huggingface_hub.
        trust_remote_code: Whether code in the repository may run.

    Attributes:
        local_folder: The absolute path of the folder, or None for a hub repository. It is found once, at the start. So
            files that are read later, such as weights that load on first use, are found even if the working directory
            changes.
    """

    name: str
    hub_options: dict[str, Any] = field(default_factory=dict, repr=False)  # hidden, because a token may be in it
    trust_remote_code: bool = False
    local_folder: Path | None = field(init=False, compare=False)

    def __post_init__(self) -> None:
        folder = Path(self.name)
        object.__setattr__(self, "local_folder", folder.absolute() if folder.is_dir() else None)

    def path(self, file: str) -> Path | None:
        """Return the local path of a file, or None if the repository has no such file.

        A file on the hub is downloaded, unless it is already in the cache.

        Raises:
            UnsupportedModelError: The path would leave the repository.
        """
        if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts or "\\" in file or ":" in file:
            raise UnsupportedModelError(
                f"the configuration of {self.name!r} must name only files of its own repository, got {file!r}. "
                "Do not use a model that reaches for other files."
            )
        if self.local_folder is not None:
            path = self.local_folder / file
            return path if path.is_file() else None
        return self._from_hub(file)

    def _from_hub(self, file: str) -> Path | None:
        # slow to import, and not needed for a local folder
        from huggingface_hub import hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import (
            EntryNotFoundError,
            GatedRepoError,
            HFValidationError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        revision, cache_dir = self.hub_options.get("revision"), self.hub_options.get("cache_dir")
        if _COMMIT.fullmatch(revision or ""):  # a commit never changes, so the hub need not be asked about it again
            cached = try_to_load_from_cache(self.name, file, cache_dir=cache_dir, revision=revision)
            if cached is not None:
                return Path(cached) if isinstance(cached, str) else None
        try:
            return Path(hf_hub_download(self.name, file, **self.hub_options))
        except EntryNotFoundError:  # the repository lacks the file, or the cache lacks it and the hub is not reached
            return None
        except (OSError, HFValidationError) as err:
            refused = isinstance(err, HFValidationError | RepositoryNotFoundError | RevisionNotFoundError)
            if not refused or isinstance(err, GatedRepoError):  # a file that is in the cache already can still be used
                cached = try_to_load_from_cache(self.name, file, cache_dir=cache_dir, revision=revision)
                if isinstance(cached, str):
                    return Path(cached)
            raise FileNotFoundError(not_reached(self.name, first_line(err))) from err

    def json(self, file: str) -> Any:
        """Return the content of a JSON file, or None if the repository has no such file.

        Raises:
            UnsupportedModelError: The file is not valid JSON.
        """
        path = self.path(file)
        if path is None:
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as err:
            raise UnsupportedModelError(
                f"{self.name!r} must have a {file} that is valid JSON, got an error: {err}. Download it again."
            ) from err

    def files(self, folder: str) -> list[str]:
        """Return the files in a folder and its subfolders, as paths relative to the folder. [] means not known.

        The files of a hub repository are not known if the hub cannot be asked.
        """
        if self.local_folder is not None:
            root = self.local_folder / folder
            return [path.relative_to(root).as_posix() for path in root.glob("*")] + [
                path.relative_to(root).as_posix() for path in root.glob("*/*")
            ]
        if self.hub_options.get("local_files_only"):
            return []
        from huggingface_hub import HfApi

        options = {name: self.hub_options.get(name) for name in ("revision", "token")}
        prefix = f"{folder}/" if folder else ""
        try:
            found = HfApi().list_repo_files(self.name, **options)
        except Exception:  # the hub is not reached, or refuses; this list only improves messages
            return []
        return [name.removeprefix(prefix) for name in found if name.startswith(prefix)]

    def location(self, folder: str) -> dict[str, Any]:
        """Return the arguments that make transformers read a folder of this repository. The folder "" is the root."""
        trust = {"trust_remote_code": self.trust_remote_code}
        if self.local_folder is not None:
            return {"pretrained_model_name_or_path": str(self.local_folder / folder), **self.hub_options, **trust}
        return {"pretrained_model_name_or_path": self.name, "subfolder": folder, **self.hub_options, **trust}


def path_in(folder: str, file: str) -> str:
    """Return the path of a file in a folder of a repository. The folder "" is the root."""
    return str(PurePosixPath(folder) / file)


def not_reached(name: str, reason: str) -> str:
    """Return the message for a name that is neither a folder nor a repository that can be reached."""
    return (
        f"{name!r} must be a folder, or a model repository that can be reached, and is neither. "
        f"Check the name, the network and, for a gated model, the token. ({reason})"
    )
