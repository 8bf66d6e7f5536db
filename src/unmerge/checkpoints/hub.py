"""Models and adapters by their name on the hub: ``owner/name``, or ``owner/name@revision`` (a branch, a tag or a commit).

A folder of that name always wins. Else the revision is resolved to a commit, and what is read of that commit lies in huggingface_hub's own
cache (``HF_HOME``), where nothing is fetched twice. Only safetensors, JSON, tokenizer files and texts are downloaded; a repository whose weights
are pickles is refused before anything is. ``HF_HUB_OFFLINE=1`` keeps to the cache; so does a hub that does not answer. ``HF_ENDPOINT`` names
another hub. Which commit it was is told by the folder's path (``models--owner--name/snapshots/COMMIT``) and goes into every record.

Layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Literal

from unmerge.checkpoints.pickles import PICKLES
from unmerge.core.errors import BadInput, MissingExtra, need, one_line

Kind = Literal["model", "dataset"]

_NAME = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
#: what a model or an adapter is read from; the card and the licence are for the audit
_MODEL = ("*.safetensors", "*.json", "*.jinja", "*.model", "*tokenizer*", "vocab*", "merges.txt", "README.md", "LICENSE*")
#: the same weights once more, in their makers' own layout
_TWICE = ("consolidated*", "original/*")


@dataclass(frozen=True)
class Origin:
    """Which commit of which repository a folder in the cache holds."""

    repository: str
    commit: str

    def __str__(self) -> str:
        return f"{self.repository}@{self.commit}"


def is_name(name: Path | str) -> bool:
    """Whether this can be a name on the hub: two words with a slash between, and no folder or file here."""
    return _NAME.fullmatch(str(name)) is not None and not Path(name).exists()


def located(name: Path | str) -> Path:
    """The folder of a model or an adapter: itself, or where its download lies.

    Raises:
        BadInput: a name that the hub does not have, that is not in the cache while the hub is out of reach, or without safetensors.
    """
    return snapshot(str(name), "model", _MODEL) if is_name(name) else Path(name)


@cache
def snapshot(name: str, kind: Kind, patterns: Sequence[str]) -> Path:
    """Download the files of a repository that match a pattern, or find them in the cache.

    Args:
        name: ``owner/name`` or ``owner/name@revision``.
        kind: of the repository.
        patterns: of the files' paths in the repository, as a shell has them; ``*`` takes in a slash.

    Returns:
        The folder of that commit in the cache.

    Raises:
        BadInput: see ``located``.
    """
    found = _NAME.fullmatch(name)
    assert found
    library, errors = _library(name)
    repository, revision = found["repository"], found["revision"] or "main"
    reached = _reached(repository, revision, kind)
    try:
        return Path(
            library.snapshot_download(
                repository,
                repo_type=kind,
                revision=revision,
                allow_patterns=list(patterns),
                ignore_patterns=list(_TWICE),
                local_files_only=not reached,
            )
        )
    except Exception as error:
        if not reached and isinstance(error, errors.LocalEntryNotFoundError):
            raise BadInput(
                expected=f"a folder, or a {kind} of the hub",
                found="no such folder, and no copy in the hub's cache while the hub is out of reach",
                where=name,
                hint="check the path, or fetch it once with the network on (HF_HUB_OFFLINE=0)",
            ) from error
        raise _failed(name, kind, error) from error


def origin(folder: Path) -> Origin | None:
    """What a folder in the hub's cache holds; None for other folders. A folder inside a snapshot has its origin."""
    parts = folder.resolve().parts
    for place in range(len(parts) - 2):
        if parts[place].startswith(("models--", "datasets--")) and parts[place + 1] == "snapshots":
            return Origin(parts[place].partition("--")[2].replace("--", "/"), parts[place + 2])
    return None


def pinned(folder: Path) -> str | None:
    """The same as ``owner/name@commit``, for a record."""
    found = origin(folder)
    return None if found is None else str(found)


def model_name(folder: Path) -> str:
    """What a model's folder calls it: its own name, or the repository's (``owner/name``) where it is a snapshot in the hub's cache."""
    resolved = folder.resolve()
    found = origin(folder) if resolved.parent.name == "snapshots" else None
    return found.repository if found else resolved.name


def short_name(folder: Path) -> str:
    """The same without the owner."""
    return model_name(folder).rpartition("/")[2]


def _library(name: str) -> tuple[ModuleType, ModuleType]:
    """huggingface_hub and its errors."""
    try:
        return need("huggingface_hub", "hub"), need("huggingface_hub.errors", "hub")
    except MissingExtra as error:
        raise BadInput(
            expected="a folder",
            found="no such folder",
            where=name,
            hint="check the path, or, if it is a name on the hub, run: pip install 'unmerge[hub]'",
        ) from error


def _reached(repository: str, revision: str, kind: Kind) -> bool:
    """Ask the hub what it has; false where it is out of reach: switched off, no network, no answer.

    Raises:
        BadInput: it has no such revision, or a model without safetensors.
    """
    name = f"{repository}@{revision}"
    library, errors = _library(name)
    try:
        info = library.HfApi().repo_info(repository, repo_type=kind, revision=revision)
    except Exception as error:  # what is not reached has an error of each library that is between
        answered = isinstance(error, errors.HfHubHTTPError) and error.response is not None and error.response.status_code < 500
        if answered or isinstance(error, ValueError):
            raise _failed(name, kind, error) from error
        return False
    files = [file.rfilename for file in info.siblings or []]
    if kind == "model" and not any(file.endswith(".safetensors") for file in files):
        pickles = [file for file in files if file.endswith(PICKLES)]
        raise BadInput(
            expected="weights in safetensors",
            found=f"a pickle ({pickles[0]}), which is never loaded because loading it runs code" if pickles else "none",
            where=name,
            hint="convert it first (save_pretrained), or look for a revision with safetensors",
        )
    return True


def _failed(name: str, kind: Kind, error: Exception) -> BadInput:
    return BadInput(
        expected=f"a folder, or a {kind} of the hub",
        found=f"no such folder, and of the hub {type(error).__name__}: {one_line(str(error))[:200]}",
        where=name,
        hint="check the name and the revision; for a gated one, accept its terms and log in (hf auth login)",
    )
