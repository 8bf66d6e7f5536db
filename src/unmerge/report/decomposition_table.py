"""A decomposition as a table on the terminal. It is all that ``unmerge decompose`` needs of this room, so it loads no model library."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from unmerge.decomposition.result import Component, Decomposition, MatchedTensors
from unmerge.report.identity import called, kinship, part_called

#: parts of a profile on one line; the record has all
_PARTS = 8


def show_decomposition(result: Decomposition, console: Console | None = None) -> None:
    """The bill of materials, then what is unexplained and what was left out."""
    console = console or plain()
    where = "" if result.space == "exact" else f" in the space {result.space}"
    titles = ("component", "coefficient", *(("±", "contained", "p") if result.test else ()), "share of ||t||")
    console.print(f"{result.target.path}, by {result.method}{where}")
    table = Table()
    for title in titles:
        table.add_column(title, justify="left" if title == "component" else "right")
    for component in result.components:
        tested = _tested(component) if result.test else ()
        table.add_row(called(component), f"{component.coefficient:.4f}", *tested, f"{component.share:.3f}")
    if not result.components:
        table.add_row("none of the dictionary's atoms", *[""] * (len(titles) - 1))
    console.print(table)
    for component in result.components:
        _show_component(component, console)
    console.print(
        f"{len(result.absent)} atoms not named. Reconstruction error {result.reconstruction_error:.4f} "
        f"(unexplained {result.unexplained.share:.2%} of the squared norm), condition number {result.condition_number:.2f}, "
        f"{result.tensors} tensors, {result.seconds:.2f} s."
    )
    if result.test:
        _show_test(result, console)
    for line in matched_lines(result.matched_names):
        console.print(line)
    for skipped in result.skipped:
        console.print(f"left out: {skipped.tensor} ({skipped.reason})")


def matched_lines(matched: Sequence[MatchedTensors]) -> list[str]:
    """Which names were taken for which, a line for each way in which they differ."""
    ways: dict[tuple[str, str], list[MatchedTensors]] = {}
    for one in matched:
        ways.setdefault((one.own, one.reference), []).append(one)
    lines = []
    for alike in ways.values():
        whose = alike[0].vector if len(alike) == 1 else f"{alike[0].vector} and {len(alike) - 1} more"
        before, after = alike[0].example
        count = "" if alike[0].tensors == 1 else f", and {alike[0].tensors - 1} more in the same way"
        lines.append(f"names: {before} in {whose} is {after}{count}")
    return lines


def _show_component(component: Component, console: Console) -> None:
    """What a row has no room for: what kind of relative it is, and where it acts otherwise."""
    if means := kinship(component):
        console.print(f"{called(component)}: {means}.")
    if component.profile:
        shown = [f"{part.coefficient:.3f}{_reach(part.coefficient, part.interval)} in {part_called(part)}" for part in component.profile[:_PARTS]]
        more = [f"{len(component.profile) - _PARTS} more"] if len(component.profile) > _PARTS else []
        console.print(f"{called(component)} acts at {', '.join([*shown, *more])}: {component.coefficient:.3f} is a mean.")
    elif component.uniform is False:
        console.print(f"{called(component)} does not act alike in all of the model: {component.coefficient:.3f} is a mean.")


def _reach(coefficient: float, interval: tuple[float, float] | None) -> str:
    return f" ± {max(interval[1] - coefficient, coefficient - interval[0]):.3f}" if interval else ""


def _tested(component: Component) -> tuple[str, str, str]:
    low, high = component.interval or (float("nan"), float("nan"))
    reach = max(high - component.coefficient, component.coefficient - low)
    contained = "" if component.containment is None else f"{component.containment:.3f}"
    return f"{reach:.4f}", contained, "" if component.p_value is None else f"{component.p_value:.0e}"


def _show_test(result: Decomposition, console: Console) -> None:
    """What else the certificate says: the rest, what could not have been seen, and where it is blind."""
    rest, limits = result.unexplained, [atom.detection_limit for atom in result.absent]
    if result.test and result.test.trimmed:
        console.print("Small changes were trimmed, as ties does: no one coefficient acted; recover the recipe instead.")
    if rest.components:
        console.print(f"Unknown: rank {rest.rank} in most tensors, about {rest.components} component{'s' if rest.components > 1 else ''} or more.")
    elif rest.rank == 0:
        console.print("Unknown: nothing above the noise.")
    if rest.rounding_share is not None:
        console.print(f"Rounding alone would leave {rest.rounding_share:.2%} of the squared norm.")
    if known := [limit for limit in limits if limit is not None]:
        console.print(f"An absent atom would have been seen at a coefficient of {min(known):.2g} to {max(known):.2g}.")
    if hidden := [atom.name for atom in result.absent if atom.detection_limit is None and atom.reason is None]:
        console.print(f"Could not have been seen at any coefficient: {', '.join(hidden)}.")
    for atom in result.absent:
        if atom.variant_of:
            console.print(f"{atom.name} shows because it is like {atom.variant_of}, and was told from it.")
    if result.test and result.test.stand_ins:
        console.print("The dictionary is too small to tell how alike adapters to this base are: relatives at a cosine of .25 were assumed.")
    if result.test and (blind := result.test.blind):
        console.print(f"Blind, and not counted, since the target's signal fills them: {len(blind)} tensors ({blind[0]}, ...).")


def plain() -> Console:
    """The terminal, without markup: folders and tasks may be called ``[bold]`` or ``:key:``."""
    return Console(markup=False, emoji=False)
