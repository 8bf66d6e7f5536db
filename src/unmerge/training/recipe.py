"""A training recipe: which adapters, or full fine-tunes, to train on which data, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unmerge.core.errors import BadInput
from unmerge.core.records import sha256
from unmerge.training.finetune import Lora, Schedule

#: a name that is a folder's own: it leads nowhere else, and a dictionary does not take it for hidden
FolderName = Annotated[str, Field(pattern=r"^[^./\x00][^/\x00]*$")]


class AdapterEntry(BaseModel):
    """One adapter of the recipe.

    Attributes:
        train: JSON lines to train on.
        held_out: JSON lines to score afterwards; none of its prompts may be in ``train``.
        description: one line; kept in the adapter's record.
        category: kept in the adapter's record.
        seed: its own, where it is not the recipe's.
    """

    model_config = ConfigDict(extra="forbid")

    train: Path
    held_out: Path | None = None
    description: str = ""
    category: str = ""
    seed: int | None = None

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the data files, by name."""
        return {path.name: sha256(path) for path in (self.train, self.held_out) if path}


class TrainingRecipe(BaseModel):
    """What ``unmerge train`` reads. Paths are relative to the recipe's own folder.

    Attributes:
        base: folder of the base model.
        base_name: what adapters record as their base; the folder where it is not given.
        seed: of initialisation, shuffling and dropout.
        lora: the adapters' shape; null trains all weights, and every adapter is then a checkpoint.
        training: how long and how fast.
        adapters: by name; the name becomes the adapter's folder and its task.
    """

    model_config = ConfigDict(extra="forbid")

    base: Path
    base_name: str | None = None
    seed: int = 0
    lora: Lora | None = Field(default_factory=Lora)
    training: Schedule = Field(default_factory=Schedule)
    adapters: dict[FolderName, AdapterEntry] = Field(min_length=1)

    @staticmethod
    def read(file: Path) -> TrainingRecipe:
        """Read a recipe and make its paths absolute.

        Raises:
            BadInput: no such file, broken YAML, an unknown or ill-typed setting.
        """
        try:
            raw = yaml.safe_load(file.read_text(encoding="utf-8"))
            recipe = TrainingRecipe.model_validate(raw)
        except OSError as error:
            raise BadInput(expected="a training recipe", found=error.strerror or str(error), where=file, hint="check the path") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise BadInput(expected="a training recipe in YAML", found=f"broken YAML ({error})", where=file, hint="mend the file") from error
        except ValidationError as error:
            first = error.errors()[0]
            setting = ".".join(map(str, first["loc"])) or "the recipe"
            raise BadInput(expected=f"a valid {setting}", found=first["msg"], where=file, hint="see 'unmerge train --help'") from error
        return recipe.beside(file.parent)

    def beside(self, folder: Path) -> TrainingRecipe:
        """The recipe with every path resolved against a folder."""
        adapters = {
            name: entry.model_copy(
                update={"train": (folder / entry.train).resolve(), "held_out": entry.held_out and (folder / entry.held_out).resolve()}
            )
            for name, entry in self.adapters.items()
        }
        return self.model_copy(update={"base": (folder / self.base).resolve(), "adapters": adapters})
