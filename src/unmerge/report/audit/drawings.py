"""Every drawing of an audit, by the name of its file."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from unmerge.auditing import Audit
from unmerge.report.audit.charts import dose_chart, limits_chart
from unmerge.report.audit.heat_map import Modules, deepest, heat_map
from unmerge.report.audit.score_matrix import score_matrix

#: colours for components, by class ``c0`` to ``c7``; more components begin again
_COLOURS = 8


def looks_of(audit: Audit) -> list[str]:
    """The class that colours each component."""
    return [f"c{place % _COLOURS}" for place in range(len(audit.decomposition.components))]


def drawings(audit: Audit) -> dict[str, ET.Element]:
    """Heat maps and dose-responses by component, the detection limits, the matrix; what the record does not hold is not drawn."""
    found, verification = audit.decomposition, audit.verification
    made: dict[str, ET.Element] = {}
    tensors = {tensor for component in found.components for tensor in component.by_tensor}
    if tensors:
        modules = Modules.of(tensors, found.test.blind if found.test else ())
        largest = deepest(found.components)
        made |= {f"coefficients-{component.name}": heat_map(component, modules, largest) for component in found.components}
    if found.test:
        for name, width in (("limits", 620.0), ("limits-narrow", 340.0)):
            made[name] = limits_chart(found.components, found.absent, looks_of(audit), width)
    if verification and verification.components:
        made["matrix"] = score_matrix(verification)
        colours = {component.name: look for component, look in zip(found.components, looks_of(audit), strict=True)}
        for measured in verification.components:
            if measured.doses:
                made[f"doses-{measured.removed}"] = dose_chart(measured, colours.get(measured.removed, "rest"))
    return made
