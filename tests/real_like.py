"""Adapters in memory with the spectra of real ones, their relatives, and the certificate of what is merged from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from unmerge.certificate import Certificate, Grid, certify
from unmerge.vectors import Dense, Held, LowRank, gram

Weight = float | Callable[[str], float]

SHAPES = {f"model.layers.{layer}.self_attn.{kind}_proj.weight": (96, 80) for layer in range(3) for kind in "qkvo"}
RANK = 6


def spectrum() -> Tensor:
    """As real adapters have it: the leading direction holds .8 of the square."""
    rest = 0.75 ** torch.arange(RANK - 1)
    return torch.cat([torch.tensor([0.8]).sqrt(), rest / rest.norm() * 0.2**0.5])


def unit(values: Tensor) -> Tensor:
    return values / values.norm(dim=0)


def adapters(count: int, generator: torch.Generator, start: float = 0.6) -> list[dict[str, LowRank]]:
    """Adapters that share part of the initialisation of their first factor, and a little of the second."""
    made: list[dict[str, LowRank]] = [{} for _ in range(count)]
    for name, (out, into) in SHAPES.items():
        shared = unit(torch.randn(out, RANK, generator=generator)), unit(torch.randn(into, RANK, generator=generator))
        for adapter in made:
            b = unit(0.2 * shared[0] + unit(torch.randn(out, RANK, generator=generator)))
            a = unit(start * shared[1] + (1 - start**2) ** 0.5 * unit(torch.randn(into, RANK, generator=generator)))
            adapter[name] = LowRank(b * spectrum(), a.T)
    return made


def relative(adapter: dict[str, LowRank], cosine: float, generator: torch.Generator) -> dict[str, LowRank]:
    """Both factors moved, as further training moves them."""
    step = (1 / cosine - 1) ** 0.5

    def moved(values: Tensor, dim: int) -> Tensor:
        noise = torch.randn(values.shape, generator=generator)
        noise = noise / noise.norm(dim=dim, keepdim=True) * values.norm(dim=dim, keepdim=True)
        return (values + step * noise) / (1 + step**2) ** 0.5

    return {name: LowRank(moved(delta.b, 0), moved(delta.a, 1)) for name, delta in adapter.items()}


def certified(
    parts: Sequence[tuple[Mapping[str, LowRank], Weight]], dictionary: Sequence[Mapping[str, LowRank]], dtype: torch.dtype | None
) -> Certificate:
    """The certificate of a merge of some parts into a base, rounded once where there is a dtype; weights may depend on the tensor."""
    generator = torch.Generator().manual_seed(9)
    base = {name: (0.1 * torch.randn(shape, generator=generator)).bfloat16() for name, shape in SHAPES.items()}
    target = {}
    for name in SHAPES:
        before = base[name].float()
        after = before.clone()
        for changes, weight in parts:
            after += (weight(name) if callable(weight) else weight) * changes[name].dense()
        target[name] = Dense((after if dtype is None else after.to(dtype).float()) - before)
    atoms, found = [Held(f"atom {place}", changes) for place, changes in enumerate(dictionary)], Held("target", target)
    grid = Grid(base.__getitem__, lambda _: dtype or torch.float32)
    return certify(atoms, found, gram(atoms, found), grid)


def claims(certificate: Certificate) -> dict[int, str]:
    return {found.atom: str(found.likeness.identity) for found in certificate.found}
