"""Supervised fine-tuning through trl's SFTTrainer: the loss on completions alone, with or without a PEFT LoRA.

The optimiser's state is kept every ``save_every`` steps; a run that was killed goes on from there and ends with the same weights.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from unmerge.core.errors import BadInput, need
from unmerge.core.examples import Example
from unmerge.core.quiet import no_bars, same_random_state
from unmerge.evaluation.models import Weights
from unmerge.training.orthoreg import penalty_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: told (steps done, steps in all)
Watch = Callable[[int, int], None]


class Lora(BaseModel):
    """The adapter's shape, in PEFT's words."""

    model_config = ConfigDict(extra="forbid")

    rank: int = Field(32, ge=1)
    alpha: float = Field(32, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | list[str] = "all-linear"
    use_rslora: bool = False
    use_dora: bool = False


class Schedule(BaseModel):
    """How long and how fast to train, and in how little memory. The learning rate warms up, then falls as ``schedule`` says.

    Attributes:
        batch_size: examples in a step of the optimiser.
        micro_batch: examples in memory at a time; None for all of the step's.
        warmup: share of the steps.
        dtype: computed in; ``bfloat16`` is mixed precision.
        weights: what the model is held in; with a LoRA also ``nf4``, four bits, which brings 7B into 24 GB with room to spare.
        gradient_checkpointing: compute activations again instead of keeping them: about a third slower, many times smaller.
        max_length: tokens of an example; what is beyond is cut off. None for all.
        save_every: steps between two savings of the whole state; None to begin an adapter again after a kill.
        orthoreg: the factor of OrthoReg's penalty (see ``unmerge.training.orthoreg``); 0 for none.
    """

    model_config = ConfigDict(extra="forbid")

    learning_rate: float = Field(2e-4, gt=0)
    epochs: float = Field(3.0, gt=0)
    batch_size: int = Field(32, ge=1)
    micro_batch: int | None = Field(None, ge=1)
    warmup: float = Field(0.1, ge=0, lt=1)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = Field(0.0, ge=0)
    dtype: Literal["float32", "bfloat16"] = "float32"
    weights: Weights = "float32"
    gradient_checkpointing: bool = False
    max_length: int | None = Field(None, ge=8)
    save_every: int | None = Field(None, ge=1)
    orthoreg: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _whole_steps(self) -> Schedule:
        if self.batch_size % self.at_once:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of micro_batch {self.at_once}")
        return self

    @property
    def at_once(self) -> int:
        """Examples in memory at a time."""
        return self.micro_batch or self.batch_size


def finetune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    schedule: Schedule,
    *,
    seed: int,
    lora: Lora | None = None,
    watch: Watch | None = None,
    state: Path | None = None,
) -> Any:
    """Train a model on completions.

    Args:
        model: changed in place when ``lora`` is None, else wrapped.
        tokenizer: its tokenizer; its end token is appended to every completion.
        examples: the training set, in the order of the first epoch before shuffling.
        schedule: length, speed and precision.
        seed: of initialisation, shuffling and dropout.
        lora: train this LoRA and leave the model's own weights alone.
        watch: told (steps done, steps in all) after every step.
        state: where the state is kept, if the schedule asks for it; what lies there of the same run is taken up.

    Returns:
        The trained ``PreTrainedModel``, or the ``PeftModel`` around it.

    Raises:
        BadInput: settings that do not go together.
    """
    _refuse(schedule, lora)
    import torch

    trl, peft, datasets = need("trl", "train"), need("peft", "train"), need("datasets", "train")
    rows = datasets.Dataset.from_list([{"prompt": example.prompt, "completion": example.completion} for example in examples])
    wrapped = lora and peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        task_type="CAUSAL_LM",
    )
    kept = state if schedule.save_every else None
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings(), no_bars("datasets"), same_random_state():
        need("transformers", "train").set_seed(seed)
        warnings.simplefilter("ignore", FutureWarning)  # what trl and transformers will rename is between them
        settings = trl.SFTConfig(
            output_dir=str(kept or scratch),
            per_device_train_batch_size=schedule.at_once,
            gradient_accumulation_steps=schedule.batch_size // schedule.at_once,
            num_train_epochs=schedule.epochs,
            learning_rate=schedule.learning_rate,
            lr_scheduler_type=schedule.schedule,
            warmup_steps=schedule.warmup,
            weight_decay=schedule.weight_decay,
            bf16=schedule.dtype == "bfloat16",
            use_cpu=not torch.cuda.is_available(),
            gradient_checkpointing=schedule.gradient_checkpointing,
            max_length=schedule.max_length,
            seed=seed,
            save_strategy="steps" if kept else "no",
            save_steps=schedule.save_every or 1,
            save_total_limit=1,
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = _trainer(schedule.orthoreg)(
            model=model,
            args=settings,
            train_dataset=rows,
            processing_class=tokenizer,
            peft_config=wrapped,
            callbacks=[_callback(watch)] if watch else None,
        )
        _silence(trainer)
        trainer.train(resume_from_checkpoint=kept and _last(kept))
    trained = trainer.model
    trained.eval()
    return trained


def _refuse(schedule: Schedule, lora: Lora | None) -> None:
    """Raise BadInput for settings that do not go together."""
    where = "the training recipe"
    if lora is None and schedule.weights != "float32":
        raise BadInput(
            expected="weights: float32 to train all weights", found=schedule.weights, where=where, hint="leave it out, or train a LoRA (lora: ...)"
        )
    if schedule.orthoreg and (lora is None or lora.use_dora):
        found = "DoRA, whose update is no product" if lora else "no LoRA"
        raise BadInput(expected="a plain LoRA, with orthoreg", found=found, where=where, hint="leave orthoreg out, or train a plain LoRA")


def _last(kept: Path) -> str | None:
    """The newest state that was saved whole: its own record is written last. What a kill left half-written is removed."""
    whole = []
    for folder in kept.glob("checkpoint-*"):
        with suppress(OSError, ValueError, KeyError):
            whole.append((int(json.loads((folder / "trainer_state.json").read_text())["global_step"]), str(folder)))
            continue
        shutil.rmtree(folder)
    return max(whole)[1] if whole else None


def _trainer(orthoreg: float) -> Any:
    """trl's trainer, with OrthoReg's penalty where there is one."""
    trl = need("trl", "train")
    if not orthoreg:
        return trl.SFTTrainer

    class Regularised(trl.SFTTrainer):  # type: ignore[misc,name-defined]
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            # with a count of items the loss is a part of the step's; without one the trainer divides it by the parts
            parts = self.current_gradient_accumulation_steps if num_items_in_batch is not None else 1
            return loss + orthoreg * penalty_of(model) / parts

    return Regularised


def _silence(trainer: Any) -> None:
    """Take out the callback that prints a dictionary at the end of training."""
    transformers = need("transformers", "train")
    trainer.remove_callback(transformers.trainer_callback.PrinterCallback)


def _callback(watch: Watch) -> Any:
    transformers = need("transformers", "train")

    class Tell(transformers.TrainerCallback):  # type: ignore[misc,name-defined]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            watch(state.global_step, state.max_steps)

    return Tell()
