"""A staged folder is absent or whole, whatever stops the job."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from unmerge.core.errors import BadInput, BadOutput, UnmergeError
from unmerge.core.staging import Stage, staged


def fill(stage: Stage, name: str, text: str) -> None:
    """One piece: a folder with a file."""
    with stage.piece(name) as piece:
        piece.mkdir()
        (piece / "text").write_text(text)


def stop(stage: Stage, name: str, error: BaseException) -> None:
    """An error in the middle of a piece."""
    with stage.piece(name) as piece:
        piece.mkdir()
        (piece / "text").write_text("half")
        raise error


def interrupted(out: Path, job: object) -> None:
    """A job that writes the piece "one" and is stopped in the middle of the piece "last"."""

    def work() -> None:
        with staged(out, job) as stage:
            fill(stage, "one", "first")
            stop(stage, "last", KeyboardInterrupt())

    with pytest.raises(KeyboardInterrupt):
        work()


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_appears_whole_and_holds_the_pieces_only(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with staged(out, {"seed": 1}) as stage:
        fill(stage, "one", "1")
        with stage.piece("deep/two.txt") as piece:
            piece.write_text("2")
        assert [name for name in ("one", "deep/two.txt", "three") if stage.has(name)] == ["one", "deep/two.txt"]
        assert not out.exists()
    assert files(out) == {"one/text": "1", "deep/two.txt": "2"}
    assert left(out.parent) == {"out"}


@pytest.mark.parametrize(("second", "kept"), [({"seed": 1}, True), ({"seed": 2}, False)], ids=["same job", "another job"])
def test_finished_pieces_are_kept_for_the_same_job_only(tmp_path: Path, second: object, kept: bool) -> None:
    out = tmp_path / "out"
    interrupted(out, {"seed": 1})
    assert not out.exists()
    with staged(out, second) as stage:
        assert stage.has("one") is kept
        assert not stage.has("last"), "an unfinished piece does not count"
        if not kept:
            fill(stage, "one", "second")
        fill(stage, "last", "whole")
    assert files(out) == {"one/text": "first" if kept else "second", "last/text": "whole"}
    assert left(tmp_path) == {"out"}


def test_a_damaged_job_record_means_starting_afresh(tmp_path: Path) -> None:
    out = tmp_path / "out"
    interrupted(out, 1)
    (tmp_path / ".out.partial" / ".job.json").write_text("{")
    with staged(out, 1) as stage:
        assert not stage.has("one")


@pytest.mark.parametrize("again", [True, False], ids=["the piece is made again", "the piece is not needed"])
def test_a_killed_process_loses_no_finished_piece(tmp_path: Path, again: bool) -> None:
    program = """
        import os, signal, sys
        from pathlib import Path
        from unmerge.core.staging import staged
        with staged(Path(sys.argv[1]), "job") as stage:
            with stage.piece("one") as piece:
                piece.write_text("1")
            with stage.piece("two") as piece:
                piece.write_text("half")
                os.kill(os.getpid(), signal.SIGKILL)
    """
    out = tmp_path / "out"
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(out)], check=False).returncode == -9
    assert not out.exists()
    with staged(out, "job") as stage:
        assert [name for name in ("one", "two") if stage.has(name)] == ["one"]
        if again:
            fill(stage, "two", "2")
    assert files(out) == {"one": "1"} | ({"two/text": "2"} if again else {})


@pytest.mark.parametrize("error", [BadInput(expected="a", found="b", where="c", hint="d"), ValueError("wrong"), KeyboardInterrupt()])
def test_an_error_without_pieces_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, staged(tmp_path / "new" / "deep" / "out", 1) as stage:
        stop(stage, "one", error)
    assert caught.value is error
    assert left(tmp_path) == set()


def occupied(folder: Path) -> Path:
    folder.mkdir()
    (folder / "mine").write_text("mine")
    return folder


def test_what_exists_is_refused_and_stays(tmp_path: Path) -> None:
    out, file = occupied(tmp_path / "out"), tmp_path / "file"
    file.write_text("mine")
    for place in (out, file):
        with pytest.raises(BadOutput) as caught, staged(place, 1):
            pytest.fail("nothing must be built")
        assert str(caught.value) == f"{place}: expected a place to write to, found: it exists already; remove it or choose another --out"
    assert files(tmp_path) == {"out/mine": "mine", "file": "mine"}


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with staged(tmp_path / "out", 1) as stage:
        fill(stage, "one", "1")
    assert files(tmp_path) == {"out/one/text": "1"}


def test_replacing_takes_the_place_only_at_the_end(tmp_path: Path) -> None:
    out = occupied(tmp_path / "out")
    with pytest.raises(ValueError, match="wrong"), staged(out, 1, replace=True):
        raise ValueError("wrong")
    assert files(tmp_path) == {"out/mine": "mine"}
    with staged(out, 1, replace=True) as stage:
        fill(stage, "one", "1")
        assert files(out) == {"mine": "mine"}
    assert files(tmp_path) == {"out/one/text": "1"}


def test_replacing_a_link_leaves_what_it_points_to(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.symlink_to(occupied(tmp_path / "elsewhere"))
    with staged(out, 1, replace=True) as stage:
        fill(stage, "one", "1")
    assert files(out) == {"one/text": "1"}
    assert files(tmp_path / "elsewhere") == {"mine": "mine"}


@pytest.mark.parametrize("step", ["rename", "unlink"])
def test_stopped_between_the_last_steps_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Stop before the new folder is renamed, or before its job record is removed: the work is there either way."""
    out, method = occupied(tmp_path / "out"), getattr(Path, step)

    def stopped(path: Path, *rest: object, **settings: object) -> object:
        if (step == "rename" and path.name == ".out.partial") or (step == "unlink" and path == out / ".job.json"):
            raise KeyboardInterrupt
        return method(path, *rest, **settings)

    def work() -> None:
        with staged(out, 1, replace=True) as stage:
            fill(stage, "one", "1")
            monkeypatch.setattr(Path, step, stopped)

    with pytest.raises(KeyboardInterrupt):
        work()
    monkeypatch.undo()
    with staged(out, 1, replace=True) as stage:
        if step == "rename":
            assert stage.has("one")
        else:
            assert (out / "one" / "text").read_text() == "1"
            fill(stage, "one", "1")
    assert files(tmp_path) == {"out/one/text": "1"}


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "file" / "out"
    with pytest.raises(BadOutput) as caught, staged(out, 1):
        pytest.fail("nothing must be built")
    assert str(caught.value) == f"{out}: expected a place to write to, found: Not a directory; choose another place with --out"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, which nobody can write to")
