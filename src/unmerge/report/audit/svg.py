"""Drawings as SVG elements, for a page or a file: sizes in user units, colours by class, so that the page's style decides light and dark."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from markupsafe import Markup

#: what an XML file cannot hold
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
#: from this depth of a cell's colour on its number is written in the other ink, in the light scheme as in the dark
DEEP = 0.65
_NAMESPACE = "http://www.w3.org/2000/svg"


def drawing(width: float, height: float, title: str, description: str) -> ET.Element:
    """An empty drawing that says what it shows to those who cannot see it."""
    size = {"width": _number(width), "height": _number(height), "viewBox": f"0 0 {_number(width)} {_number(height)}"}
    return ET.Element("svg", {"xmlns": _NAMESPACE, "role": "img", "aria-label": clean(f"{title}. {description}"), **size})


def add(parent: ET.Element, tag: str, text: str | None = None, **attributes: object) -> ET.Element:
    """Put an element into another; ``class_`` is the class, other underscores become hyphens."""
    named = {
        key.rstrip("_").replace("_", "-"): _number(value) if isinstance(value, float) else clean(str(value)) for key, value in attributes.items()
    }
    child = ET.SubElement(parent, tag, named)
    if text is not None:
        child.text = clean(text)
    return child


def tip(element: ET.Element, text: str) -> None:
    """What is said of an element when it is pointed at; the page's script turns it into a box that the keyboard reaches as well."""
    add(element, "title", text)


def inline(svg: ET.Element) -> Markup:
    """The drawing for a page."""
    return Markup(ET.tostring(svg, encoding="unicode"))


def standalone(svg: ET.Element, style: str) -> str:
    """The drawing as a file of its own."""
    copy = ET.fromstring(ET.tostring(svg, encoding="unicode"))
    css = ET.Element(f"{{{_NAMESPACE}}}style")
    css.text = style
    copy.insert(0, css)
    ET.register_namespace("", _NAMESPACE)
    return ET.tostring(copy, encoding="unicode", xml_declaration=False) + "\n"


def clean(text: str) -> str:
    """The text without control characters."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
