"""Draw spectra and estimates with matplotlib, which is imported when something is drawn.

Lines take the colours of the axes, text that of the style, and nulls are grey: figures work on light and dark ground.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from spectra.arrays import brief, choice, real, to_float64
from spectra.errors import InputError
from spectra.exponents import window_exponent
from spectra.nulls.noise import noise_quantiles
from spectra.results import Estimate
from spectra.spectrum import Kind, Spectrum
from spectra.windows import check_window

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.legend import Legend

Scale = Literal["energy", "share"]
Window: TypeAlias = tuple[int, int]


class Law(Protocol):
    """Describe a null law: it has quantiles."""

    def quantile(self, q: ArrayLike) -> np.ndarray:
        """Return the quantiles at levels q."""
        ...


Null: TypeAlias = float | tuple[float, float] | Estimate | Law

# The middle 95 % of a null, on light and on dark ground.
MIDDLE = (0.025, 0.975)
NULL_STYLE: Mapping[str, Any] = {"color": "0.5", "alpha": 0.45, "linewidth": 0}
# Spectra of up to this many values show each of them.
MARKED = 40
# A rank axis that ends before this one has a number at each rank.
FEW_RANKS = 6
# Panels narrower than this, in inches, have smaller letters in their legend.
NARROW = 3.0


def plot_spectrum(
    spectrum: Spectrum,
    ax: Axes | None = None,
    *,
    null: bool = True,
    window: Window | Sequence[Window] | None = None,
    fit: Estimate | None = None,
    scale: Scale = "energy",
    label: str | None = None,
    color: str | None = None,
) -> Axes:
    """Draw the energies of a spectrum by rank, with their null and fitted lines.

    `Spectrum.plot` describes the arguments and errors.

    >>> plot_spectrum(Spectrum([4.0, 2.0, 1.0]), scale="share").get_ylabel()
    'share of energy'
    """
    choice(scale, "scale", ("energy", "share"))
    windows = _windows(window)
    if fit is not None and (len(windows) != 1 or not isinstance(fit, Estimate)):
        raise InputError("fit is one Estimate in one window; pass window=(lo, hi) with it")
    total = 1.0 if scale == "share" else spectrum.trace
    energies = spectrum.shares if scale == "share" else spectrum.energies
    ax = ax or new_axes()
    marks = {"marker": ".", "markersize": 5} if len(energies) <= MARKED else {}
    draw_energies(ax, energies, label=_named(spectrum, label), color=color, **marks)
    if null:
        _draw_null(ax, spectrum, total)
    for lo, hi in windows:
        _draw_fit(ax, spectrum, energies, lo, hi, fit)
    rank_axes(ax)
    _label_energies(ax, scale, spectrum.kind)
    if len(energies) == 1 and len(ax.lines) == 1 + null:
        ax.set_xlim(0.5, 2)
    _legend_below(ax)
    return ax


def plot_estimates(
    estimates: Mapping[str, Estimate], ax: Axes | None = None, *, null: Null | None = None
) -> Axes:
    """Draw estimates with their intervals, one row each, below the rows that the axes have.

    Args:
        estimates: by name of the row.
        ax, null: as in `Estimate.plot`.

    Raises:
        InputError: a null that is none of these.
        ImportError: without matplotlib.

    >>> ax = plot_estimates({"α": Estimate(1.2, 1.0, 1.4), "β": Estimate.not_fitted("too few values")})
    >>> len(ax.get_yticks())
    2
    """
    low, high = (math.nan, math.nan) if null is None else _middle(null)
    ax = ax or new_axes()
    names = [tick.get_text() for tick in ax.get_yticklabels()] if ax.containers else []
    first = len(names)
    for row, estimate in enumerate(estimates.values(), start=first):
        _draw_estimate(ax, row, estimate)
        if null is not None:
            _draw_row_null(ax, row, low, high)
    names += [f"{name}\n{estimate:.4g}" for name, estimate in estimates.items()]
    ax.set_yticks(range(len(names)), names, fontsize="x-small" if _narrow(ax) else "small")
    explained = bool(ax.get_legend_handles_labels()[1])
    # The legend lies below the last row.
    ax.set_ylim(len(names) - (0 if explained else 0.5), -0.5)
    if explained:
        _legend(ax, "lower right")
    return ax


def new_axes() -> Axes:
    """Return the axes of a new figure.

    Raises:
        ImportError: without matplotlib.

    >>> new_axes().get_title()
    ''
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("plots need matplotlib, which is missing; pip install matplotlib") from error
    return plt.subplots(layout="constrained")[1]


