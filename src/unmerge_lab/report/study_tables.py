"""A study's summaries as Markdown tables, in the layout of the published study and with its numbers beside ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from unmerge_lab.report import published
from unmerge_lab.report.study_record import ADAPTERS, DTYPES, MERGES, Alignment, Summary

Key = tuple[str, str, str, str, str]


class Summaries:
    """Summaries by what they are of.

    Attributes:
        groups, merges, kinds, dtypes, spaces, methods: what there is, in the order of the study.
    """

    def __init__(self, rows: Iterable[Summary]) -> None:
        self._rows: dict[Key, Summary] = {(row.group, row.merge, row.dtype, row.space, row.method): row for row in rows}
        self.groups = self._seen(0)
        self.dtypes = [dtype for dtype in self._seen(2) if dtype != DTYPES]
        self.spaces, self.methods = self._seen(3), self._seen(4)
        adapters = {row.merge for row in self._rows.values() if row.is_adapter}
        single = [merge for merge in self._seen(1) if merge not in (MERGES, ADAPTERS)]
        self.merges = [merge for merge in single if merge not in adapters]
        self.kinds = [merge for merge in single if merge in adapters]

    def _seen(self, place: int) -> list[str]:
        return list(dict.fromkeys(key[place] for key in self._rows))

    def get(self, group: str, merge: str, space: str, method: str, dtype: str = DTYPES) -> Summary | None:
        """A summary, or None where there were no such targets."""
        return self._rows.get((group, merge, dtype, space, method))

    @property
    def overall(self) -> str:
        """What stands for all targets that are not adapters, or for adapters where there is nothing else."""
        return MERGES if self.merges else ADAPTERS


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left."""
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join("---" if not place else "---:" for place in range(len(head))) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def overview(found: Summaries, group: str, space: str) -> str:
    """Every method in one group and space, over all merges."""
    head = ["method", "precision", "recall", "perfect", "named", "effective", "error", "1 - cos²", "coefficients off by", "at most", "s", "MiB"]
    tells = any((row := found.get(group, found.overall, space, method)) and row.exact_precision is not None for method in found.methods)
    head += ["exact: precision", "exact: recall"] if tells else []
    rows = []
    for method in found.methods:
        if row := found.get(group, found.overall, space, method):
            measured = [row.precision, row.recall, row.perfect, row.sparsity, row.effective_components]
            exact = [number(row.exact_precision, 2), number(row.exact_recall, 2)] if tells else []
            rows.append(
                [
                    method,
                    *(number(value, 2) for value in measured),
                    number(row.reconstruction_error, 3),
                    number(row.one_minus_cosine_squared, 3),
                    percent(row.median_coefficient_error),
                    percent(row.largest_coefficient_error),
                    number(row.seconds, 3),
                    number(row.memory_mib, 0),
                    *exact,
                ]
            )
    return table(head, rows)


def precision_recall(found: Summaries, group: str, space: str) -> str:
    """Precision/recall by method and merge, the published numbers in brackets, and how ours compare with them."""
    rows = []
    for method in found.methods:
        cells, verdicts = [], Counter[str]()
        for merge in (*found.merges, *found.kinds):
            row = found.get(group, merge, space, method)
            cells.append(_both(row))
            theirs = published.reference(group, method, merge)
            if row is not None and row.recall is not None and theirs is not None:
                name, values = theirs
                cells[-1] += f" ({values[0]:.2f}/{values[1]:.2f}" + (")" if name == method else f" {name})")
                verdicts[published.verdict((row.precision, row.recall), values)] += 1
        if any(cells):
            rows.append([method, *cells, ", ".join(f"{count} {said}" for said, count in verdicts.most_common())])
    return table(["method", *found.merges, *found.kinds, "against the published"], rows)


def cosine_errors(found: Summaries, space: str) -> str:
    """1 - cos^2 by group and merge, with the published values of nnls."""
    columns = [*found.merges, *([MERGES] if found.merges else []), *found.kinds]
    rows = []
    for method in found.methods:
        for group in found.groups:
            cells = [found.get(group, merge, space, method) for merge in columns]
            if any(cells):
                beside = [_published_error(group, method, merge) for merge in columns]
                rows.append(
                    [method, group, *(number(row.one_minus_cosine_squared, 3) + by if row else "" for row, by in zip(cells, beside, strict=True))]
                )
    return table(["method", "group", *("all merges" if merge == MERGES else merge for merge in columns)], rows)


def _published_error(group: str, method: str, merge: str) -> str:
    if method != "nnls":
        return ""
    value = published.COSINE_ERROR.get(group) if merge == MERGES else published.COSINE_ERROR_KNOWN.get(merge) if group == "known" else None
    return "" if value is None else f" ({value:.3f})"


