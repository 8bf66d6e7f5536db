"""Merge three of the zoo's adapters, find out what is in the merge, and take one component out again.

python examples/bill_of_materials.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import yaml

import unmerge
import unmerge_lab


def main() -> None:
    """The whole way, in a temporary folder."""
    zoo = unmerge_lab.embedded_zoo()
    names = sorted(path.name for path in (zoo / "known").iterdir())[:3]
    weights = dict(zip(names, (0.9, 0.5, 0.7), strict=True))
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        configuration = {
            "merge_method": "task_arithmetic",
            "base_model": str(zoo / "zoo-base"),
            "dtype": "bfloat16",
            "models": [{"model": str(zoo / "known" / name), "parameters": {"weight": weight}} for name, weight in weights.items()],
        }
        (work / "merge.yml").write_text(yaml.safe_dump(configuration))
        unmerge.merge(work / "merge.yml", out=work / "merged")

        base = unmerge.open_model(zoo / "zoo-base")
        dictionary = unmerge.Dictionary.open(zoo / "known", base)
        result = unmerge.decompose(work / "merged", dictionary, base)
        for component in result.components:
            print(f"{component.name:16s} {component.coefficient:.3f}   (merged with {weights[component.name]})")

        first = result.components[0]
        result.ablate(first.name, out=work / "without")
        without = unmerge.decompose(work / "without", dictionary, base)
        print(f"after subtracting {first.name}: {', '.join(component.name for component in without.components)}")


if __name__ == "__main__":
    main()
