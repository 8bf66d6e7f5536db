"""Means over the targets of a group: for each merge, for all of them, and for each dtype."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean, median

from unmerge_lab.report.study_record import ADAPTERS, DTYPES, MERGES, Cell, Summary


def summaries(cells: Iterable[Cell]) -> list[Summary]:
    """Every summary that has a target, in the order in which their first cells come."""
    sorts: dict[tuple[str, str, str, str, str], list[Cell]] = {}
    for cell in cells:
        every = ADAPTERS if cell.is_adapter else MERGES
        for merge, dtype in ((cell.merge, DTYPES), (every, DTYPES), (cell.merge, cell.dtype), (every, cell.dtype)):
            sorts.setdefault((cell.group, merge, dtype, cell.space, cell.method), []).append(cell)
    return [_summary(sort, found) for sort, found in sorts.items()]


def _summary(sort: tuple[str, str, str, str, str], cells: Sequence[Cell]) -> Summary:
    group, merge, dtype, space, method = sort
    errors = [cell.coefficient_error for cell in cells if cell.coefficient_error is not None]
    recalls = [cell.recall for cell in cells if cell.recall is not None]
    exact = [cell.exact_precision for cell in cells if cell.exact_precision is not None]
    exact_recalls = [cell.exact_recall for cell in cells if cell.exact_recall is not None]
    solver = [cell.solver_seconds for cell in cells if cell.solver_seconds is not None]
    return Summary(
        group=group,
        merge=merge,
        is_adapter=cells[0].is_adapter,
        dtype=dtype,
        space=space,
        method=method,
        targets=len(cells),
        precision=fmean(cell.precision for cell in cells),
        recall=fmean(recalls) if recalls else None,
        perfect=fmean(cell.perfect for cell in cells),
        sparsity=fmean(cell.sparsity for cell in cells),
        exact_precision=fmean(exact) if len(exact) == len(cells) else None,
        exact_recall=fmean(exact_recalls) if exact_recalls and len(exact) == len(cells) else None,
        reconstruction_error=fmean(cell.reconstruction_error for cell in cells),
        one_minus_cosine_squared=fmean(cell.one_minus_cosine_squared for cell in cells),
        effective_components=fmean(cell.effective_components for cell in cells),
        median_coefficient_error=median(errors) if errors else None,
        largest_coefficient_error=max(errors, default=None),
        seconds=fmean(cell.seconds for cell in cells),
        solver_seconds=fmean(solver) if solver else None,
        memory_mib=max(cell.memory_mib for cell in cells),
    )
