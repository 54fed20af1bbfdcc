"""The verifier itself: what makes it say true, false or unknown."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

from theory.cases import draw_cases
from theory.claim import Agreement, Assumption, Claim, Derivation, Domain, Mutant
from theory.compare import at_least, at_most, equal, kolmogorov_smirnov_beta
from theory.values import Effort, Measurement, Tolerance
from theory.verification import verify

EXACT = Tolerance("exact arithmetic", absolute=1e-12)
SQUARE = Claim(
    id="T99",
    title="squares",
    statement="x·x is x squared for every integer x between −50 and 50",
    meaning="A number times itself is its square, whatever the number.",
    latex="$x^2$",
    source="arithmetic",
    quantity="x²",
    domain=Domain(st.fixed_dictionaries({"x": st.integers(-50, 50)})),
    predicted=lambda c: np.array([c["x"] ** 2.0]),
    measured=lambda c, _: Measurement.exact([c["x"] * c["x"]]),
    tolerance=EXACT,
    mutants=(Mutant("cube", predicted=lambda c: np.array([c["x"] ** 3.0])),),
)


def test_a_true_claim_is_true_and_counts_distinct_cases():
    verdict = verify(SQUARE)
    assert verdict.status == "true"
    assert verdict.cases == 20 == len({r.case["x"] for r in verdict.results})


def test_the_same_seed_gives_the_same_cases_and_another_seed_others():
    first, again, other = (draw_cases(SQUARE.domain, 20, s).cases for s in (3, 3, 4))
    assert first == again
    assert first != other


@pytest.mark.slow
def test_the_cases_do_not_depend_on_the_source_that_is_loaded(tmp_path: Path):
    # 123457 would be drawn for sure if the constants of loaded modules were: hypothesis' own search looks for them.
    (tmp_path / "constants.py").write_text("VALUES = [" + ", ".join(["123457"] * 100) + "]\n")
    code = (
        "from hypothesis import strategies as st; from theory import Domain; from theory.cases import draw_cases; "
        "domain = Domain(st.fixed_dictionaries({'n': st.integers(0, 10**6), 'x': st.floats(0, 1e9)})); "
        "print(draw_cases(domain, 100, 3).cases)"
    )
    root = Path(__file__).parents[2]
    cases = [
        subprocess.run(
            [sys.executable, "-c", first + code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(tmp_path)])},
        ).stdout
        for first in ("", "import constants; ")
    ]
    assert cases[0] == cases[1]
    assert cases[0].count("'n':") == 100


def test_bounds_and_zero_are_drawn_on_purpose():
    domain = Domain(st.fixed_dictionaries({"c": st.integers(-1000, 1000), "x": st.floats(0.5, 2.0)}))
    cases = draw_cases(domain, 300, 0).cases
    for edge in (-1000, 0, 1000):
        assert sum(case["c"] == edge for case in cases) >= 3  # 0.15 of 300 uniform draws
    assert {0.5, 2.0} <= {case["x"] for case in cases}
    assert len({case["c"] for case in cases}) > 200


@pytest.mark.parametrize(
    ("strategy", "legal"),
    [
        (st.integers(min_value=7), lambda x: x >= 7),
        (st.integers(max_value=-7), lambda x: x <= -7),
        (st.floats(), np.isfinite),
        (st.floats(max_value=-2.0), lambda x: x <= -2),
        (st.floats(0.1, 0.3, exclude_min=True), lambda x: 0.1 < x <= 0.3),
        (st.text("ab", min_size=2), lambda x: len(x) >= 2 and set(x) <= {"a", "b"}),
        (st.binary(max_size=3), lambda x: len(x) <= 3),
        (st.lists(st.integers(0, 1), max_size=4), lambda x: len(x) <= 4),
    ],
)
def test_any_strategy_gives_legal_values(strategy, legal):
    cases = draw_cases(Domain(st.fixed_dictionaries({"x": strategy})), 10, 0).cases
    assert len(cases) == 10
    assert all(legal(case["x"]) for case in cases)


def test_a_domain_of_three_cases_yields_all_of_them_with_any_seed():
    three = Domain(st.fixed_dictionaries({"x": st.sampled_from("abc")}), minimum=3)
    assert min(len(draw_cases(three, 3, s).cases) for s in range(12)) == 3


def test_a_wrong_claim_is_false_with_its_worst_case():
    verdict = verify(
        replace(SQUARE, measured=lambda c, _: Measurement.exact([abs(c["x"]) ** 2 + (c["x"] == 0)]))
    )
    assert verdict.status == "false"
    assert verdict.worst is not None
    assert verdict.worst.case == {"x": 0}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_failures_not_passes(bad: float):
    verdict = verify(replace(SQUARE, predicted=lambda c: np.array([bad])))
    assert verdict.status == "false"


def test_a_surviving_mutant_makes_the_verdict_unknown():
    same = Mutant("not a mutant at all", predicted=SQUARE.predicted)
    verdict = verify(replace(SQUARE, mutants=(*SQUARE.mutants, same)))
    assert verdict.status == "unknown"
    assert "not a mutant at all" in verdict.reason


def test_a_mutant_that_gives_no_number_is_not_rejected():
    broken = Mutant("divides by zero", predicted=lambda c: np.array([np.nan]))
    verdict = verify(replace(SQUARE, mutants=(*SQUARE.mutants, broken)))
    assert verdict.status == "unknown"
    assert "divides by zero" in verdict.reason


def test_errors_are_accepted_component_by_component():
    tolerance = Tolerance("exact, and one part in ten", absolute=(1.0, 0.0), relative=(0.0, 0.1), sigmas=2.0)
    allowed = tolerance.allowed(np.array([100.0, -20.0]), np.array([0.0, 0.5]))
    np.testing.assert_allclose(allowed, [1.0, 3.0])


def test_too_few_effective_cases_is_unknown_even_when_all_pass():
    narrow = replace(SQUARE.domain, assumptions=(Assumption("x is 7", lambda c: c["x"] == 7),))
    verdict = verify(replace(SQUARE, domain=narrow))
    assert verdict.status == "unknown"
    assert verdict.cases <= 1
    assert "x is 7" in verdict.reason


def test_a_derivation_that_disagrees_makes_the_claim_false():
    off = Derivation((), (Agreement("closed form", 1e-3),))
    verdict = verify(replace(SQUARE, derivation=lambda: off))
    assert verdict.status == "false"
    assert "closed form" in verdict.reason


def test_a_derivation_that_compares_nothing_does_not_count():
    assert verify(replace(SQUARE, derivation=lambda: Derivation((), ()))).status == "false"


def test_a_nan_agreement_does_not_hold():
    assert not Agreement("x", float("nan")).holds


@pytest.mark.parametrize("broken", [{"id": "8"}, {"mutants": ()}, {"tolerance": Tolerance("")}])
def test_incomplete_claims_are_refused(broken: dict):
    with pytest.raises(ValueError, match=r"T8\.boundary|no mutant|no reason"):
        replace(SQUARE, **broken)


def test_a_mutant_must_change_something():
    with pytest.raises(ValueError, match="changes nothing"):
        Mutant("idle")


def test_bounds_reject_excess_and_demand_equality_where_attained():
    m, two = Measurement.exact([1.0]), np.array([2.0])
    loose, sharp = at_most(lambda _: False), at_most(lambda _: True)
    assert loose(two, m, EXACT, {})[0] == 0
    assert loose(two / 4, m, EXACT, {})[0] > 1
    assert sharp(two, m, EXACT, {})[0] > 1
    assert at_least(lambda _: False)(two, m, EXACT, {})[0] > 1
    assert at_least(lambda _: False)(two / 4, m, EXACT, {})[0] == 0


def test_different_component_counts_are_an_error_not_a_broadcast():
    with pytest.raises(ValueError, match="same components"):
        equal(np.zeros(3), Measurement.exact([0.0]), EXACT, {})


def test_ks_accepts_its_own_law_and_rejects_another():
    draws = Measurement.exact(np.random.default_rng(0).beta(3, 5, 10_000))
    compare = kolmogorov_smirnov_beta(1e-5)
    assert compare(np.array([3.0, 5.0]), draws, EXACT, {})[0] < 1
    assert compare(np.array([3.0, 5.5]), draws, EXACT, {})[0] > 1
    assert np.isnan(compare(np.array([-3.0, 5.0]), draws, EXACT, {})[0])


def test_standard_errors_come_from_independent_draws():
    x = np.random.default_rng(0).standard_normal((400, 2))
    m = Measurement.mean_of(x)
    np.testing.assert_allclose(m.stderr, x.std(0, ddof=1) / 20)
    with pytest.raises(ValueError, match="at least 2"):
        Measurement.mean_of(x[:1])


def test_effort_depends_on_the_profile():
    claim = replace(SQUARE, quick=Effort(5), full=Effort(60))
    assert verify(claim, "quick").cases == 5
    assert verify(claim, "full").cases == 60
