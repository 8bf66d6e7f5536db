"""The check of a dictionary on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from unmerge.decomposition.check import COMPONENTS, DictionaryCheck
from unmerge.report.decomposition_table import matched_lines


def show_dictionary(check: DictionaryCheck, console: Console | None = None) -> None:
    """The atoms, those that are alike, conditioning, and what would be blind."""
    # without markup: folders may be called [bold] or :key:
    console = console or Console(markup=False, emoji=False)
    table = Table(title=f"{len(check.atoms)} atoms", title_justify="left")
    for title in ("atom", "norm", "rank", "tensors"):
        table.add_column(title, justify="left" if title == "atom" else "right")
    for atom in check.atoms:
        table.add_row(atom.name, f"{atom.norm:.4g}", "dense" if atom.rank is None else str(atom.rank), str(atom.tensors))
    console.print(table)
    for pair in check.pairs:
        console.print(f"{pair.first} and {pair.second}: cosine {pair.cosine:.4f}{', the same atom twice' if pair.duplicate else ''}")
    for family in check.families:
        console.print(f"one family, told apart only where they differ: {', '.join(family)}")
    if not check.pairs:
        console.print("No two atoms are alike.")
    condition = "infinite: some atoms are combinations of others" if check.condition_number is None else f"{check.condition_number:.4g}"
    console.print(f"Condition number {condition}. {len(check.tensors)} matrices, {len(check.blind)} of them blind at {COMPONENTS} components:")
    for tensor in check.tensors:
        if tensor.tensor in check.blind:
            rows, columns = tensor.shape
            console.print(f"blind: {tensor.tensor}, {rows} x {columns}, from {(tensor.components or 0) + 1} components of rank {check.median_rank:g}")
    for line in matched_lines(check.matched_names):
        console.print(line)
    for skipped in check.skipped:
        console.print(f"left out: {skipped.tensor} ({skipped.reason})")
    console.print(f"{check.seconds:.2f} s.")
