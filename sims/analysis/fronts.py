"""Ask whether compression passes through the layers as a wave, and whether its gradient over depth reverses.

Compression of a layer is the fall of its ln stable rank since the first look; its front is the time of half the largest
fall. Looks that are too far apart give every layer nearly the same front, or an order that is rounding: fronts are
used only where looks resolve them. Time is any that rises: steps, or sums of learning rates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd

from sims.analysis.depth import SIGNIFICANT, depth_correlation
from sims.analysis.resampling import holm, holm_attainable, seed_bootstrap
from sims.analysis.verdicts import Verdict, require_columns
from sims.system.errors import MeasureError

# Looks around a front may lie this share of the range of the fronts apart.
RESOLVED = 1 / 3
LEAST_LOOKS = 4
POOLED = "pooled"
DRAWS = 199


@dataclass(frozen=True, eq=False)
class Fronts:
    """Hold the front times of the layers of one type of matrix.

    Attributes:
        times: (seeds, layers) time of half the largest compression; NaN where a layer has none.
        spacing: median distance of the two looks around a front.
        span: latest − earliest front over layers, median over seeds.
        status: "ok" or "not resolved".
        reason: why they are not resolved.
    """

    times: np.ndarray
    spacing: float
    span: float
    status: Literal["ok", "not resolved"] = "ok"
    reason: str = ""


def fronts(times: np.ndarray, log_ranks: np.ndarray) -> Fronts:
    """Find the first time at which each layer has half of its largest compression, linear between looks.

    Args:
        times: (looks,) rising.
        log_ranks: (looks, layers) or (seeds, looks, layers): ln stable rank, the first look before training.

    Returns:
        `Fronts`; not resolved, with its reason, where a layer never compresses, or the looks around the fronts lie
        further apart than a third of the range of fronts over layers (medians over layers and seeds).

    Raises:
        MeasureError: shapes that do not fit, times that do not rise, or values that are not finite.
    """
    t, curves = require_looks(times, log_ranks)
    found, gaps = _fronts(t, curves)
    if not found.size:
        return Fronts(found, math.nan, math.nan, "not resolved", "no layer is left")
    missing = np.argwhere(np.isnan(found))
    if len(missing):
        reason = (
            f"layer {missing[0][1]} of seed {missing[0][0]} never compresses, and {len(missing) - 1} others"
        )
        return Fronts(found, math.nan, math.nan, "not resolved", reason)
    spacing, span = float(np.median(gaps)), float(np.median(np.ptp(found, axis=1)))
    if spacing > RESOLVED * span:
        reason = f"looks around the fronts are {spacing:.3g} apart, and the fronts of all layers lie within {span:.3g}"
        if span > 0:
            reason += f"; looks must be {spacing / (RESOLVED * span):.3g} times as dense there"
        return Fronts(found, spacing, span, "not resolved", reason)
    return Fronts(found, spacing, span)


def waves(
    times: np.ndarray,
    log_ranks: Mapping[str, np.ndarray],
    *,
    interior: bool = False,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Test for each type of matrix whether fronts come later in later layers.

    The test is `depth_correlation` of front times: layers are permuted in all seeds together. The speed κ is the
    Theil–Sen slope of ln front time on depth (0 in the first layer, 1 in the last), over all pairs of layers of all
    seeds. Its size without a wave comes from shuffled layers: at each look the same permutation in all seeds.

    Args:
        times: (looks,) rising, above 0 after the first look.
        log_ranks: for each type (looks, layers) or (seeds, looks, layers), as of `fronts`.
        interior: leave out the first and the last layer.
        draws: shuffles for the size of κ without a wave.
        seed: of the shuffles.

    Returns:
        One row a type, and one "pooled" of the types that are resolved: name, layers, seeds, rho, p, p_min, p_holm
        (over the types; of the pooled row, p itself), kappa with its 95 % interval over seeds low and high, kappa_null
        (|κ| that 5 % of shuffles exceed; NaN in the pooled row), per_block (Theil–Sen slope of front time in units of
        time per block), spacing, span, exact, status, reason.

    Raises:
        MeasureError: as of `fronts`, a time after the first look that is not above 0, no types, one that is called
            "pooled", or numbers of layers or seeds that differ between types.
    """
    if (np.asarray(times, float)[1:] <= 0).any():
        raise MeasureError(
            "times after the first look must be above 0, as speeds are those of their logarithms"
        )
    if POOLED in log_ranks or len({np.shape(values) for values in log_ranks.values()}) != 1:
        raise MeasureError(
            f"types are {list(log_ranks)}; give at least one, all of the same seeds and layers, and none of the name "
            f"{POOLED!r}"
        )
    rows: list[dict[str, Any]] = []
    resolved = []
    inner = slice(1, -1) if interior else slice(None)
    for name, values in log_ranks.items():
        found = fronts(times, values[..., inner])
        row: dict[str, Any] = {"name": name, "spacing": found.spacing, "span": found.span}
        if found.status != "ok":
            seeds, layers = found.times.shape
            rows.append(
                {**row, "layers": layers, "seeds": seeds, "status": found.status, "reason": found.reason}
            )
            continue
        resolved.append(found.times)
        null = common_clock(times, values, interior=interior, draws=draws, seed=seed)
        rows.append({**row, **_wave(found.times[None], interior), "kappa_null": null})
    if resolved:
        rows.append({"name": POOLED, **_wave(np.stack(resolved), interior)})
    else:
        rows.append({"name": POOLED, "status": "not resolved", "reason": "no type is resolved"})
    columns = ["name", "layers", "seeds", "rho", "p", "p_min", "kappa", "low", "high", "kappa_null"]
    table = pd.DataFrame(
        rows, columns=[*columns, "per_block", "spacing", "span", "exact", "status", "reason"]
    )
    p = table["p"].to_numpy(float)
    return table.assign(p_holm=np.append(holm(p[:-1]), p[-1]))


