"""Presence of an atom as a test that holds whatever else is in the target."""

from unmerge.certificate.presence import Presence, gather, presence, surrogate_weights

__all__ = ["Presence", "gather", "presence", "surrogate_weights"]
