"""An embedded zoo: a small base model, its micro-tasks and its adapters."""

from unmerge_lab.zoo.embedded import export_zoo, held_out, zoo_tasks
from unmerge_lab.zoo.tasks import GENERAL, TASKS, Task

__all__ = ["GENERAL", "TASKS", "Task", "export_zoo", "held_out", "zoo_tasks"]