def draw_energies(ax: Axes, energies: ArrayLike, **style: Any) -> None:
    """Draw energies, or shares of them, at their ranks 1, 2, …; zeros have no place on logarithmic axes.

    Args:
        ax: where to draw.
        energies: (r,) descending.
        style: of `Axes.plot`.

    >>> ax = new_axes()
    >>> draw_energies(ax, [2.0, 1.0, 0.0])
    >>> ax.lines[0].get_xdata()
    array([1., 2.])
    """
    ax.plot(*ranked(energies).T, **style)


def draw_band(ax: Axes, low: ArrayLike, high: ArrayLike, *, label: str | None = None) -> None:
    """Draw the quantiles of a null spectrum as a grey band.

    Args:
        ax: where to draw.
        low, high: (r,) lower and upper quantile at each rank.
        label: name in the legend.

    >>> ax = new_axes()
    >>> draw_band(ax, [2.0, 0.5], [3.0, 1.0], label="95 % of noise")
    >>> len(ax.collections)
    1
    """
    lower, upper = (to_float64(x, name="quantiles", ndim=1) for x in (low, high))
    kept = np.flatnonzero(lower > 0)
    ax.fill_between(kept + 1, lower[kept], upper[kept], zorder=0, label=label, **NULL_STYLE)
    # Long spectra vary by less than a line is wide.
    ax.plot(
        kept + 1, np.sqrt(lower[kept]) * np.sqrt(upper[kept]), color="0.5", alpha=0.6, linewidth=0.8, zorder=0
    )


def rank_axes(ax: Axes) -> None:
    """Make both axes logarithmic, the lower one with plain ranks.

    >>> ax = new_axes()
    >>> rank_axes(ax)
    >>> ax.get_xlabel(), ax.get_yscale()
    ('rank', 'log')
    """
    ax.set(xscale="log", yscale="log", xlabel="rank")
    ax.xaxis.set_major_formatter("{x:g}")
    # Of few ranks 1 would be the only number.
    ax.xaxis.set_minor_formatter("{x:g}" if 1 < ax.dataLim.x1 < FEW_RANKS else "")


def ranked(energies: ArrayLike) -> np.ndarray:
    """Return the (k, 2) points rank, energy of the energies that are not 0.

    >>> ranked([2.0, 1.0, 0.0]).tolist()
    [[1.0, 2.0], [2.0, 1.0]]
    """
    values = to_float64(energies, name="energies", ndim=1)
    ranks = np.flatnonzero(values > 0)
    return np.column_stack([ranks + 1, values[ranks]])


def _label_energies(ax: Axes, scale: Scale, kind: Kind) -> None:
    label = (
        "share of energy"
        if scale == "share"
        else f"energy {'λ' if kind == 'eigenvalue' else 'σ²'} (data units²)"
    )
    if ax.get_ylabel() not in ("", label):
        label = "energy (data units²)"
    ax.set_ylabel(label)
    if _narrow(ax):
        ax.tick_params(which="both", labelsize="x-small")


def _named(spectrum: Spectrum, label: str | None) -> str:
    if label is None:
        label = ", ".join(f"{name} = {size}" for name, size in (("n", spectrum.n), ("d", spectrum.d)) if size)
    zeros = len(spectrum) - int(np.count_nonzero(spectrum.shares))
    label = label or f"{len(spectrum)} values"
    return f"{label} ({zeros} of {len(spectrum)} are 0)" if zeros else label


def _windows(window: Window | Sequence[Window] | None) -> list[Window]:
    """Return none, one or several windows as a list of checked pairs."""
    if window is None:
        return []
    given: Any = window
    try:
        pairs = given if all(np.ndim(part) for part in given) else [given]
        return [check_window(lo, hi) for lo, hi in pairs]
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"window is {brief(window)}; pass two ranks (lo, hi), or a list of such pairs"
        ) from None


def _draw_null(ax: Axes, spectrum: Spectrum, total: float) -> None:
    ranks = min(len(spectrum), spectrum.max_rank)
    missing = [name for name in ("n", "d") if getattr(spectrum, name) is None]
    if missing or ranks == 1:
        why = f"{' and '.join(missing)} unknown" if missing else "one rank"
        ax.plot([], [], linestyle="none", label=f"no null: {why}")
        return
    assert spectrum.n is not None
    assert spectrum.d is not None
    bounds = noise_quantiles(spectrum.n, spectrum.d, MIDDLE, centred=bool(spectrum.centred), ranks=ranks)
    low, high = bounds * total
    draw_band(ax, low, high, label=_once(ax, "95 % of noise"))


