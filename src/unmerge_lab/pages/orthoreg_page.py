"""Write docs/orthoreg.md from the record of `make orthoreg`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from unmerge.core.records import read_json, write_text
from unmerge_lab.report.study_tables import table

_ABOUT = """# OrthoReg

A recipe's `training: {{orthoreg: LAMBDA}}` adds to the task's loss

    lambda * sum over modules of ||dW^T dW - I||_F^2

([Liu et al., 2026](https://arxiv.org/abs/2604.17078)): fine-tuning is to keep the columns of every update orthonormal, so that the updates of
several tasks stay out of each other's way. Of a LoRA dW = s B A neither dW nor the n x n matrix is built: with M = s^2 (B^T B)(A A^T), r x r, the
penalty is tr(M^2) - 2 tr(M) + n.

In singular values it is sum (s_i^2 - 1)^2 + (n - r). A LoRA of rank r cannot reach zero; what it is asked for is r singular values of one. So the
penalty *lengthens* an update whose singular values are small, as they are in fine-tuning, and evens them out; it says nothing of other tasks. The
source trains whole matrices of vision models.

## Measured on the zoo

{adapters} adapters, the same seeds for every lambda; {half} of them are the dictionary. {targets} targets for each lambda: three or four components
of the dictionary, or of both halves, weights equal or drawn, `task_arithmetic` and `ties`, bfloat16. Made by `make orthoreg`; lambda 0 is plain
training.
"""
#: less than this, of exact match, is nothing
_TELLS = 0.01
_MEANS = """The penalty less n is -r at best. Overlap: the mean squared cosine between the column spaces of two adapters, r / m for random ones. Inner
product: of two task vectors, in the mean and in units of ||W||^2, the cosine times both norms: that much one pushes the other's way in a merge."""
_LEGEND = """Kept: exact match on a component's own held-out items in the merge. Leaked: the same on the tasks of adapters that are not in it.
After one component is subtracted with its weight: the fall of its own task, and the mean absolute change of the other components' tasks. Off by:
the largest relative error of a known component's coefficient, its mean over the targets; under ties the recipe's weights are not what acts, so only
for task_arithmetic."""


def main() -> None:
    """Read the record, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("runs/orthoreg.json"))
    parser.add_argument("--out", type=Path, default=Path("docs/orthoreg.md"))
    arguments = parser.parse_args()
    record = read_json(arguments.json, "the record of 'make orthoreg'")
    rows = record["rows"]
    half = len(record["halves"]["known"])
    sections = [
        _ABOUT.format(adapters=half + len(record["halves"]["unknown"]), half=half, targets=len(rows[0]["targets"])).rstrip(),
        "### The adapters by themselves",
        _alone(rows),
        _MEANS,
        *_merged(rows, "known", "### Merges of adapters that are all in the dictionary"),
        *_merged(rows, "mixed", "### Merges of which half is in the dictionary"),
        _LEGEND,
        _verdict(rows),
    ]
    write_text(arguments.out, "\n\n".join(sections) + "\n")


def _alone(rows: Sequence[dict[str, Any]]) -> str:
    head = [
        "lambda",
        "exact match, mean",
        "least",
        "norm of dW / W",
        "singular values (10%, 50%, 90%)",
        "penalty - n",
        "cosine, mean",
        "largest",
        "overlap",
        "inner product",
    ]
    body = []
    for row in rows:
        alone = row["alone"]
        scores = list(alone["exact_match"].values())
        body.append(
            [
                f"{row['lambda']:g}",
                f"{fmean(scores):.3f}",
                f"{min(scores):.3f}",
                f"{alone['relative_norm']:.3f}",
                ", ".join(f"{value:.3f}" for value in alone["singular_values"]),
                f"{alone['penalty_above_n']:.2f}",
                f"{alone['mean_cosine']:.4f}",
                f"{alone['largest_cosine']:.4f}",
                f"{alone['overlap']:.4f}",
                f"{_inner(row):.1e}",
            ]
        )
    return table(head, body)


def _inner(row: dict[str, Any]) -> float:
    """The mean inner product between task vectors, in units of ||W||^2."""
    return float(row["alone"]["mean_cosine"] * row["alone"]["relative_norm"] ** 2)


def _merged(rows: Sequence[dict[str, Any]], group: str, title: str) -> list[str]:
    head = ["lambda", "merge", "kept, mean", "least", "leaked", "own fall", "others move", "certificate right", "nnls right"]
    head += ["certificate off by", "nnls off by", "unexplained by nnls"]
    body = []
    for row in rows:
        for merge in ("task_arithmetic", "ties"):
            found = [target for target in row["targets"] if target["group"] == group and target["merge"] == merge]
            kept = [score for target in found for score in target["kept"].values()]
            linear = merge == "task_arithmetic"
            body.append(
                [
                    f"{row['lambda']:g}",
                    merge,
                    f"{fmean(kept):.3f}",
                    f"{min(kept):.3f}",
                    f"{_mean(found, lambda target: target['leaked']):.3f}",
                    f"{_mean(found, lambda target: target['fall']):.3f}",
                    f"{_mean(found, lambda target: target['others_move']):.3f}",
                    *(f"{_mean(found, lambda target, method=method: target['found'][method]['right']):.2f}" for method in ("certificate", "nnls")),
                    *(
                        f"{_mean(found, lambda target, method=method: target['found'][method]['coefficient_error']):.2%}" if linear else ""
                        for method in ("certificate", "nnls")
                    ),
                    f"{_mean(found, lambda target: target['found']['nnls']['reconstruction_error']):.3f}",
                ]
            )
    return [title, table(head, body)]


def _mean(targets: Sequence[dict[str, Any]], value: Callable[..., float]) -> float:
    return fmean(value(target) for target in targets)


def _verdict(rows: Sequence[dict[str, Any]]) -> str:
    """Whether it helps, said by the figures."""
    plain, *others = rows

    def kept(row: dict[str, Any]) -> float:
        return fmean(score for target in row["targets"] for score in target["kept"].values())

    def moved(row: dict[str, Any]) -> float:
        return _mean(row["targets"], lambda target: target["others_move"])

    def cosine(row: dict[str, Any]) -> float:
        return float(row["alone"]["mean_cosine"])

    def blamed(row: dict[str, Any]) -> float:
        beside = [target for target in row["targets"] if (target["group"], target["merge"]) == ("mixed", "task_arithmetic")]
        return _mean(beside, lambda target: target["found"]["nnls"]["coefficient_error"])

    measures: dict[str, Callable[[dict[str, Any]], float]] = {
        "Skills kept after a merge, all targets": kept,
        "Change of the other skills when one is subtracted": moved,
        "Mean cosine between task vectors": cosine,
        "Coefficients by nnls beside unknown components, task_arithmetic, off by": blamed,
        "Their mean inner product, in millionths of the squared norm of W": lambda row: 1e6 * _inner(row),
    }
    lines = [
        f"- {what}: {measure(plain):.4f} without the penalty; " + ", ".join(f"{measure(row):.4f} at {row['lambda']:g}" for row in others) + "."
        for what, measure in measures.items()
    ]
    best = max(others, key=kept)
    gain = kept(best) - kept(plain)
    said = "helps merges" if gain > _TELLS else "harms merges" if gain < -_TELLS else "makes no difference to merges that can be told"
    share = f"at its best (lambda {best['lambda']:g}) they keep {kept(best):.3f} of their skills, without it {kept(plain):.3f}"
    turned = "smaller" if _inner(best) < _inner(plain) else "larger"
    closing = (
        f"On this zoo the penalty {said}: {share}. It does what it is asked for, more even singular values and smaller cosines; but it lengthens the "
        f"task vectors as well, so that their inner products, which is how they meet in a merge, are {turned} there than without it."
    )
    return "\n\n".join(["## What it does here", "\n".join(lines), closing])


if __name__ == "__main__":
    main()
