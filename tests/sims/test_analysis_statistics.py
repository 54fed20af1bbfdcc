"""The tests and intervals behind the analyses, on tables whose answer is known."""

import math
from itertools import permutations, product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from sims.analysis.noise_scale import noise_scale
from sims.analysis.prediction import associate, early_prediction, token_inefficiency
from sims.analysis.resampling import (
    block_permutation,
    holm,
    holm_attainable,
    seed_bootstrap,
    seed_jackknife,
    spearman,
    spearman_permutation,
    trend_permutation,
)
from sims.system.errors import MeasureError
from theory.fits import fit_batch_curve

SIZES = (32, 64, 128, 256, 512)


def binomial(count, trials, rate, alternative="two-sided"):
    return stats.binomtest(int(count), trials, rate, alternative).pvalue


@given(st.lists(st.tuples(st.floats(0.001, 1), st.floats(0, 1)), min_size=1, max_size=6))
def test_the_smallest_adjusted_p_is_that_of_holm_with_the_smallest_p_in_its_place(pairs):
    p, share = np.array(pairs).T
    least = p * share
    found, own = holm_attainable(p, least), holm(p)
    assert (found <= own + 1e-12).all()
    for i in range(len(p)):
        others = [holm(np.where(np.arange(len(p)) == i, at, p))[i] for at in np.linspace(least[i], 1, 9)]
        assert found[i] == pytest.approx(min(others))
    lost = holm_attainable(np.append(p, np.nan), np.append(least, np.nan))
    np.testing.assert_array_equal(lost, [*found, np.nan])


# --- permutation tests -------------------------------------------------------------------------------------------


def test_a_perfect_correlation_over_five_sizes_has_p_of_one_in_sixty():
    tested = spearman_permutation(np.arange(5.0)[None], np.arange(5.0))
    assert tested.exact
    assert (tested.rho[0], tested.p[0], tested.p_min[0]) == pytest.approx((1.0, 1 / 60, 1 / 60))


@pytest.mark.parametrize("x", [[3.0, 1.0, 4.0, 1.5, 5.0], [1.0, 1.0, 2.0, 3.0, 3.0]])
def test_exact_permutation_equals_enumeration(x):
    y = np.array([2.0, 7.0, 1.0, 8.0, 2.5])
    reference = [abs(stats.spearmanr(x, p).statistic) for p in permutations(y)]
    observed = abs(stats.spearmanr(x, y).statistic)
    tested = spearman_permutation(np.array([x]), y)
    assert abs(tested.rho[0]) == pytest.approx(observed)
    assert tested.p[0] == pytest.approx(np.mean(np.array(reference) >= observed - 1e-12))
    assert tested.p_min[0] == pytest.approx(np.mean(np.array(reference) >= max(reference) - 1e-12))


def test_drawn_permutations_estimate_the_same_p():
    x, y = np.random.default_rng(3).normal(size=(2, 9))
    y = y + 0.9 * x
    tested = spearman_permutation(x[None], y)
    # scipy enumerates the same law through its own statistic: the exact p for nine units.
    ranks = stats.rankdata(y)[np.array(list(permutations(range(9))))]
    size = np.abs((ranks - 5.0) @ (stats.rankdata(x) - 5.0))
    exact = np.mean(size >= abs((stats.rankdata(y) - 5.0) @ (stats.rankdata(x) - 5.0)) - 1e-9)
    assert not tested.exact
    assert tested.p[0] == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 9_999))
    assert tested.p_min[0] == 1e-4


def test_what_does_not_vary_has_no_correlation():
    tested = spearman_permutation(np.ones((1, 5)), np.arange(5.0))
    assert np.isnan([tested.rho[0], tested.p[0], tested.p_min[0]]).all()


@pytest.mark.parametrize("seed", range(3))
def test_trend_equals_enumeration_and_page(seed):
    values = np.random.default_rng(seed).normal(size=(3, 4)) + 0.4 * np.arange(4)
    rho, p, p_min = trend_permutation(values)
    assert rho == pytest.approx(np.mean([stats.spearmanr(row, range(4)).statistic for row in values]))
    page = stats.page_trend_test(values, method="exact")
    mirrored = stats.page_trend_test(-values, method="exact")
    assert p == pytest.approx(min(1.0, 2 * min(page.pvalue, mirrored.pvalue)))
    assert p_min == pytest.approx(2 / 24**3)


