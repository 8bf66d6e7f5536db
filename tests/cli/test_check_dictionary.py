"""unmerge decompose --check-dictionary."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

Run = Callable[..., Result]
Refused = Callable[..., str]


def test_report(run: Run, room: Path, names: list[str]) -> None:
    out = room / "records" / "check.json"
    shutil.copytree(room / "dictionary" / names[0], room / "dictionary" / "[bold]again")
    (room / "dictionary" / "notes").mkdir()
    result = run("decompose", "--check-dictionary", "--base", room / "zoo-base", "--dictionary", room / "dictionary", "--json", out)
    assert result.exit_code == 0, result.output
    assert result.stderr == f"unmerge: warning: {room / 'dictionary' / 'notes'} is neither an adapter nor a checkpoint and was ignored\n"
    for said in (
        "4 atoms",
        *names,
        f"[bold]again and {names[0]}: cosine 1.0000, the same atom twice",
        f"one family, told apart only where they differ: [bold]again, {names[0]}",
        "Condition number infinite: some atoms are combinations of others. 28 matrices, 0 of them blind at 5 components",
    ):
        assert said in result.stdout
    written = json.loads(out.read_text())
    assert written["schema"] == "unmerge/dictionary/1"
    assert written["families"] == [["[bold]again", names[0]]]
    assert {atom["name"] for atom in written["atoms"]} == {"[bold]again", *names}
    assert len(written["tensors"]) == 28


def test_adapters_need_no_base(run: Run, room: Path) -> None:
    result = run("decompose", "--check-dictionary", "--dictionary", room / "dictionary")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "No two atoms are alike." in result.stdout


def test_what_belongs_to_a_target_is_refused(refused: Refused, room: Path) -> None:
    inputs = ("--dictionary", room / "dictionary", "--check-dictionary")
    for given, said in (
        ((room / "target",), f"a target ({room / 'target'})"),
        (("--method", "nnls"), "--method (nnls)"),
        (("--space", "exact"), "--space (exact)"),
    ):
        assert refused("decompose", *given, *inputs) == f"--check-dictionary: expected a dictionary alone, found {said}; leave one of the two out"


def test_bad_dictionary(refused: Refused, room: Path) -> None:
    shutil.rmtree(room / "dictionary")
    inputs = ("--dictionary", room / "dictionary", "--check-dictionary", "--json", room / "check.json")
    assert refused("decompose", *inputs) == f"{room / 'dictionary'}: expected a folder, found no such folder; check the path"
    assert not (room / "check.json").exists()


def test_neither_target_nor_check(refused: Refused, room: Path) -> None:
    assert refused("decompose", "--dictionary", room / "dictionary") == (
        "decompose: expected a target, found none; name one, or give --check-dictionary"
    )
