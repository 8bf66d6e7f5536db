"""Scoring a model on held-out items."""

from unmerge.evaluation.exact_match import ExactMatch, exact_match
from unmerge.evaluation.suite import Examples, Suite, Together

__all__ = ["ExactMatch", "Examples", "Suite", "Together", "exact_match"]
