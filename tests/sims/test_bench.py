"""The benchmark runs at quick sizes, its two routes agree, and a new case is one registered function."""

import math

import pytest

from sims.bench import benchmark as bench
from sims.bench import spectra, toy  # noqa: F401  (they register their cases)
from sims.bench.benchmark import CASES, Case, Trial, case, largest_difference, measure, run_benchmarks


@pytest.mark.slow
def test_quick_run_agrees_in_every_case():
    lines = []
    rows = run_benchmarks(True, report=lines.append)
    assert [row.name for row in rows] == [entry.name for entry in CASES]
    for row, line in zip(rows, lines, strict=True):
        assert row.error <= row.max_error
        assert row.slow > 0
        assert row.goal is None
        assert row.name in line


def test_a_case_is_registered_and_measured(monkeypatch):
    monkeypatch.setattr(bench, "CASES", [])

    @case("halves", goal=2.0, max_error=0.1)
    def build(quick):
        return Trial("one number", lambda: [1.0], lambda: [0.5])

    (entry,) = bench.CASES
    row = measure(entry, quick=False)
    assert row.error == pytest.approx(0.5)
    assert row.goal == 2.0
    assert not row.reached
    assert "MISSED" in str(row)


def test_own_distance_and_the_default_one():
    assert largest_difference([1.0, -4.0], [1.0, -3.0]) == pytest.approx(0.25)
    entry = Case(
        "x", 0.0, 1.0, lambda quick: Trial("s", lambda: "a", lambda: "b", error=lambda a, b: float(a != b))
    )
    assert measure(entry, quick=True).error == 1.0


def test_runs_that_differ_by_nan_are_no_equal_runs():
    trial = toy.dispatches(True)
    assert trial.error is not None
    alone = trial.slow()
    next(reversed(alone[3].params.values())).data.fill_(math.nan)
    assert math.isnan(trial.error(alone, trial.fast()))
