"""Small charts of the page: shares of the change, detection limits, and what is left of a skill at each dose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from unmerge.decomposition.result import Absent, Component
from unmerge.report.audit.svg import add, drawing, tip
from unmerge.report.identity import called
from unmerge.verification.record import VerifiedComponent

#: pixels a letter takes, in bold type
_LETTER = 7.3


@dataclass(frozen=True)
class Part:
    """A share of the target's squared norm, with the class that colours it."""

    name: str
    share: float
    look: str


def reach(components: Sequence[Component]) -> tuple[float, float]:
    """The smallest and the largest end of a coefficient or its interval, nought always among them: one scale for all bars."""
    ends = [0.0, *(value for component in components for value in (component.coefficient, *(component.interval or ())))]
    return min(ends), max(*ends, 1e-9)


def coefficient_bar(component: Component, least: float, largest: float, look: str) -> ET.Element:
    """A coefficient from nought, to the left of it where it is negative, with its interval: a bar for a cell of a table."""
    width, height = 150.0, 22.0
    low, high = component.interval or (component.coefficient, component.coefficient)

    def across(value: float) -> float:
        return 1 + (width - 4) * (min(max(value, least), largest) - least) / (largest - least)

    svg = drawing(width, height, f"Coefficient of {called(component)}", f"{component.coefficient:.4f}, interval {low:.4f} to {high:.4f}")
    nought, end = across(0.0), across(component.coefficient)
    add(svg, "line", x1=nought, y1=2.0, x2=nought, y2=height - 2, class_="axis")
    bar = add(svg, "rect", x=min(nought, end), y=7.0, width=abs(end - nought), height=8.0, rx=2, class_=f"{look} fill")
    tip(bar, f"{called(component)}: {component.coefficient:.5f}, 95% {low:.5f} to {high:.5f}")
    add(svg, "line", x1=across(low), y1=height / 2, x2=across(high), y2=height / 2, class_="whisker")
    for limit in (low, high):
        add(svg, "line", x1=across(limit), y1=5.0, x2=across(limit), y2=height - 5, class_="whisker")
    return svg


def limits_chart(components: Sequence[Component], absent: Sequence[Absent], looks: Sequence[str], width: float) -> ET.Element:
    """What was found beside what could have been found: components as dots, absent atoms as ranges above which they would have been seen."""
    seen = sorted(absent, key=lambda atom: (atom.detection_limit is None, atom.detection_limit or 0.0))
    limits = [atom.detection_limit for atom in seen if atom.detection_limit is not None]
    coefficients = [component.coefficient for component in components]
    bottom, top = min([*coefficients, 0.0]) * 1.08, max([*coefficients, *limits, 0.1]) * 1.08
    names = [*map(called, components), *(atom.name for atom in absent)]
    # a long name may not push the chart out of its picture: it is cut, and said in full where it is pointed at
    letters = min(max(map(len, names), default=0), int(width * 0.45 / _LETTER))
    row, left = 24.0, 18 + _LETTER * letters
    scale = (width - left - 20) / (top - bottom)
    height = row * (len(components) + len(seen)) + 40
    nought, foot = left - bottom * scale, height - 34
    svg = drawing(width, height, "What would have been seen", "Components at their coefficient, absent atoms from their detection limit on")
    for step in _ticks(bottom, top):
        x = nought + step * scale
        add(svg, "line", x1=x, y1=4.0, x2=x, y2=foot, class_="grid")
        add(svg, "text", f"{step:g}", x=x, y=foot + 16, class_="label centre")
    add(svg, "text", "coefficient", x=left + (width - left) / 2, y=foot + 32, class_="label centre faint")
    for place, component in enumerate(components):
        y = row * (place + 0.5) + 4
        add(svg, "text", _cut(called(component), letters), x=left - 10, y=y, class_="label end middle strong")
        dot = add(svg, "circle", cx=nought + component.coefficient * scale, cy=y, r=5.5, class_=f"{looks[place]} fill")
        tip(dot, f"{called(component)} is in the target, at {component.coefficient:.4f}")
    for place, atom in enumerate(seen, len(components)):
        y = row * (place + 0.5) + 4
        group = add(svg, "g")
        add(group, "text", _cut(atom.name, letters), x=left - 10, y=y, class_="label end middle")
        if atom.detection_limit is None:
            add(group, "rect", x=nought, y=y - 5, width=width - nought - 20, height=10.0, rx=2, class_="blind")
            tip(group, f"{atom.name} could not have been seen at any coefficient")
        else:
            x = nought + atom.detection_limit * scale
            add(group, "rect", x=nought, y=y - 5, width=x - nought, height=10.0, rx=2, class_="shadow")
            add(group, "line", x1=x, y1=y - 8, x2=x, y2=y + 8, class_="limit")
            tip(group, f"{atom.name} is not named; from {atom.detection_limit:.4f} on it would have been")
    return svg


def _cut(name: str, letters: int) -> str:
    return name if len(name) <= letters else f"{name[: letters - 1]}…"


def dose_chart(measured: VerifiedComponent, look: str) -> ET.Element:
    """The skill's score as more and more of the component is removed: measured, and as predicted before."""
    width, height, left, foot = 262.0, 184.0, 34.0, 144.0
    doses = sorted(measured.doses, key=lambda dose: dose.multiple)
    scale, tall = (width - left - 12) / max([dose.multiple for dose in doses] + [1.0]), foot - 12
    title = f"Dose-response of {measured.removed}"
    svg = drawing(width, height, title, "; ".join(f"{dose.multiple:g} removed: {dose.score:.2f}" for dose in doses))
    for score in (0.0, 0.5, 1.0):
        y = foot - tall * score
        add(svg, "line", x1=left, y1=y, x2=width - 12, y2=y, class_="grid")
        add(svg, "text", f"{score:g}", x=left - 8, y=y, class_="label end middle")
    for dose in doses:
        add(svg, "text", f"{dose.multiple:g}", x=left + dose.multiple * scale, y=foot + 16, class_="label centre")
    add(svg, "text", "share of the coefficient removed", x=left + (width - left) / 2, y=foot + 34, class_="label centre faint")
    lines = {
        "predicted": [dose.predicted for dose in doses],
        "beside": [dose.predicted_beside for dose in doses],
        "measured": [dose.score for dose in doses],
    }
    for kind, values in lines.items():
        points = [(left + dose.multiple * scale, foot - tall * value) for dose, value in zip(doses, values, strict=True)]
        add(svg, "polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=f"{look} stroke {kind}")
    for dose in doses:
        dot = add(svg, "circle", cx=left + dose.multiple * scale, cy=foot - tall * dose.score, r=4.5, class_=f"{look} fill")
        said = f"{dose.multiple:g} x {measured.coefficient:.4f} removed: {dose.score:.3f}, predicted {dose.predicted:.3f}"
        tip(dot, f"{said}, beside the others {dose.predicted_beside:.3f}")
    return svg


def _ticks(bottom: float, top: float) -> list[float]:
    """Round numbers between two, four to eight of them or so, nought among them."""
    sizes = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 50.0, 100.0, float("inf"))
    size = next(size for size in sizes if (top - bottom) / size <= 8)
    return [size * place for place in range(math.ceil(bottom / size), int(top / size) + 1)] if size < float("inf") else [0.0]
