"""Tiny models and adapters, made by transformers and PEFT themselves, and hand-made folders for what these do not write."""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


class Lab:
    """Makes models and adapters with real libraries and asks them what an adapter does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count()

    def place(self) -> Path:
        return self.folder / f"made_{next(self._numbers)}"

    def model(self, config: transformers.PretrainedConfig, seed: int = 0) -> Any:
        """A model of random weights, biases and norms included."""
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            parameter.data.normal_(0, 0.3)
        return model

    def base(self, config: transformers.PretrainedConfig, seed: int = 0) -> Path:
        folder = self.place()
        self.model(config, seed).save_pretrained(folder)
        return folder

    def load(self, folder: Path) -> Any:
        return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")

    def adapter(self, base: Path, config: peft.PeftConfig, dtype: torch.dtype = torch.float32, **saving: Any) -> Path:
        """An adapter of random weights, B and magnitudes included, saved by PEFT."""
        folder = self.place()
        torch.manual_seed(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = peft.get_peft_model(self.load(base), config)
            if "path_initial_model_for_weight_conversion" in saving:
                model.save_pretrained(saving["path_initial_model_for_weight_conversion"])
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.data += 0.3 * torch.randn_like(parameter)
            model.to(dtype).save_pretrained(folder, **saving)
        return folder

    def applied(self, base: Path, adapter: Path) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return peft.PeftModel.from_pretrained(self.load(base), adapter)

    def merged_minus_base(self, base: Path, adapter: Path) -> dict[str, Tensor]:
        """What PEFT's own merge changes, for every tensor of the model, in float64."""
        before = {name: values.clone() for name, values in self.load(base).state_dict().items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            after = self.applied(base, adapter).merge_and_unload().state_dict()
        return {name: values.double() - before[name].double() for name, values in after.items()}


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


def qwen(**settings: Any) -> transformers.PretrainedConfig:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    return transformers.Qwen2Config(**({"vocab_size": 32, "tie_word_embeddings": False, **sizes} | settings))


@pytest.fixture(scope="session")
def bases(lab: Lab) -> dict[str, Path]:
    """Qwen2, untied and tied; GPT-2, whose matrices are transposed and whose configuration does not say that it is tied."""
    gpt2 = transformers.GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=8, bos_token_id=0, eos_token_id=1)
    found = {"qwen": lab.base(qwen()), "tied": lab.base(qwen(tie_word_embeddings=True)), "gpt2": lab.base(gpt2)}
    config = json.loads((found["gpt2"] / "config.json").read_text())
    config.pop("tie_word_embeddings", None)  # as on the hub: written before transformers wrote it
    (found["gpt2"] / "config.json").write_text(json.dumps(config))
    return found


@pytest.fixture(scope="session")
def qwen_config() -> Callable[..., transformers.PretrainedConfig]:
    return qwen


Maker = Callable[..., Path]


@pytest.fixture
def make_checkpoint(tmp_path: Path) -> Maker:
    """Write a checkpoint folder by hand."""

    def make(name: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None = None) -> Path:
        return written(tmp_path / name, "model.safetensors", tensors, "config.json", config or {"model_type": "qwen2"})

    return make


@pytest.fixture
def make_adapter(tmp_path: Path) -> Maker:
    """Write an adapter folder by hand, by default a LoRA of rank 2."""

    def make(name: str, tensors: Mapping[str, Tensor], **config: Any) -> Path:
        named = {f"base_model.model.{key}": values for key, values in tensors.items()}
        settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, **config}
        return written(tmp_path / name, "adapter_model.safetensors", named, "adapter_config.json", settings)

    return make


def written(folder: Path, weights: str, tensors: Mapping[str, Tensor], config: str, settings: Mapping[str, Any]) -> Path:
    folder.mkdir()
    save_file({name: values.contiguous() for name, values in tensors.items()}, folder / weights)
    (folder / config).write_text(json.dumps(settings))
    return folder