def wave_verdict(found: Mapping[str, pd.DataFrame], types: Sequence[str] = ("q", "k")) -> Verdict:
    """Say whether compression passes from early to late layers.

    Shown if under two schedules of the learning rate these types (Holm) and the pooled types have ρ > 0 with p < 0.05.

    Args:
        found: the result of `waves` for each schedule.
        types: that must show it.
    """
    claim = "Compression passes from early to late layers"
    shown, missing, told = [], [], []
    for schedule, table in found.items():
        require_columns(table, ["name", "rho", "p", "p_holm", "p_min", "status"])
        family = int(((table["status"] == "ok") & (table["name"] != POOLED)).sum())
        # The pooled types are one test, and no part of the family.
        own = table["p"].where(table["name"] != POOLED).to_numpy(float)
        best = holm_attainable(own, table["p_min"].to_numpy(float))
        best = np.where(table["name"] == POOLED, table["p_min"].to_numpy(float), best)
        rows = table.assign(best=best).set_index("name").reindex([*types, POOLED])
        reasons = [
            f"{name}: {row['reason'] if isinstance(row['status'], str) else 'not measured'}"
            if row["status"] != "ok"
            else f"{row['layers']:.0f} layers and {family} types cannot have p < {SIGNIFICANT}"
            for name, row in rows.iterrows()
            if row["status"] != "ok" or not row["best"] < SIGNIFICANT
        ]
        if reasons:
            missing.append(f"{schedule}: {reasons[0]}")
            continue
        told.append(
            f"{schedule}: "
            + ", ".join(f"{n} ρ = {r['rho']:.2f}, p = {r['p_holm']:.2g}" for n, r in rows.iterrows())
        )
        if ((rows["rho"] > 0) & (rows["p_holm"] < SIGNIFICANT)).all():
            shown.append(schedule)
    return over_schedules(claim, shown, told, missing)


def common_clock(
    times: np.ndarray, log_ranks: np.ndarray, *, interior: bool = False, draws: int = DRAWS, seed: int = 0
) -> float:
    """Return the |κ| that 5 % of draws exceed in which layers are shuffled at each look, in all seeds alike.

    What is shuffled is the compression of the layers: their levels at the start stay out of it.

    Args:
        times, log_ranks: as of `fronts`.
        interior: leave out the first and the last layer.
        draws: at least 19.
        seed: of the shuffles.

    Raises:
        MeasureError: as of `fronts`, or too few draws.
    """
    t, curves = require_looks(times, log_ranks)
    if draws < 19:
        raise MeasureError(f"draws is {draws}; 5 % of them are none below 19")
    x = _depths(curves.shape[-1], interior)
    curves = curves[..., 1:-1] if interior else curves
    curves = curves - curves[:, :1]
    _, looks, layers = curves.shape
    generator = np.random.default_rng(seed)
    sizes = []
    for _ in range(draws):
        order = generator.permuted(np.tile(np.arange(layers), (looks, 1)), axis=1)
        found, _ = _fronts(t, np.take_along_axis(curves, order[None], axis=2))
        slopes = _pair_slopes(np.log(found), x)
        sizes.append(abs(float(np.nanmedian(slopes))) if np.isfinite(slopes).any() else 0.0)
    return float(np.quantile(sizes, 0.95))


