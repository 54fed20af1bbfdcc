"""Verdicts that hold with any seed: what a mutant is rejected by must be drawn, and must be a number."""

from types import SimpleNamespace
from typing import cast

import numpy as np

from theory import select
from theory.cases import draw_cases
from theory.claims import intercept
from theory.simulate.features import FeatureRun
from theory.values import Sampling


def test_half_the_circle_is_among_the_steps_with_any_seed():
    # The one step that tells T10.symmetric from "no step but 0": seed 8 had none of it in 40 cases.
    (claim,) = select("T10.symmetric")
    for seed in (5, 8):
        cases = draw_cases(claim.domain, claim.quick.cases, seed).cases
        assert any(2 * case["d"] == case["c"] for case in cases)


def test_a_mutant_without_skewed_frequencies_is_rejected_by_numbers():
    (claim,) = select("T15")
    (uniform,) = (m for m in claim.mutants if m.name == "uniform frequencies")
    case = {"vocab": 32, "width": 6, "exponent": 1.0, "floor": 0.3, "std": 0.1, "seed": 1}
    assert uniform.measured is not None
    measured = uniform.measured(case, Sampling(np.random.default_rng(0), 1)).value
    assert np.isfinite(measured).all()
    assert measured[2] == -1.0
    # Rounding of equal frequencies is no correlation.
    assert measured[5] == 0.0


def test_the_intercept_has_three_phases():
    """Only the last was checked: a path that rises from its start and then falls passed, too."""
    measured = {}
    for name, path in {
        "three": [5.0, 2.0, 6.0, 5.5],
        "two": [2.0, 4.0, 6.0, 5.5],
        "one": [6.0, 5.0, 4.0, 3.0],
    }.items():
        run = SimpleNamespace(ranks={"weighted": np.array(path)[:, None]})
        measured[name] = intercept._phases(cast("FeatureRun", run), "weighted")
    assert measured == {"three": [1.0, 1.0], "two": [-1.0, 1.0], "one": [1.0, -1.0]}
