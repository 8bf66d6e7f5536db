"""Rewrites of a model that leave its function as it is."""

from unmerge_lab.studies.symmetries.files import plus, read_model, write_model
from unmerge_lab.studies.symmetries.operations import OPERATIONS, TOGETHER, Model, apply, take_layers

__all__ = ["OPERATIONS", "TOGETHER", "Model", "apply", "plus", "read_model", "take_layers", "write_model"]
