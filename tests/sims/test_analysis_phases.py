"""Segmentation on constructed curves: nothing is found in noise, what is planted is found where it is."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sims.analysis.phases import phases
from sims.analysis.runs import Runs
from sims.analysis.segmentation import _placements, _residuals, segment
from sims.runs.columns import WHICH
from sims.system.errors import MeasureError

TRIALS = 120
X = np.log(np.arange(1, 19) * 1_000.0)


def noise(generator, n, correlation):
    steps = generator.standard_normal(n)
    out = steps.copy()
    for i in range(1, n):
        out[i] = correlation * out[i - 1] + math.sqrt(1 - correlation**2) * steps[i]
    return out


@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_noise_rarely_has_phases(correlation):
    """A straight line with independent or correlated noise: changes in at most 5 % of curves, up to chance."""
    generator = np.random.default_rng(7)
    found = 0
    for i in range(TRIALS):
        y = 3.0 - 0.4 * X + 0.1 * noise(generator, len(X), correlation)
        found += bool(segment(X, y, max_changes=2, draws=199, seed=i).changes)
    assert stats.binomtest(found, TRIALS, 0.05, "greater").pvalue > 1e-2


def test_planted_changes_are_found_where_they_are():
    generator = np.random.default_rng(0)
    first, second = X[7], X[12]
    hits = 0
    for i in range(20):
        y = -2.0 * (X - X[0]) + 6.0 * np.maximum(0, X - first) - 5.0 * np.maximum(0, X - second)
        found = segment(X, y + 0.05 * generator.standard_normal(len(X)), draws=199, seed=i)
        near = [min(abs(c - at) for c in found.changes) < 0.2 for at in (first, second) if found.changes]
        hits += len(found.changes) == 2 and all(near)
        assert all(p <= 0.05 for p in found.p)
    assert hits >= 17


def test_an_exact_curve_is_recovered():
    y = 1.0 + 2.0 * (X - X[0]) - 3.0 * np.maximum(0, X - X[9])
    found = segment(X, y)
    assert found.changes == pytest.approx((X[9],))
    assert found.slopes == pytest.approx((2.0, -1.0))
    assert found.fitted == pytest.approx(y)
    assert found.p == pytest.approx((1 / 300,))
    straight = segment(X, 2.0 + X)
    assert straight.changes == ()
    assert straight.next_p == 1.0


def test_the_placement_is_the_best_of_all():
    y = np.random.default_rng(2).normal(size=len(X)).cumsum()
    placements = _placements(tuple(X), 2)
    fast = _residuals(tuple(X), placements, y[:, None])[:, 0]
    for knots, rss in zip(placements[::7], fast[::7], strict=True):
        basis = np.column_stack([np.ones_like(X), X, *(np.maximum(0, X - X[k]) for k in knots)])
        slow = y - basis @ np.linalg.lstsq(basis, y, rcond=None)[0]
        assert rss == pytest.approx(slow @ slow)
    assert all(b - a >= 2 and a >= 2 and b <= len(X) - 3 for a, b in placements)


def test_shift_and_scale_change_nothing():
    y = np.random.default_rng(1).normal(size=len(X)) * 0.1 + 2 * np.maximum(0, X - X[8])
    one, other = segment(X, y, draws=199), segment(X + 3.0, 1e3 - 50.0 * y, draws=199)
    assert np.array(other.changes) == pytest.approx(np.array(one.changes) + 3.0)
    assert other.p == one.p


@pytest.mark.parametrize(
    ("x", "y", "rule"),
    [(X[:7], X[:7], "≥ 8 points"), (X[::-1], X, "rising"), (X, np.where(X > 9, np.nan, X), "finite")],
)
def test_what_cannot_be_segmented_is_refused(x, y, rule):
    with pytest.raises(MeasureError, match=rule):
        segment(x, y)


def runs(sizes=(32, 128), seeds=(0, 1, 2), points=18, kink=9):
    """RankMe falls by 2 per e-fold, and from point `kink` on rises by 1, in every run of the smaller size."""
    generator = np.random.default_rng(5)
    tables, rows = [], []
    for size in sizes:
        for seed in seeds:
            label = {"run_id": f"{size}-{seed}", "stage": "a", "batch_size": size, "lr": 1e-3, "seed": seed}
            tables.append({**label, "ended": "finished", "tokens": 1, "val_loss": 1.0, "step": points})
            for step in range(points + 1):
                x = math.log(max(step, 1))
                rise = 3.0 * max(0.0, x - math.log(kink)) if size == sizes[0] else 0.0
                value = 20.0 - 2.0 * x + rise + 0.03 * generator.standard_normal()
                rows.append(
                    {**label, "step": step, "tokens": 1_000 * step, "quantity": "rankme", "status": "ok"}
                    | {"object": "activation", "site": "final", **WHICH, "value": value}
                )
    return Runs(pd.DataFrame(tables), pd.DataFrame(rows), pd.DataFrame(), ())


def test_phases_of_cells():
    table = phases(runs(), max_changes=2)
    bent = table[table["batch_size"] == 32]
    assert list(bent["segment"]) == [1, 2]
    assert bent["slope"].to_numpy() == pytest.approx([-2.0, 1.0], abs=0.15)
    assert bent["from_tokens"].iloc[1] == pytest.approx(9_000, rel=0.15)
    assert bent["to_tokens"].iloc[0] == bent["from_tokens"].iloc[1]
    assert bent["p"].iloc[1] < 0.01
    assert bent["agree"].iloc[1] == 1.0
    straight = table[table["batch_size"] == 128]
    assert list(straight["segment"]) == [1]
    assert straight["slope"].iloc[0] == pytest.approx(-2.0, abs=0.05)
    assert straight["next_p"].iloc[0] > 0.05


def test_too_few_measurements_are_said_to_be():
    few = runs(points=6)
    with pytest.raises(MeasureError, match="≥ 8 measurements"):
        phases(few)
    whole = runs()
    late = (whole.rows["batch_size"] == 128) & (whole.rows["step"] > 5)
    both = Runs(whole.runs, whole.rows[~late], whole.spectra, ())
    table = phases(both, max_changes=1).set_index("batch_size")
    assert "5 measurements" in table.loc[128, "reason"]
    assert table.loc[32, "reason"].eq("").all()
    with pytest.raises(MeasureError, match="not measured"):
        phases(both, "stable_rank")
