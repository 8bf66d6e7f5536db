"""``adapter_config.json`` as PEFT writes it: what an adapter is, and whether it adds to the weights at all."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from unmerge.checkpoints.files import existing_folder
from unmerge.checkpoints.formats import named_format
from unmerge.checkpoints.initialisation import OLORA, PISSA
from unmerge.core.errors import BadInput
from unmerge.core.records import read_json

Number = TypeVar("Number", int, float)

CONFIG = "adapter_config.json"
#: the stem of mlx-lm's file of weights
MLX_WEIGHTS = "adapters"
ADDITIVE = ("LORA", "LOHA", "LOKR")
_MULTIPLICATIVE = ("IA3", "OFT", "BOFT", "HRA", "ROAD", "PSOFT", "HIRA", "GLORA")
_PROMPTS = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT", "CPT", "CARTRIDGE")

#: initialisations that also change the base, so that B A alone is not the difference to it
_CHANGES_BASE = ("corda", "loftq", "lora_ga")
#: LoRA options under which the weights change by something else than B A, or not for every token
_NOT_PLAIN = (
    "use_qalora",
    "use_bdlora",
    "layer_replication",
    "target_parameters",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "megatron_config",
    "trainable_token_indices",
)


@dataclass(frozen=True)
class AdapterConfig:
    """The settings that decide what an adapter does to the weights.

    Attributes:
        kind: ``LORA``, ``LOHA`` or ``LOKR``.
        rank, alpha: the defaults; ``rank_pattern`` and ``alpha_pattern`` override them by module name.
        rslora: scale alpha / sqrt(r) instead of alpha / r.
        transposed: the base stores its matrices (in, out), as GPT-2 does.
        dora: magnitudes are trained as well.
        tied: the adapter changes a tied embedding and its head alike (``ensure_weight_tying``).
        base_name: the base as recorded, if it is.
        start: ``pissa``, ``pissa_niter_N`` or ``olora``, where the factors began as a part of the base; None where they did not, or where
            nothing is said of it.
        weights: the stem of the file of weights, where it is not PEFT's.
        is_stated: whether there is a configuration; where there is none, ranks are the file's and the scale is 1.
    """

    kind: str
    rank: int
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    rslora: bool
    transposed: bool
    dora: bool
    tied: bool
    base_name: str | None
    start: str | None = None
    weights: str | None = None
    is_stated: bool = True

    @staticmethod
    def unstated(kind: str) -> AdapterConfig:
        """What is taken for the configuration of an adapter that lies there without one."""
        return AdapterConfig(kind, 1, 1.0, {}, {}, False, False, False, False, None, is_stated=False)

    @staticmethod
    def read(folder: Path) -> AdapterConfig:
        """Read and check ``adapter_config.json``.

        Raises:
            BadInput: not an adapter, or one that does not add a fixed matrix to the weights.
        """
        file = existing_folder(folder) / CONFIG
        if not file.exists():
            raise BadInput(expected=f"a PEFT adapter with {CONFIG}", found="none", where=folder, hint="check the path")
        raw = read_json(file, "a PEFT adapter's configuration")
        if isinstance(raw, dict) and isinstance(raw.get("lora_parameters"), dict) and "peft_type" not in raw:
            return _of_mlx(raw, file)
        if not isinstance(raw, dict) or "peft_type" not in raw:
            expected = "a PEFT configuration with peft_type"
            raise named_format(sorted(folder.iterdir()), f"{expected}, and weights in adapter_model.safetensors") or BadInput(
                expected=expected, found="none", where=file, hint="save the adapter with PEFT again"
            )
        kind = str(raw["peft_type"]).upper()
        _refuse_not_additive(kind, raw, file)
        try:
            config = AdapterConfig(
                kind=kind,
                rank=int(raw.get("r", 8)),
                alpha=float(raw.get("lora_alpha" if kind == "LORA" else "alpha", 8)),
                rank_pattern={str(key): int(value) for key, value in (raw.get("rank_pattern") or {}).items()},
                alpha_pattern={str(key): float(value) for key, value in (raw.get("alpha_pattern") or {}).items()},
                rslora=bool(raw.get("use_rslora", False)),
                transposed=bool(raw.get("fan_in_fan_out", False)),
                dora=bool(raw.get("use_dora", False)),
                tied=bool(raw.get("ensure_weight_tying", False)),
                base_name=raw.get("base_model_name_or_path") or None,
                start=_start(raw),
            )
            config._check()
        except (TypeError, ValueError, AttributeError, OverflowError, re.error) as error:
            raise BadInput(
                expected="ranks of at least 1, finite alphas and patterns that are regular expressions",
                found=str(error),
                where=file,
                hint="save the adapter with PEFT again",
            ) from error
        return config

    def rank_of(self, module: str) -> int:
        """The rank of one module."""
        return _by_pattern(self.rank_pattern, module, self.rank)

    def scale_of(self, module: str) -> float:
        """The factor before B A for one module."""
        if not self.is_stated:
            return 1.0
        rank = self.rank_of(module)
        return _by_pattern(self.alpha_pattern, module, self.alpha) / (math.sqrt(rank) if self.rslora else rank)

    def _check(self) -> None:
        for pattern in (*self.rank_pattern, *self.alpha_pattern):
            re.compile(pattern)
        if wrong := [rank for rank in (self.rank, *self.rank_pattern.values()) if rank < 1]:
            raise ValueError(f"rank {wrong[0]}")
        if endless := [alpha for alpha in (self.alpha, *self.alpha_pattern.values()) if not math.isfinite(alpha)]:
            raise ValueError(f"alpha {endless[0]}")


def _by_pattern(pattern: Mapping[str, Number], module: str, default: Number) -> Number:
    """PEFT's rule: the first key that, as a regular expression, is the end of the module's name."""
    for key, value in pattern.items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default


def _of_mlx(raw: Mapping[str, Any], file: Path) -> AdapterConfig:
    """mlx-lm's configuration: a LoRA's scale is stated as it is, and there is no alpha."""
    kind, settings = raw.get("fine_tune_type", "lora"), raw["lora_parameters"]
    try:
        rank, scale = int(settings["rank"]), float(settings["scale"])
        if kind != "lora" or rank < 1 or not math.isfinite(scale):
            raise ValueError(f"{kind} of rank {rank} and scale {scale}")
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(
            expected="an MLX adapter of type lora with a rank and a scale",
            found=str(error),
            where=file,
            hint="fuse it into its base (mlx_lm.fuse) and give the checkpoint",
        ) from error
    return AdapterConfig("LORA", rank, scale * rank, {}, {}, False, False, False, False, raw.get("model"), weights=MLX_WEIGHTS)


def _start(raw: Mapping[str, Any]) -> str | None:
    """The initialisation that took the factors out of the base, if one did that can be undone."""
    start = str(raw.get("init_lora_weights", "")).lower()
    return start if start.startswith((PISSA, OLORA)) else None


def _refuse_not_additive(kind: str, raw: Mapping[str, Any], file: Path) -> None:
    merged = "merge it into its base (merge_and_unload) and give the checkpoint"
    if kind not in ADDITIVE:
        prompt = kind in _PROMPTS
        why = "leaves the weights as they are" if prompt else "multiplies the weights" if kind in _MULTIPLICATIVE else "is not read here"
        raise BadInput(
            expected=f"an adapter that adds to the weights ({', '.join(ADDITIVE)})",
            found=f"{kind}, which {why}",
            where=file,
            hint="look for it in the prompt or the cache, not in the weights" if prompt else merged,
        )
    start = str(raw.get("init_lora_weights", "")).lower()
    if start.startswith(_CHANGES_BASE):
        raise BadInput(
            expected="an adapter to an unchanged base",
            found=f"init_lora_weights={start}, which changes the base as well",
            where=file,
            hint="convert it with save_pretrained(..., path_initial_model_for_weight_conversion=...)",
        )
    if marked := next((option for option in _NOT_PLAIN if raw.get(option)), None):
        raise BadInput(
            expected="a LoRA that adds one fixed matrix to each module",
            found=f"the option {marked}",
            where=file,
            hint=merged,
        )
