"""PEFT itself on the factors of one module: ``add_weighted_adapter`` in a model that has nothing else.

The stand-in has the module, whose own weights take no memory since the combination never looks at them, and an anchor of
size 1 that every adapter changes: PEFT wants each to change something, and takes the rank of the result from all of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unmerge.checkpoints.adapter_config import AdapterConfig
from unmerge.core.errors import need
from unmerge.recipes.combinations.call import Call
from unmerge.recipes.factors import Pair

_MADE = "combined by unmerge"


def combined(call: Call, configs: Mapping[str, AdapterConfig], pairs: Mapping[str, Pair | None], module: str, loaded: torch.dtype | None) -> Pair:
    """The factors that PEFT makes for one module.

    Args:
        call: what to ask for.
        configs: of the adapters, by name.
        pairs: their factors of the module, None where one leaves it as it is.
        module: its name, which rank and alpha patterns look at.
        loaded: the dtype that PEFT holds the atoms in, None for their own; on loading it makes float32 of 16-bit ones by default.
    """
    peft = need("peft", "train")
    first = next(pair for pair in pairs.values() if pair is not None)
    standin = nn.Module()
    standin.module, standin.anchor = _bare(first.b.shape[0], first.a.shape[1]), _bare(1, 1)
    model: Any = None
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        for name in call.adapters:
            settings = _settings(peft, configs[name], module, pairs[name] is not None)
            if model is None:
                model = peft.get_peft_model(standin, settings, adapter_name=name)
            elif name not in model.peft_config:
                model.add_adapter(name, settings)
    layer: Any = standin.module
    for name, pair in pairs.items():
        if pair is not None:
            layer.lora_A[name].weight.data, layer.lora_B[name].weight.data = (_as(factor, loaded) for factor in (pair.a, pair.b))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = {name: value for name, value in call.arguments().items() if value is not None}
        model.add_weighted_adapter(adapter_name=_MADE, **arguments)
    made = layer.lora_B[_MADE].weight.data, layer.lora_A[_MADE].weight.data
    return Pair(*made, scale=float(layer.scaling[_MADE]))


def _as(factor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return factor.clone() if dtype is None else factor.to(dtype, copy=True)


def _bare(out: int, into: int) -> nn.Linear:
    """A linear module whose weights are one zero."""
    module = nn.Linear(into, out, bias=False, device="meta")
    module.weight = nn.Parameter(torch.zeros(()).expand(out, into), requires_grad=False)
    return module


def _settings(peft: Any, config: AdapterConfig, module: str, changes: bool) -> Any:
    """An adapter's settings, its patterns answered for the module; all of its ranks count for the largest one."""
    rank = config.rank_of(module)
    alpha = config.scale_of(module) * (rank**0.5 if config.rslora else rank)
    return peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules=["anchor", "module"] if changes else ["anchor"],
        rank_pattern={"module": rank, **config.rank_pattern},
        alpha_pattern={"module": alpha, **config.alpha_pattern},
        use_rslora=config.rslora,
    )
