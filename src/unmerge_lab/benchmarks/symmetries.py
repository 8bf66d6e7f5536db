"""Targets laid out otherwise than their base: operations that leave the function as it is, on merges of the zoo's adapters.

    python -m unmerge_lab.benchmarks.symmetries [--json FILE]

Three known adapters, alone or with an unknown one; each operation alone and several together; float32 and bfloat16. A run that was cut short is
taken up where it stopped.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

from unmerge.checkpoints import Checkpoint
from unmerge.core.errors import BadInput
from unmerge.core.records import environment, read_json, write_json
from unmerge.decomposition import Dictionary, decompose, open_base, open_dictionary, open_vector
from unmerge_lab import embedded_zoo
from unmerge_lab.studies.symmetries import OPERATIONS, TOGETHER, Model, apply, plus, read_model, take_layers, write_model

KNOWN, UNKNOWN = {"pirate": 0.8, "json_object": 0.5, "parity": 0.35}, {"sorting": 0.6}
CASES: dict[str, tuple[str, ...]] = {"nothing": (), **{name: (name,) for name in OPERATIONS}, **TOGETHER}
LAYERS = {"a layer repeated": (0, 1, 1, 2, 3), "a layer cut out": (0, 2, 3)}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def main() -> None:
    """Make the targets, decompose them, keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("runs/symmetries.json"), help="the file that keeps the figures")
    arguments = parser.parse_args()
    base = open_base(embedded_zoo() / "zoo-base")
    known, others = (open_dictionary([embedded_zoo() / half], base) for half in ("known", "unknown"))
    rows: list[dict[str, Any]] = read_json(arguments.json, "figures")["rows"] if arguments.json.exists() else []
    done = {(row["operation"], row["group"], row["dtype"]) for row in rows}
    for group, unknown in (("known", {}), ("mixed", UNKNOWN)):
        parts = [(known.named(name), weight) for name, weight in KNOWN.items()] + [(others.named(name), weight) for name, weight in unknown.items()]
        merged = plus(read_model(base), parts)
        for name in (*CASES, *LAYERS):
            model = take_layers(merged, LAYERS[name]) if name in LAYERS else apply(merged, CASES[name])
            for dtype, kind in DTYPES.items():
                if (name, group, dtype) not in done:
                    rows.append({"operation": name, "group": group, "dtype": dtype, **_outcome(model, kind, base, known)})
                    print(rows[-1], flush=True)
                    write_json(arguments.json, {"rows": rows, "environment": environment().model_dump(mode="json")})


def _outcome(model: Model, dtype: torch.dtype, base: Checkpoint, known: Dictionary) -> dict[str, Any]:
    """What is said of one target."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = decompose(open_vector(write_model(model, base, Path(folder) / "target", dtype), base), known, base)
        except BadInput as error:
            return {"refused": str(error)}
    found = {component.name: component.coefficient for component in result.components}
    return {
        "right": sum(name in found for name in KNOWN),
        "false": sum(name not in KNOWN for name in found),
        "error": max((abs(found[name] / weight - 1) for name, weight in KNOWN.items() if name in found), default=None),
        "said": [operation.operation for operation in result.alignment],
    }


if __name__ == "__main__":
    main()
