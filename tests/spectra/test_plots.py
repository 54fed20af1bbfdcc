"""Drawings of spectra and estimates: what they show, and that neither the size nor the ground hides it."""

import subprocess
import sys
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from spectra import (
    BetaNull,
    Estimate,
    InputError,
    Spectrum,
    covariance_spectrum,
    noise_exponent,
    noise_quantiles,
    weight_spectrum,
    window_exponent,
)
from spectra.plots import plot_estimates, rank_axes

RNG = np.random.default_rng(0)
DATA = RNG.standard_normal((600, 128)) * np.arange(1, 129) ** -0.6
SPECTRUM = covariance_spectrum(DATA)
LOW_RANK = weight_spectrum(RNG.standard_normal((60, 40)) @ np.diag(np.r_[np.ones(30), np.zeros(10)]))


@pytest.fixture(autouse=True)
def _closed():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    plt.close("all")


def extent(collection):
    x = np.concatenate([path.vertices[:, 0] for path in collection.get_paths()])
    return x.min(), x.max()


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_import_of_the_package_and_of_the_plots_loads_no_matplotlib():
    code = "import sys, spectra, spectra.plots; print({'matplotlib', 'pandas'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("n", "d", "centred"), [(40, 12, True), (12, 40, True), (12, 12, False), (2, 5, True)]
)
def test_noise_has_the_law_of_drawn_matrices(n, d, centred):
    def shares(rng):
        values = covariance_spectrum(rng.standard_normal((n, d)), center=centred).energies
        return (values / values.sum())[: min(n - centred, d)]

    rng = np.random.default_rng(1)
    drawn = np.array([shares(rng) for _ in range(400)])
    middle = noise_quantiles(n, d, 0.5, centred=centred)
    # 1000 and 400 draws: the medians agree within six standard errors of a median.
    error = 1.25 * drawn.std(axis=0) * np.sqrt(1 / 1000 + 1 / 400)
    assert np.all(np.abs(middle - np.median(drawn, axis=0)) <= 6 * error + 1e-12)
    low, high = noise_quantiles(n, d, centred=centred)
    inside = np.mean((drawn >= low - 1e-12) & (drawn <= high + 1e-12), axis=0)
    assert np.all(inside >= 0.91)


def test_noise_quantiles_of_the_largest_ranks_and_of_any_length():
    two = noise_quantiles(100, 20, ranks=2)
    assert two.shape == (2, 2)
    np.testing.assert_allclose(noise_quantiles(10**9, 3, 0.5), 1 / 3, rtol=1e-3)
    assert (noise_quantiles(1, 7, 0.5) == 1).all()
    for arguments in ((0, 3), (3, 0), (2.5, 3)):
        with pytest.raises(InputError):
            noise_quantiles(*arguments)
    with pytest.raises(InputError, match="two rows"):
        noise_quantiles(1, 3, centred=True)
    with pytest.raises(InputError, match="ranks"):
        noise_quantiles(5, 3, ranks=4)
    with pytest.raises(InputError, match="quantile levels"):
        noise_quantiles(5, 3, 1.5)


@pytest.mark.parametrize("scale", ["energy", "share"])
def test_a_plot_shows_the_energies_their_null_and_the_fitted_line(scale):
    ax = SPECTRUM.plot(window=(10, 40), scale=scale)
    total = SPECTRUM.trace if scale == "energy" else 1.0
    line, middle, fitted = ax.lines
    np.testing.assert_allclose(line.get_ydata(), SPECTRUM.shares * total)
    low, high = noise_quantiles(600, 128, centred=True) * total
    np.testing.assert_allclose(middle.get_ydata(), np.sqrt(low * high))
    exponent = window_exponent(SPECTRUM, 10, 40)
    x, y = np.log(fitted.get_xdata()), np.log(fitted.get_ydata())
    np.testing.assert_allclose(np.diff(y) / np.diff(x), -exponent.value)
    assert y.mean() == pytest.approx(np.log(SPECTRUM.shares[9:40] * total).mean())
    assert legend(ax) == ["n = 600, d = 128", "95 % of noise", f"ranks 10–40: α = {exponent.value:.2f}"]
    assert (ax.get_xscale(), ax.get_yscale(), ax.get_xlabel()) == ("log", "log", "rank")


def test_the_legend_says_what_is_missing():
    unknown = Spectrum([4.0, 2.0, 1.0], n=10)
    assert legend(unknown.plot())[1] == "no null: d unknown"
    assert legend(Spectrum([4.0, 2.0]).plot())[1] == "no null: n and d unknown"
    assert legend(Spectrum([4.0], n=3, d=9).plot())[1] == "no null: one rank"
    assert legend(unknown.plot(null=False)) == ["n = 10"]
    ax = LOW_RANK.plot(window=(20, 35), label="fc")
    assert legend(ax)[0] == "fc (10 of 40 are 0)"
    assert legend(ax)[2].startswith("ranks 20–35: not fitted\nthe energy at rank 31")
    assert len(ax.lines[0].get_xdata()) == 30
    assert ax.get_ylabel() == "energy σ² (data units²)"
    short = covariance_spectrum(DATA[:100]).plot(window=[(10, 40), (50, 90)])
    assert "(flagged)\nfinite-sample bias dominates" in legend(short)[3]
    fitted = SPECTRUM.plot(window=(10, 40), fit=Estimate(1.2, 1.0, 1.4))
    assert legend(fitted)[2] == "ranks 10–40: α = 1.20 [1.00, 1.40]"


