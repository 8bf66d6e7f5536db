"""Prompts with the completions expected after them, and the JSON-lines files that hold them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from unmerge.core.errors import BadInput
from unmerge.core.records import write_text


@dataclass(frozen=True)
class Example:
    """One prompt and the completion expected after it."""

    prompt: str
    completion: str


def read_examples(file: Path) -> list[Example]:
    """Read a JSON-lines file of ``{"prompt": ..., "completion": ...}``."""
    expected = 'JSON lines with "prompt" and "completion"'
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        examples = [Example(str(row["prompt"]), str(row["completion"])) for row in map(json.loads, filter(None, lines))]
    except FileNotFoundError:
        raise BadInput(expected=expected, found="no such file", where=file, hint="check the path in the recipe") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise BadInput(expected=expected, found=f"{type(error).__name__}: {error}", where=file, hint="mend the file") from error
    if not examples:
        raise BadInput(expected=expected, found="an empty file", where=file, hint="add examples")
    return examples


def write_examples(file: Path, examples: Iterable[Example]) -> None:
    """Write a JSON-lines file, atomically."""
    write_text(file, "".join(json.dumps(asdict(example), ensure_ascii=False) + "\n" for example in examples))
