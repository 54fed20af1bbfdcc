"""Decide after which steps a monitor looks, so that it costs no more than its share of the time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


class LookPlan:
    """Keep the next step to look after, and the time that looking takes.

    Without a budget every multiple of `every` is looked at. With one, the first look is after `every` steps, and each
    further one waits for the first multiple at which all looks so far, and one more that costs as much as the last, are
    within that share of the wall time. What is done before the training (`setup`) does not count against the budget.

    Args:
        every: steps between looks.
        budget: largest share of the wall time, in (0, 1); None for no limit.
        clock: seconds, for tests.
    """

    def __init__(
        self, every: int, budget: float | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.every, self.budget, self.clock = every, budget, clock
        self.began, self.spent, self.earlier = clock(), 0.0, 0.0
        self.setup_here = self.earlier_setup = 0.0
        self.cost, self.looks = 0.0, 0
        # At the start of this process: step, and seconds of looking before.
        self._before = 0.0
        self.begin(0)

    def begin(self, step: int) -> None:
        """Begin after a step: the first look is there, or with a budget `every` steps later or more."""
        self._start = step
        self.next = step if self.budget is None else (step // self.every + 1) * self.every

    def due(self, step: int, last: int | None) -> bool:
        """Return whether the planned look lies in (last, step]."""
        return (-1 if last is None else last) < self.next <= step

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the time of the context as that of looking."""
        began = self.clock()
        try:
            yield
        finally:
            self.spent += self.clock() - began

    def ready(self) -> None:
        """Count the time so far as that of the set-up."""
        self.setup_here = self.clock() - self.began

    @property
    def setup(self) -> float:
        """Seconds before the training, in all processes."""
        return self.earlier_setup + self.setup_here

    @property
    def wall(self) -> float:
        """Seconds since the run began, those of earlier processes included."""
        return self.earlier + self.clock() - self.began

    @property
    def share(self) -> float:
        """Share of the wall time that setting up and looking have taken."""
        return min(1.0, (self.setup + self.spent) / self.wall) if self.wall > 0 else 0.0

    @property
    def over_budget(self) -> bool:
        """Whether looking alone has taken more than its budget: the run was too short to pay for it."""
        return self.budget is not None and self.spent > self.budget * self.wall

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of training and of looking since the run began."""
        return {"training": self.wall - self.spent, "measurement": self.spent}

    @property
    def told(self) -> str:
        """What setting up and looking have taken, in words."""
        share = f"the monitor took {self.share:.1%} of {self.wall:.0f} s"
        if self.over_budget:
            share += (
                f", more than the budget of {self.budget:.1%}: the run was too short to pay for its looks"
            )
        return share

    def looked(self, cost: float) -> None:
        """Count a look that has taken so many seconds."""
        self.cost, self.looks = cost, self.looks + 1

    def affordable(self) -> bool:
        """Return whether one more look, as costly as the last, is within the budget; the first one always is."""
        if self.budget is None or not self.looks:
            return True
        return self.spent + self.cost <= self.budget * (self.wall + self.cost)

    def after(self, step: int) -> int:
        """Return the step of the next look: the multiple of `every` after this step at which it will be affordable."""
        following = (step // self.every + 1) * self.every
        if self.budget is None:
            return following
        here = self.clock() - self.began - self.setup_here - (self.spent - self._before)
        a_step = max(here, 0.0) / max(1, step - self._start)
        # spent + cost ≤ budget · (wall + cost + steps · a_step)
        missing = (self.spent + self.cost) / self.budget - self.wall - self.cost
        steps = math.ceil(missing / a_step) if missing > 0 and a_step > 0 else 0
        return max(following, math.ceil((step + steps) / self.every) * self.every)

    def state_dict(self) -> dict[str, Any]:
        """Return the times so far and the next step, as plain numbers."""
        times = {"spent": self.spent, "wall": self.wall, "cost": self.cost, "setup": self.setup}
        return {"next": self.next, "looks": self.looks, **times}

    def load_state_dict(self, state: Mapping[str, Any], step: int) -> None:
        """Continue after a step from what `state_dict` returned."""
        self.next, self.looks, self.cost = int(state["next"]), int(state["looks"]), float(state["cost"])
        self.spent = self._before = float(state["spent"])
        self.earlier, self.earlier_setup = float(state["wall"]), float(state["setup"])
        self._start = step
