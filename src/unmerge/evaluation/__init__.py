"""Scoring a model on held-out items."""

from unmerge.evaluation.exact_match import exact_match

__all__ = ["exact_match"]
