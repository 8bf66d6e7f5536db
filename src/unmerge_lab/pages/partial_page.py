"""Write docs/partial-measured.md from the record of `make partial-merges`."""

from __future__ import annotations

from typing import Any

from unmerge_lab.pages.kinds_page import Row, write_kinds_page

HEAD = """# Adapters in a part of the model, measured

`make partial-merges`. mergekit merges two adapters of the embedded zoo's dictionary; one of them acts in a part of the model, by a layer gradient
(`weight: [0, .5, 1]` times its weight) or a filter. In the mixed group an adapter that is not in the dictionary is merged as well. *Parts* are those
of the profile that the result states, each with its interval; *others* are the adapters that act everywhere. Targets in bfloat16 and float32; the
coefficient that acts in bfloat16 is mergekit's weight in bfloat16.

"""
TABLE = """| | targets | found | below the limit | false names | parts | their interval holds | largest error | others found | their interval holds |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
"""


def main() -> None:
    """Write the page."""
    write_kinds_page(__doc__ or "", "partial", HEAD, TABLE, _cells)


def _cells(row: Row) -> list[Any]:
    below = row["targets"] - row["above the limit"]
    error = "" if row["largest error"] is None else f"{row['largest error']:.4f}"
    return [
        row["targets"],
        row["found"],
        below,
        row["false"],
        row["parts"],
        row["parts that hold"],
        error,
        row["others"],
        row["others that hold"],
    ]


if __name__ == "__main__":
    main()
