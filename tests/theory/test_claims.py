"""Every claim: verified, not vacuous, mutants rejected, and broken by hand in the two classical ways."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theory import CLAIMS, verify
from theory.cases import ALL_HEALTH_CHECKS, draw_cases
from theory.claim import Assumption, Claim
from theory.verification import check_cases

BY_ID = {c.id: c for c in CLAIMS}
FAMILIES = {f"T{i}" for i in range(1, 23)}


def test_all_families_are_there():
    assert {c.family for c in CLAIMS} == FAMILIES


@pytest.mark.parametrize("claim", CLAIMS, ids=BY_ID)
def test_claim_is_true_in_the_quick_profile(claim: Claim):
    verdict = verify(claim)
    assert verdict.status == "true", verdict.reason
    assert verdict.cases >= claim.domain.minimum
    assert all(m.rejected for m in verdict.mutants)


@pytest.mark.slow
@pytest.mark.parametrize("claim", CLAIMS, ids=BY_ID)
def test_claim_is_true_in_the_full_profile(claim: Claim):
    verdict = verify(claim, "full", generator_seed=1)
    assert verdict.status == "true", verdict.reason


def _broken(claim: Claim, factor: float) -> Claim:
    return replace(
        claim,
        predicted=lambda case: factor * np.asarray(claim.predicted(case)),
        derivation=None,
        # Enough to be wrong; the point is the check, not the count.
        quick=replace(claim.quick, cases=min(claim.quick.cases, 25), draws=max(2, claim.quick.draws // 4)),
    )


# What finds a factor of two finds a sign, which is twice as far off.
@pytest.mark.parametrize(
    "factor", [pytest.param(-1.0, marks=pytest.mark.slow, id="sign"), pytest.param(2.0, id="factor 2")]
)
@pytest.mark.parametrize("claim", CLAIMS, ids=BY_ID)
def test_a_sign_or_a_factor_of_two_in_the_prediction_is_caught(claim: Claim, factor: float):
    verdict = verify(_broken(claim, factor))
    assert verdict.status == "false", f"{claim.id} × {factor}: {verdict.status}, {verdict.reason}"
    assert "fail" in verdict.reason


@pytest.mark.parametrize(
    ("name", "component", "factor"),
    [("T8.boundary", 0, 1 + 1e-6), ("T3.anisotropic", 0, 1.03), ("T2.total", 0, 0.99)],
)
def test_a_small_error_of_an_exact_component_is_caught(name: str, component: int, factor: float):
    claim = BY_ID[name]

    def wrong(case):
        predicted = np.array(claim.predicted(case))
        predicted[component] *= factor
        return predicted

    few = claim.quick if name != "T8.boundary" else replace(claim.quick, cases=2, draws=200)
    verdict = verify(replace(claim, predicted=wrong, derivation=None, quick=few))
    assert verdict.status == "false"


@pytest.mark.parametrize("claim", CLAIMS, ids=BY_ID)
def test_no_verdict_from_an_empty_domain(claim: Claim):
    never = Assumption("nothing meets this", lambda _: False)
    empty = replace(claim, domain=replace(claim.domain, assumptions=(never,)), derivation=None)
    verdict = verify(empty)
    assert verdict.status == "unknown"
    assert verdict.cases == 0
    assert verdict.drawn.unmet["nothing meets this"] == verdict.drawn.draws > 0


@pytest.mark.parametrize("claim", CLAIMS, ids=BY_ID)
def test_every_drawn_case_meets_every_assumption_and_is_distinct(claim: Claim):
    cases = draw_cases(claim.domain, 12, 7).cases
    assert cases
    assert all(claim.domain.unmet(c) is None for c in cases)
    assert len({repr(sorted(c.items())) for c in cases}) == len(cases)


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=ALL_HEALTH_CHECKS)
def test_exact_claims_hold_wherever_hypothesis_looks(data: st.DataObject):
    """Exact claims on cases that the verifier's own seed never drew; hypothesis shrinks a counterexample."""
    names = [
        "T1",
        "T1.group",
        "T2.circulant",
        "T2.head",
        "T2.total",
        "T7.scale",
        "T7.flatter",
        "T7.trace",
        "T11.known",
        *("T14", "T14.ranks"),
        *("T16", "T17", "T18", "T19", "T20", "T21", "T22"),
    ]
    claim = BY_ID[data.draw(st.sampled_from(names))]
    case = data.draw(claim.domain.strategy.filter(lambda c: claim.domain.unmet(c) is None))
    (result,) = check_cases(claim, [case], "quick", 0)
    assert result.passed, (claim.id, case, result.score)


@pytest.mark.parametrize("claim", CLAIMS, ids=BY_ID)
def test_claim_is_documented(claim: Claim):
    assert len(claim.statement) > 40
    assert claim.source
    assert claim.quantity
    assert claim.latex.startswith("$")
    assert claim.tolerance.reason