@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(1, 4))
def test_blocks_are_permuted_whole(seed, rows, columns):
    """Every order of the rows of y, counted by hand; with one column it is the test of units."""
    x, y = np.random.default_rng(seed).integers(0, 5, size=(2, rows, columns)).astype(float)
    found = block_permutation(x, y)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert math.isnan(found.p[0])
        return
    every = [abs(spearman(x.ravel(), y[list(order)].ravel())) for order in permutations(range(rows))]
    assert found.p[0] == pytest.approx(np.mean(np.array(every) >= every[0] - 1e-9))
    assert found.p_min[0] == pytest.approx(np.mean(np.array(every) >= max(every) - 1e-9))
    if columns == 1:
        assert found.p[0] == pytest.approx(spearman_permutation(x.T, y[:, 0]).p[0])


def test_what_the_cells_of_a_block_share_is_one_observation():
    """Six blocks of three cells, alike within a block: permuted one by one, cells would pass for evidence."""
    rng = np.random.default_rng(3)
    pairs = [3 * rng.normal(size=(2, 6, 1)) + rng.normal(size=(2, 6, 3)) for _ in range(150)]
    p = np.array([block_permutation(x, y).p[0] for x, y in pairs])
    alone = [stats.spearmanr(x.ravel(), y.ravel()).pvalue for x, y in pairs]
    assert (p <= 0.05).mean() < 0.1
    assert (np.array(alone) <= 0.05).mean() > 0.15


def test_trend_with_ties_equals_enumeration():
    values = np.array([[1.0, 1.0, 2.0], [3.0, 1.0, 3.0]])
    columns = np.arange(1, 4)
    law = [
        sum(stats.rankdata(row)[list(order)] @ columns for row, order in zip(values, both, strict=True))
        for both in product(permutations(range(3)), repeat=2)
    ]
    observed = sum(stats.rankdata(row) @ columns for row in values)
    distance = np.abs(np.array(law) - 24.0)
    assert trend_permutation(values)[1] == pytest.approx(np.mean(distance >= abs(observed - 24.0) - 1e-9))


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("columns", [4, 9])
def test_a_seed_that_does_not_vary_follows_no_order(sign, columns):
    """Its rank correlation counts as 0, as its part of Page's statistic does; the others are not lost with it."""
    values = np.vstack([np.tile(sign * np.arange(float(columns)), (3, 1)), np.ones(columns)])
    rho, p, _ = trend_permutation(values)
    assert rho == pytest.approx(0.75 * sign)
    assert p == pytest.approx(trend_permutation(values[:3])[1])
    assert trend_permutation(np.ones((2, columns)))[:2] == (0.0, 1.0)


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03, np.nan])) == pytest.approx(
        [0.03, 0.06, 0.06, np.nan], nan_ok=True
    )


def test_seed_bootstrap_counts_every_resample():
    values = np.array([1.0, 2.0, 6.0])
    means = [np.mean(chosen) for chosen in product(values, repeat=3)]
    low, high = seed_bootstrap(lambda chosen: values[chosen].mean(axis=1), 3)
    assert (low, high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))
    assert np.isnan(seed_bootstrap(lambda chosen: values[chosen].mean(axis=1), 2)).all()


