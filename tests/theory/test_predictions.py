"""Predictions: tied to claims, judged by intervals, silent where an assumption fails."""

import numpy as np
import pytest

from theory import CLAIMS
from theory.formulas import fourier
from theory.predictions import PREDICTIONS, Expected, NotTestable, judge
from theory.simulate.class_means import null_masses, planted_states


def test_every_prediction_rests_on_a_registered_claim_and_every_family_asks_something():
    ids = {c.id for c in CLAIMS}
    assert {p.claim for p in PREDICTIONS.values()} <= ids
    families = {p.claim.split(".")[0] for p in PREDICTIONS.values()}
    assert families >= {"T2", "T3", "T5", "T6", "T7", "T8", "T9", "T10", "T11", "T12"}


def test_something_beyond_the_paper_is_stated():
    assert {p.name for p in PREDICTIONS.values() if p.beyond} >= {"fading"}


@pytest.mark.parametrize(
    ("relation", "interval", "outcome"),
    [
        ("within", (1.1, 1.2, 1.3), "holds"),
        ("within", (2.1, 2.2, 2.3), "fails"),
        ("within", (1.9, 2.0, 2.1), "not testable"),
        ("at most", (0.1, 0.2, 0.3), "holds"),
        ("at most", (2.1, 2.2, 2.3), "fails"),
        ("at least", (2.1, 2.2, 2.3), "holds"),
        ("at least", (0.1, 0.2, 0.3), "fails"),
        ("at least", (0.9, 1.0, 1.1), "not testable"),
        ("within", (np.nan, 1.2, 1.3), "not testable"),
    ],
)
def test_judgement(relation: str, interval: tuple[float, float, float], outcome: str):
    prediction = next(p for p in PREDICTIONS.values() if p.relation == relation)
    assert judge(prediction, Expected(1.5, 1.0, 2.0), *interval).outcome == outcome


def test_noise_is_judged_to_be_noise_and_structure_is_not():
    rng, null = np.random.default_rng(0), PREDICTIONS["null-h-s"]
    expected = null.expected(c=31, d=16, folded=7)
    noise = float(null_masses(rng, 31, np.ones(16), 200)[:, :7].sum(1).mean())
    assert judge(null, expected, noise - 0.01, noise, noise + 0.01).outcome == "holds"
    energies = np.where(np.arange(1, 16) <= 7, 1.0, 0.05)
    h = fourier.h_s(
        fourier.mode_energies(planted_states(rng, 31, 40, energies)), fourier.paired(31, range(1, 8))
    )
    assert judge(null, expected, h - 0.01, h, h + 0.01).outcome == "fails"


def test_silence_where_assumptions_fail():
    with pytest.raises(NotTestable, match="dominate"):
        PREDICTIONS["token-order"].expected([1.0, 0.5], [1.1, 0.4])
    with pytest.raises(NotTestable, match="not rising"):
        PREDICTIONS["exponent-sign"].expected([3.0, 2.0, 1.0], [3.0, 1.0, 0.2], 1, 3)
    with pytest.raises(NotTestable, match="composite"):
        PREDICTIONS["fading"].expected(c=96)
    with pytest.raises(NotTestable, match="more samples"):
        PREDICTIONS["mean-gradient"].expected(0.01, 64, 10_000)


def test_predicted_values():
    assert PREDICTIONS["task-power"].expected(97, False).value == pytest.approx(0.892, abs=1e-3)
    assert PREDICTIONS["task-power"].expected(97, True).value == pytest.approx(14 / 96)
    assert PREDICTIONS["detectable"].expected(128, 1024).value == pytest.approx(1.354**2, abs=2e-3)
    assert PREDICTIONS["hitting-spread"].expected([1.0, 4.0], [1.0, -3.0], "muon").value == 3
    assert PREDICTIONS["initial-loss"].expected("zero", 1024, 128).value == pytest.approx(np.log(1024))
    assert PREDICTIONS["head-bound"].expected(0.5, 2.0, 4.0).value == 0.25
    assert PREDICTIONS["rankme-bound"].expected([1.0, 1.0, 0.0]).value == pytest.approx(2)
    assert PREDICTIONS["fading"].expected(c=97).value == 0
    drop = PREDICTIONS["exponent-sign"].expected([4.0, 2.0, 1.0], [4.0, 3.0, 2.5], 1, 3)
    assert drop.value < 0
