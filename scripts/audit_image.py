"""Take the picture of an audit's page that the documents show.

make audit-image
"""

from __future__ import annotations

import argparse
from pathlib import Path

from chromium import chromium

#: pixels: as wide as the page's text needs, and down to the end of the components
_WIDTH, _HEIGHT = 1220, 946


def main() -> None:
    """Open the page, write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, default=Path("runs/demo/audit/index.html"))
    parser.add_argument("--out", type=Path, default=Path("docs/images/audit.png"))
    arguments = parser.parse_args()
    with chromium() as page:
        page.look(_WIDTH)
        page.open(arguments.page)
        page.picture(arguments.out, height=_HEIGHT)


if __name__ == "__main__":
    main()
