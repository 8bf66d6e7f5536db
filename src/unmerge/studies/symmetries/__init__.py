"""Rewrites of a model that leave its function as it is."""

from unmerge.studies.symmetries.operations import OPERATIONS, TOGETHER, Model, apply

__all__ = ["OPERATIONS", "TOGETHER", "Model", "apply"]
