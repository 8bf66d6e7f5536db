"""An embedded zoo: a small base model, its micro-tasks and its adapters."""

from unmerge.zoo.embedded import embedded_zoo, export_zoo, held_out
from unmerge.zoo.tasks import GENERAL, TASKS, Task

__all__ = ["GENERAL", "TASKS", "Task", "embedded_zoo", "export_zoo", "held_out"]