def unknown(found: Summaries, space: str) -> str:
    """The unknown group: what was named where there is nothing to name, and the errors."""
    rows = []
    for method in found.methods:
        if row := found.get("unknown", found.overall, space, method):
            by_merge = [found.get("unknown", merge, space, method) for merge in (*found.merges, *found.kinds)]
            named = [number(cell.sparsity, 2) if cell else "" for cell in by_merge]
            rows.append([method, number(row.sparsity, 2), *named, number(row.reconstruction_error, 3), number(row.one_minus_cosine_squared, 3)])
    return table(["method", "named", *found.merges, *found.kinds, "error", "1 - cos²"], rows)


def alignment(found: Sequence[Alignment], space: str) -> str:
    """Semantic alignment in one space: random atoms first, then a row a method; for each measure the mean with its interval, and p."""
    here = [row for row in found if row.space == space]
    measures = list(dict.fromkeys(row.measure for row in here))
    by_method: dict[str, dict[str, Alignment]] = {}
    for row in here:
        by_method.setdefault(row.method, {})[row.measure] = row
    head = ["atoms nearest by", *(title for measure in measures for title in (f"{measure} (95%)", "p"))]
    # the baseline is the same for every method
    first = {row.measure: _interval(row.baseline, row.baseline_low, row.baseline_high) for row in here}
    rows = [["random choice", *(text for measure in measures for text in (first[measure], ""))]]
    for method, of in by_method.items():
        values = [of[measure] for measure in measures]
        rows.append([method, *(text for row in values for text in (_interval(row.value, row.low, row.high), f"{row.p_value:.4f}"))])
    return table(head, rows)


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def spaces(found: Summaries, group: str) -> str:
    """Precision/recall by method and space over all merges; named atoms where there is nothing to find."""
    rows = []
    for method in found.methods:
        cells = [found.get(group, found.overall, space, method) for space in found.spaces]
        rows.append([method, *(_both(row) for row in cells)])
    return table(["method", *found.spaces], rows)


def dtypes(found: Summaries, space: str) -> str:
    """Precision/recall and the largest coefficient error by dtype, over all merges."""
    rows = []
    for method in found.methods:
        for group in found.groups:
            cells = [found.get(group, found.overall, space, method, dtype) for dtype in found.dtypes]
            if group != "unknown" and any(cells):
                errors = [percent(row.largest_coefficient_error) if row else "" for row in cells]
                rows.append([method, group, *(_both(row) for row in cells), *errors])
    return table(["method", "group", *found.dtypes, *(f"coefficients at most off by, {dtype}" for dtype in found.dtypes)], rows)


def coefficients(found: Summaries, space: str) -> str:
    """The largest relative error of the coefficients that acted, by merge."""
    rows = []
    for method in found.methods:
        for group in found.groups:
            cells = [found.get(group, merge, space, method) for merge in (*found.merges, *found.kinds)]
            if any(row and row.largest_coefficient_error is not None for row in cells):
                rows.append([method, group, *(percent(row.largest_coefficient_error) if row else "" for row in cells)])
    return table(["method", "group", *found.merges, *found.kinds], rows)


def seconds(found: Summaries) -> str:
    """Seconds a decomposition by space, and of the solver alone beside the published ones."""
    rows = []
    for method in found.methods:
        known = [_mean_seconds(found, space, method) for space in found.spaces]
        solver = _mean_seconds(found, "compressed", method, solver=True)
        theirs = published.SECONDS.get(method)
        rows.append([method, *(number(value, 3) for value in known), number(solver, 4), number(theirs, 3)])
    return table(["method", *found.spaces, "solver alone, compressed", "published"], rows)


def number(value: float | None, digits: int) -> str:
    """With so many digits after the point; nothing for None."""
    return "" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """With two digits after the point; nothing for None."""
    return "" if value is None else f"{value:.2%}"


def _both(row: Summary | None) -> str:
    if row is None:
        return ""
    return f"{row.precision:.2f}/{row.recall:.2f}" if row.recall is not None else f"{row.sparsity:.2f} named"


def _mean_seconds(found: Summaries, space: str, method: str, *, solver: bool = False) -> float | None:
    rows: Mapping[str, Summary | None] = {group: found.get(group, found.overall, space, method) for group in found.groups}
    values = [(row.solver_seconds if solver else row.seconds, row.targets) for row in rows.values() if row]
    known = [(value, count) for value, count in values if value is not None]
    return sum(value * count for value, count in known) / sum(count for _, count in known) if known else None
