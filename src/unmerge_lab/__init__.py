"""What unmerge is measured on: an embedded zoo, synthetic models, studies, toy models of circuits, and their pages.

    import unmerge
    import unmerge_lab

    zoo = unmerge_lab.embedded_zoo()
    base = unmerge.open_base(zoo / "zoo-base")

The laboratory imports the library, which knows nothing of it: its commands and tasks reach the command line by entry points.
"""

from pathlib import Path

__all__ = ["embedded_zoo"]


def embedded_zoo() -> Path:
    """The folder of the zoo inside the installed package: ``zoo-base``, ``known``, ``unknown``."""
    return Path(__file__).parent / "zoo" / "data"
