"""A file of mergekit: one configuration, or several documents of which later ones merge what named ones make (``mergekit-multi``)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from unmerge.core.errors import BadInput

#: under which a configuration names a model
MODEL_KEYS = ("model", "base_model")


@dataclass(frozen=True)
class Document:
    """One merge.

    Attributes:
        name: under which other documents of the file name what it makes; None for the one that makes the result.
        configuration: mergekit's.
    """

    name: str | None
    configuration: dict[str, Any]


def documents(file: Path) -> list[Document]:
    """The merges of a file, each after those that it is made of, the result's last.

    Raises:
        BadInput: no such file, broken YAML, documents of which none or several are without a name, a name that two have, or documents
            that are made of each other.
    """
    try:
        raw = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise BadInput(expected="a mergekit configuration", found=error.strerror or str(error), where=file, hint="check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(expected="a mergekit configuration in YAML", found=f"broken YAML ({error})", where=file, hint="mend the file") from error
    raw = [document for document in raw if document is not None] or [None]  # an end of a document that nothing follows
    if not all(isinstance(document, dict) for document in raw):
        raise BadInput(expected="a mergekit configuration", found="no mapping", where=file, hint="see mergekit's documentation")
    if len(raw) == 1:
        return [Document(None, raw[0])]
    found = [Document(document.pop("name", None), document) for document in raw]
    nameless = [document for document in found if document.name is None]
    if len(nameless) != 1:
        raise BadInput(
            expected="one document without a name, which makes the result",
            found=f"{len(nameless)} of {len(found)} documents",
            where=file,
            hint="give name: to every document whose model another one merges, and to no other",
        )
    named: dict[str, Document] = {}
    for document in found:
        if document.name in named:
            raise BadInput(expected="documents of different names", found=f"two named {document.name}", where=file, hint="rename one of them")
        if document.name is not None:
            named[document.name] = document
    return _in_order(nameless[0], named, file)


def _in_order(last: Document, named: dict[str, Document], file: Path) -> list[Document]:
    """What a document is made of, itself last; then what nothing is made of comes first, as it stands."""
    done: dict[str | None, Document] = {}
    open_: list[str | None] = []

    def visit(document: Document) -> None:
        if document.name in open_:
            raise BadInput(
                expected="documents in some order",
                found=f"{document.name}, which is made of itself",
                where=file,
                hint="name another model in one of them",
            )
        open_.append(document.name)
        for model in dict.fromkeys(model.partition("+")[0] for model in _models(document.configuration)):
            if model in named and model not in done:
                visit(named[model])
        open_.pop()
        done[document.name] = document

    for document in (*named.values(), last):
        if document.name not in done:
            visit(document)
    return list(done.values())


def _models(value: Any, key: str = "") -> Iterator[str]:
    """The models that a part of a configuration names."""
    if isinstance(value, dict):
        for inner, content in value.items():
            yield from _models(content, inner)
    elif isinstance(value, list):
        for content in value:
            yield from _models(content, key)
    elif isinstance(value, str) and key in MODEL_KEYS:
        yield value
