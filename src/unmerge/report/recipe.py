"""A recovered recipe on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from unmerge.recipes.record import Proof, RecoveredRecipe


def show_recipe(record: RecoveredRecipe, console: Console | None = None) -> None:
    """The method, its settings, the proof, and what else would do."""
    console = console or Console(markup=False, emoji=False)
    if record.method is None:
        console.print(record.says)
        console.print(f"{len(record.looked)} methods and sets of atoms were tried.")
        return
    models = record.parameters["models"]
    names = list(dict.fromkeys(name for settings in models.values() for name in settings))
    table = Table(title=f"{record.target.path}: {record.method}", title_justify="left")
    for title in ("model", *names):
        table.add_column(title, justify="left" if title == "model" else "right")
    for model, settings in models.items():
        table.add_row(model, *(str(settings.get(name, "")) for name in names))
    console.print(table)
    for name, value in record.parameters.items():
        if name != "models":
            console.print(f"{name}: {value}")
    if record.proof is not None:
        _show_proof(record.proof, record.method, console)
    for rival in record.rivals:
        share = "" if rival.identical_share is None else f", {rival.identical_share:.4%} identical"
        console.print(f"rival: {rival.method}{share} ({rival.apart})")


def _show_proof(proof: Proof, method: str | None, console: Console) -> None:
    if proof.identical_share is not None:
        changed = sum(kind.changed for kind in proof.by_kind.values())
        by = "PEFT" if (method or "").startswith("peft:") else "mergekit"
        console.print(
            f"run by {by}: {proof.identical_share:.4%} of {changed} changed weights identical, largest difference {proof.largest_difference:.3g}"
        )
    if proof.explained is not None:
        decoy = max(proof.decoys.values(), default=None)
        beside = "" if decoy is None else f", best decoy {decoy:.2%}"
        console.print(f"random masks read off: {proof.explained:.2%} of changed weights explained{beside}, error {proof.reconstruction_error:.4f}")
