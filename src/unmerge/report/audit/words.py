"""Words and figures as the page writes them."""

from __future__ import annotations

import math
from collections.abc import Sequence

_SMALL = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def counted(count: int, thing: str, several: str | None = None) -> str:
    """Three components, one component."""
    number = _SMALL[count] if count < len(_SMALL) else str(count)
    return f"{number} {thing if count == 1 else several or thing + 's'}"


def listed(names: Sequence[str]) -> str:
    """First, second and third."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def percent(share: float | int) -> str:
    """A share with two figures that count, or so."""
    if share == 0 or share == 1:
        return f"{share:.0%}"
    if share < 0.0001:
        return "less than 0.01%"
    if share > 0.99:
        return f"{math.floor(share * 1e4) / 100:.2f}%"  # never rounded up to all
    return f"{100 * share:.2g}%"


def p_value(value: float | None) -> str:
    """A p-value, whose size alone matters."""
    if value is None:
        return ""
    return f"{value:.2f}" if value >= 0.01 else f"{value:.0e}".replace("e-0", "e-")
