"""Examples for an adapter: JSON lines of one's own, or rows of a data set, filtered and put into words by templates.

A data set is a file here (``.jsonl``, ``.json``, ``.csv``, ``.parquet``) or a name on the hub, whose data files are downloaded at one commit and
read as they are: no script of a data set is ever run.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from unmerge.checkpoints.hub import is_name, pinned, snapshot
from unmerge.core.errors import BadInput, need, one_line
from unmerge.core.examples import Example, read_examples
from unmerge.core.quiet import no_bars
from unmerge.core.records import sha256
from unmerge.evaluation.templates import fill, holds

#: what data sets are stored as
_DATA = ("*.parquet", "*.jsonl", "*.json", "*.csv", "*.jsonl.gz", "*.json.gz", "*.csv.gz", "README.md")
_FORMATS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}


class Rows(BaseModel):
    """Rows of a data set as examples.

    Attributes:
        dataset: a file, relative to the recipe, or a name on the hub.
        revision: a branch, a tag or a commit on the hub; the commit goes into the record.
        config: which part of the data set, where it has several.
        files: patterns of the files to download, where not all of them are needed.
        split: train, test, ...
        where: a condition (a Jinja expression over the columns) that a row must fulfil.
        prompt: a template of the prompt.
        completion: of the completion.
        fields: more templates, by name: what an answer's check needs.
        limit: examples at most, chosen by a checksum of their prompts: the same ones every time.
    """

    model_config = ConfigDict(extra="forbid")

    dataset: str
    revision: str = "main"
    config: str | None = None
    files: list[str] | None = None
    split: str = "train"
    where: str | None = None
    prompt: str
    completion: str
    fields: dict[str, str] = {}
    limit: int | None = Field(None, ge=1)

    def beside(self, folder: Path) -> Rows:
        """The same with a file's path resolved against a folder."""
        return self.model_copy(update={"dataset": str((folder / self.dataset).resolve())}) if self.is_file else self

    @property
    def is_file(self) -> bool:
        """Whether it is a file here, by its ending."""
        return Path(self.dataset).suffix in _FORMATS

    def source(self) -> tuple[str, str]:
        """(name, the file's SHA-256 or the commit)."""
        if self.is_file:
            return Path(self.dataset).name, sha256(self._file())
        return self.dataset, (pinned(self._folder()) or "").rpartition("@")[2]

    def examples(self) -> list[Example]:
        """The examples, in an order that depends on nothing but their prompts.

        Raises:
            BadInput: no such data set, a broken template, or no row that fulfils the condition.
        """
        found = {example.prompt: example for row in self._rows() if self.where is None or holds(self.where, row) for example in self._example(row)}
        if not found:
            raise BadInput(expected="rows that fulfil the condition", found="none", where=self.dataset, hint="mend 'where', or check the split")
        return sorted(found.values(), key=lambda example: (checksum(example.prompt), example.prompt))[: self.limit]

    def _example(self, row: Mapping[str, Any]) -> Iterator[Example]:
        prompt, completion = fill(self.prompt, row).strip(), fill(self.completion, row).strip()
        if prompt and completion:
            yield Example(prompt, completion, {name: fill(template, row) for name, template in self.fields.items()})

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        library = need("datasets", "train")
        asked: dict[str, Any] = {"name": self.config, "split": self.split}
        if self.is_file:
            where, asked = _FORMATS[Path(self.dataset).suffix], {"data_files": str(self._file()), "split": "train"}
        else:
            where = str(self._folder())
            if self.files and self.config is None:
                asked["data_files"] = {self.split: self.files}
        try:
            with no_bars("datasets"):
                rows: Iterable[Mapping[str, Any]] = library.load_dataset(where, verification_mode="no_checks", **asked)
        except Exception as error:  # datasets raises ValueError, its own errors and those of the formats
            raise BadInput(
                expected=f"a data set with the split {self.split}",
                found=f"{type(error).__name__}: {one_line(str(error))[:200]}",
                where=self.dataset,
                hint="check its name, config, split and files",
            ) from error
        return rows

    def _file(self) -> Path:
        file = Path(self.dataset)
        if not file.is_file():
            raise BadInput(expected="a data set", found="no such file", where=file, hint="check the path in the recipe")
        return file

    def _folder(self) -> Path:
        if not is_name(self.dataset):
            known = ", ".join(_FORMATS)
            raise BadInput(expected=f"a file ({known}) or a name on the hub", found=self.dataset, where="dataset", hint="mend the recipe")
        return snapshot(f"{self.dataset}@{self.revision}", "dataset", (*(self.files or _DATA), "README.md"))


@dataclass(frozen=True)
class Prepared:
    """What an adapter is trained on and scored on.

    Attributes:
        train: to train on.
        held_out: to score; none of these prompts is in ``train``.
        sources: the SHA-256 of each file, the commit of each data set, by name.
    """

    train: Sequence[Example]
    held_out: Sequence[Example]
    sources: Mapping[str, str]


def prepare(train: Path | Sequence[Rows], held_out: Path | Rows | int | None, wrap: Callable[[str], str] = str) -> Prepared:
    """Read the examples of an adapter.

    Args:
        train: a file of prompts with completions, or rows.
        held_out: the same; or how many examples of ``train`` to hold out, by a checksum of their prompts; or None.
        wrap: what is put around every prompt, such as a chat's template.

    Raises:
        BadInput: a file or a data set that is not what it should be, or files that share prompts.
    """
    sources: dict[str, str] = {}
    examples = _read([train] if isinstance(train, Path) else train, sources)
    if isinstance(held_out, int):
        scored = sorted(examples, key=lambda example: (checksum(example.prompt), example.prompt))[:held_out]
    else:
        scored = _read([held_out], sources) if held_out is not None else []
    shared = {example.prompt for example in examples} & {example.prompt for example in scored}
    if shared and isinstance(train, Path) and isinstance(held_out, Path):
        raise BadInput(
            expected="held-out prompts that are not trained on",
            found=f"{len(shared)} in both files, such as {next(iter(shared))!r}",
            where=held_out,
            hint="split the data again",
        )
    left = [example for example in examples if example.prompt not in shared]
    if not left:
        raise BadInput(expected="examples to train on", found="none that are not held out", where=", ".join(sources), hint="hold out fewer")
    return Prepared([_wrapped(example, wrap) for example in left], [_wrapped(example, wrap) for example in scored], sources)


def checksum(prompt: str) -> int:
    """What decides which examples are chosen: a property of the prompt alone."""
    return zlib.crc32(prompt.encode())


def _read(given: Sequence[Path | Rows], sources: dict[str, str]) -> list[Example]:
    found: dict[str, Example] = {}
    for one in given:
        if isinstance(one, Path):
            examples = read_examples(one)
            sources[one.name] = sha256(one)
            if len(given) == 1:
                return examples
        else:
            examples = one.examples()
            name, mark = one.source()
            sources[name] = mark
        found |= {example.prompt: example for example in examples}
    return list(found.values())


def _wrapped(example: Example, wrap: Callable[[str], str]) -> Example:
    return Example(wrap(example.prompt), example.completion, example.fields)
