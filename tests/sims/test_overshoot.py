"""T5 on noise: what the highest of many looks is by chance, and how often a rise and fall is found there."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sims.analysis.runs import Runs
from sims.runs.columns import WHICH
from sims.studies.theory.outcome import HOLDS, Question
from sims.studies.theory.overshoot import falls, highest_of_noise
from spectra import h_s_null, task_band
from theory.predictions import PREDICTIONS

LAW = h_s_null(31, 8, task_band(31))
HIGH = float(LAW.quantile(0.975))
ASKED = Question(PREDICTIONS["overshoot-beyond-noise"], "≥ 0")


def noise(generator, seeds, looks, alike=0.0, sets=1):
    """H_S of noise (sets, 2, seeds, looks), whose looks are alike as those of an autoregression."""
    z = generator.standard_normal((sets, 2, seeds, looks))
    for k in range(1, looks):
        z[..., k] = alike * z[..., k - 1] + math.sqrt(1 - alike**2) * z[..., k]
    return stats.beta.ppf(stats.norm.cdf(z), LAW.a, LAW.b)


def evidence(values):
    """Runs with this H_S of one unseen band, (sets, batch sizes, seeds, looks): a stage is a set."""
    stage, size, seed, step = (axis.ravel() for axis in np.indices(values.shape))
    rows = pd.DataFrame(
        {"run_id": stage * 100 + size * 10 + seed, "stage": stage, "batch_size": 32 * 4**size}
        | {"seed": seed, "step": step, "tokens": step * 1000.0, "value": values.ravel()}
    )
    band = {"band": "31:2", "regime": "clean", "seen": False, "set": "task"}
    kind = {"quantity": "h_s", "object": "probe", "site": "final", "status": "ok", **WHICH, **band}
    rows = rows.assign(lr=1e-3, null=LAW.mean, null_high=HIGH, **kind)
    runs: Any = SimpleNamespace(
        runs=Runs(rows[["run_id", "stage"]].drop_duplicates(), rows, pd.DataFrame(), ())
    )
    return runs


def holds(values):
    """How many sets are said to rise and fall."""
    chosen = falls(evidence(values)).query("tested")
    return sum(ASKED.over_seeds(own).verdict == HOLDS for _, own in chosen.groupby("stage"))


@settings(deadline=None, max_examples=15)
@given(st.floats(0.02, 0.9), st.floats(2, 200), st.integers(1, 60))
def test_the_highest_look_at_noise_has_the_law_of_a_maximum(mean, size, looks):
    law = stats.beta(mean * size, (1 - mean) * size)
    high = float(law.ppf(0.975))
    if not mean < high < 1 - 1e-9 or law.sf(high) < 0.0249:
        return
    found = highest_of_noise(mean, high, looks)
    # A mean and a level have more than one law where shares are mostly 0; ours is the narrowest.
    assert law.cdf(found) ** looks == pytest.approx(0.975, abs=0.01) or found < law.ppf(0.975 ** (1 / looks))
    assert found >= highest_of_noise(mean, high, max(1, looks // 2)) - 1e-12


def test_the_level_is_that_of_drawn_maxima():
    drawn = np.random.default_rng(0).beta(LAW.a, LAW.b, (20_000, 20)).max(axis=1)
    level = highest_of_noise(LAW.mean, HIGH, 20)
    # 2.5 % of 20,000 have a standard error of 0.11 points.
    assert abs(np.mean(drawn > level) - 0.025) < 0.005
    assert highest_of_noise(LAW.mean, HIGH, 1) == pytest.approx(HIGH, rel=1e-9)
    assert math.isnan(highest_of_noise(math.nan, HIGH, 5))
    assert math.isnan(highest_of_noise(0.5, 0.4, 5))


def test_a_planted_rise_and_fall_is_found_and_a_lucky_seed_is_not_tested():
    generator = np.random.default_rng(1)
    values = noise(generator, 4, 20)
    values[..., 8:12] += 0.5 * (1 - values[..., 8:12])
    assert holds(values) == 1
    lucky = LAW.mean + 0.001 * generator.standard_normal((1, 2, 4, 20))
    lucky[:, :, 0, 7] = 0.95
    table = falls(evidence(lucky))
    assert (table["concentrated"].sum(), table["tested"].sum()) == (2, 0)
    # A mutant that tests the runs that exceed their null would find a rise and fall in the lucky seed alone.
    assert (table[table["concentrated"]]["value"] > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("alike", [0.0, 0.9])
@pytest.mark.parametrize("looks", [9, 20, 40])
@pytest.mark.parametrize("seeds", [3, 8])
def test_noise_seldom_rises_and_falls(seeds, looks, alike):
    """At most 5 % of 200 sets of two batch sizes, up to chance, whatever the number of looks."""
    hits = holds(noise(np.random.default_rng(looks), seeds, looks, alike, sets=200))
    assert stats.binomtest(hits, 200, 0.05, "greater").pvalue > 0.01


@pytest.mark.slow
def test_the_margin_of_one_look_would_find_noise_to_rise_and_fall():
    """The mutant: the distance to the level of one look, of the runs that exceed it; 8 seeds and 40 looks."""
    hits = 0
    for k in range(200):
        values = noise(np.random.default_rng(k), 8, 40).reshape(16, 40)
        top, end = values.max(axis=1), values[:, -1]
        own = pd.DataFrame({"run_id": range(16), "seed": np.tile(range(8), 2), "value": top - end})
        own["value"] -= HIGH - LAW.mean
        hits += ASKED.over_seeds(own[top > HIGH]).verdict == HOLDS
    assert stats.binomtest(hits, 200, 0.05, "greater").pvalue < 0.001
