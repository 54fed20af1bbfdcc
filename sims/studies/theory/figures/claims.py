"""Figures of the theory report: predicted against measured for every claim, and a picture of the law for some."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from sims.pages.style import styled
from spectra.plots import rank_axes
from theory.claims.batch_tail import RATES, SETTING
from theory.claims.detection import WINDOWS
from theory.formulas import dynamics, fourier, lms, matrices, optimiser
from theory.simulate import class_means, features, spiked
from theory.simulate.flows import MatrixProblem, matrix_descent, matrix_muon
from theory.verification import Verdict

BLUE, ORANGE, GREY, GREEN = "#1f5fa8", "#d9731a", "#8a8a8a", "#2f8f5b"
MOST_POINTS = 250


@styled
def agreement(verdict: Verdict) -> Figure:
    """Draw measured against predicted with 1 standard error (left), and error over tolerance by case (right)."""
    # One of these a claim: a layout engine would triple the time of the page.
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.3), layout="none")
    figure.subplots_adjust(left=0.1, right=0.98, bottom=0.16, top=0.9, wspace=0.28)
    if verdict.claim.id == "T3":
        _null_quantiles(verdict, left)
    else:
        _scatter(verdict, left)
    scores = np.array([r.score for r in verdict.results])
    shown = np.clip(np.nan_to_num(scores, nan=1e3, posinf=1e3), 1e-6, 1e3)
    colours = [BLUE if r.passed else "crimson" for r in verdict.results]
    right.scatter(np.arange(1, len(shown) + 1), shown, c=colours, s=14)
    right.axhline(1, color="crimson", lw=1, ls="--")
    right.set(yscale="log", ylim=(5e-7, 3e3), xlabel="case", ylabel="error / tolerance", title="case by case")
    right.minorticks_off()
    return figure


def _scatter(verdict: Verdict, axis: Axes) -> None:
    points = np.concatenate(
        [np.stack([r.predicted, r.measured.value, r.measured.stderr], axis=1) for r in verdict.results]
    )
    # A page must stay small enough to open: every k-th of the points, so that all cases stay represented.
    shown = points[:: max(1, len(points) // MOST_POINTS)]
    axis.plot(shown[:, 0], shown[:, 1], "o", ms=3.2, color=BLUE, alpha=0.6)
    noisy = shown[shown[:, 2] > 0]
    axis.errorbar(noisy[:, 0], noisy[:, 1], yerr=noisy[:, 2], fmt="none", ecolor=GREY, elinewidth=0.8)
    every = points[:, :2][np.isfinite(points[:, :2])]
    # A claim without any number is false, and its page says so.
    low, high = (float(every.min()), float(every.max())) if every.size else (0.0, 1.0)
    if low > 0 and high / low > 50:
        axis.set(xscale="log", yscale="log")
        ends = np.array([low, high])
    else:
        pad = 0.04 * (high - low) or 0.1
        ends = np.array([low - pad, high + pad])
        axis.ticklabel_format(scilimits=(-3, 4))  # longer numbers would leave the margin
    axis.plot(ends, ends, color=ORANGE, lw=1)
    axis.set(xlabel="predicted", ylabel="measured", title="predicted against measured")


def _null_quantiles(verdict: Verdict, axis: Axes) -> None:
    """Draw quantiles of the sampled H_S against those of the predicted law."""
    levels = np.linspace(0.01, 0.99, 25)
    for result in verdict.results:
        draws = result.measured.value.reshape(3, -1)[0]
        axis.plot(
            stats.beta(*result.predicted[:2]).ppf(levels), np.quantile(draws, levels), "o", ms=3, color=BLUE
        )
    axis.plot([0, 1], [0, 1], color=ORANGE, lw=1)
    axis.set(
        xlabel="Beta quantile",
        ylabel="quantile of the draws",
        title="H_S under the null, 10,000 draws a case",
    )


# --- pictures of single laws ------------------------------------------------------------------------------


def _one(width: float = 5.6) -> tuple[Figure, Axes]:
    return plt.subplots(figsize=(width, 3.3), layout="constrained")


@styled
def null_law() -> Figure:
    """Draw the Beta density against drawn H_S at c = 31, d = 4."""
    figure, axis = _one()
    rng = np.random.default_rng(0)
    folded = class_means.null_masses(rng, 31, np.ones(4), 10_000)
    for s, colour in ((1, BLUE), (4, GREEN), (9, ORANGE)):
        a, b = fourier.null_beta(31, 4, s)
        axis.hist(folded[:, :s].sum(1), bins=60, density=True, color=colour, alpha=0.35)
        x = np.linspace(*stats.beta.interval(0.9998, a, b), num=200)
        axis.plot(x, stats.beta.pdf(x, a, b), color=colour, label=f"|S| = {2 * s}")
    axis.set(xlabel="$H_S$ of pure noise (c = 31, d = 4)", ylabel="density")
    axis.legend(frameon=False, loc="upper right")
    return figure


@styled
def h_s_shape() -> Figure:
    """Draw H_S over time with and without a background."""
    figure, axis = _one()
    target, rate = np.ones(8), np.array([3.0, 2.5, *[0.5] * 6])
    inside = np.arange(8) < 2
    times = np.linspace(0.005, 10, 400)
    for b, colour in ((0.0, GREY), (0.02, BLUE), (0.2, ORANGE)):
        h = [dynamics.share(b + dynamics.amplitude(target, rate, t) ** 2, inside) for t in times]
        axis.plot(times, h, color=colour, label=f"background b = {b:g}")
    axis.axhline(dynamics.late_share(target, inside), color="k", lw=0.8, ls=":")
    axis.set(xlabel="time", ylabel="$H_S$", ylim=(0, 1))
    axis.legend(frameon=False, loc="upper right")
    return figure


@styled
def power_law() -> Figure:
    """Draw the loss of a finite and an infinite spectrum against the power law."""
    figure, axis = _one()
    a, b, times = 1.2, 1.6, np.geomspace(0.3, 1e6, 200)
    axis.loglog(times, [dynamics.power_law_loss(a, b, t) for t in times], color=ORANGE, label="T6.law")
    for d, colour in ((128, GREY), (100_000, BLUE)):
        j = np.arange(1, d + 1.0)
        values = [float(dynamics.loss(j**-b, j**-a, [t])[0]) for t in times]
        axis.loglog(times, values, color=colour, ls="--", label=f"{d:,} modes")
    axis.set(xlabel="time", ylabel="loss", ylim=(1e-5, 3), title="a = 1.2, b = 1.6")
    axis.legend(frameon=False, loc="upper right")
    return figure


@styled
def batch_tail() -> Figure:
    """Draw spectra of the learned weights at matched loss, and the stability boundary."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.3), layout="constrained")
    ranks = np.arange(1, SETTING.d + 1)
    for batch, colour in ((4, ORANGE), (16, GREEN), (64, BLUE)):
        steps = SETTING.steps(0.3, batch)
        learned = lms.second_moments(SETTING.spectrum, SETTING.teacher, 0.3, batch, steps)[1]
        alpha = SETTING.alpha(0.3, batch)
        left.loglog(
            ranks, SETTING.spectrum * learned, color=colour, label=rf"B = {batch}, $\alpha$ = {alpha:.2f}"
        )
    left.axvspan(50, 128, color=GREY, alpha=0.15)
    left.set(xlabel="rank", ylabel=r"$\lambda_j\,\mathbf{E}\,\hat w_j^2$", title="loss 0.15, η = .3")
    left.legend(frameon=False)
    batches = np.array([4, 8, 16, 32, 64])
    for scaling, colour in zip(RATES, (ORANGE, GREEN, BLUE), strict=True):
        alphas = [SETTING.alpha(float(RATES[scaling](b)), int(b)) for b in batches]
        right.plot(batches, alphas, "o-", color=colour, label=scaling)
    right.set(
        xscale="log", xlabel="batch size", ylabel=r"$\alpha(50:128)$", title="larger batch: steeper or equal"
    )
    right.set_xticks(batches, [str(b) for b in batches])
    right.minorticks_off()
    right.legend(frameon=False)
    return figure


