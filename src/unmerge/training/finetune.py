"""Supervised fine-tuning through trl's SFTTrainer: the loss on completions alone, with or without a PEFT LoRA."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from unmerge.checkpoints.files import existing_folder
from unmerge.core.errors import BadInput, need, one_line
from unmerge.core.examples import Example

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
    """How long and how fast to train. The learning rate warms up, then falls as ``schedule`` says."""

    model_config = ConfigDict(extra="forbid")

    learning_rate: float = Field(2e-4, gt=0)
    epochs: float = Field(3.0, gt=0)
    batch_size: int = Field(32, ge=1)
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps")
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = Field(0.0, ge=0)
    dtype: Literal["float32", "bfloat16"] = "float32"


def finetune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    schedule: Schedule,
    *,
    seed: int,
    lora: Lora | None = None,
    watch: Watch | None = None,
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

    Returns:
        The trained ``PreTrainedModel``, or the ``PeftModel`` around it.
    """
    trl, peft, datasets = need("trl", "train"), need("peft", "train"), need("datasets", "train")
    datasets.disable_progress_bars()
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
    need("transformers", "train").set_seed(seed)
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # what trl and transformers will rename is between them
        settings = trl.SFTConfig(
            output_dir=scratch,
            per_device_train_batch_size=schedule.batch_size,
            num_train_epochs=schedule.epochs,
            learning_rate=schedule.learning_rate,
            lr_scheduler_type=schedule.schedule,
            warmup_steps=schedule.warmup,
            weight_decay=schedule.weight_decay,
            bf16=schedule.dtype == "bfloat16",
            gradient_checkpointing=False,
            max_length=None,
            seed=seed,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = trl.SFTTrainer(
            model=model,
            args=settings,
            train_dataset=rows,
            processing_class=tokenizer,
            peft_config=wrapped,
            callbacks=[_callback(watch)] if watch else None,
        )
        _silence(trainer)
        trainer.train()
    trained = trainer.model
    trained.eval()
    return trained


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


def load_model(folder: Path, name: str | None = None) -> tuple[Any, Any]:
    """A causal language model in float32 and its tokenizer; ``name`` is what an adapter will record as its base."""
    transformers = need("transformers", "train")
    import torch

    if not any(entry.name.startswith(("tokenizer", "vocab")) for entry in existing_folder(folder).iterdir()):
        # transformers would make up an empty one, and train on nothing but unknown tokens
        raise BadInput(expected="a model with its tokenizer", found="no tokenizer", where=folder, hint="save it beside the model (save_pretrained)")
    transformers.utils.logging.disable_progress_bar()
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    except Exception as error:
        # transformers raises OSError, ValueError, KeyError and more, and speaks of its hub
        raise BadInput(
            expected="a causal language model with its tokenizer",
            found=f"{type(error).__name__}: {one_line(str(error))[:200]}",
            where=folder,
            hint="save both into the folder (save_pretrained)",
        ) from error
    model.name_or_path = name or str(folder)  # PEFT copies it into the adapter's configuration
    return model, tokenizer
