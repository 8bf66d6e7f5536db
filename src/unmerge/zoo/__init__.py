"""An embedded zoo: a small base model, its micro-tasks and its adapters."""
