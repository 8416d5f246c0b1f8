"""Finds the files of a model repository, which is a local folder or a repository on a hub.

This module knows where files are, but not what they mean.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from splade_integrations.errors import UnsupportedModelError, first_line

__all__ = ["Repository", "not_reached", "path_in"]

_TIMEOUT = 10.0  # seconds to wait for the hub's first answer
_answered: list[bool] = []  # has an item as soon as the hub has answered in this process
_COMMIT = re.compile("[0-9a-f]{40}")
# The largest JSON file that is read. The largest tokenizer.json of a known model has 35 MB.
_MOST_JSON_BYTES = 256 * 2**20
_MOST_CARD_CHARACTERS = 2**16
# The files that our code or a library reads from a folder have these endings.
_ENDINGS = (".json", ".txt", ".safetensors", ".bin", ".pt", ".model", ".py", ".jinja")


@dataclass(frozen=True)
class Repository:
    """A local folder or a hub repository, with the options to reach it.

    Args:
        name: A local folder, or `org/model`.
        hub_options: `revision`, `cache_dir`, `token` and `local_files_only`, as in transformers and huggingface_hub.
        trust_remote_code: Whether code in the repository may run.

    Attributes:
        local_folder: The absolute path of the folder, or None for a hub repository. The path is determined once, at the
            start. So files that are read later, such as weights that load on first use, are found even if the working
            directory changes.
    """

    name: str
    hub_options: dict[str, Any] = field(default_factory=dict, repr=False)  # hidden, because a token may be in it
    trust_remote_code: bool = False
    local_folder: Path | None = field(init=False, compare=False)
    # Holds an error as soon as the hub does not answer, or refuses a file. From then on, only the cache is asked.
    _hub_error: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        folder = Path(self.name)
        object.__setattr__(self, "local_folder", folder.absolute() if folder.is_dir() else None)

    def path(self, file: str) -> Path | None:
        """Return the local path of a file, or None if the repository has no such file.

        A file on the hub is downloaded if it is not in the cache yet.

        Raises:
            UnsupportedModelError: The path leads out of the repository, directly or through a symbolic link. Or the
                path cannot be read, for example because it is too long.
        """
        if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts or "\\" in file or ":" in file:
            raise UnsupportedModelError(
                f"the configuration of {self.name!r} must name only files of its own repository, got {file!r}. "
                "Do not use a model that reaches for other files."
            )
        if self.local_folder is not None:
            path = self.local_folder / file
            try:
                found = path.is_file()
            except (OSError, ValueError) as err:  # a path that is too long, or a folder that must not be read
                raise UnsupportedModelError(
                    f"{self.name!r} must name files that can be read, got {file[:80]!r}: "
                    f"{getattr(err, 'strerror', None) or err}. Download it again."
                ) from err
            if not found:
                return None
            self._check_link(path)
            return path
        return self._from_hub(file)

    def check_links(self, folder: str) -> None:
        """Refuse a local folder if a symbolic link in it leads out of the repository.

        This check is needed because libraries read a folder without calling `path`, and they follow links.
        `_check_link` describes two kinds of links that are allowed.

        Args:
            folder: The folder within the repository. "" is its root.
        Raises:
            UnsupportedModelError: A link leads out of the repository, and is of neither kind.
        """
        if self.local_folder is not None and (self.local_folder / folder).is_dir():
            for path in (self.local_folder / folder).iterdir():
                if path.suffix in _ENDINGS:
                    self._check_link(path)

    def _check_link(self, path: Path) -> None:
        """Refuse a symbolic link that leads out of the folder, except for two kinds of links.

        A link to a file of the same name is allowed, because some installers make such links. A link to the folder
        "blobs" of a hub's cache is allowed, because the cache consists of such links. A link to any other file outside
        the folder could make error messages quote a private file.
        """
        assert self.local_folder is not None
        target = path.resolve()
        in_cache = target.parent.name == "blobs" and any(part.startswith("models--") for part in target.parts)
        if not (target.name == path.name or in_cache or target.is_relative_to(self.local_folder.resolve())):
            raise UnsupportedModelError(
                f"{self.name!r} must hold its own files, got {path.relative_to(self.local_folder)}, which is a link "
                f"to {target}. If you trust that file, copy it into the folder in place of the link."
            )

    def _from_hub(self, file: str) -> Path | None:
        # These imports are slow, and a local folder does not need them.
        from huggingface_hub import constants, hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            GatedRepoError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        if _COMMIT.fullmatch(self.hub_options.get("revision") or "") and (cached := self._cached(file)) is not None:
            return cached or None  # a commit never changes, so the hub need not be asked about it again
        if self._hub_error:
            return self._without_hub(file)
        try:
            self._check_hub_answers(file)
            return Path(hf_hub_download(self.name, file, **self.hub_options))
        except LocalEntryNotFoundError as err:  # the cache lacks the file, and the hub was not asked or not reached
            if constants.HF_HUB_OFFLINE or self.hub_options.get("local_files_only"):
                return None
            self._hub_error.append(first_line(err))
        except EntryNotFoundError:
            return None
        except (OSError, HFValidationError) as err:
            refused = isinstance(err, HFValidationError | RepositoryNotFoundError | RevisionNotFoundError)
            if refused and not isinstance(err, GatedRepoError):
                raise FileNotFoundError(not_reached(self.name, first_line(err))) from err
            self._hub_error.append(first_line(err))
        return self._without_hub(file)

    def _cached(self, file: str) -> Path | Literal[False] | None:
        """Return the file in the hub's cache, False if the hub once said that it has no such file, or else None."""
        from huggingface_hub import try_to_load_from_cache

        options = {name: self.hub_options.get(name) for name in ("cache_dir", "revision")}
        found = try_to_load_from_cache(self.name, file, **options)
        return Path(found) if isinstance(found, str) else None if found is None else False

    def _without_hub(self, file: str) -> Path | None:
        """Return the same as `path`, but ask only the cache, because the hub does not answer or refuses.

        Raises:
            FileNotFoundError: The cache does not say whether the repository has the file. Treating the file as missing
                could give wrong rows, because some files say how the weights must be used.
        """
        if (cached := self._cached(file)) is not None:
            return cached or None
        advice = ""
        if self._cached("config.json"):
            advice = (
                f"The cache holds the model, but does not say whether the model has {file}. If all files of the model "
                "were downloaded, pass local_files_only=True or set HF_HUB_OFFLINE=1."
            )
        raise FileNotFoundError(not_reached(self.name, self._hub_error[0], advice))

    def _check_hub_answers(self, file: str) -> None:
        """Raise ConnectionError if a file has to be downloaded, but the hub does not answer.

        Without this check, huggingface_hub would try again for 90 seconds, and log each try.
        """
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
        from huggingface_hub.errors import HfHubHTTPError

        if constants.HF_HUB_OFFLINE or self.hub_options.get("local_files_only") or _answered or self._cached(file):
            return
        try:
            url = hf_hub_url(self.name, file, revision=self.hub_options.get("revision"))
            get_hf_file_metadata(url, token=self.hub_options.get("token"), timeout=_TIMEOUT)
        except (HfHubHTTPError, ValueError):  # the hub answered, or the name is wrong. The download's error says more
            pass
        except Exception as err:
            raise ConnectionError(f"the hub does not answer: {first_line(err)}") from err
        _answered.append(True)

    def json(self, file: str) -> Any:
        """Return the content of a JSON file, or None if the repository has no such file.

        Raises:
            UnsupportedModelError: The file cannot be read, is larger than 256 MiB, or is not valid JSON. NaN and
                Infinity are not valid in JSON.
        """
        path = self.path(file)
        if path is None:
            return None
        constants: list[str] = []

        def constant(name: str) -> float:
            constants.append(name)
            return float(name.replace("Infinity", "inf"))

        try:
            if (size := path.stat().st_size) > _MOST_JSON_BYTES:
                raise ValueError(f"the file has {size:,} bytes, more than {_MOST_JSON_BYTES:,}")
            content = json.loads(path.read_text(encoding="utf-8"), parse_constant=constant)
            if constants:
                key = next(_keys_of_infinite(content), "")
                raise ValueError(f"{constants[0]} under {key!r}")
        except (OSError, ValueError, RecursionError) as err:
            raise UnsupportedModelError(
                f"{self.name!r} must have a {file} that is valid JSON, got an error: {err}. Download it again."
            ) from err
        return content

    def model_card(self) -> str:
        """Return the YAML at the start of the repository's README.md as unparsed text, or "" if there is none."""
        path = self.path("README.md")
        if path is None:
            return ""
        try:
            with path.open(encoding="utf-8-sig", errors="replace") as file:
                lines = file.read(_MOST_CARD_CHARACTERS).splitlines()
        except OSError:
            return ""
        ends = [place for place, line in enumerate(lines) if line.rstrip() == "---"]
        return "\n".join(lines[1 : ends[1]]) if ends[:1] == [0] and len(ends) > 1 else ""

    def files(self, folder: str) -> list[str]:
        """Return the files in a folder and its subfolders, as paths relative to the folder.

        If the hub cannot be asked for the files of a hub repository, the result is [].
        """
        if self.local_folder is not None:
            root = self.local_folder / folder
            return [path.relative_to(root).as_posix() for path in root.glob("*")] + [
                path.relative_to(root).as_posix() for path in root.glob("*/*")
            ]
        if self.hub_options.get("local_files_only") or self._hub_error:
            return []
        from huggingface_hub import HfApi

        options = {name: self.hub_options.get(name) for name in ("revision", "token")}
        prefix = f"{folder}/" if folder else ""
        try:
            found = HfApi().list_repo_files(self.name, **options)
        except Exception:  # the hub is not reached, or refuses. That is no error here: the list only improves messages
            return []
        return [name.removeprefix(prefix) for name in found if name.startswith(prefix)]

    def location(self, folder: str) -> dict[str, Any]:
        """Return the arguments that make transformers read a folder of this repository. The folder "" is the root."""
        trust = {"trust_remote_code": self.trust_remote_code}
        if self.local_folder is not None:
            return {"pretrained_model_name_or_path": str(self.local_folder / folder), **self.hub_options, **trust}
        options = self.hub_options | ({"local_files_only": True} if self._hub_error else {})
        return {"pretrained_model_name_or_path": self.name, "subfolder": folder, **options, **trust}


def path_in(folder: str, file: str) -> str:
    """Return the path of a file in a folder of a repository. The folder "" is the root."""
    return str(PurePosixPath(folder) / file)


def _keys_of_infinite(content: Any) -> Iterator[str]:
    """Yield each key in a JSON document that has NaN or an infinite number as its value."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        if isinstance(value, float) and not math.isfinite(value):
            yield str(key)
        yield from _keys_of_infinite(value)


def not_reached(name: str, reason: str, advice: str = "") -> str:
    """Return the message for a name that is neither a folder nor a repository that can be reached."""
    advice = advice or "Check the name, the network and, for a gated model, the token."
    return f"{name!r} must be a folder, or a model repository that can be reached, got neither. {advice} ({reason})"
