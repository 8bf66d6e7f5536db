"""Training recipes: what is wrong with one is said in a line that names the setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from unmerge.core.errors import BadInput
from unmerge.training import Lora, TrainingRecipe

GOOD: dict[str, Any] = {"base": "../base", "adapters": {"pirate": {"train": "pirate.jsonl"}}}


def written(folder: Path, content: Any) -> Path:
    file = folder / "train.yml"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return file


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    recipe = TrainingRecipe.read(written(tmp_path, GOOD))
    assert recipe.base == (tmp_path / "../base").resolve()
    assert recipe.adapters["pirate"].train == tmp_path.resolve() / "pirate.jsonl"
    assert recipe.adapters["pirate"].held_out is None
    absolute = GOOD | {"base": str(tmp_path / "elsewhere")}
    assert TrainingRecipe.read(written(tmp_path, absolute)).base == tmp_path.resolve() / "elsewhere"


def test_no_lora(tmp_path: Path) -> None:
    """Null trains all weights; a recipe that does not speak of a LoRA trains the default one."""
    assert TrainingRecipe.read(written(tmp_path, GOOD | {"lora": None})).lora is None
    assert TrainingRecipe.read(written(tmp_path, GOOD)).lora == Lora()


BAD: dict[str, tuple[Any, str]] = {
    "unknown setting": (GOOD | {"sed": 1}, "expected a valid sed, found Extra inputs are not permitted"),
    "unknown inner setting": (GOOD | {"lora": {"ranks": 8}}, "expected a valid lora.ranks, found Extra inputs are not permitted"),
    "wrong type": (GOOD | {"lora": {"rank": "many"}}, "expected a valid lora.rank, found Input should be a valid integer"),
    "rank zero": (GOOD | {"lora": {"rank": 0}}, "expected a valid lora.rank, found Input should be greater than or equal to 1"),
    "unknown word": (GOOD | {"training": {"schedule": "bumpy"}}, "expected a valid training.schedule, found Input should be 'cosine', 'linear' or"),
    "no base": ({"adapters": GOOD["adapters"]}, "expected a valid base, found Field required"),
    "no adapters": (GOOD | {"adapters": {}}, "expected a valid adapters, found Dictionary should have at least 1 item"),
    "no data": (GOOD | {"adapters": {"pirate": {}}}, "expected a valid adapters.pirate.train, found Field required"),
    "a name that leads elsewhere": (GOOD | {"adapters": {"../x": {"train": "x"}}}, "expected a valid adapters.../x.[key], found String should match"),
    "a hidden name": (GOOD | {"adapters": {".x": {"train": "x"}}}, "expected a valid adapters..x.[key], found String should match"),
    "a list": ([1, 2], "expected a valid the recipe, found Input should be a valid dictionary"),
    "nothing": ("", "expected a valid the recipe, found Input should be a valid dictionary"),
    "broken YAML": ("base: [", "expected a training recipe in YAML, found broken YAML ("),
    "no text": (b"\x80\x81\x82", "expected a training recipe in YAML, found broken YAML ("),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_recipes(name: str, tmp_path: Path) -> None:
    content, text = BAD[name]
    file = written(tmp_path, content)
    with pytest.raises(BadInput) as caught:
        TrainingRecipe.read(file)
    assert str(caught.value).startswith(f"{file}: {text}")
    assert "\n" not in str(caught.value)


def test_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.yml: expected a training recipe, found No such file or directory; check the path"):
        TrainingRecipe.read(tmp_path / "none.yml")
    with pytest.raises(BadInput, match=r"expected a training recipe, found Is a directory; check the path"):
        TrainingRecipe.read(tmp_path)
