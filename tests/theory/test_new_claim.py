"""Adding a claim, with a made-up one: registered, verified with its mutant, and shown on the page."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

import theory.claims as registry
from sims.studies.theory.verification import PASSED, run
from theory import Claim, Domain, Effort, Measurement, Mutant, Tolerance, select, verify
from theory.claim import Assumption

# The sum of the first n odd numbers is n².
ODD_SUMS = Claim(
    id="T99.odd",
    title="Sums of odd numbers",
    statement="1 + 3 + … + (2n − 1) = n² for every n ≥ 1.",
    meaning="Adding up odd numbers in order gives squares, however many are added.",
    latex=r"$\sum_{i=1}^{n}(2i-1)=n^2$",
    source="induction over n",
    quantity="sum of the first n odd numbers",
    domain=Domain(
        st.fixed_dictionaries({"n": st.integers(0, 60)}),
        (Assumption("at least one number", lambda case: case["n"] >= 1),),
    ),
    predicted=lambda case: np.array([case["n"] ** 2.0]),
    measured=lambda case, sampling: Measurement.exact([sum(range(1, 2 * case["n"], 2))]),
    tolerance=Tolerance("whole numbers are exact in float64"),
    mutants=(
        Mutant("triangular numbers", predicted=lambda case: np.array([case["n"] * (case["n"] + 1) / 2])),
    ),
    quick=Effort(10),
)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the claim for one test, as its line in `theory/claims/` would."""
    monkeypatch.setattr(registry, "CLAIMS", (*registry.CLAIMS, ODD_SUMS))
    monkeypatch.setitem(registry._REGISTRY, ODD_SUMS.id, ODD_SUMS)


def test_the_claim_is_true_and_its_mutant_is_rejected():
    (claim,) = select("T99")
    verdict = verify(claim)
    assert verdict.status == "true", verdict.reason
    assert verdict.cases == 10
    (mutant,) = verdict.mutants
    assert mutant.rejected
    assert mutant.case is not None
    assert mutant.case["n"] >= 2  # at n = 1 both formulas give 1


def test_it_travels_to_other_processes_and_appears_on_the_page(tmp_path: Path):
    assert pickle.loads(pickle.dumps(ODD_SUMS)) is ODD_SUMS
    assert run(("T99.odd",), "quick", tmp_path, plot=False) == PASSED
    assert ODD_SUMS.title in (tmp_path / "theory.html").read_text(encoding="utf-8")