def test_extreme_and_truncated_spectra():
    huge = Spectrum([1e200, 1e199], "singular", n=5, d=2)
    with pytest.raises(InputError, match="float64 cannot hold its energy"):
        huge.plot()
    assert len(huge.plot(scale="share").lines) == 2
    # The first ten of forty values: the null is that of the first ten.
    ax = Spectrum(SPECTRUM.values[:10], n=600, d=128, centred=True).plot(scale="share")
    low, high = noise_quantiles(600, 128, centred=True, ranks=10)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), np.sqrt(low * high))
    tiny = Spectrum([1e-300, 1e-308], n=5, d=2).plot()
    assert tiny.get_ylim()[0] > 0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"window": (10, 11)}, "fewer than three"),
        ({"window": (0, 5)}, "1-based"),
        ({"window": 10}, "window"),
        ({"window": (1, 2, 3)}, "window"),
        ({"fit": Estimate(1.0)}, "window=.lo, hi."),
        ({"fit": 1.0, "window": (10, 40)}, "one Estimate"),
        ({"scale": "log"}, "scale"),
    ],
)
def test_bad_arguments_are_refused_before_a_figure_is_made(options, match):
    with pytest.raises(InputError, match=match):
        SPECTRUM.plot(**options)
    assert plt.get_fignums() == []


def test_several_spectra_share_axes():
    _, ax = plt.subplots()
    assert SPECTRUM.plot(ax, label="activations") is ax
    LOW_RANK.plot(ax, label="weights", null=False)
    bottom, top = ax.get_ylim()
    for line in ax.lines:
        assert np.all((line.get_ydata() > bottom) & (line.get_ydata() < top))
    assert ax.lines[0].get_color() != ax.lines[2].get_color()
    assert ax.get_ylabel() == "energy (data units²)"
    # Limits that the caller chose stay.
    ax.set_ylim(1e-3, 1e3)
    SPECTRUM.plot(ax)
    assert ax.get_ylim() == (1e-3, 1e3)


@pytest.mark.parametrize("size", [(6, 4), (3, 2)])
@pytest.mark.parametrize("window", [None, (10, 40), [(10, 40), (50, 120)]])
@pytest.mark.parametrize("rows", [600, 100])
def test_the_legend_covers_no_line(size, window, rows):
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    covariance_spectrum(DATA[:rows]).plot(ax, window=window)
    figure.canvas.draw()
    box = ax.get_legend().get_window_extent()
    assert box.width <= ax.bbox.width
    for line in ax.lines:
        if len(line.get_xdata()):
            points = ax.transData.transform(np.column_stack([line.get_xdata(), line.get_ydata()]))
            assert not np.any(box.contains(*points.mean(axis=0)))
            assert not any(box.contains(*point) for point in points)


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_everything_is_seen_on_light_and_dark_ground(style):
    with plt.style.context(style):
        ax = SPECTRUM.plot(window=(10, 40))
        estimate = Estimate(1.2, 1.0, 1.4).plot(null=0.5)
        ground = np.array(to_rgb(ax.get_facecolor()))
        drawn = [*(line.get_color() for line in [*ax.lines, *estimate.lines]), ax.xaxis.label.get_color()]
        assert all(np.abs(np.array(to_rgb(colour)) - ground).max() > 0.4 for colour in drawn)


def test_rows_of_estimates_follow_each_other():
    ax = Estimate(1.2, 1.0, 1.4).plot(label="α", null=(0.1, 0.3))
    again = plot_estimates(
        {
            "β": Estimate(1.5, 1.1, np.inf, status="flagged", reason="bias"),
            "γ": Estimate.not_fitted("too few values"),
            "gap": Estimate(np.inf),
        },
        ax,
    )
    assert again is ax
    assert [text.get_text().splitlines() for text in ax.get_yticklabels()] == [
        ["α", "1.2 [1, 1.4]"],
        ["β", "1.5 [1.1, inf] (flagged)"],
        ["γ", "not fitted"],
        ["gap", "inf"],
    ]
    assert [text.get_text() for text in ax.texts] == ["too few values", "inf"]
    points = [container.lines[0] for container in ax.containers if len(container.lines[0].get_xdata())]
    assert [point.get_fillstyle() for point in points] == ["full", "none"]
    assert ax.yaxis_inverted()
    assert legend(ax) == ["95 % of noise"]


def test_nulls_of_an_estimate_are_numbers_intervals_or_laws():
    law = BetaNull(2.0, 6.0)
    drawn = Estimate(0.9).plot(null=law)
    low, high = law.quantile([0.025, 0.975])
    assert extent(drawn.collections[-1]) == pytest.approx((low, high))
    assert Estimate(0.9).plot(null=0.2).lines[-1].get_xdata().tolist() == [0.2, 0.2]
    noise = noise_exponent(64, 8, 1, 8)
    assert extent(Estimate(0.9).plot(null=noise).collections[-1]) == pytest.approx((noise.low, noise.high))
    assert Estimate(0.9).plot(null=Estimate(0.3)).lines[-1].get_xdata().tolist() == [0.3, 0.3]
    for odd in ((0.3, 0.1), (1.0, 2.0, 3.0), float("nan"), "noise", Estimate.not_fitted("few")):
        with pytest.raises(InputError, match="null"):
            Estimate(0.9).plot(null=odd)


def test_without_matplotlib_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    for show in (SPECTRUM.plot, Estimate(1.0).plot):
        with pytest.raises(ImportError, match="pip install matplotlib"):
            show()
    monkeypatch.setitem(sys.modules, "pandas", None)
    for tabulate in (SPECTRUM.to_frame, Estimate(1.0).to_frame):
        with pytest.raises(ImportError, match="pip install pandas"):
            tabulate()


def test_rank_axes_write_plain_ranks():
    figure, ax = plt.subplots()
    ax.plot([1, 1000], [1, 2])
    rank_axes(ax)
    figure.canvas.draw()
    assert {"1", "10", "100", "1000"} <= {text.get_text() for text in ax.get_xticklabels()}
