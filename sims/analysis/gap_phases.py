"""Ask whether the gap of update windows rises, stays and collapses, or whether the lengths of updates alone do that.

A schedule that lengthens and shortens updates gives any window a gap that rises and falls, whatever the directions. The
null has the observed lengths and independent directions.

Source of the three phases: arXiv 2603.15678. There they are read off thresholds, which every series crosses; here the
slope has to change significantly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sims.analysis.segmentation import DRAWS, LEAST_POINTS, STRONGEST, Segmentation, segment
from sims.analysis.verdicts import LEAST_SEEDS, Verdict, agreeing, apart, require_columns, require_labels
from sims.system.errors import MeasureError
from spectra.nulls.edge import EFFECTIVE_DIMENSIONS, edge_ratios, noise_factors

LEVEL = 0.05
# The plateau is flatter than this share of the rise.
FLAT = 0.25
# Changes of two seeds agree within a factor √2.
TOLERANCE = math.log(2) / 2
NULL_DRAWS = 200
NULL_SHARE = 0.05
CLAIM = "The gap rises, stays and collapses"


@dataclass(frozen=True, eq=False)
class GapPhases:
    """Hold the phases of the gap of each seed, and how often independent updates of the same lengths have them.

    Attributes:
        seeds: one row a seed: seed, points (windows used), changes (steps), slopes (of ln gap per e-fold of steps), p
            (of each change), plateau_from, plateau_to (steps, NaN without the three phases), agrees (whether both are
            within √2 of the middle one of all seeds), correlation (of the residuals), status, reason.
        null: one row for each number of independent directions: dimension, draws, share (of draws that show the three
            phases).
        verdict: on the claim.
    """

    seeds: pd.DataFrame
    null: pd.DataFrame
    verdict: Verdict

    @property
    def sentence(self) -> str:
        """Return the verdict as one sentence."""
        return self.verdict.sentence


def gap_phases(
    windows: pd.DataFrame,
    updates: pd.DataFrame,
    *,
    window: int,
    j: int = 2,
    value: str = "ratio",
    dimensions: Sequence[float] = EFFECTIVE_DIMENSIONS,
    null_draws: int = NULL_DRAWS,
    draws: int = DRAWS,
    seed: int = 0,
) -> GapPhases:
    """Segment ln gap against ln step, and say whether it rises, stays and collapses.

    Of each seed windows that end W/2 updates apart are used, so that the noise of neighbours is as weakly correlated
    as the segmentation allows. A seed has the phases if two neighbouring changes of slope (p < 0.05 both) part a rise,
    a segment flatter than a quarter of it, and a fall. Shown if at least three of four seeds have them with both
    changes within a factor √2 of the middle one, and fewer than 5 % of draws of the null do, for each number of
    directions.

    Args:
        windows: one row a window: seed, step (of its last update), the gap.
        updates: one row an update of the same runs: seed, step, norm.
        window: W, in updates.
        j: of the gap σ_j/σ_{j+1}, that the null computes.
        value: name of its column.
        dimensions: numbers of independent directions of the null.
        null_draws: runs drawn for each of them, from the lengths of one seed after the other.
        draws, seed: of the segmentation's bootstrap; the seed also of the null.

    Raises:
        MeasureError: a missing column, windows or updates twice at a step, or a window that is not the last W updates.
    """
    require_columns(windows, ["seed", "step", value])
    require_columns(updates, ["seed", "step", "norm"])
    require_labels(windows, ["seed", "step"])
    require_labels(updates, ["seed", "step"])
    if windows.empty:
        raise MeasureError("there are no windows; pass those of at least one seed")
    if not 1 <= j < window or null_draws < 1:
        raise MeasureError(
            f"j is {j}, W {window} and null_draws {null_draws}: 1 ≤ j < W, and at least one draw"
        )
    norms: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    rows = []
    for name, own in windows.groupby("seed", sort=True):
        own = own.sort_values("step")
        length, ends = _updates(updates[updates["seed"] == name], own, window, str(name))
        chosen = apart(ends, max(1, window // 2))
        ends, own = ends[chosen], own.iloc[chosen]
        rows.append(
            {"seed": name, **_phases_of(own["step"].to_numpy(float), own[value].to_numpy(float), draws, seed)}
        )
        if rows[-1]["status"] == "ok":
            norms.append((length, ends, own["step"].to_numpy(float)))
    seeds = _agreement(pd.DataFrame(rows))
    null = pd.DataFrame(
        [
            {
                "dimension": dimension,
                "draws": null_draws,
                "share": _null_share(norms, window, j, dimension, null_draws, draws, seed),
            }
            for dimension in dimensions
            if norms
        ],
        columns=["dimension", "draws", "share"],
    )
    return GapPhases(seeds, null, _verdict(seeds, null))


def plateau(found: Segmentation, level: float = LEVEL) -> tuple[float, float] | None:
    """Return where a plateau between a rise and a fall begins and ends, in x; None without one.

    Args:
        found: the segmented curve.
        level: both changes have p below it.
    """
    for i in range(len(found.changes) - 1):
        rise, flat, fall = found.slopes[i : i + 3]
        sure = found.p[i] < level and found.p[i + 1] < level
        if sure and rise > 0 and abs(flat) < FLAT * rise and fall < 0:
            return found.changes[i], found.changes[i + 1]
    return None


def _updates(
    updates: pd.DataFrame, windows: pd.DataFrame, window: int, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lengths of the updates of a seed, and which of them ends each window."""
    own = updates.sort_values("step")
    steps, norms = own["step"].to_numpy(float), own["norm"].to_numpy(float)
    ends = windows["step"].to_numpy(float)
    if len(np.unique(steps)) < len(steps) or len(np.unique(ends)) < len(ends):
        raise MeasureError(f"seed {name} has two rows at a step; leave out one of them")
    place = np.searchsorted(steps, ends)
    known = (place < len(steps)) & (place >= window - 1)
    if not known.all() or (steps[place] != ends).any():
        raise MeasureError(
            f"seed {name} has windows without their {window} updates; pass the norms of all updates of the run"
        )
    if not (np.isfinite(norms).all() and (norms >= 0).all()):
        raise MeasureError(
            f"seed {name} has norms that are negative or not finite; cut the run where it diverged"
        )
    return norms, place


