"""Write docs/partial-measured.md from the record of `make partial-merges`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unmerge.core.records import read_json

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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("runs/partial.json"))
    parser.add_argument("--out", type=Path, default=Path("docs/partial-measured.md"))
    arguments = parser.parse_args()
    record = read_json(arguments.json, "a record of make partial-merges")
    rows = {**record["kinds"], **{f"all {group}": row for group, row in record["groups"].items()}, "all": record["all"]}
    made = record["all"]["targets"]
    short = "" if made == record["planned"] else f"So far {made} of {record['planned']} targets.\n\n"
    arguments.out.write_text(HEAD + short + TABLE + "".join(_line(name, row) for name, row in rows.items()), encoding="utf-8")


def _line(name: str, row: Mapping[str, Any]) -> str:
    below = row["targets"] - row["above the limit"]
    error = "" if row["largest error"] is None else f"{row['largest error']:.4f}"
    cells = [
        name,
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
    return "| " + " | ".join(map(str, cells)) + " |\n"


if __name__ == "__main__":
    main()
