"""Write docs/symmetries-measured.md from the record of `make symmetries`."""

from __future__ import annotations

import argparse
from pathlib import Path

from unmerge.core.records import read_json

#: of a whole run
TARGETS = 68

HEAD = """# Other layouts, measured

`make symmetries`. Targets are merges of three adapters of the embedded zoo (weights .8, .5, .35), in the mixed group with an unknown one at .6. The
operations leave the model's function as it is, as the tests show by running it; they are drawn anew for every layer. Coefficients are compared with
the weights.

"""
TABLE = """| operation | group | dtype | found of 3 | false | largest error | said |
|---|---|---|---|---|---|---|
"""


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("runs/symmetries.json"))
    parser.add_argument("--out", type=Path, default=Path("docs/symmetries-measured.md"))
    arguments = parser.parse_args()
    lines = []
    rows = read_json(arguments.json, "a record of make symmetries")["rows"]
    for row in rows:
        cells = [row["operation"], row["group"], row["dtype"]]
        if "refused" in row:
            cells += ["", "", "", f"refused: {row['refused']}"]
        else:
            error = "" if row["error"] is None else f"{row['error']:.3%}"
            cells += [str(row["right"]), str(row["false"]), error, ", ".join(row["said"]) or "nothing"]
        lines.append("| " + " | ".join(cells) + " |")
    short = "" if len(rows) == TARGETS else f"The run was cut short: the first {len(rows)} of {TARGETS} targets.\n\n"
    arguments.out.write_text(HEAD + short + TABLE + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
