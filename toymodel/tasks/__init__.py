"""The tasks. A new one is one file and one line in `_TASKS`."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from toymodel.errors import ConfigError
from toymodel.task import OMIT_DEFAULT, Task
from toymodel.tasks.dyck import DyckDepth
from toymodel.tasks.modular_arithmetic import ModularArithmetic
from toymodel.tasks.modular_walks import ModularWalks
from toymodel.tasks.scan import Scan
from toymodel.tasks.shuffled_walks import ShuffledWalks

_TASKS: tuple[type[Task], ...] = (ModularWalks, ModularArithmetic, DyckDepth, Scan, ShuffledWalks)

TASKS: dict[str, type[Task]] = {task.kind: task for task in _TASKS}

# Written without its kind, as before there were others: run ids of stored runs stay what they are.
DEFAULT_KIND = ModularWalks.kind


def check_task(task: object) -> None:
    """Refuse what is not an instance of a registered task.

    Raises:
        ConfigError: naming the registered tasks.
    """
    if type(task) not in TASKS.values():
        raise ConfigError(f"task is {task!r}; the tasks are {', '.join(TASKS)}")


def task_values(task: Task) -> dict[str, Any]:
    """Return a task as plain values: its settings, and its kind unless it is the default one.

    Settings that were added later (metadata `OMIT_DEFAULT`) are left out at their defaults.

    >>> task_values(ModularWalks(vocab=64))["vocab"], "kind" in task_values(ModularWalks())
    (64, False)
    """
    settings = {
        f.name
        for f in fields(task)
        if f.init and not (f.metadata == OMIT_DEFAULT and getattr(task, f.name) == f.default)
    }
    values = {name: value for name, value in asdict(task).items() if name in settings}
    return values if task.kind == DEFAULT_KIND else {**values, "kind": task.kind}


def task_from(values: dict[str, Any]) -> Task:
    """Return the task that `task_values` wrote.

    Raises:
        ConfigError: an unknown kind, or a value out of its range.
        TypeError: an unknown or missing setting.

    >>> task_from(task_values(ModularWalks(vocab=64))) == ModularWalks(vocab=64)
    True
    """
    values = dict(values)
    kind = values.pop("kind", DEFAULT_KIND)
    if kind not in TASKS:
        raise ConfigError(f"unknown task {kind!r}; the tasks are {', '.join(TASKS)}")
    return TASKS[kind](**values)


__all__ = [
    "DEFAULT_KIND",
    "TASKS",
    "DyckDepth",
    "ModularArithmetic",
    "ModularWalks",
    "Scan",
    "ShuffledWalks",
    "Task",
    "check_task",
    "task_from",
    "task_values",
]
