"""Phase 2: run a mergekit configuration in process, and keep beside the target what made it.

The configuration is mergekit's own, or several of which later ones merge what earlier ones made. Three things are added: an adapter may
be named by its folder alone (``base_model`` is put in front; under ``linear`` that is all it is for), relative paths are taken from the
configuration's folder, and what is named by its name on the hub is found as everywhere else, so that its commit is in the record.
mergekit keys its caches by path, so each run gets fresh ones.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from unmerge.checkpoints.adapter_config import CONFIG
from unmerge.checkpoints.hub import is_name, located, pinned
from unmerge.core.errors import BadInput, one_line
from unmerge.core.quiet import same_random_state, silent_transformers
from unmerge.core.records import Environment, Source, environment, is_refusal, write_json, write_text
from unmerge.core.sources import source
from unmerge.core.staging import staged
from unmerge.recipes.documents import MODEL_KEYS, documents
from unmerge.recipes.mergekit_adapter import fresh_loaders, mergekit_module, types_of_layers

CONFIGURATION, RECORD = "merge.yml", "merge.json"
#: bytes of a file of weights, mergekit's own
SHARD = 5_000_000_000
#: files that one kind of tokenizer or another is read from
_TOKENIZERS = ("tokenizer*", "vocab*", "*.model", "*.spm")


class MergeRecord(BaseModel):
    """How a target was made.

    Attributes:
        configuration: as it was given; of several documents the one that makes the result.
        resolved: as it was run, paths absolute.
        before: the other documents, by name, in the order in which they were run.
        seed: of the global torch generator, which dare and della draw from.
        inputs: hashes of every model and adapter, by path.
    """

    configuration: dict[str, Any]
    resolved: dict[str, Any]
    before: list[dict[str, Any]] = []
    seed: int
    inputs: dict[str, Source]
    environment: Environment


def merge(configuration: Path, out: Path, seed: int = 0, shard: int = SHARD) -> MergeRecord:
    """Run a mergekit configuration file.

    Args:
        configuration: a mergekit YAML file, of one document or of several (``documents``).
        out: folder to make: the merged checkpoint with its configuration and record.
        seed: for the methods that draw random masks.
        shard: bytes of a file of weights at most, which mergekit holds in memory until it is full.

    Returns:
        The record that lies in ``out/merge.json``.

    Raises:
        BadInput: no such file, broken YAML, documents in no order, a configuration or an input that mergekit refuses.
    """
    *before, last = documents(configuration)
    with tempfile.TemporaryDirectory(prefix="unmerge-") as scratch:
        resolver = _Resolver(configuration.parent, Path(scratch))
        for document in before:
            made = Path(scratch) / f"document-{len(resolver.made)}"
            _run(resolver.runnable(document.configuration), made, Path(scratch) / "loras", seed, configuration, shard)
            resolver.made[str(document.name)] = made
        runnable = resolver.runnable(last.configuration)
        record = MergeRecord(
            configuration=last.configuration,
            resolved=runnable,
            before=[{"name": document.name, **document.configuration} for document in before],
            seed=seed,
            inputs={str(path): _hashes(path) for path in sorted(resolver.found)},
            environment=environment(),
        )
        with staged(out, record.model_dump(mode="json", exclude={"environment", "resolved"})) as stage:
            with stage.piece("merged") as piece:
                _run(runnable, piece, Path(scratch) / "loras", seed, configuration, shard)
            for path in sorted((stage.folder / "merged").iterdir()):
                path.rename(stage.folder / path.name)
            (stage.folder / "merged").rmdir()
            write_text(stage.folder / CONFIGURATION, yaml.safe_dump_all([*record.before, last.configuration], sort_keys=False))
            write_json(stage.folder / RECORD, record)
    return record


def _run(runnable: dict[str, Any], out: Path, loras: Path, seed: int, configuration: Path, shard: int) -> None:
    config, options, run = (mergekit_module(f"mergekit.{part}") for part in ("config", "options", "merge"))
    try:
        parsed = config.MergeConfiguration.model_validate(runnable)
        settings = options.MergeOptions(
            lora_merge_cache=str(loras),
            random_seed=seed,
            quiet=True,
            write_model_card=False,
            copy_tokenizer=_has_tokenizer(parsed),
            out_shard_size=shard,
        )
        with silent_transformers(), same_random_state(), types_of_layers(), fresh_loaders():
            run.run_merge(parsed, str(out), options=settings)
    except Exception as error:
        if is_refusal(error):
            raise  # the system's own refusals keep their meaning
        # mergekit and transformers raise RuntimeError, ValueError, KeyError, OSError (a model that is not there) and
        # pydantic's errors for what they cannot run
        raise BadInput(
            expected="a configuration that mergekit can run",
            found=f"{type(error).__name__}: {one_line(str(error))[:300]}",
            where=configuration,
            hint="check the method, its parameters and the models",
        ) from error


def _has_tokenizer(parsed: Any) -> bool:
    """Whether there is a tokenizer to copy from the model that mergekit takes it from, whichever of several that is.

    Where there is none, mergekit writes the weights all the same, and logs a traceback.
    """
    donors = [parsed.base_model] if parsed.base_model else parsed.referenced_models()
    return all(any(next(Path(donor.model.path).glob(pattern), None) for pattern in _TOKENIZERS) for donor in donors)


def linked(folder: Path, scratch: Path) -> str:
    """The absolute path of a folder for mergekit, which splits names at + and @: where its own has one, that of a link in ``scratch``."""
    folder = folder.resolve()
    if not set("+@") & set(str(folder)):
        return str(folder)
    mark = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    link = scratch / f"input-{mark}-{folder.name.translate({43: '_', 64: '_'})}"
    if not link.exists():
        link.symlink_to(folder)
    return str(link)


class _Resolver:
    """Makes the paths of a configuration absolute and puts the base in front of bare adapters."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.folder, self.scratch = folder, scratch
        self.base: str | None = None
        #: what was named by a path, and what other documents made, by name
        self.found: set[Path] = set()
        self.made: dict[str, Path] = {}

    def runnable(self, raw: dict[str, Any]) -> dict[str, Any]:
        """The configuration as mergekit is to run it."""
        self.base = raw.get("base_model")
        if raw.get("merge_method") == "linear":
            # mergekit would average the base in, and demand its weight; here it only says what the adapters go on
            raw = {key: value for key, value in raw.items() if key != "base_model"}
        resolved: dict[str, Any] = self._resolved(raw)
        return resolved

    def _resolved(self, value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {inner: self._resolved(content, inner) for inner, content in value.items()}
        if isinstance(value, list):
            return [self._resolved(content, key) for content in value]
        return self._model(value) if key in MODEL_KEYS and isinstance(value, str) else value

    def _model(self, name: str) -> str:
        model, plus, lora = ("", "", name) if self._folder(name) else name.partition("+")
        if not plus and (folder := self._folder(name)) and (folder / CONFIG).exists():
            if not self.base:
                raise BadInput(expected="a base_model, to put the adapter on", found="none", where=name, hint="add base_model: to the configuration")
            model, plus, lora = self.base, "+", name
        return self._path(model) + plus + self._path(lora) if plus else self._path(name)

    def _folder(self, name: str) -> Path | None:
        if name in self.made:
            return self.made[name]
        here = next((path.resolve() for path in (self.folder / name, Path(name)) if path.is_dir()), None)
        return located(name).resolve() if here is None and is_name(name) else here

    def _path(self, name: str) -> str:
        folder = self._folder(name)
        if folder is None:
            if name.startswith((".", "/")):
                raise BadInput(
                    expected="a folder with a model or an adapter", found="no such folder", where=name, hint="check the path in the configuration"
                )
            return name  # mergekit's to refuse
        if name not in self.made:
            self.found.add(folder)
        return linked(folder, self.scratch)


def _hashes(folder: Path) -> Source:
    return source(folder, [*folder.glob("*.safetensors"), *folder.glob("*config.json")], pinned(folder))