def _draw_fit(
    ax: Axes, spectrum: Spectrum, energies: np.ndarray, lo: int, hi: int, fit: Estimate | None
) -> None:
    """Draw a window and the line of its exponent through the middle of its points."""
    found = window_exponent(spectrum, lo, hi) if fit is None else fit
    label = f"ranks {lo}–{hi}: " + (f"α = {found:.2f}" if math.isfinite(found.value) else found.status)
    if found.reason and not _narrow(ax):
        # The first words of a reason name it.
        label += "\n" + textwrap.fill(found.reason.split(":")[0].split(";")[0], 34)
    ax.axvspan(lo, hi, color="0.5", alpha=0.1, linewidth=0, zorder=0)
    inside = energies[lo - 1 : hi]
    if not math.isfinite(found.value) or len(inside) < hi - lo + 1 or not inside.all():
        ax.plot([], [], linestyle="none", label=label)
        return
    ranks = np.log(np.arange(lo, hi + 1))
    line = np.exp(np.log(inside).mean() - found.value * (ranks - ranks.mean()))
    style = {"linestyle": "dashed", "linewidth": 1.2, "color": _text_colour()}
    ax.plot(np.exp(ranks), line, label=label, **style)


def _draw_estimate(ax: Axes, row: int, estimate: Estimate) -> None:
    value, low, high = estimate.value, estimate.low, estimate.high
    if not math.isfinite(value):
        ax.errorbar([], [])
        if not _narrow(ax):
            reason = textwrap.shorten(estimate.reason or f"{value:g}", 80, placeholder=" …")
            place = {"xycoords": ax.get_yaxis_transform(), "ha": "center", "va": "center"}
            ax.annotate(textwrap.fill(reason, 40), (0.5, row), fontsize="small", **place)
        return
    # A bound that is infinite, or none, has no length; the label of the row says which.
    reach = [value - low, high - value] if estimate.has_interval else [0.0, 0.0]
    lengths = np.array([[max(length, 0.0) if math.isfinite(length) else 0.0] for length in reach])
    bar = {"xerr": lengths, "capsize": 3} if estimate.has_interval else {}
    ax.errorbar([value], [row], fmt="o", color="C0", fillstyle="full" if estimate.ok else "none", **bar)


def _draw_row_null(ax: Axes, row: int, low: float, high: float) -> None:
    # Each row has a null of its own.
    label = _once(ax, "noise" if low == high else "95 % of noise")
    ends = [row - 0.35, row + 0.35]
    if low == high:
        ax.plot([low, low], ends, color="0.5", linewidth=1.6, zorder=0, label=label)
    else:
        ax.fill_betweenx(ends, low, high, zorder=0, label=label, **NULL_STYLE)


def _middle(null: Null) -> tuple[float, float]:
    """Return the interval of a null, twice its value where it is a number."""
    if isinstance(null, tuple):
        if len(null) != 2:
            raise InputError(f"null has {len(null)} numbers; pass one, (low, high), or a law with quantile")
        low, high = (real(bound, "null") for bound in null)
    elif isinstance(null, Estimate):
        low, high = (null.low, null.high) if null.has_interval else (null.value, null.value)
    elif hasattr(null, "quantile"):
        low, high = (float(bound) for bound in null.quantile(MIDDLE))  # pyright: ignore[reportAttributeAccessIssue]
    else:
        low = high = real(null, "null")
    if not low <= high:
        raise InputError(f"null is {low:g} to {high:g}; give the lower end first, and no NaN")
    return low, high


def _legend(ax: Axes, place: Literal["lower left", "lower right"] = "lower left") -> Legend:
    size = "x-small" if _narrow(ax) else "small"
    return ax.legend(fontsize=size, loc=place, borderaxespad=0.2, borderpad=0.2, frameon=False)


def _once(ax: Axes, label: str) -> str:
    """Return a label, or none where the axes have it already."""
    return "" if label in ax.get_legend_handles_labels()[1] else label


def _narrow(ax: Axes) -> bool:
    return ax.bbox.width / ax.figure.dpi < NARROW


def _legend_below(ax: Axes) -> None:
    """Put the legend into the lower left corner, and move the lower limit down until no line crosses it."""
    box = _legend(ax).get_window_extent()
    if not ax.get_autoscaley_on():
        # The caller has chosen the limits.
        return
    # Labels of the axes take room when the figure is laid out.
    width, height = 1.25 * box.width / ax.bbox.width, min(1.25 * box.height / ax.bbox.height, 0.75)
    left, right = np.log(ax.get_xlim())
    bottom, top = np.log(ax.get_ylim())
    above = [bottom + height * (top - bottom)]
    for line in ax.lines:
        x, y = (np.asarray(data, float) for data in (line.get_xdata(), line.get_ydata()))
        near = (x > 0) & (y > 0) & (x < np.exp(left + width * (right - left)))
        above += np.log(y[near]).tolist()
    lowest = float(np.exp((min(above) - height * top) / (1 - height)))
    ax.set_ylim(bottom=max(lowest, np.finfo(float).tiny), auto=True)


def _text_colour() -> str:
    import matplotlib as mpl

    return mpl.rcParams["text.color"]
