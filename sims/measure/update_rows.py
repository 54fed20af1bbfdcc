"""Rows and spectra of one window of updates: its edge, what shapes it, and the levels that noise alone gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from sims.measure.rows import MeasurementRows
from spectra import Estimate, SpectralEdge, WindowEdges, WindowGram, spectral_edge, window_edges
from spectra.errors import InputError
from spectra.nulls.edge import EFFECTIVE_DIMENSIONS, EdgeNull, find_edges, null_values

# The object of rows and spectra, and whether updates were divided by their norms first.
FORMS = (("update", False), ("normalised_update", True))
UNKNOWN = (
    "the momentum of the optimiser is not known, is not that of a moving average (Nesterov's), or differs between the "
    "parameters, and the null depends on it"
)
Judged = Callable[..., Estimate]


def window_rows(
    sheet: MeasurementRows,
    site: str,
    own: WindowGram,
    wider: WindowGram,
    *,
    momentum: float | None,
    stride: int,
    draws: int,
) -> None:
    """Add the rows and spectra of one window, raw and with updates of unit length.

    Args:
        sheet: gets them, with the number of updates in the column ``window``.
        site: the group of parameters.
        own: inner products of the W updates.
        wider: the same with one earlier update, from which the direction changed; as `own` where there is none.
        momentum: β of the optimiser; None where it is not known.
        stride: training steps of an update.
        draws: simulated windows of each null; 0 leaves out their rows.
    """
    for object_, normalised in FORMS:
        _form_rows(
            _Sheet(sheet, object_, site, len(own.gram)), own, wider, normalised, momentum, stride, draws
        )


class _Sheet:
    """Add rows of one object, site and window."""

    def __init__(self, sheet: MeasurementRows, object_: str, site: str, window: int) -> None:
        self.sheet, self.object_, self.site, self.window = sheet, object_, site, window

    def row(self, quantity: str, value: float | Estimate, null: float = math.nan) -> None:
        self.sheet.row(quantity, self.object_, self.site, value, null=null, window=str(self.window))

    def rows(self, values: dict[str, float | Estimate]) -> None:
        for quantity, value in values.items():
            self.row(quantity, value)


def _form_rows(
    sheet: _Sheet,
    own: WindowGram,
    wider: WindowGram,
    normalised: bool,
    momentum: float | None,
    stride: int,
    draws: int,
) -> None:
    try:
        edge = spectral_edge(own, momentum=momentum or 0.0, stride=stride, row_normalised=normalised)
        edges = _edges(own, wider, normalised)
    except InputError:
        sheet.row("edge_k", Estimate.not_fitted("the parameters did not move"))
        return
    sheet.sheet.spectrum(sheet.object_, sheet.site, edge.spectrum)

    def judged(value: float, low: float = math.nan, high: float = math.nan) -> Estimate:
        """Return a number with the doubts about its window; a ratio to σ = 0 has no value."""
        if not math.isfinite(value):
            return Estimate.not_fitted(
                f"the updates have rank {int(edges.rank[-1])}: no value follows the edge"
            )
        return Estimate(value, low, high, edge.status, edge.reason)

    _edge_rows(sheet, edge, momentum is not None, judged)
    _shape_rows(sheet, edges, judged)
    for null, arguments in _nulls(edges, normalised, momentum, stride) if draws else ():
        _null_rows(sheet, null, arguments, edges, own.size, draws, judged)
    if not normalised:
        sheet.rows(
            {
                "update_norm": float(edges.norms[-1].mean()),
                "cosine_successive": judged(edges.correlations[-1, 0]),
                "mean_cosine": judged(edges.mean_cosine[-1]),
            }
        )


def _edges(own: WindowGram, wider: WindowGram, normalised: bool) -> WindowEdges:
    """Return the edges of the last window, and of the one before where it has one."""
    window = len(own.gram)
    try:
        return window_edges(wider.gram, window, row_normalised=normalised)
    except InputError:
        # All updates of the window before are zero.
        return window_edges(own.gram, window, row_normalised=normalised)


def _edge_rows(sheet: _Sheet, edge: SpectralEdge, known: bool, judged: Judged) -> None:
    """Add k* and the gap among all ratios, beside those of momentum alone.

    The share of noise with this k* and gap is a p-value of one k*, and no test of an edge.
    """
    null_k, null_gap = (edge.null_k, edge.null_gap) if known else (math.nan, math.nan)
    sheet.row("edge_k", judged(edge.k), null=null_k)
    sheet.row("edge_gap", judged(edge.gap), null=null_gap)
    sheet.row("edge_p", judged(edge.p_value) if known else Estimate.not_fitted(UNKNOWN))


def _shape_rows(sheet: _Sheet, edges: WindowEdges, judged: Judged) -> None:
    k, gap = edges.edges(_half(edges))
    k_weighted, gap_weighted = edges.weighted_edges
    ratios = {f"r{j + 1}{j + 2}": judged(edges.ratios[-1, j]) for j in range(min(3, edges.window - 1))}
    turned = len(edges.turns) > 0
    turn = Estimate.not_fitted("no window precedes this one")
    if turned and np.isnan(edges.turns[-1]):
        turn = Estimate.not_fitted("σ₁ and σ₂ are equal: none of the directions is the first")
    elif turned:
        turn = judged(edges.turns[-1])
    sheet.rows(
        {
            "edge_k_half": judged(k[-1]),
            "edge_gap_half": judged(gap[-1]),
            "edge_k_weighted": judged(k_weighted[-1]),
            "edge_gap_weighted": judged(gap_weighted[-1]),
            **ratios,
            **({"g23": judged(edges.g23[-1])} if edges.window >= 3 else {}),
            "pc1": judged(edges.pc1[-1]),
            "k95": judged(edges.k95[-1]),
            "drift": judged(edges.drift[-1]),
            "direction_change": turn,
        }
    )


def _half(edges: WindowEdges) -> int:
    return max(1, edges.window // 2)


def _nulls(
    edges: WindowEdges, normalised: bool, momentum: float | None, stride: int
) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Yield the names of the three nulls, and their arguments; None where the momentum is not known.

    Without lengths of their own, updates of unit length have the same null with and without their norms.
    """
    norms = edges.norms[-1]
    moving = {"momentum": momentum, "stride": stride}
    for null, lengths in (("momentum", norms if normalised else None), ("norms", norms)):
        yield null, None if momentum is None else {**moving, "norms": lengths}
    yield "correlations", {"norms": norms, "correlations": edges.correlations[-1]}


def _null_rows(
    sheet: _Sheet,
    null: str,
    arguments: dict[str, Any] | None,
    edges: WindowEdges,
    size: int,
    draws: int,
    judged: Judged,
) -> None:
    """Add the largest p-value over the numbers of noise directions, with its range, and the most frequent k*."""
    names = [(f"p_{null}{end}", f"null_k_{null}{end}") for end in ("", "_half")]
    if arguments is None:
        for pair in names:
            sheet.rows(dict.fromkeys(pair, Estimate.not_fitted(UNKNOWN)))
        return
    dimensions = sorted({float(min(dimension, size)) for dimension in EFFECTIVE_DIMENSIONS})
    simulated = [null_values(edges.window, d, draws=draws, **arguments) for d in dimensions]
    for (p_name, k_name), most in zip(names, (edges.window - 1, _half(edges)), strict=True):
        gap = float(edges.edges(most)[1][-1])
        nulls = [EdgeNull(*find_edges(values, most)) for values in simulated]
        p = [n.p_value(None, gap) for n in nulls]
        ks = [float(n.k) for n in nulls]
        sheet.row(p_name, judged(max(p), min(p), max(p)))
        sheet.row(k_name, Estimate(float(np.median(ks)), min(ks), max(ks)))