@styled
def descent_and_muon() -> Figure:
    """Draw amplitudes over time for three curvatures; dots are the matrix simulations."""
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.3), layout="constrained")
    target, rate = np.array([1.0, -0.7, 0.4]), np.array([1.0, 0.25, 0.08])
    problem = MatrixProblem.draw(np.random.default_rng(0), 8, 6, target, rate)
    times = np.linspace(0, 30, 31)
    descent = matrix_descent(problem, times)
    grid, muon = matrix_muon(problem, 1.5, 300)
    for r, colour in enumerate((BLUE, ORANGE, GREEN)):
        exact = [optimiser.descent_amplitude(target, rate, t)[r] for t in times]
        axes[0].plot(times, exact, color=colour, label=rf"$\kappa$ = {rate[r]:g}, $a^*$ = {target[r]:g}")
        axes[0].plot(times[::3], descent[::3, r], "o", ms=4, color=colour)
        axes[1].plot(grid, [optimiser.muon_amplitude(target, t)[r] for t in grid], color=colour)
        axes[1].plot(grid[::20], muon[::20, r], "o", ms=4, color=colour)
    axes[0].set(title="gradient descent", xlabel="time", ylabel="amplitude")
    axes[1].set(title="Muon, exact polar factor", xlabel="time")
    axes[0].legend(frameon=False, loc="center right", bbox_to_anchor=(1.0, 0.68), fontsize=8)
    return figure


