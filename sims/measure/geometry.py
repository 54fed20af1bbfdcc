"""Describe the geometry of states: α-ReQ, effective ranks by several conventions, and the share of the mean state.

Beside each number stands its mean over Gaussian states of the same number and width.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import betaincinv

from sims.analysis.summaries import Summary
from sims.measure.rows import MeasurementRows
from sims.measure.summarise import null_level, shape_of
from sims.runs.rank_windows import Window, window_name
from spectra import Estimate, Moments, Spectrum, alpha_req, rankme

ACTIVATION = "activation"
# First and last rank of the published α-ReQ; narrow models have the first ranks of `WIDTH_SHARE` of their width.
REQ_WINDOW: Window = (12, 100)
WIDTH_SHARE = 0.8
PUBLISHED, WIDTH = "published", "width"
# The head of a spectrum moves RankMe most; without so many of the first directions it describes the rest.
LEFT_OUT = (1, 8, 32)


def rankme_singular(spectrum: Spectrum) -> float:
    """Return RankMe of the shares of the singular values.

    >>> round(rankme_singular(Spectrum(np.array([4.0, 1.0]))), 4)
    1.8899
    """
    return rankme(spectrum, on="singular")


def rankme_without(spectrum: Spectrum, k: int) -> Estimate:
    """Return RankMe of the energies without the k largest, normalised again.

    Returns:
        Status "not fitted" where fewer than two energies are left: one alone always has RankMe 1.

    >>> rankme_without(Spectrum(np.array([9.0, 1.0, 1.0])), 1).value
    2.0
    """
    rest = spectrum.energies[k:]
    positive = int(np.count_nonzero(spectrum.energies))
    if positive < k + 2:
        return Estimate.not_fitted(
            f"{positive} directions have energy, which leaves fewer than two without {k}"
        )
    return Estimate(rankme(rest))


ALPHA_REQ = Summary("alpha_req", alpha_req, "α-ReQ", "slope of ln λ on ln rank with weights 1/rank")
SINGULAR = Summary("rankme_singular", rankme_singular, "RankMe of σ", "RankMe of σ/Σσ")
UNCENTRED = Summary(
    "rankme_uncentred", rankme, "RankMe uncentred", "RankMe of the second moment, with the mean state"
)
WITHOUT = Summary("rankme_without", rankme_without, "RankMe without the top", "RankMe of all but the first")


def width_window(width: int) -> Window | None:
    """Return the rank window of α-ReQ that fits a width; None where three ranks do not fit.

    >>> width_window(64), width_window(16)
    ((12, 51), None)
    """
    last = math.floor(WIDTH_SHARE * width)
    return (REQ_WINDOW[0], last) if last >= REQ_WINDOW[0] + 2 else None


def mean_share(moments: Moments) -> float:
    """Return the share ‖h̄‖²/E‖h‖² of the mean state h̄ of the second moment; of rows that are not all 0.

    >>> mean_share(Moments().update([[1.0, 1.0], [1.0, -1.0]]))
    0.5
    """
    assert moments.mean is not None
    assert moments.m2 is not None
    middle = float(moments.mean.square().sum())
    return middle / (middle + float(moments.m2.diagonal().sum()) / moments.count)


def geometry_rows(sheet: MeasurementRows, site: str, spectrum: Spectrum, moments: Moments) -> None:
    """Add the geometry of the states at one site.

    Args:
        sheet: where rows are added.
        site: of the states.
        spectrum: of their covariance.
        moments: they come from.
    """
    shape = shape_of(spectrum)
    for detail, window in ((PUBLISHED, REQ_WINDOW), (WIDTH, width_window(shape[1]))):
        if window is None:
            reason = (
                f"a window from rank {REQ_WINDOW[0]} to {WIDTH_SHARE:g} of the width {shape[1]} is too short"
            )
            sheet.row("alpha_req", ACTIVATION, site, Estimate.not_fitted(reason), detail=detail)
        else:
            _row(sheet, site, ALPHA_REQ, spectrum, window, detail=detail, window=window_name(window))
    _row(sheet, site, SINGULAR, spectrum, ())
    for k in LEFT_OUT:
        _row(sheet, site, WITHOUT, spectrum, (k,), detail=f"top {k}")
    n, d, _ = shape
    # ‖h̄‖²/E‖h‖² of n Gaussian states of mean 0 is a Beta variable, whatever their variance: its mean is 1/n.
    high = float(betaincinv(d / 2, (n - 1) * d / 2, 0.975))
    sheet.row("mean_share", ACTIVATION, site, mean_share(moments), null=1 / n, null_high=high)
    _row(sheet, site, UNCENTRED, moments.spectrum(center=False), ())


def _row(
    sheet: MeasurementRows,
    site: str,
    summary: Summary,
    spectrum: Spectrum,
    arguments: tuple[int, ...],
    **which: Any,
) -> None:
    level = null_level(summary, arguments, shape_of(spectrum))
    sheet.row(summary.name, ACTIVATION, site, summary.of(spectrum, *arguments), null=level, **which)
