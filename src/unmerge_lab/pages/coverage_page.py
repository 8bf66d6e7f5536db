"""Write docs/coverage-measured.md from the record of `make coverage`."""

from __future__ import annotations

from typing import Any

from unmerge_lab.pages.kinds_page import Row, write_kinds_page

HEAD = """# Intervals after further training, requantisation and noise, measured

`make coverage`. Targets are merges of one to four adapters of the embedded zoo's dictionary at weights .3 to 1.2, every second one beside one or two
adapters that are not in the dictionary (mixed). Then all weights are trained on for 30 steps (AdamW, a task of which the zoo has no adapter), a LoRA
is trained and merged in, weights are rounded to 8 bits (whole numbers, or float8) or 4 bits, or normal noise is added; the result is saved in
bfloat16 or float32. *Moved* is the norm of what this changed, over the norm of the merge's own change (median). Widths are half of the 95% intervals,
over the weight (median).

"""
TABLE = """| | targets | moved | adapters | found | false names | error: median, largest | half width | intervals that hold | of 95%: from, to |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
"""
TAIL = """
Noise of three times the change (`noise 3`) and 4 bits hide unknown adapters: they leak into the coefficients, and intervals say so by the width that
what absent adapters have in common with the rest has.
"""


def main() -> None:
    """Write the page."""
    write_kinds_page(__doc__ or "", "coverage", HEAD, TABLE, _cells, TAIL)


def _cells(row: Row) -> list[Any]:
    error = "" if row["error"] is None else f"{row['error'][0]:.2%}, {row['error'][1]:.1%}"
    width = "" if row["half width"] is None else f"{row['half width']:.2%}"
    holds, (low, high) = f"{row['hold']} of {row['with an interval']}", row["asked"]
    return [
        row["targets"],
        f"{row['moved']:.3f}",
        row["components"],
        row["found"],
        row["false"],
        error,
        width,
        holds,
        f"{low:.0f}, {high:.0f}",
    ]


if __name__ == "__main__":
    main()
