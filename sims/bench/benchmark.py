"""Fast routes against the slow ones they replace: ratios of one run, with the error between the results.

A case is a function registered with `case`; it builds its data and returns a `Trial` of two callables.
Times are process times of one thread, interleaved (slow, fast, slow, fast, …) so that a busy machine
troubles both alike, and their medians are compared. A ratio is not a unit test: it is printed beside its
goal.

To add a case, write one function with `case` in a file of this folder.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Trial:
    """The two routes that a case compares.

    Attributes:
        setting: the sizes, in words.
        slow, fast: two routes to the same result: arrays, or what `error` compares.
        error: their distance; by default max |slow − fast| / max |slow|.
        cost: cost of one call of a route; None for its process time.
        unit: of the cost.
    """

    setting: str
    slow: Callable[[], Any]
    fast: Callable[[], Any]
    error: Callable[[Any, Any], float] | None = None
    cost: Callable[[Callable[[], Any]], float] | None = None
    unit: str = "s"


@dataclass(frozen=True)
class Case:
    """A registered comparison: name, goals, and the function that builds its trial (smaller when quick)."""

    name: str
    goal: float
    max_error: float
    build: Callable[[bool], Trial]


@dataclass(frozen=True)
class Row:
    """One line of the report.

    Attributes:
        name, setting: what was compared, and at which size.
        slow, fast: median costs: process times of one thread, unless the unit says otherwise.
        unit: of the costs.
        ratio: slow over fast.
        goal: the required ratio; None at quick sizes, where goals do not apply.
        error: distance between the two results.
        max_error: the distance allowed.
    """

    name: str
    setting: str
    slow: float
    fast: float
    unit: str
    ratio: float
    goal: float | None
    error: float
    max_error: float

    @property
    def reached(self) -> bool:
        """Whether ratio (if it has a goal) and error both meet their goals."""
        return (self.goal is None or self.ratio >= self.goal) and self.error <= self.max_error

    def __str__(self) -> str:
        verdict = "reached" if self.reached else "MISSED"
        goal = "no goal" if self.goal is None else f"goal {self.goal:g}x"
        return (
            f"{self.name:<48} {self.setting:<42} {self.slow:10.4f} {self.unit:<3} {self.fast:10.4f} {self.unit:<3} "
            f"{self.ratio:7.1f}x ({goal})  error {self.error:.1e} (goal {self.max_error:.0e})  {verdict}"
        )


CASES: list[Case] = []


def case(
    name: str, *, goal: float, max_error: float
) -> Callable[[Callable[[bool], Trial]], Callable[[bool], Trial]]:
    """Register a function ``build(quick) -> Trial`` under a name with its goals."""

    def register(build: Callable[[bool], Trial]) -> Callable[[bool], Trial]:
        CASES.append(Case(name, goal, max_error, build))
        return build

    return register


def run_benchmarks(quick: bool, *, report: Callable[[str], None] = print) -> list[Row]:
    """Run every registered case and report each row when it is measured.

    Args:
        quick: small sizes and three repetitions (seconds in total), without goals; otherwise the sizes of the goals
            and nine repetitions.
        report: called with each line.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = []
        for entry in CASES:
            row = measure(entry, quick)
            report(str(row))
            rows.append(row)
        return rows
    finally:
        torch.set_num_threads(threads)


def measure(entry: Case, quick: bool) -> Row:
    """Measure interleaved medians of one case, after one untimed round that gives the error."""
    trial = entry.build(quick)
    compare = trial.error or largest_difference
    error = compare(trial.slow(), trial.fast())
    cost = trial.cost or _timed
    slow_costs, fast_costs = [], []
    for _ in range(3 if quick else 9):
        slow_costs.append(cost(trial.slow))
        fast_costs.append(cost(trial.fast))
    slow, fast = statistics.median(slow_costs), statistics.median(fast_costs)
    # The clock has a resolution of a microsecond or more; a quick case may be faster.
    ratio = slow / max(fast, 1e-6)
    goal = None if quick else entry.goal
    return Row(entry.name, trial.setting, slow, fast, trial.unit, ratio, goal, error, entry.max_error)


def largest_difference(slow: Any, fast: Any) -> float:
    """Return max |slow − fast| / max |slow| of two arrays of equal shape."""
    slow, fast = np.asarray(slow, dtype=np.float64), np.asarray(fast, dtype=np.float64)
    return float(np.abs(slow - fast).max() / np.abs(slow).max())


def _timed(function: Callable[[], Any]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start
