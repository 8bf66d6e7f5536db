"""Records are written whole and read with a clear word about what is wrong."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest

from unmerge.core.errors import BadInput, BadOutput, MissingExtra, need, unknown_name
from unmerge.core.records import (
    Source,
    cannot_write,
    environment,
    fingerprint,
    is_full,
    is_refusal,
    read_json,
    sha256,
    write_json,
    write_text,
)
from unmerge.core.sources import source


def test_hashes_are_those_of_the_files(tmp_path: Path) -> None:
    contents = {"b.bin": bytes(range(256)) * 5000, "a.json": b"{}"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    expected = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(contents.items())}
    record = source(tmp_path, [tmp_path / name for name in contents])
    assert record == Source(path=str(tmp_path), sha256=expected)
    assert list(record.sha256) == ["a.json", "b.bin"]
    assert sha256(tmp_path / "b.bin") == expected["b.bin"]


def test_fingerprints_ignore_order_and_see_values() -> None:
    assert fingerprint({"a": 1, "b": [2, 3]}) == fingerprint({"b": (2, 3), "a": 1})
    assert fingerprint({"place": Path("x")}) == fingerprint({"place": "x"})
    others = [{"a": 1}, {"a": "1"}, {"a": 1.5}, {"b": 1}, {"a": None}, [], {}]
    assert len({fingerprint(other) for other in others}) == len(others)


def test_the_environment_names_versions_that_are_installed() -> None:
    found = environment()
    assert found.command[1:] == sys.argv[1:]
    assert "/" not in found.command[0], "a record says what ran, not where it is installed"
    assert {"torch", "safetensors"} <= found.versions.keys()


def test_records_come_back_as_written(tmp_path: Path) -> None:
    file = tmp_path / "new" / "record.json"
    write_json(file, Source(path="Füße", sha256={"a": "b"}))
    assert read_json(file, "a record") == {"path": "Füße", "sha256": {"a": "b"}, "hub": None}
    assert "Füße" in file.read_text(encoding="utf-8")
    write_json(file, [1])
    assert read_json(file, "a record") == [1]
    assert [path.name for path in file.parent.iterdir()] == ["record.json"]


def test_a_record_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    write_json(file, [1])
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "\udc80")
    with pytest.raises(TypeError):
        write_json(file, [object()])
    assert read_json(file, "a record") == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "broken JSON (Expecting value: line 1 column 1 (char 0))"),
        (b'{"a": ', "broken JSON (Expecting value: line 1 column 7 (char 6))"),
        (b"\xff\xfe", "broken JSON ('utf-8' codec can't decode byte 0xff in position 0: invalid start byte)"),
        (b"[" * 200_000, "broken JSON (maximum recursion depth exceeded"),
    ],
    ids=["empty", "cut", "not utf-8", "nested without end"],
)
def test_broken_json(tmp_path: Path, content: bytes, found: str) -> None:
    file = tmp_path / "record.json"
    file.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        read_json(file, "a record")
    assert str(caught.value).startswith(f"{file}: expected a record, found {found}")
    assert str(caught.value).endswith("; download or write the file again")


def test_json_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        read_json(tmp_path / "none.json", "a record")
    assert str(caught.value) == f"{tmp_path / 'none.json'}: expected a record, found no such file; check the path"
    with pytest.raises(BadInput) as caught:
        read_json(tmp_path, "a record")
    assert str(caught.value) == f"{tmp_path}: expected a record, found a file that cannot be read (Is a directory); check the path"


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    file = tmp_path / "file" / "record.json"
    with pytest.raises(BadOutput) as caught:
        write_json(file, [])
    assert str(caught.value) == f"{file}: expected a place to write to, found: File exists; choose another place with --out"


class RustError(Exception):
    """Stands for safetensors' own error, which is no OSError."""


@pytest.mark.parametrize(
    ("error", "refused", "full", "text"),
    [
        (OSError(28, "No space left on device"), True, True, "No space left on device; free some space"),
        (RustError("I/O error: No space left on device (os error 28)"), True, True, "No space left on device; free some space"),
        (RustError('I/O error: Not a directory (os error 20) at path "x"'), True, False, "Not a directory; choose another place with --out"),
        (PermissionError(13, "Permission denied"), True, False, "Permission denied; choose another place with --out"),
        (FileNotFoundError(2, "No such file or directory"), False, False, "No such file or directory; choose another place with --out"),
        (ValueError("os error"), False, False, "os error; choose another place with --out"),
    ],
)
def test_the_systems_refusals_are_told_apart(error: Exception, refused: bool, full: bool, text: str) -> None:
    assert (is_refusal(error), is_full(error)) == (refused, full)
    assert str(cannot_write(Path("out"), error)) == f"out: expected a place to write to, found: {text}"


def test_errors_are_one_line() -> None:
    error = BadInput(expected="one\nline", found="two\n\n  lines", where=Path("a b"), hint="write\tone", tensor="x.weight")
    assert str(error) == "a b, tensor x.weight: expected one line, found two lines; write one"


def test_a_missing_extra_names_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert need("json", "report") is json
    with pytest.raises(MissingExtra) as caught:
        need("no_such_library.part", "report")
    assert str(caught.value).endswith("run: pip install 'unmerge[report]'")
    # a library that is there but broken inside must not be called missing
    monkeypatch.setattr("importlib.import_module", _broken)
    with pytest.raises(ModuleNotFoundError, match="inner"):
        need("outer", "report")


def _broken(name: str) -> object:
    raise ModuleNotFoundError("No module named 'inner'", name="inner")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ("Nnsl", "--method: expected one of nnls, omp, Pirate, found Nnsl; did you mean nnls?"),
        ("pirat", "--method: expected one of nnls, omp, Pirate, found pirat; did you mean Pirate?"),
        ("certificate", "--method: expected one of nnls, omp, Pirate, found certificate; choose one of them"),
    ],
)
def test_a_near_miss_is_asked_for(found: str, said: str) -> None:
    assert str(unknown_name(found, ["nnls", "omp", "Pirate"], "--method")) == said


def test_a_git_lfs_pointer_is_named(tmp_path: Path) -> None:
    file = tmp_path / "adapter_config.json"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 902\n")
    with pytest.raises(BadInput) as caught:
        read_json(file, "a configuration")
    assert str(caught.value) == f"{file}: expected a configuration, found a git-lfs pointer in its place; fetch it with: git lfs pull"