def test_a_place_that_cannot_be_written_to() -> None:
    out = Path("/proc/unmerge/out")
    with pytest.raises(BadOutput) as caught, staged(out, 1):
        pytest.fail("nothing must be built")
    assert str(caught.value) == f"{out}: expected a place to write to, found: No such file or directory; choose another place with --out"


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(BadOutput, match="File name too long; choose another place with --out"), staged(tmp_path / ("x" * 300), 1):
        pytest.fail("nothing must be built")


def test_a_refusal_to_read_an_input_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    refused = PermissionError(13, "Permission denied", "/elsewhere/input.txt")
    with pytest.raises(PermissionError) as caught, staged(tmp_path / "out", 1):
        raise refused
    assert caught.value is refused
    assert left(tmp_path) == set()


WRITERS = {
    "python": "piece.write_bytes(bytes(100_000))",
    # safetensors raises an error of its own, which is no OSError: it must come out as the same line
    "safetensors": "save_file({'a': numpy.zeros(25_000)}, piece)",
    "records": "write_json(piece, ['x' * 100_000])",
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_one_line_and_the_finished_piece_stays(tmp_path: Path, writer: str) -> None:
    """A limit on the size of a file stands in for a full disk; the system's answer takes the same way."""
    program = f"""
        import json, resource, sys
        from pathlib import Path
        import numpy
        from safetensors.numpy import save_file
        from unmerge.core.errors import UnmergeError
        from unmerge.core.records import write_json
        from unmerge.core.staging import staged
        sys.dont_write_bytecode = True
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            with staged(Path(sys.argv[1]), "job") as stage:
                with stage.piece("small") as piece:
                    piece.write_text("small")
                with stage.piece("large") as piece:
                    {WRITERS[writer]}
        except UnmergeError as error:
            print(json.dumps([type(error).__name__, str(error)]))
    """
    out = tmp_path / "out"
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(out)], check=True, capture_output=True, text=True)
    kind, text = json.loads(run.stdout)
    assert kind == "BadOutput"
    assert text.endswith(": expected a place to write to, found: File too large; free some space")
    assert text.startswith(str(tmp_path))
    assert left(tmp_path) == {".out.partial"}
    assert left(tmp_path / ".out.partial") == {".job.json", "small"}


def test_errors_for_the_user_pass_through(tmp_path: Path) -> None:
    raised = UnmergeError("one line")
    with pytest.raises(UnmergeError) as caught, staged(tmp_path / "out", 1):
        raise raised
    assert caught.value is raised
