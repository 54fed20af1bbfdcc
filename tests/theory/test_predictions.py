"""Predictions: each follows from a claim, is asked by the study of trained runs, and is judged by intervals."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sims.studies.theory
from theory import CLAIMS
from theory.predictions import PREDICTIONS, Prediction, judge


def test_every_prediction_follows_from_a_registered_claim_and_every_family_asks_something():
    ids = {c.id for c in CLAIMS}
    claims = {p.name: set(re.findall(r"T\d+(?:\.[a-z-]+)?", p.claim)) for p in PREDICTIONS.values()}
    assert all(claims.values())
    assert set.union(*claims.values()) <= ids
    families = {claim.split(".")[0] for claim in set.union(*claims.values())}
    assert families >= {"T2", "T3", "T5", "T6", "T7", "T8", "T9", "T10", "T11", "T12"}


def test_every_prediction_is_asked_of_trained_runs():
    folder = Path(sims.studies.theory.__file__).parent
    source = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
    assert [name for name in PREDICTIONS if f'PREDICTIONS["{name}"]' not in source] == []


@pytest.mark.parametrize(
    ("relation", "interval", "outcome"),
    [
        ("equal", (0.9, 1.2, 1.3), "holds"),
        ("equal", (1.1, 1.2, 1.3), "holds"),
        ("equal", (0.1, 1.2, 2.3), "not testable"),
        ("equal", (1.2, 1.2, 1.2), "not testable"),
        ("equal", (2.1, 2.2, 2.3), "fails"),
        ("at most", (0.1, 0.2, 0.3), "holds"),
        ("at most", (2.1, 2.2, 2.3), "fails"),
        ("at most", (0.9, 1.0, 1.1), "not testable"),
        ("at least", (2.1, 2.2, 2.3), "holds"),
        ("at least", (0.1, 0.2, 0.3), "fails"),
        ("at least", (0.9, 1.0, 1.1), "not testable"),
        ("equal", (np.nan, 1.2, 1.3), "not testable"),
        ("at least", (2.0, 2.2, np.inf), "not testable"),
        ("at least", (2.3, 2.2, 2.1), "not testable"),
    ],
)
def test_judgement(relation, interval: tuple[float, float, float], outcome: str):
    prediction = replace(next(iter(PREDICTIONS.values())), relation=relation, limit=1.0, margin=1.0)
    judged = judge(prediction, *interval)
    assert judged.outcome == outcome
    assert judged.effect == pytest.approx(interval[1] - 1.0)


def test_a_bound_names_the_accepted_side():
    bound = Prediction("x", "T1", "at most", "Is x at most 2?", "x", limit=2.0)
    assert judge(bound, 2.5, 3.0, 3.5).reason == "[2.5, 3.5] lies outside [-inf, 2]"