def depth_slopes(log_ranks: np.ndarray, *, interior: bool = False) -> np.ndarray:
    """Return γ, the least-squares slope over layers on depth (0 in the first, 1 in the last), (…, looks).

    Args:
        log_ranks: (…, looks, layers).
        interior: leave out the first and the last layer; depth stays as it was.

    Raises:
        MeasureError: fewer than two layers remain.
    """
    values = np.asarray(log_ranks, dtype=float)
    x = _depths(values.shape[-1], interior)
    values = values[..., 1:-1] if interior else values
    if len(x) < 2:
        raise MeasureError(f"{len(x)} layers have no slope; at least 2 must remain")
    x = x - x.mean()
    return values @ x / float(x @ x)


def _wave(found: np.ndarray, interior: bool) -> dict[str, object]:
    """Return test, speed and its interval of front times (types, seeds, layers) as parts of a row."""
    _, seeds, layers = found.shape
    # What is particular to a layer may be so in all types and seeds: layers are permuted in all of them together.
    test = depth_correlation(found.reshape(-1, layers))
    row = {name: value for name, value in test.row().items() if name != "sentence"} | {"seeds": seeds}
    if test.status != "ok":
        return row
    slopes = _pair_slopes(np.log(found), _depths(layers + 2 * interior, interior)).swapaxes(0, 1)

    def speed(chosen: np.ndarray) -> np.ndarray:
        return np.median(slopes[chosen].reshape(*chosen.shape[:-1], -1), axis=-1)

    low, high = seed_bootstrap(speed, seeds)
    per_block = float(np.median(_pair_slopes(found, np.arange(layers, dtype=float))))
    kappa = float(np.median(slopes))
    return {**row, "kappa": kappa, "low": float(low), "high": float(high), "per_block": per_block}


def _depths(layers: int, interior: bool) -> np.ndarray:
    """Return the depth of each layer, 0 in the first and 1 in the last; of interior layers alone if so wanted."""
    x = np.linspace(0, 1, layers)
    return x[1:-1] if interior else x


def _pair_slopes(values: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return slopes of all pairs of layers, (…, layers) → (…, pairs)."""
    i, j = np.array(list(combinations(range(len(x)), 2))).T
    return (values[..., j] - values[..., i]) / (x[j] - x[i])


def require_looks(times: np.ndarray, log_ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return times (looks,) and curves (seeds, looks, layers)."""
    t, curves = np.asarray(times, dtype=float), np.asarray(log_ranks, dtype=float)
    curves = curves[None] if curves.ndim == 2 else curves
    if t.ndim != 1 or len(t) < LEAST_LOOKS or curves.ndim != 3 or curves.shape[1] != len(t):
        raise MeasureError(
            f"there are {t.size} times and values of shape {np.shape(log_ranks)}; give (looks, layers) or "
            f"(seeds, looks, layers), at least {LEAST_LOOKS} looks"
        )
    if not (np.diff(t) > 0).all() or not np.isfinite(curves).all() or not np.isfinite(t).all():
        raise MeasureError("times must rise and values be finite; leave out looks at which a layer has none")
    return t, curves


def _fronts(t: np.ndarray, curves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return front times and the distances of the looks around them, (seeds, layers); NaN without compression."""
    fallen = curves[:, :1] - curves
    most = fallen.max(axis=1)
    at = (fallen >= most[:, None] / 2).argmax(axis=1)
    exists = most > 0
    at = np.where(exists, at, 1)
    before, after = (np.take_along_axis(fallen, k[:, None], axis=1)[:, 0] for k in (at - 1, at))
    share = np.divide(most / 2 - before, after - before, out=np.zeros_like(most), where=exists)
    gaps = t[at] - t[at - 1]
    return np.where(exists, t[at - 1] + share * gaps, np.nan), np.where(exists, gaps, np.nan)


def over_schedules(claim: str, shown: list[str], told: list[str], missing: list[str]) -> Verdict:
    """Return the verdict of a rule that must hold under two schedules."""
    if len(shown) >= 2:
        return Verdict(claim, "shown", "; ".join(told))
    if len(told) >= 2 and len(shown) + len(missing) < 2:
        return Verdict(claim, "not shown", "; ".join(told))
    reasons = missing or [f"{len(told)} schedules; the rule needs two"]
    return Verdict(claim, "not resolved", "; ".join([*told, *reasons]))
