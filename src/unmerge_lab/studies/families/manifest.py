"""What lies in a folder of families: ``DIR/d03/manifest.json`` beside ``DIR/d03/adapters/NAME``."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from unmerge.core.records import Environment, read_json
from unmerge_lab.studies.families.design import Member

MANIFEST, ADAPTERS = "manifest.json", "adapters"


class DictionaryManifest(BaseModel):
    """A dictionary's members, in the order of training."""

    dictionary: str
    base: str
    members: list[Member]
    environment: Environment


def read_manifest(folder: Path) -> DictionaryManifest:
    """The manifest of one dictionary."""
    return DictionaryManifest.model_validate(read_json(folder / MANIFEST, "a manifest of adapters"))


def read_manifests(folder: Path) -> list[DictionaryManifest]:
    """Those of all finished dictionaries of a folder."""
    return [read_manifest(file.parent) for file in sorted(folder.glob(f"*/{MANIFEST}"))]


def adapter_folder(families: Path, member: Member) -> Path:
    """Where a member lies."""
    return families / member.dictionary / ADAPTERS / member.name
