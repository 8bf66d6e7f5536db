"""Presence of an atom as a test that holds whatever else is in the target, and what it acted with."""

from unmerge.certificate.certify import Certificate, Found, certify
from unmerge.certificate.correlation import CorrelationTest
from unmerge.certificate.identity import Identity
from unmerge.certificate.presence import LEVEL, Presence
from unmerge.certificate.profile import Group
from unmerge.certificate.rounding import Grid
from unmerge.certificate.rounding_fit import RoundingFit
from unmerge.certificate.systems import CONFIDENCE, solve

__all__ = [
    "CONFIDENCE",
    "LEVEL",
    "Certificate",
    "CorrelationTest",
    "Found",
    "Grid",
    "Group",
    "Identity",
    "Presence",
    "RoundingFit",
    "certify",
    "solve",
]
