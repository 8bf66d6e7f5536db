"""The door: light to import, typed for a client, and the same names for the same arguments everywhere."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import unmerge

ROOT = Path(__file__).parents[2]
VERBS = ("decompose", "recover", "ablate", "verify", "audit", "merge", "train")
HEAVY = {"torch", "numpy", "scipy", "sklearn", "pandas", "matplotlib", "transformers", "peft", "trl", "mergekit", "safetensors", "pydantic", "typer"}

CLIENT = """
import unmerge

base = unmerge.open_model("base")
target = unmerge.task_vector("merged", base)
dictionary = unmerge.Dictionary.open(["adapters"], base)
result = unmerge.decompose(target, dictionary, base, device="cpu")
reveal_type(unmerge.decompose)
reveal_type(result)
reveal_type(result.components[0].coefficient)
reveal_type(result.ablate("pirate", out="without"))
reveal_type(base)
reveal_type(target)
reveal_type(dictionary)
reveal_type(unmerge.recover(target, dictionary, base))
reveal_type(unmerge.ablate(target, dictionary, base, remove="pirate", out="without"))
reveal_type(unmerge.verify(target, dictionary, base))
reveal_type(unmerge.audit(target, dictionary, base, out="audit"))
reveal_type(unmerge.merge("merge.yml", out="merged"))
reveal_type(unmerge.train("train.yml", out="adapters"))
reveal_type(unmerge.__version__)
unmerge.decompose(target, dictionary, base, "nnls")
unmerge.decompose(3, dictionary, base)
unmerge.no_such_name
"""
#: the last three lines of the client are wrong
ERRORS = ["call-arg", "arg-type", "attr-defined"]
TYPES = [
    "def (",
    "unmerge.decomposition.result.Decomposition",
    "float",
    "unmerge.decomposition.ablation_record.AblationRecord",
    "unmerge.checkpoints.checkpoint.Checkpoint",
    "unmerge.checkpoints.adapter.Adapter | unmerge.checkpoints.difference.Difference | unmerge.vectors.source.Held",
    "unmerge.decomposition.dictionary.Dictionary",
    "unmerge.recipes.record.RecoveredRecipe",
    "unmerge.decomposition.ablation_record.AblationRecord",
    "unmerge.verification.record.Verification",
    "unmerge.auditing.record.Audit",
    "unmerge.recipes.merge.MergeRecord",
    "dict[str, unmerge.training.adapters.AdapterRecord]",
    "str",
]


def test_import_loads_no_other_library() -> None:
    program = "import json, sys, unmerge; dir(unmerge); print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert "unmerge" in loaded
    assert not loaded & HEAVY


def test_names_are_loaded_when_they_are_used_and_no_room_hides_one() -> None:
    """Each in a process of its own order: after every room was imported, a name is still the door's."""
    program = (
        "import importlib, pkgutil, types, unmerge\n"
        "for module in pkgutil.iter_modules(unmerge.__path__): importlib.import_module('unmerge.' + module.name)\n"
        "assert not [name for name in unmerge.__all__ if isinstance(getattr(unmerge, name), types.ModuleType)]"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = unmerge.no_such_name  # type: ignore[attr-defined]


def test_a_client_is_type_checked(tmp_path: Path) -> None:
    """By the types of the package alone: the settings are a client's, and libraries that are large to read are skipped."""
    (tmp_path / "client.py").write_text(CLIENT)
    skipped = ("transformers", "peft", "trl", "datasets", "mergekit", "scipy", "sklearn", "pyarrow", "huggingface_hub", "matplotlib", "pandas")
    sections = "".join(f"[mypy-{name}.*]\nfollow_imports = skip\nignore_missing_imports = True\n" for name in (*skipped, "torch"))
    (tmp_path / "mypy.ini").write_text("[mypy]\n" + sections)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-pretty", "--config-file", "mypy.ini", "client.py"],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("client.py:")]
    revealed = [line.partition('Revealed type is "')[2].rstrip('"').replace("builtins.", "") for line in lines if "Revealed type" in line]
    assert len(revealed) == len(TYPES), done.stdout
    assert revealed[0].startswith(TYPES[0])
    assert revealed[1:] == TYPES[1:]
    errors = [line.rpartition("[")[2].rstrip("]") for line in lines if ": error:" in line]
    assert errors == ERRORS


@pytest.mark.parametrize("verb", VERBS)
def test_options_are_keywords_with_one_name(verb: str) -> None:
    parameters = inspect.signature(getattr(unmerge, verb)).parameters
    positional = [name for name, parameter in parameters.items() if parameter.kind is not parameter.KEYWORD_ONLY]
    assert positional == (["recipe"] if verb in ("merge", "train") else ["target", "dictionary", "base"])
    options = {name: str(parameter.annotation) for name, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY}
    shared = {"device": "str | None", "cache": "Path | str | None", "progress": "Progress | None", "limit": "int | None", "tasks": "Place | None"}
    assert not {name: kind for name, kind in options.items() if shared.get(name, kind) != kind}
    if "target" in positional:
        assert {"device", "cache", "progress"} <= options.keys()


@pytest.mark.parametrize("verb", [*VERBS, "open_model", "task_vector"])
def test_docstrings_say_what_goes_in_and_what_comes_out(verb: str) -> None:
    function = getattr(unmerge, verb)
    text = inspect.getdoc(function) or ""
    assert all(f"\n{heading}:\n" in text for heading in ("Args", "Returns", "Raises"))
    described = text.partition("Args:\n")[2].partition("Returns:")[0]
    assert [name for name in inspect.signature(function).parameters if f"    {name}: " not in described] == []