@styled
def newton_schulz() -> Figure:
    """Draw the image of a singular value under five iterations."""
    figure, axis = _one()
    x = np.geomspace(1e-5, 1, 2000)
    axis.semilogx(x, optimiser.newton_schulz(x), color=BLUE)
    axis.axhspan(*optimiser.BAND, color=GREEN, alpha=0.15)
    axis.axvline(optimiser.BAND_FROM, color=GREY, ls="--", lw=1)
    axis.semilogx(
        x[x < 2e-3], optimiser.newton_schulz_slope() * x[x < 2e-3], color=ORANGE, ls=":", label="484.9 x"
    )
    axis.set(xlabel="singular value / Frobenius norm", ylabel="after five iterations", ylim=(0, 1.3))
    axis.legend(frameon=False, loc="upper right")
    return figure


@styled
def bigram() -> Figure:
    """Draw |k_r| of the two probe bands."""
    figure, axis = _one()
    for c, colour in ((97, BLUE), (179, ORANGE)):
        k = fourier.bigram_modulus(c, fourier.smallest_step(c))
        share = fourier.power_within(k, 7)
        axis.plot(np.arange(1, 31), k[1:31], "o-", ms=3, color=colour, label=f"c = {c}: {share:.1%} in r ≤ 7")
    axis.axvline(7.5, color=GREY, ls="--", lw=1)
    axis.set(xlabel="r", ylabel="$|k_r|$, step unknown")
    axis.legend(frameon=False, loc="upper right")
    return figure


@styled
def spikes() -> Figure:
    """Draw the largest eigenvalue and the overlap against the strength of the spike."""
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.3), layout="constrained")
    n, d, rng = 800, 100, np.random.default_rng(0)
    strengths, smooth = np.linspace(1, 3, 9), np.linspace(1.001, 3, 300)
    for axis, index, law in ((axes[0], 0, matrices.spike_position), (axes[1], 1, matrices.spike_overlap)):
        axis.plot(smooth, [law(x, d / n) for x in smooth], color=ORANGE)
        axis.axvline(matrices.covariance_threshold(d / n), color=GREY, ls="--", lw=1)
        drawn = [spiked.spiked_covariance(rng, n, d, x, 8)[index] for x in strengths]
        axis.errorbar(
            strengths, [x.mean() for x in drawn], [x.std(ddof=1) for x in drawn], fmt="o", ms=4, color=BLUE
        )
        axis.set(xlabel="population spike ℓ")
    axes[0].set_ylabel("largest sample eigenvalue")
    axes[1].set_ylabel("squared overlap")
    return figure


@styled
def null_spectrum() -> Figure:
    """Draw white noise read as a power law."""
    figure, axis = _one()
    ranks = np.arange(1, 129)
    spectra = spiked.white_spectra(np.random.default_rng(0), 1024, 128, 10)
    axis.plot(ranks, spectra.T, color=BLUE, alpha=0.3, lw=0.8)
    axis.plot(ranks, matrices.bulk_quantiles(128, 1024), color=ORANGE, label="Marchenko–Pastur quantiles")
    for low, high in WINDOWS:
        alpha = matrices.null_exponent(128, 1024, low, high)
        axis.axvspan(low, high, alpha=0.1, color=GREY)
        axis.text((low * high) ** 0.5, 0.45, rf"$\alpha$ = {alpha:.3f}", ha="center")
    rank_axes(axis)
    axis.set_ylabel("eigenvalue of pure noise, γ = .125")
    axis.legend(frameon=False, loc="upper right")
    return figure


@styled
def intercept_direction() -> Figure:
    """Draw RankMe of free features with an entropy floor, with and without a bias on the logits."""
    figure, axis = _one()
    task = features.FeatureTask.zipf(48).with_floor(0.3)
    start, looks = features.iid_start(task, 8, 0.1, range(3)), features.log_looks(3_000, 80)
    plain, biased = (features.descend(task, start, 2.0, looks, bias=bias) for bias in (False, True))
    lines = [
        (plain.ranks["weighted"], ORANGE, "no bias"),
        (biased.ranks["weighted"], BLUE, "bias"),
        (plain.ranks["weighted, uncentred"], GREY, "no bias, mean not removed"),
    ]
    for path, colour, label in lines:
        drawn = axis.plot(looks[1:], path[1:], color=colour)
        drawn[0].set_label(label)
    axis.set(xscale="log", xlabel="step", ylabel="RankMe of the features, three starts")
    axis.legend(frameon=False)
    return figure


PICTURES: dict[str, Callable[[], Figure]] = {
    "T3": null_law,
    "T5.shape": h_s_shape,
    "T6.law": power_law,
    "T8.order": batch_tail,
    "T9": descent_and_muon,
    "T9.newton": newton_schulz,
    "T11.band": bigram,
    "T12.spike": spikes,
    "T12.null": null_spectrum,
    "T15": intercept_direction,
}
