"""The shapes of models that people have, by the names they go by. Numbers are those of the models' own ``config.json``.

All are decoders of one plan: embeddings; layers of attention (q, k, v, o) and a gated MLP (gate, up, down), with a norm before each;
a last norm, and a head that may be the embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unmerge.core.errors import BadInput, unknown_name
from unmerge.core.records import read_json
from unmerge.vectors import Shape

ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
#: which modules adapters change, by the word for them
MODULES = {"attention": ATTENTION, "linear": ATTENTION + MLP}


@dataclass(frozen=True)
class Architecture:
    """A model's shapes.

    Attributes:
        name: what it is called.
        config: its ``config.json``.
        whole: layers that the model has; ``config`` may say fewer.
    """

    name: str
    config: Mapping[str, Any]
    whole: int

    @staticmethod
    def named(name: str) -> Architecture:
        """One of the table, or that of a ``config.json`` (the file, or its folder).

        Raises:
            BadInput: neither, or a plan that is not this one.
        """
        if name in _TABLE:
            family, *sizes = _TABLE[name]
            config = _FAMILIES[family] | dict(zip(_SIZES, sizes, strict=True))
        else:
            path = Path(name)
            file = path / "config.json" if path.is_dir() else path
            if not file.is_file():
                raise unknown_name(name, _TABLE, "--architecture", expected="one of {}, or a config.json")
            config = _read(file)
        return Architecture(name if name in _TABLE else Path(name).resolve().name, config, int(config["num_hidden_layers"]))

    def cut(self, layers: int | None, vocabulary: int | None) -> Architecture:
        """The same with fewer layers, or a smaller vocabulary.

        Raises:
            BadInput: more layers than there are, or none.
        """
        count = self.whole if layers is None else layers
        if not 1 <= count <= self.whole:
            raise BadInput(expected=f"1 to {self.whole} layers", found=str(count), where="--layers", hint=f"{self.name} has {self.whole}")
        changes = {"num_hidden_layers": count} | ({"vocab_size": vocabulary} if vocabulary else {})
        if "max_window_layers" in self.config:
            changes["max_window_layers"] = count
        return replace(self, config={**self.config, **changes})

    @property
    def layers(self) -> int:
        return int(self.config["num_hidden_layers"])

    def linear(self, kinds: tuple[str, ...]) -> dict[str, Shape]:
        """The weights of some kinds of linear modules, (out, in), layer by layer."""
        return {f"model.layers.{layer}.{kind}.weight": self._shape(kind) for layer in range(self.layers) for kind in kinds}

    def tensors(self) -> dict[str, Shape]:
        """Every tensor of the checkpoint, in the order in which the model uses them."""
        hidden, vocabulary = int(self.config["hidden_size"]), int(self.config["vocab_size"])
        found: dict[str, Shape] = {"model.embed_tokens.weight": (vocabulary, hidden)}
        for layer in range(self.layers):
            own = f"model.layers.{layer}"
            found[f"{own}.input_layernorm.weight"] = (hidden,)
            for kind in ATTENTION:
                found[f"{own}.{kind}.weight"] = self._shape(kind)
                if self.config["model_type"] == "qwen2" and kind != "self_attn.o_proj":
                    found[f"{own}.{kind}.bias"] = self._shape(kind)[:1]
            found[f"{own}.post_attention_layernorm.weight"] = (hidden,)
            found |= {f"{own}.{kind}.weight": self._shape(kind) for kind in MLP}
        found["model.norm.weight"] = (hidden,)
        if not self.config["tie_word_embeddings"]:
            found["lm_head.weight"] = (vocabulary, hidden)
        return found

    def _shape(self, kind: str) -> Shape:
        hidden, inner, heads = (int(self.config[key]) for key in ("hidden_size", "intermediate_size", "num_attention_heads"))
        width = int(self.config.get("head_dim") or hidden // heads)
        shared = width * int(self.config["num_key_value_heads"])
        return {
            "self_attn.q_proj": (width * heads, hidden),
            "self_attn.k_proj": (shared, hidden),
            "self_attn.v_proj": (shared, hidden),
            "self_attn.o_proj": (hidden, width * heads),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }[kind]


def names() -> tuple[str, ...]:
    """The architectures that go by name."""
    return tuple(_TABLE)


def _read(file: Path) -> dict[str, Any]:
    config: dict[str, Any] | None = read_json(file, "a model's config.json")
    kind = config.get("model_type") if isinstance(config, dict) else None
    if config is None or kind not in _FAMILIES:
        raise BadInput(expected=f"a model of type {', '.join(_FAMILIES)}", found=str(kind), where=file, hint="choose another architecture")
    whole = _FAMILIES[str(kind)] | config
    if missing := [key for key in _SIZES if key not in whole]:
        raise BadInput(expected=f"a configuration with {missing[0]}", found="none", where=file, hint="download the file again")
    return whole


_COMMON: dict[str, Any] = {
    "attention_dropout": 0.0,
    "dtype": "bfloat16",
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "use_cache": True,
}
_FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2": {
        **_COMMON,
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "use_sliding_window": False,
    },
    "llama": {
        **_COMMON,
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": 128000,
        "eos_token_id": 128001,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "factor": 8.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
    },
    "mistral": {
        **_COMMON,
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1000000.0,
        "sliding_window": None,
    },
}
_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "tie_word_embeddings",
)
_TABLE: dict[str, tuple[Any, ...]] = {
    "Qwen2.5-0.5B": ("qwen2", 896, 4864, 24, 14, 2, 151936, True),
    "Qwen2.5-1.5B": ("qwen2", 1536, 8960, 28, 12, 2, 151936, True),
    "Qwen2.5-3B": ("qwen2", 2048, 11008, 36, 16, 2, 151936, True),
    "Qwen2.5-7B": ("qwen2", 3584, 18944, 28, 28, 4, 152064, False),
    "Qwen2.5-14B": ("qwen2", 5120, 13824, 48, 40, 8, 152064, False),
    "Qwen2.5-32B": ("qwen2", 5120, 27648, 64, 40, 8, 152064, False),
    "Llama-3.1-8B": ("llama", 4096, 14336, 32, 32, 8, 128256, False),
    "Llama-3.2-1B": ("llama", 2048, 8192, 16, 32, 8, 128256, True),
    "Llama-3.2-3B": ("llama", 3072, 8192, 28, 24, 8, 128256, True),
    "Mistral-7B-v0.3": ("mistral", 4096, 14336, 32, 32, 8, 32768, False),
}
