"""Observers that look at a run between two training steps, each on a separate schedule.

An observer that records the norm of the head at every second step:

>>> import torch
>>> class Norms:
...     def __init__(self, schedule):
...         self.schedule, self.last, self.norms = schedule, None, []
...
...     def due(self, step):
...         return self.schedule.due(step, self.last)
...
...     def look(self, view):
...         self.last = view.step
...         self.norms.append(view.weights()["head"].norm())
...
...     def state_dict(self):
...         return {"last": torch.tensor(self.last), "norms": torch.stack(self.norms)}
...
...     def load_state_dict(self, state):
...         self.last, self.norms = int(state["last"]), list(state["norms"])
>>> from toymodel import Ensemble, ModelConfig, RunConfig, TaskConfig, train
>>> task = TaskConfig(vocab=11, length=8, train=64, val=16, test=16)
>>> config = RunConfig("untied", task=task, model=ModelConfig(8, 2, 1), batch_size=4, steps=6, eval_size=16)
>>> norms = Norms(Schedule(every=2))
>>> for snapshot in train(Ensemble([config]), observers=[[norms]]):
...     pass
>>> norms.last, len(norms.norms), float(norms.norms[0])
(6, 4, 0.0)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Protocol

from toymodel.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """Choose the steps after which an observer looks: the union of three rules.

    All fields are plain values: `dataclasses.asdict` gives JSON, `Schedule(**json)` reads it back.

    Args:
        every: all multiples of this number, 0 included; None for none.
        steps: single steps, in any order; they are stored sorted and without repetitions.
        per_decade: p looks for each factor of ten, at the steps round(10^(i/p)), i = 0, 1, …; None for none.

    Raises:
        ConfigError: no rule at all, a number below 1 (below 0 in `steps`), or a value that is not an integer.

    >>> schedule = Schedule(every=100, steps=(5,), per_decade=2)
    >>> [step for step in range(1, 201) if schedule.due(step, last=step - 1)]
    [1, 3, 5, 10, 32, 100, 200]
    """

    every: int | None = None
    steps: tuple[int, ...] = ()
    per_decade: int | None = None

    def __post_init__(self) -> None:
        for name in ("every", "per_decade"):
            value = getattr(self, name)
            if value is None:
                continue
            if not _is_integer(value) or value < 1:
                raise ConfigError(f"{name} is {value!r}; pass an integer of at least 1, or None")
            object.__setattr__(self, name, int(value))
        if not isinstance(self.steps, Iterable):
            raise ConfigError(f"steps is {self.steps!r}; pass a tuple of integers")
        steps = tuple(self.steps)
        for step in steps:
            if not _is_integer(step) or step < 0:
                raise ConfigError(f"steps contains {step!r}; pass integers of at least 0")
        object.__setattr__(self, "steps", tuple(sorted(set(map(int, steps)))))
        if self.every is None and self.per_decade is None and not self.steps:
            raise ConfigError("the schedule contains no step; pass every, steps or per_decade")

    def due(self, step: int, last: int | None) -> bool:
        """Return whether a scheduled step lies in (last, step].

        A step that has been looked at is therefore never due again, and where not every step is offered the look
        takes place at the first one offered at or after the scheduled step.

        Args:
            step: number of updates so far; 0 before the first.
            last: step of the last look; None before the first look.
        """
        last = -1 if last is None else last
        if step <= last:
            return False
        if self.every is not None and step // self.every > last // self.every:
            return True
        if any(last < s <= step for s in self.steps):
            return True
        return self.per_decade is not None and last < _last_log_step(step, self.per_decade)


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _last_log_step(step: int, per_decade: int) -> int:
    """Return the largest round(10^(i/per_decade)) up to `step`, −1 if there is none."""
    if step < 1:
        return -1
    i = math.ceil(per_decade * math.log10(step + 1))
    while (found := round(10 ** (i / per_decade))) > step:
        i -= 1
    return found


class View(Protocol):
    """Show one run between two steps; valid until the next step."""

    @property
    def step(self) -> int:
        """Return the number of updates so far."""
        ...

    @property
    def tokens(self) -> int:
        """Return the number of target tokens so far."""
        ...

    def weights(self) -> Mapping[str, Tensor]:
        """Return the parameters (*shape) by name, without member axis, on the device, detached.

        They are views that the next step overwrites: clone what is kept, and change nothing.
        """
        ...


class Observer(Protocol):
    """Look at one run between its steps.

    An observer belongs to one run (one member of an ensemble), so that its numbers never depend on which other
    runs train at the same time. It is offered every step after its update and before the next, and step 0 before
    the first update. Its state is stored and restored, together with the run, by the caller of `train`.
    """

    def due(self, step: int) -> bool:
        """Return whether to look after this step; asked once for each step, in order."""
        ...

    def look(self, view: View) -> None:
        """Look at the run; what it raises ends the training and reaches the caller of `train`."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return all that a later process needs to continue exactly."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        ...
