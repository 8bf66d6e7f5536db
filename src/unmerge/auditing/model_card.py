"""Model cards: what the front matter of a README says about a licence.

A card is ``README.md`` beside the weights, as model hubs keep it: YAML between two lines of three dashes, then text. The keys
read here are ``license``, ``license_name`` and ``license_link``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from unmerge.core.records import sha256

CARD = "README.md"
_FENCE = "---"


@dataclass(frozen=True)
class ModelCard:
    """What a card says.

    Attributes:
        licences: identifiers as they are written, none where the card names none.
        name: of a licence that has no identifier (``license_name``).
        link: to its text.
        digest: SHA-256 of the card; None where there is no card.
        trouble: why nothing could be read, in words; None where it could.
    """

    licences: tuple[str, ...] = ()
    name: str | None = None
    link: str | None = None
    digest: str | None = None
    trouble: str | None = None


def read_card(folder: Path) -> ModelCard:
    """Read the card of a model or an adapter. A card that is missing or broken is told, not refused: it decides nothing about the weights."""
    file = folder / CARD
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ModelCard(trouble=f"no {CARD}")
    except (OSError, UnicodeDecodeError) as error:
        return ModelCard(trouble=f"{CARD} cannot be read ({error})")
    digest = sha256(file)
    try:
        front = _front_matter(text)
    except yaml.YAMLError:
        return ModelCard(digest=digest, trouble=f"the front matter of {CARD} is not YAML")
    stated = front.get("license")
    listed = stated if isinstance(stated, list) else [stated]
    licences = tuple(str(entry).strip() for entry in listed if entry)
    trouble = None if licences else f"{CARD} states none"
    return ModelCard(licences, _text(front.get("license_name")), _text(front.get("license_link")), digest, trouble)


def _front_matter(text: str) -> Mapping[str, Any]:
    lines = text.lstrip("\ufeff").splitlines()
    if not lines or lines[0].strip() != _FENCE:
        return {}
    end = next((place for place, line in enumerate(lines[1:], 1) if line.strip() == _FENCE), None)
    front = yaml.safe_load("\n".join(lines[1:end])) if end else None
    return front if isinstance(front, dict) else {}


def _text(value: Any) -> str | None:
    return str(value) if value else None
