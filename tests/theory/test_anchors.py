"""Numbers that must come out, from the design of the model and from the published tables."""

import numpy as np
import pytest
from scipy import stats

from theory.claims import flow, select, tail
from theory.claims.batch_tail import RATES, SETTING, TABLE
from theory.fits import fit_batch_curve, profile_interval
from theory.formulas import dynamics, fourier, lms, matrices, optimiser, tying
from theory.simulate import class_means, spiked
from theory.simulate import lms as simulate


def test_h_s_of_noise_is_beta_at_ten_thousand_draws():
    folded = class_means.null_masses(np.random.default_rng(11), 31, np.full(6, 2.0), 10_000)
    law = stats.beta(*fourier.null_beta(31, 6, 4))
    assert stats.kstest(folded[:, 3:7].sum(1), law.cdf).pvalue > 0.01
    assert stats.kstest(folded[:, :3].sum(1), law.cdf).pvalue < 1e-10  # another |S| is another law


def test_power_law_loss_to_one_part_in_a_million():
    a, b, t, n = 1.0, 3.0, 100.0, 2_000_000
    j = np.arange(1, n + 1.0)
    direct = 0.5 * (j**-b * np.exp(-2 * t * j**-a)).sum() + 0.25 * n**-2.0  # the tail beyond n is ½∫j^−3
    assert dynamics.power_law_loss(a, b, t) == pytest.approx(direct, rel=1e-6)


@pytest.mark.parametrize("scaling", TABLE)
def test_table_of_exponents(scaling: str):
    alphas = [SETTING.alpha(RATES[scaling](b), b) for b in (4, 64)]
    assert alphas == pytest.approx(TABLE[scaling], abs=0.006)


def test_stability_boundary_by_monte_carlo_on_either_side():
    lam, batch = np.arange(1, 17.0) ** -0.5, 4
    critical = lms.critical_rate(lam, batch)
    rng = np.random.default_rng(5)
    below = np.log(simulate.growth_rates(rng, lam, 0.96 * critical, batch, 240, 800)[40:]).mean()
    above = np.log(simulate.growth_rates(rng, lam, 1.04 * critical, batch, 240, 800)[40:]).mean()
    assert below < -0.01
    assert above > 0.01


def test_newton_schulz_slope_and_band():
    assert optimiser.newton_schulz_slope() == pytest.approx(484.9, abs=0.05)
    y = optimiser.newton_schulz(np.linspace(0.005, 1, 400_000))
    assert (y.min(), y.max()) == pytest.approx((0.682, 1.154), abs=5e-4)
    assert optimiser.newton_schulz([0.001])[0] == pytest.approx(0.47, abs=0.005)
    # Under .005: above the band down to .0033, within it, and under it below .0015.
    x = np.linspace(0.0005, 0.005, 45_001)
    y = optimiser.newton_schulz(x)
    assert x[y > 1.1544].min() == pytest.approx(0.0033, abs=5e-5)
    assert y.max() == pytest.approx(1.20, abs=0.005)
    assert x[y < 0.682].max() == pytest.approx(0.0015, abs=5e-5)


@pytest.mark.parametrize("c", [97, 179])
def test_task_band_holds_89_percent(c: int):
    k = fourier.bigram_modulus(c, fourier.smallest_step(c))
    assert fourier.power_within(k, 7) == pytest.approx(0.89, abs=0.005)
    assert k[8] < 0.02 * k[1]
    assert (k[1:8] > 0.1 * k[1]).all()


def test_detection_threshold_and_noise_exponents():
    assert matrices.covariance_threshold(0.125) == pytest.approx(1.354, abs=5e-4)
    spectra = spiked.white_spectra(np.random.default_rng(1), 1024, 128, 40)
    head = np.array([dynamics.exponent(s, 10, 40) for s in spectra])
    tail = np.array([dynamics.exponent(s, 50, 128) for s in spectra])
    assert head.mean() == pytest.approx(0.207, abs=0.004)
    assert head.std(ddof=1) == pytest.approx(0.006, abs=0.003)
    assert tail.mean() == pytest.approx(0.914, abs=0.01)


