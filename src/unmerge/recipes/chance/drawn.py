"""A merge with random masks, recovered: factors and shares kept, weights and rescales, then the masks.

With weights and rescales as numbers of the dtype the merge is run again, entry by entry, for every way to keep and drop: what
is explained is explained to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from unmerge.core.records import write_bytes
from unmerge.recipes.case import Case
from unmerge.recipes.chance.learned import Learned, learned
from unmerge.recipes.chance.masks import Law, by_rank, line, posterior
from unmerge.recipes.chance.reading import PRECISION, Acting, read_off, sample_of
from unmerge.recipes.chance.scale import scale_of
from unmerge.recipes.chance.settled import Settled, settled
from unmerge.recipes.recipe import BASE, Setting
from unmerge.recipes.weights import Rule

#: shares explained, distances from a line over ranks, and a share kept that is all, beyond which no masks were drawn
_EXPLAINED, _TELLING, _STRAIGHT, _WHOLE = 0.95, 0.8, 0.1, 0.985


@dataclass(frozen=True)
class Drawn:
    """A merge with random masks, as found on the tensors that are held.

    Attributes:
        atoms: names, n of them.
        rule: how kept changes are combined.
        weights: (n,) that acted; under a rule that normalises up to scale.
        typed: the shortest decimals that act so; gradients, where they differ by layer.
        density: (n,) share kept.
        epsilon: (n,) how much likelier than average the largest entries of a row are kept.
        straight: largest distance of the shares kept from a line over ranks.
        factor: lambda, where the rule normalises.
        rescaled: whether what was kept was rescaled.
        spread: how much the weights differ from tensor to tensor, relatively, at most.
        acting: by tensor.
        explained: share of the target's changed entries that one of the sums is, to the last bit.
        telling: the same share where few values are sums: where the dtype's grid is fine beside the atoms' changes.
        telling_entries: how many these are.
        error: ||t - t_hat|| / ||t|| with the masks read off.
    """

    atoms: tuple[str, ...]
    rule: Rule
    weights: Tensor
    typed: tuple[Setting, ...]
    density: Tensor
    epsilon: Tensor
    straight: float
    factor: float
    rescaled: bool
    spread: float
    acting: dict[str, Acting]
    explained: float
    telling: float
    telling_entries: int
    error: float

    @property
    def speaks(self) -> bool:
        """Whether masks like these speak for a merge that draws them.

        Nearly all is explained; something was dropped; and shares kept are a line over ranks that lies between 0 and 1, as
        mergekit demands. Masks by magnitude explain as much, and their line does not.
        """
        lowest, highest = self.density - self.epsilon.abs(), self.density + self.epsilon.abs()
        possible = bool((lowest > -_STRAIGHT / 4).all() and (highest < 1 + _STRAIGHT / 4).all())
        explained = self.explained >= _EXPLAINED and self.telling >= _TELLING
        return explained and self.straight <= _STRAIGHT and possible and bool((self.density < _WHOLE).any())


def drawn(case: Case, atoms: Sequence[str]) -> Drawn | None:
    """Recover a merge with random masks, under the likeliest of the rules; None where nothing comes of it."""
    found = learned(case, atoms)
    if found is None:
        return None
    scale = scale_of(case, found)
    return _read(case, tuple(atoms), found, settled(case, atoms, found, scale), scale.spread)


def read_masks(case: Case, found: Drawn) -> dict[str, Tensor]:
    """The masks, "atom/tensor", as booleans in the tensor's shape: of the most probable sum that the target is.

    Where an election hides a mask, or an atom leaves an entry as it is, that is the usual one.
    """
    masks: dict[str, Tensor] = {}
    for tensor, acting in found.acting.items():
        sample = sample_of(case, found.atoms, tensor)
        reading = read_off(case, found.atoms, tensor, acting, posterior(sample, acting.law, PRECISION[case.dtype]))
        masks |= {f"{atom}/{tensor}": row.reshape(case.wanted(tensor).shape).clone() for atom, row in zip(found.atoms, reading.mask, strict=True)}
    return masks


def write_masks(case: Case, found: Drawn, out: Path) -> None:
    """Write the masks as a safetensors file, beside and renamed."""
    settings = {"atoms": " ".join(found.atoms), "rule": found.rule.value}
    write_bytes(out, save(read_masks(case, found), settings))


def _read(case: Case, atoms: tuple[str, ...], found: Learned, settled: Settled, spread: float) -> Drawn:
    law = next(iter(found.laws.values()))
    counts, off, norm = torch.zeros(4), 0.0, 0.0
    acting = dict(settled.acting)
    kept, seen = torch.zeros_like(law.keep), torch.zeros_like(law.keep)
    for tensor, sample in found.samples.items():
        if tensor not in acting:  # an atom leaves this tensor as it is
            acting[tensor] = _typical(acting, law)
        said = posterior(sample, acting[tensor].law, PRECISION[case.dtype])
        reading = read_off(case, atoms, tensor, acting[tensor], said)
        told = reading.telling & reading.changed
        counts += torch.stack([(reading.explained & reading.changed).sum(), reading.changed.sum(), (reading.explained & told).sum(), told.sum()])
        base = case.read(BASE, tensor).reshape(-1).double()
        off += float((reading.made.double() - base - sample.target).square().sum())
        norm += float(sample.target.square().sum())
        here = by_rank(sample, said)
        kept, seen = kept + here[0], seen + here[1]
    shares = line(kept, seen)
    first = next(iter(acting.values()))
    return Drawn(
        atoms=atoms,
        rule=law.rule,
        weights=first.weights.double(),
        typed=settled.typed,
        density=replace(law, keep=shares).density,
        epsilon=replace(law, keep=shares).epsilon,
        straight=float((((kept / seen.clamp(min=1) - shares).abs() - 2 / seen.sqrt()) * (seen > 0)).max()),
        factor=first.factor,
        rescaled=settled.rescaled,
        spread=spread,
        acting=acting,
        explained=float(counts[0] / counts[1].clamp(min=1)),
        telling=float(counts[2] / counts[3].clamp(min=1)),
        telling_entries=int(counts[3]),
        error=(off / norm) ** 0.5 if norm else 0.0,
    )


def _typical(acting: Mapping[str, Acting], law: Law) -> Acting:
    first = next(iter(acting.values()))
    middle = torch.stack([other.rescales.double() for other in acting.values()]).median(0).values
    return replace(first, law=law, rescales=middle.to(first.rescales.dtype))
