"""A folder of tasks, which ``unmerge train --tasks`` writes and ``unmerge verify --tasks`` reads.

tasks.yml                 adapter: tasks; general: tasks of none
NAME.held_out.jsonl       prompts as the model sees them, completions, and what the check needs
NAME.check.yml            how answers are checked; none where the whole completion must come
"""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from unmerge.core.errors import BadInput
from unmerge.evaluation.checks import AnyCheck, Check

TASK_LIST = "tasks.yml"
#: in place of an adapter in it
GENERAL_TASKS = "general"
HELD_OUT, CHECK = ".held_out.jsonl", ".check.yml"
#: the costs of judges
LEDGER = "judge.jsonl"
#: the record beside ``adapter_config.json``, or beside the ``config.json`` of a full fine-tune; its ``task`` is what the adapter is measured on
RECORD = "unmerge.json"
_CHECKS: TypeAdapter[Check] = TypeAdapter(AnyCheck)


def read_check(file: Path) -> Check:
    """How a task's answers are checked.

    Raises:
        BadInput: broken YAML, or no check.
    """
    try:
        return _CHECKS.validate_python(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(expected="a check in YAML", found=f"broken YAML ({error})", where=file, hint="mend the file") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(
            expected=f"a valid {'.'.join(map(str, first['loc'])) or 'check'}", found=first["msg"], where=file, hint="mend the file"
        ) from error
