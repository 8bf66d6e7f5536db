"""Training adapters from a recipe (Phase 1)."""

from unmerge.training.adapters import AdapterRecord, train_adapters
from unmerge.training.finetune import Lora, Schedule
from unmerge.training.recipe import TrainingRecipe

__all__ = ["AdapterRecord", "Lora", "Schedule", "TrainingRecipe", "train_adapters"]