@pytest.mark.parametrize("seeds", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_statistic_without_a_finite_value_is_not_fitted(seeds, value):
    found = seed_jackknife(range(seeds), lambda _: value)
    assert found.status == "not fitted"
    assert math.isnan(found.value)


def test_jackknife_of_a_mean_is_students():
    values = {3: 1.0, 5: 2.0, 9: 6.0}
    found = seed_jackknife(list(values), lambda kept: float(np.mean([values[s] for s in kept])))
    low, high = stats.t.interval(0.95, 2, 3.0, stats.sem([1.0, 2.0, 6.0]))
    assert (found.value, found.low, found.high) == pytest.approx((3.0, low, high))
    assert math.isnan(seed_jackknife([3, 5], lambda kept: 1.0).low)


# --- early prediction --------------------------------------------------------------------------------------------

WINDOWS, FRACTIONS = ("1-10", "10-40"), (0.1, 0.2, 0.5, 1.0)


def families(count, effect, seeds=3, seed=0):
    """α (count, hypotheses, seeds, sizes) and ln D (count, seeds, sizes) of many experiments.

    α has a part of the batch size, a part of the run and a part of the measurement, all of unit variance, and falls
    by `effect` for each standard deviation of the batch size's ln D. Fractions and windows share the first two parts,
    so that the hypotheses of a family are as dependent as in a real one.
    """
    normal = np.random.default_rng(seed).standard_normal
    n, hypotheses = len(SIZES), len(WINDOWS) * len(FRACTIONS)
    truth = normal((count, 1, n))
    log_tokens = 15.0 + truth + 0.1 * normal((count, seeds, n))
    run = 2.0 - effect * truth + normal((count, 1, n)) + normal((count, seeds, n))
    return run[:, None] + normal((count, hypotheses, seeds, n)), log_tokens


def table(alpha, log_tokens):
    """One experiment as a table of `early_exponents`."""
    seeds = len(log_tokens)
    levels = {"window": WINDOWS, "fraction": FRACTIONS, "seed": range(seeds), "batch_size": SIZES}
    index = pd.MultiIndex.from_product(levels.values(), names=list(levels))
    rows = pd.DataFrame({"alpha": alpha.ravel()}, index=index).reset_index()
    rows["tokens"] = np.tile(np.exp(log_tokens).ravel(), len(alpha))
    return rows.assign(stage="a", site="final", target=2.0).sample(frac=1, random_state=0)


def discoveries(count, effect, seed):
    found = [associate(*family) for family in zip(*families(count, effect, seed=seed), strict=True)]
    return np.array([f["p"] for f in found]), np.array([f["q"].min() <= 0.05 for f in found])


@pytest.mark.slow
def test_early_prediction_keeps_its_level_on_a_thousand_null_tables():
    p, found = discoveries(1_000, effect=0.0, seed=0)
    # Five sizes allow few p-values; the largest at or below .05 is what the test can be.
    ranks = np.array([spearman(np.arange(5.0), np.array(order)) for order in permutations(range(5))])
    attainable = max(a for a in ((np.abs(ranks) >= c - 1e-9).mean() for c in np.abs(ranks)) if a <= 0.05)
    assert attainable == pytest.approx(1 / 60)
    for hypothesis in p.T:
        assert binomial((hypothesis <= 0.05).sum(), 1_000, attainable) > 1e-4
    # Where every hypothesis is null, the false-discovery rate is the chance of any discovery.
    assert binomial(found.sum(), 1_000, 0.05, "greater") > 1e-3
    assert found.sum() > 0


def test_early_prediction_finds_a_stated_effect():
    # For one standard deviation of a size's ln D, α falls by so many of what sizes differ by otherwise. Correlation of
    # the means over seeds: −.99, −.95 and −.39. Five sizes are found only if α orders them perfectly.
    strong, fair, weak = (discoveries(300, effect, seed=1)[1].mean() for effect in (10.0, 4.0, 0.5))
    assert strong > 0.6
    assert strong > fair > weak
    assert weak < 0.15


def test_the_table_says_what_the_family_says():
    ((alpha,), (log_tokens,)) = families(1, 2.0)
    found = early_prediction(table(alpha, log_tokens)).sort_values(["window", "fraction"])
    known = associate(alpha, log_tokens)
    for name in ("rho", "low", "high", "p", "p_min", "q"):
        assert found[name].to_numpy() == pytest.approx(known[name])
    means = alpha.mean(axis=1), log_tokens.mean(axis=0)
    assert known["rho"] == pytest.approx([stats.spearmanr(row, means[1]).statistic for row in means[0]])
    # What the batch size alone predicts.
    assert found["rho_size"].to_numpy() == pytest.approx(
        stats.spearmanr(SIZES, log_tokens.mean(axis=0)).statistic
    )
    # The interval over seeds, by plain enumeration.
    draws = [list(d) for d in product(range(3), repeat=3)]
    rho = [stats.spearmanr(alpha[0, d].mean(axis=0), log_tokens[d].mean(axis=0)).statistic for d in draws]
    assert (known["low"][0], known["high"][0]) == pytest.approx(tuple(np.quantile(rho, [0.025, 0.975])))


def test_seeds_do_not_pass_for_batch_sizes():
    """Four copies of one seed are as little evidence as one."""
    ((alpha,), (log_tokens,)) = families(1, 1.0, seeds=1, seed=5)
    one = associate(alpha, log_tokens)
    four = associate(np.repeat(alpha, 4, axis=1), np.repeat(log_tokens, 4, axis=0))
    for name in ("rho", "p", "p_min", "q"):
        assert four[name] == pytest.approx(one[name])
    assert np.isnan(one["low"]).all()


def test_early_prediction_says_what_it_lacks():
    ((alpha,), (log_tokens,)) = families(1, 0.0)
    rows = table(alpha, log_tokens)
    with pytest.raises(MeasureError, match="needs ≥ 3 batch sizes"):
        early_prediction(rows[rows["batch_size"] < 100])
    rows.loc[(rows["fraction"] == 0.1) & (rows["batch_size"] == 32), "alpha"] = np.nan
    found = early_prediction(rows)
    missing = found["fraction"] == 0.1
    assert found.loc[missing, ["rho", "p", "q"]].isna().all(axis=None)
    assert found.loc[~missing, ["rho", "low", "high", "p", "q"]].notna().all(axis=None)
    # The family is smaller by what was not measured.
    known = found[~missing]
    assert known["q"].to_numpy() == pytest.approx(stats.false_discovery_control(known["p"]))


def test_token_inefficiency_by_hand():
    rows = [("a", b, s, d * (1 + 0.1 * s)) for s in range(3) for b, d in ((32, 1e6), (64, 1.5e6), (128, 4e6))]
    found = token_inefficiency(pd.DataFrame(rows, columns=["stage", "batch_size", "seed", "tokens"]))
    assert found["inefficiency"].to_numpy() == pytest.approx([0.0, 0.5, 3.0])
    # A factor that a seed has in common cancels, so there is nothing to be uncertain about.
    assert found["low"].to_numpy() == pytest.approx(found["high"].to_numpy())


# --- D(B) --------------------------------------------------------------------------------------------------------


def costs(b_noise, noise=0.0, seeds=3, seed=0, offset=0.0, power=1.0, sizes=SIZES):
    generator = np.random.default_rng(seed)
    rows = []
    for s in range(seeds):
        shift = offset * generator.standard_normal()
        for size in sizes:
            log = math.log(1e6) + power * math.log1p(size / b_noise) + shift
            rows.append((s, size, math.exp(log + noise * generator.standard_normal())))
    return pd.DataFrame(rows, columns=["seed", "batch_size", "tokens"]).assign(stage="a", target=2.0)


def test_noise_scale_is_recovered_exactly_without_noise():
    row = noise_scale(costs(100.0)).iloc[0]
    assert (row["d_min"], row["b_noise"], row["r2"]) == pytest.approx((1e6, 100.0, 1.0), rel=1e-5)
    assert (row["b_noise_low"], row["b_noise_high"]) == pytest.approx((100.0, 100.0), rel=1e-3)
    assert row["status"] == "ok"


def test_noise_scale_equals_a_general_optimiser():
    logs = np.log(
        costs(200.0, 0.2, seed=4).pivot(index="seed", columns="batch_size", values="tokens").to_numpy()
    )
    sizes = np.array(SIZES, float)

    def residuals(p):
        return (logs - p[1:, None] - np.log1p(sizes / np.exp(p[0]))).ravel()

    reference = optimize.least_squares(residuals, [5.0, 14.0, 14.0, 14.0], xtol=1e-14, ftol=1e-14)
    curve = fit_batch_curve(sizes, logs)
    assert curve.noise_scale == pytest.approx(np.exp(reference.x[0]), rel=1e-5)
    assert curve.rss == pytest.approx(2 * reference.cost, rel=1e-8)


def test_noise_scale_intervals_cover():
    """200 tables: five sizes, three seeds that differ by 20 %, measurement noise of 10 %."""
    trials = 200
    many = [costs(150.0, 0.1, seed=s, offset=0.2).assign(stage=s) for s in range(trials)]
    found = noise_scale(pd.concat(many))
    inside = (found["b_noise_low"] <= 150.0) & (found["b_noise_high"] >= 150.0)
    assert binomial(inside.sum(), trials, 0.95) > 1e-3
    inside = (found["d_min_low"] <= 1e6) & (found["d_min_high"] >= 1e6)
    assert binomial(inside.sum(), trials, 0.95) > 1e-3
    # Where the form is right, its test rejects at its level.
    assert binomial((found["p_form"] <= 0.05).sum(), trials, 0.05) > 1e-3


def test_unbounded_noise_scales_are_said_to_be():
    flat = noise_scale(costs(1e9, 0.05)).iloc[0]
    assert math.isinf(flat["b_noise_high"])
    assert flat["status"] == "flagged"
    steep = noise_scale(costs(0.01, 0.05)).iloc[0]
    assert steep["b_noise_low"] == 0.0
    assert "from below" in steep["reason"]
    assert "from above and from below" in noise_scale(costs(100.0, 3.0, seeds=2)).iloc[0]["reason"]


def test_a_wrong_form_is_noticed():
    assert noise_scale(costs(100.0, 0.05, power=2.5)).iloc[0]["p_form"] < 1e-3


def test_two_sizes_are_refused():
    with pytest.raises(MeasureError, match="needs ≥ 3 batch sizes"):
        noise_scale(costs(100.0, sizes=(32, 64)))
