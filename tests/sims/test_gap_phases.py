"""Phases of the gap: planted ones are shown, those of a schedule alone and noise are not."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sims.analysis.gap_phases import gap_phases, plateau
from sims.analysis.segmentation import Segmentation
from sims.analysis.verdicts import apart
from sims.system.errors import MeasureError
from spectra import window_edges

W = 6
STEPS = 100 * np.arange(1, 91)
QUICK: dict[str, Any] = {"window": W, "null_draws": 20, "draws": 99, "dimensions": [1e3]}
X = np.log(STEPS[W - 1 :])
RISE, FALL = float(np.log(1_500)), float(np.log(5_000))


def shape(shift=0.0):
    """ln gap: up to step 1,500, flat to 5,000, down."""
    first, second = RISE + shift, FALL
    return 0.1 + 0.6 * (np.minimum(X, first) - X[0]) - 1.5 * np.maximum(X - second, 0)


def tables(curves, norms=None):
    norms = np.ones(len(STEPS)) if norms is None else norms
    windows = [
        pd.DataFrame({"seed": s, "step": STEPS[W - 1 :], "ratio": np.exp(c)}) for s, c in enumerate(curves)
    ]
    updates = [pd.DataFrame({"seed": s, "step": STEPS, "norm": norms}) for s in range(len(curves))]
    return pd.concat(windows), pd.concat(updates)


def noisy(seed, curve, size=0.03):
    return curve + size * np.random.default_rng(seed).standard_normal(len(X))


def test_planted_phases_are_shown_at_their_steps():
    found = gap_phases(*tables([noisy(s, shape()) for s in range(4)]), **QUICK)
    assert found.verdict.outcome == "shown"
    assert found.seeds["agrees"].all()
    assert np.log(found.seeds["plateau_from"].to_numpy(float)) == pytest.approx(RISE, abs=0.35)
    assert np.log(found.seeds["plateau_to"].to_numpy(float)) == pytest.approx(FALL, abs=0.35)
    assert found.null["share"].tolist() == pytest.approx([0.0], abs=0.05)
    assert "independent updates" in found.sentence


def test_phases_at_other_steps_in_each_seed_are_not_shown():
    found = gap_phases(*tables([noisy(s, shape(s % 2 - 0.5)) for s in range(4)]), **QUICK)
    assert found.seeds["plateau_from"].notna().sum() >= 3
    assert found.verdict.outcome == "not shown"


SETS = 12


def test_independent_updates_show_no_phases():
    """Windows of independent updates of equal length, their gaps from the Gram matrix: none of 12 sets of 4 seeds."""
    alone = 0
    for i in range(SETS):
        curves = []
        for s in range(4):
            rows = np.random.default_rng([1, i, s]).standard_normal((len(STEPS), 300))
            curves.append(np.log(window_edges(rows @ rows.T, W).ratios[:, 1]))
        found = gap_phases(*tables(curves), **{**QUICK, "null_draws": 1})
        assert found.verdict.outcome == "not shown"
        alone += int(found.seeds["plateau_from"].notna().sum())
    assert stats.binomtest(alone, 4 * SETS, 0.05, "greater").pvalue > 1e-2


def test_the_null_knows_the_lengths_of_the_updates():
    """Two updates that grow, stay and shrink against the others: lengths alone have the phases, so nothing is shown."""
    curve = np.interp(np.log(STEPS), [np.log(STEPS[0]), RISE, FALL, np.log(STEPS[-1])], [0.0, 1.5, 1.5, 0.0])
    norms = np.where(np.arange(len(STEPS)) % 3 < 1, np.exp(curve), 1.0)
    rows = []
    for s in range(4):
        x = np.random.default_rng([2, s]).standard_normal((len(STEPS), 20_000))
        x *= (norms / np.linalg.norm(x, axis=1))[:, None]
        rows.append(np.log(window_edges(x @ x.T, W).ratios[:, 1]))
    found = gap_phases(*tables(rows, norms), **{**QUICK, "dimensions": [2e4]})
    assert (found.seeds["plateau_from"].notna()).sum() >= 3
    assert found.null["share"].max() > 0.5
    assert found.verdict.outcome == "not shown"
    equal = gap_phases(*tables(rows), **{**QUICK, "dimensions": [2e4]})
    assert equal.verdict.outcome == "shown"


slopes = st.floats(-2, 2)


@settings(deadline=None)
@given(
    st.lists(slopes, min_size=1, max_size=4), st.lists(st.sampled_from([0.01, 0.2]), min_size=3, max_size=3)
)
def test_a_plateau_is_a_flat_part_between_a_rise_and_a_fall(slopes, p):
    changes = tuple(float(i) for i in range(len(slopes) - 1))
    curve = Segmentation(changes, tuple(p[: len(changes)]), tuple(slopes), np.zeros(3), 0.0, 0.5, 0)
    has = [
        (changes[i], changes[i + 1])
        for i in range(len(slopes) - 2)
        if max(p[i], p[i + 1]) < 0.05 and slopes[i] > 0 > slopes[i + 2] and abs(slopes[i + 1]) < slopes[i] / 4
    ]
    assert plateau(curve) == (has[0] if has else None)


@settings(deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=30, unique=True), st.integers(1, 9))
def test_kept_windows_are_apart_and_no_other_fits_between(places, distance):
    ends = np.array(sorted(places))
    kept = ends[apart(ends, distance)]
    assert (np.diff(kept) >= distance).all()
    assert all(any(0 <= end - k < distance for k in kept) for end in ends)


def test_what_cannot_be_segmented_says_why():
    curves = [noisy(s, shape()) for s in range(4)]
    few = gap_phases(*tables(curves[:3]), **QUICK)
    assert few.verdict.outcome == "not resolved"
    assert "3 usable seeds" in few.sentence
    for spoilt, why in ((np.inf, "not finite"), (np.nan, "not finite"), (-np.inf, "not positive")):
        broken = np.where(np.arange(len(X)) == 6, spoilt, curves[0])
        found = gap_phases(*tables([broken, *curves[1:]]), **QUICK)
        assert found.verdict.outcome == "not resolved"
        assert why in found.seeds["reason"].iloc[0]
    flat = gap_phases(*tables([np.zeros(len(X))] * 4), **QUICK)
    assert flat.seeds["reason"].tolist() == ["the gap is constant"] * 4
    assert flat.null.empty
    windows, updates = tables(curves)
    short = gap_phases(windows[windows["step"] < 2_000], updates, **QUICK)
    assert "a segmentation needs 8" in short.sentence


@pytest.mark.parametrize(
    ("change", "options", "why"),
    [
        (lambda w, u: (w.drop(columns="ratio"), u), {}, "no column ratio"),
        (lambda w, u: (w[:0], u), {}, "no windows"),
        (lambda w, u: (pd.concat([w, w]), u), {}, "two rows at a step"),
        (lambda w, u: (w, u[u["step"] > 800]), {}, "without their 6 updates"),
        (lambda w, u: (w.assign(step=w["step"] + 1), u), {}, "without their 6 updates"),
        (lambda w, u: (w, u.assign(norm=np.nan)), {}, "not finite"),
        (lambda w, u: (w, u), {"j": 6}, "1 ≤ j < W"),
    ],
)
def test_bad_input_is_refused(change, options, why):
    with pytest.raises(MeasureError, match=why):
        gap_phases(*change(*tables([shape()] * 4)), **{**QUICK, **options})
