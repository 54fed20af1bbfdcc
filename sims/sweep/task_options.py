"""Commands that train toy runs of another task than modular walks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields, make_dataclass, replace
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import tyro

from sims.runs.measure_config import for_task
from sims.system.command_options import option_name
from sims.system.errors import QueryError
from toymodel.tasks import DEFAULT_KIND, TASKS

# The option that chooses the task, whose settings are the other options of this group.
TASK_KIND = "task.kind"
TaskKind = Annotated[
    str,
    tyro.conf.arg(
        name=TASK_KIND,
        metavar="NAME",
        help=f"Task of the runs, whose settings are the other options --task.…: {', '.join(TASKS)}.",
    ),
]


def typed_task(words: Sequence[str]) -> str | None:
    """Return the value of the last --task.kind among words; None without one.

    >>> typed_task(["small", "--task.kind", "modular_arithmetic"]), typed_task(["--task.kind=x"]), typed_task(["x"])
    ('modular_arithmetic', 'x', None)
    """
    found = None
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if option_name(word, ()) == TASK_KIND:
            found = word.partition("=")[2] if "=" in word else following
    return found


def with_task(command: type, kind: str) -> type:
    """Return a command whose presets of toy runs start from another task, with the measurements that it allows.

    All of its validation sequences are evaluated unless an option says otherwise.

    Args:
        command: with a choice of presets; those that take no `task.kind` stay.
        kind: name of the task.

    Raises:
        QueryError: an unknown task.
    """
    if kind not in TASKS:
        raise QueryError(f"--{TASK_KIND} is {kind!r}; the tasks are {', '.join(TASKS)}")
    if kind == DEFAULT_KIND:
        return command
    hints = get_type_hints(command, include_extras=True)
    # Annotated[a union of presets, a mark of the parser].
    choice, *marks = get_args(hints["preset"])
    members = tuple(_member(member, kind) for member in get_args(choice))
    union: Any = Union[members]  # noqa: UP007  (made at run time)
    marked: Any = Annotated[(union, *marks)]
    return _derived(command, [("preset", marked, MISSING)])


def _member(member: Any, kind: str) -> Any:
    preset, *marks = get_args(member) if get_origin(member) is Annotated else (member,)
    defaults: dict[str, Any] = {spec.name: spec.default for spec in fields(preset)}
    if "task_kind" not in defaults:
        return member
    run = replace(defaults["run"], task=TASKS[kind](), eval_size=None)
    changed = {"run": run, "measure": for_task(defaults["measure"], run.task), "task_kind": kind}
    hints = get_type_hints(preset, include_extras=True)
    derived = _derived(preset, [(name, hints[name], value) for name, value in changed.items()])
    return Annotated[(derived, *marks)]


def _derived(kind: type, changed: Sequence[tuple[str, Any, Any]]) -> type:
    """Return a subclass with other defaults of some fields."""
    specs = [(name, hint) if value is MISSING else (name, hint, value) for name, hint, value in changed]
    namespace = {"__doc__": kind.__doc__, "__module__": kind.__module__}
    return make_dataclass(kind.__name__, specs, bases=(kind,), frozen=True, namespace=namespace)