def _phases_of(steps: np.ndarray, values: np.ndarray, draws: int, seed: int) -> dict[str, Any]:
    empty = {"changes": (), "slopes": (), "p": (), "plateau_from": math.nan, "plateau_to": math.nan}
    row: dict[str, Any] = {"points": len(steps), **empty, "correlation": math.nan, "status": "not resolved"}
    if len(steps) < LEAST_POINTS:
        return row | {
            "reason": f"{len(steps)} windows that end W/2 updates apart, and a segmentation needs {LEAST_POINTS}"
        }
    if not (np.isfinite(values).all() and (values > 0).all() and steps[0] > 0):
        return row | {"reason": "a gap is not finite or not positive, or the first step is 0"}
    y = np.log(values)
    if y.max() - y.min() < 1e-12:
        return row | {"reason": "the gap is constant"}
    found = segment(np.log(steps), y, draws=draws, seed=seed)
    row |= {
        "changes": tuple(float(c) for c in np.exp(found.changes)),
        "slopes": found.slopes,
        "p": found.p,
        "correlation": found.correlation,
    }
    if found.correlation >= STRONGEST:
        return row | {
            "reason": f"neighbouring windows are correlated by {STRONGEST} or more, for which changes are not tested"
        }
    between = plateau(found)
    if between:
        row |= {"plateau_from": math.exp(between[0]), "plateau_to": math.exp(between[1])}
    return row | {"status": "ok", "reason": ""}


def _agreement(seeds: pd.DataFrame) -> pd.DataFrame:
    near = np.ones(len(seeds), dtype=bool)
    for name in ("plateau_from", "plateau_to"):
        places = np.log(seeds[name].to_numpy(float))
        middle = np.nanmedian(places) if np.isfinite(places).any() else math.nan
        near &= np.abs(places - middle) <= TOLERANCE
    return seeds.assign(agrees=near)


def _null_share(
    norms: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
    window: int,
    j: int,
    dimension: float,
    null_draws: int,
    draws: int,
    seed: int,
) -> float:
    """Return the share of runs of independent updates that have the three phases."""
    generator, hits = np.random.default_rng(seed), 0
    for i in range(null_draws):
        length, ends, steps = norms[i % len(norms)]
        # X Xᵀ of a window depends on these factors alone.
        rows = noise_factors(len(length), dimension, 1, generator)[0]
        rows *= (length / np.linalg.norm(rows, axis=1))[:, None]
        blocks = np.stack([rows[end - window + 1 : end + 1] for end in ends])
        energies = np.linalg.eigvalsh(blocks @ blocks.transpose(0, 2, 1))[:, ::-1]
        gaps = edge_ratios(np.sqrt(np.maximum(energies, 0.0)))[:, j - 1]
        if np.isfinite(gaps).all():
            hits += plateau(segment(np.log(steps), np.log(gaps), draws=draws, seed=i)) is not None
    return hits / null_draws


def _verdict(seeds: pd.DataFrame, null: pd.DataFrame) -> Verdict:
    usable = seeds[seeds["status"] == "ok"]
    if len(usable) < LEAST_SEEDS:
        told = [f"seed {r['seed']}: {r['reason']}" for r in seeds.to_dict("records") if r["reason"]]
        why = f"; {told[0]}" if told else ""
        return Verdict(
            CLAIM, "not resolved", f"{len(usable)} usable seeds, and the rule needs {LEAST_SEEDS}{why}"
        )
    having, hits = int(usable["plateau_from"].notna().sum()), int(usable["agrees"].sum())
    needed, share = agreeing(len(usable)), float(null["share"].max())
    reason = (
        f"{having} of {len(usable)} seeds have the three phases, {hits} at the same steps within √2, {needed} needed; "
        f"independent updates of the same lengths have them in {share:.1%} of draws"
    )
    return Verdict(CLAIM, "shown" if hits >= needed and share < NULL_SHARE else "not shown", reason)