def test_the_claim_on_noise_prints_the_exponents_of_its_quantiles():
    (claim,) = select("T12.null")
    for window in ((10, 40), (50, 128)):
        alpha = f"={matrices.null_exponent(128, 1024, *window):.3f}".replace("0.", ".")
        assert alpha.replace("=", "= ") in claim.statement
        assert alpha in claim.latex


def test_one_strong_direction_of_noise_scatters_less_than_its_effective_dimension_says():
    # Half of the variance in one direction: what the remark of T3.anisotropic says of other spectra.
    eigenvalues = np.array([0.5, *[0.5 / 40] * 40])
    d = fourier.effective_dimension(eigenvalues)
    assert d == pytest.approx(4, abs=0.2)
    for c, less in ((7, 0.12), (31, 0.03)):
        drawn = class_means.null_masses(np.random.default_rng(0), c, np.sqrt(eigenvalues), 20_000)[:, 0]
        law = stats.beta(*fourier.null_beta(c, d, 1))
        assert drawn.mean() == pytest.approx(law.mean(), rel=0.01)
        assert drawn.std() / law.std() == pytest.approx(1 - less, abs=0.02)


def test_null_quantiles_are_those_of_the_marchenko_pastur_law():
    quantiles = matrices.bulk_quantiles(128, 1024)
    for j in (1, 10, 64, 120):
        assert matrices.bulk_mass_above(quantiles[j - 1], 0.125) == pytest.approx((j - 0.5) / 128, abs=1e-6)


def test_spike_position_is_invertible():
    assert matrices.population_for_position(matrices.spike_position(3.0, 0.2), 0.2) == pytest.approx(3.0)
    with pytest.raises(ValueError, match="inside the bulk"):
        matrices.population_for_position(1.0, 0.2)


def test_a_favoured_band_rises_at_the_time_at_which_a_rise_is_looked_for():
    # At the edge of the domain: fastest modes in the band, slowest outside, hardly favoured.
    fast, slow = 3.0, 0.4
    lead = [dynamics.amplitude(1 / rate, rate, flow.FIRST) ** 2 for rate in (fast, slow)]
    assert flow.FAVOURED * lead[0] > lead[1]


def test_hitting_times_of_a_fast_mode_beside_a_slow_one_keep_their_tolerance():
    weights, rates = np.array([1.0, 1.0, 0.01]), np.array([1.0, 1.0, 0.05])
    (claim,) = select("T6.order")
    found, exact = (time(weights, rates, 0.05) for time in (tail._simulated_time, tail._closed_time))
    assert found == pytest.approx(exact, rel=float(np.max(claim.tolerance.relative)))


def test_initial_losses():
    assert tying.zero_head_loss(1024) == pytest.approx(6.9315, abs=5e-5)
    assert tying.tied_initial_loss(128) == pytest.approx(127.75, abs=0.01)


def test_published_tokens_follow_the_batch_law():
    sizes, tokens = np.array([32.0, 128.0, 512.0]), np.array([3.748, 4.424, 8.192])
    logs = np.log(tokens)[None]
    fit = fit_batch_curve(sizes, logs)
    assert fit.minimum == pytest.approx(3.35, rel=0.02)
    assert fit.noise_scale == pytest.approx(355, rel=0.05)
    assert np.abs(tokens / fit.tokens(sizes) - 1).max() <= 0.0301
    low, high = profile_interval(sizes, logs, fit)
    assert low < fit.noise_scale < high
    assert fit.tokens([fit.noise_scale])[0] == pytest.approx(2 * fit.minimum)


def test_fit_recovers_its_own_law_and_refuses_two_points():
    batches = np.array([16, 64, 256, 1024])
    fit = fit_batch_curve(batches, np.log(5 * (1 + batches / 200))[None])
    assert (fit.minimum, fit.noise_scale) == pytest.approx((5, 200), rel=1e-5)
    with pytest.raises(ValueError, match="3 or more"):
        fit_batch_curve([32, 128], [[1.0, 2.0]])
    with pytest.raises(ValueError, match=r"logs \(3,\)"):
        fit_batch_curve([32, 128, 512], [1.0, 1.5, 2.0])
    with pytest.raises(ValueError, match="missed the loss"):
        fit_batch_curve([32, 128, 512], [[1.0, np.nan, 2.0]])
