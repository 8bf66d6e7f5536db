"""Which task belongs to which atom, from a file, from an adapter's record, from the zoo."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from unmerge.core.errors import BadInput
from unmerge.core.examples import Example, write_examples
from unmerge.decomposition import Dictionary, open_dictionary
from unmerge.verification.tasks import read_tasks
from unmerge_lab.zoo import GENERAL, TASKS, held_out


@pytest.fixture(scope="module")
def dictionary(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Dictionary:
    """An adapter of the zoo, and one whose record names no task."""
    folder = tmp_path_factory.mktemp("dictionary")
    for name in ("pirate", "parity"):
        shutil.copytree(zoo / "known" / name, folder / name)
    (folder / "parity" / "unmerge.json").write_text(json.dumps({"license": "mit"}))
    return open_dictionary([folder], None)


def test_the_zoo_brings_its_own(dictionary: Dictionary) -> None:
    tasks = read_tasks(Path("zoo"), dictionary)
    assert tasks.of == {task.name: (task.name,) for task in TASKS}
    assert tasks.general == tuple(task.name for task in GENERAL)
    suite = tasks.suite(limit=3)
    assert suite.tasks == tasks.all == (*(task.name for task in TASKS), *(task.name for task in GENERAL))
    assert suite.scorer("pirate") == "exact match"
    with pytest.raises(BadInput, match="found the embedded zoo; write it with 'unmerge zoo --out DIR' and give --tasks DIR/tasks"):
        tasks.suite(harness=True)


def test_a_file_with_examples_beside_it(dictionary: Dictionary, tmp_path: Path) -> None:
    write_examples(tmp_path / "arr.held_out.jsonl", held_out()["pirate"])
    write_examples(tmp_path / "arr.jsonl", [Example("another", "file")])
    write_examples(tmp_path / "say.jsonl", held_out()["copy"])
    (tmp_path / "tasks.yml").write_text("pirate: [arr, say]\nelsewhere: other\n")
    write_examples(tmp_path / "other.jsonl", held_out()["yoda"])
    for given in (tmp_path, tmp_path / "tasks.yml"):
        tasks = read_tasks(given, dictionary)
        assert (tasks.of, tasks.general) == ({"pirate": ("arr", "say"), "elsewhere": ("other",)}, ())
        assert tasks.skills == ("arr", "say", "other")
    full, cut = tasks.suite(), tasks.suite(limit=3)
    assert full.identity("arr") != cut.identity("arr")  # another selection of items is another task
    (tmp_path / "arr.held_out.jsonl").unlink()
    assert read_tasks(tmp_path, dictionary).suite().identity("arr") not in (full.identity("arr"), cut.identity("arr"))


def test_an_adapter_says_what_it_is_for(dictionary: Dictionary, tmp_path: Path) -> None:
    """Where the file does not name the atom, or where there is none."""
    assert read_tasks(None, dictionary).of == {"pirate": ("pirate",)}
    (tmp_path / "tasks.yml").write_text("parity: sums\ngeneral: [copy]\n")
    tasks = read_tasks(tmp_path, dictionary)
    assert (tasks.of, tasks.general) == ({"parity": ("sums",), "pirate": ("pirate",)}, ("copy",))


BAD = {
    "parity: [": "broken YAML",
    "": "an empty file",
    "- pirate\n": "expected a mapping from atoms to names of tasks, found something else",
    "pirate: 3\n": "found 3 for pirate; write, for example, pirate: [pirate]",
    "pirate: []\n": "found [] for pirate",
    "pirate: [a, a]\n": "found ['a', 'a'] for pirate",
    "parity: [a]\ngeneral: [a]\n": "expected general tasks that belong to no atom, found a; list each task once",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_files(text: str, dictionary: Dictionary, tmp_path: Path) -> None:
    (tmp_path / "tasks.yml").write_text(text)
    with pytest.raises(BadInput) as refused:
        read_tasks(tmp_path, dictionary)
    assert BAD[text] in str(refused.value)
    assert str(tmp_path) in str(refused.value)


def test_no_such_file(dictionary: Dictionary, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere.yml: expected a mapping from atoms to names of tasks, found No such file"):
        read_tasks(tmp_path / "nowhere.yml", dictionary)


def test_no_task_at_all(zoo: Path, tmp_path: Path) -> None:
    shutil.copytree(zoo / "known" / "pirate", tmp_path / "pirate")
    (tmp_path / "pirate" / "unmerge.json").unlink()
    with pytest.raises(BadInput, match="expected tasks of at least one atom, found none; give a tasks file"):
        read_tasks(None, open_dictionary([tmp_path], None))
