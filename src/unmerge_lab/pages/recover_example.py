"""A ties merge of two adapters of the embedded zoo, weight by weight: written into docs/recover.md, between its two marks.

    python -m unmerge_lab.pages.recover_example

mergekit makes the target. The columns follow its recipe: the base, what each atom changes, which changes are among the largest,
the sign that is elected, and what comes out, rounding as mergekit does; the last columns are the target and whether it is that.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
import yaml
from torch import Tensor

from unmerge.checkpoints import Checkpoint
from unmerge.core.records import write_text
from unmerge.decomposition import open_base, open_dictionary
from unmerge.recipes import merge
from unmerge.recipes.inputs import Inputs
from unmerge.recipes.recipe import BASE
from unmerge_lab import embedded_zoo

PAGE, BEGIN, END = Path("docs/recover.md"), "<!-- example -->", "<!-- end of the example -->"
ATOMS, WEIGHTS, DENSITY = ("parity", "pirate"), (0.5, 0.9), 0.4
TENSOR = "model.layers.0.self_attn.q_proj.weight"
#: rows of each case: which of the two changes are kept, and whether they agree
ROWS = 2


def main() -> None:
    """Merge, and write the table."""
    zoo = embedded_zoo()
    base = open_base(zoo / "zoo-base")
    with tempfile.TemporaryDirectory(prefix="unmerge-") as scratch:
        file = Path(scratch) / "recipe.yml"
        file.write_text(yaml.safe_dump(configuration(zoo)))
        merge(file, Path(scratch) / "target")
        inputs = Inputs(base, open_dictionary([zoo / "known"], base), Path(scratch))
        models = [inputs.read(name, TENSOR, torch.bfloat16).flatten() for name in (BASE, *ATOMS)]
        target = Checkpoint.open(Path(scratch) / "target").read(TENSOR).flatten()
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    write_text(PAGE, "\n".join([before + BEGIN, "", *table(models[0], torch.stack(models[1:]), target), "", END + rest.split(END)[1]]))


def configuration(zoo: Path) -> dict[str, object]:
    """The merge, as mergekit reads it."""
    settings = [{"weight": weight, "density": DENSITY} for weight in WEIGHTS]
    models = [{"model": str(zoo / "known" / atom), "parameters": own} for atom, own in zip(ATOMS, settings, strict=True)]
    return {"merge_method": "ties", "base_model": str(zoo / "zoo-base"), "dtype": "bfloat16", "models": models}


def table(base: Tensor, tuned: Tensor, target: Tensor) -> list[str]:
    """The lines of the table.

    Args:
        base: (N,) weights of the base.
        tuned: (2, N) of the base with each atom merged in.
        target: (N,).
    """
    changes = tuned - base
    kept = torch.zeros_like(changes, dtype=torch.bool)
    for row, change in zip(kept, changes, strict=True):
        row[change.abs().float().argsort(descending=True)[: int(DENSITY * len(change))]] = True
    weights = torch.tensor(WEIGHTS, dtype=base.dtype)[:, None]
    weighed = changes * kept * weights
    sign = torch.where(weighed.sum(0) >= 0, 1, -1)
    agrees = weighed.sign() == sign
    divisor = (weights * agrees).sum(0)
    made = base + (weighed * agrees).sum(0) / torch.where(divisor == 0, 1, divisor)
    header = ["weight", "base", *(f"{atom} changes it by" for atom in ATOMS), "kept", "sign", "by the recipe", "target", "equal"]
    lines = [" | ".join(header), " | ".join("---" for _ in header)]
    for place in chosen(kept, agrees):
        names = ", ".join(atom for atom, stays in zip(ATOMS, kept[:, place], strict=True) if stays) or "neither"
        elected = "" if names == "neither" else "+" if sign[place] > 0 else "-"
        before, *moved, ours, theirs = [f"{float(value):.6g}" for value in (base[place], *changes[:, place], made[place], target[place])]
        equal = "yes" if made[place] == target[place] else "no"
        lines.append(" | ".join([str(place), before, *moved, names, elected, ours, theirs, equal]))
    share = float((made == target)[(target != base) | (made != base)].double().mean())
    return [f"| {line} |" for line in lines] + ["", f"Of the weights of `{TENSOR}` that change, {share:.2%} are identical."]


def chosen(kept: Tensor, agrees: Tensor) -> list[int]:
    """The first weights of each case: neither kept, one of the two, both agreeing, both at odds."""
    both = kept.all(0)
    cases = (~kept.any(0), kept[0] & ~kept[1], kept[1] & ~kept[0], both & agrees.all(0), both & ~agrees.all(0))
    return [int(place) for case in cases for place in case.nonzero()[:ROWS, 0]]


if __name__ == "__main__":
    main()
