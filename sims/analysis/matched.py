"""Compare spectra at equal loss instead of at equal step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from sims.analysis.cells import ROUNDING, first_passage, loss_range, usable
from sims.analysis.intervals import seed_intervals
from sims.analysis.ranges import DIVERGENCE
from sims.analysis.resampling import seed_jackknife
from sims.analysis.runs import Runs
from sims.system.errors import MeasureError
from spectra import Spectrum, covariance_spectrum, js_divergence
from spectra.finite_sample import sample_eigenvalues

FLOOR_PAIRS = 8
# Samples of more rows (tokens of a text) are not drawn but their Wishart matrices, which have the same law.
DRAWN_ROWS = 16_384


def measured_spectra(runs: Runs, site: str = "final", object_: str = "activation") -> pd.DataFrame:
    """Return the spectra of the usable runs at one site, ordered by step.

    The column own_loss is the validation loss at the step of the spectrum.

    Raises:
        MeasureError: no such spectrum was stored.
    """
    losses = runs.values("val_loss")[["run_id", "step", "value"]].rename(columns={"value": "own_loss"})
    chosen = runs.spectra[(runs.spectra["object"] == object_) & (runs.spectra["site"] == site)]
    if chosen.empty:
        known = runs.spectra.loc[runs.spectra["object"] == object_, "site"].unique()
        raise MeasureError(
            f"no {object_} spectrum at {site!r} is stored; there are {', '.join(known) or 'none'}: measure it, or name "
            "one of these"
        )
    chosen = chosen[chosen["run_id"].isin(usable(runs)["run_id"])]
    found = chosen.merge(losses, on=["run_id", "step"]).sort_values("step", kind="stable")
    if found.empty:
        raise MeasureError(
            f"no {object_} spectrum at {site!r} has a validation loss at its step; measure the loss there, too"
        )
    return found


def matched_spectra(
    runs: Runs,
    site: str = "final",
    *,
    loss: float | None = None,
    interpolate: bool = False,
) -> pd.DataFrame:
    """Return the spectra of the activations of the runs of each stage at a common loss.

    Args:
        site: of the activations.
        loss: the level in nats; None takes for each stage the largest of its runs' smallest measured losses, the
            lowest that every run reached.
        interpolate: by default each run enters with its first measured spectrum at or below the level, and what is
            left of the loss is reported as `gap`. True interpolates between the two measurements around the first
            passage, linearly in the loss and in ln λ rank by rank (which keeps the order of ranks and interpolates
            exponents linearly); the gap is then 0 and `bracket` is the difference of the two losses. It does not
            interpolate from the untrained model.

    Returns:
        One row a run: stage, batch_size, lr, seed, run_id, loss (common), own_loss, gap, bracket, step, tokens, kind,
        n, d, centred, values. Runs that never reach a given level are left out.

    Raises:
        MeasureError: nothing measured there, several learning rates in a cell, no run reaches the level, or it would
            have to be interpolated from an untrained model.
    """
    found = []
    for _, group in measured_spectra(runs, site).groupby("stage", sort=False):
        level = loss
        if level is None:
            level = lowest_common(group) if interpolate else group.groupby("run_id")["own_loss"].min().max()
        found += at_level(group, level, interpolate)
    if not found:
        raise MeasureError(
            f"no run has a measured activation spectrum at or below a loss of {loss:.4g}; raise the level"
        )
    return pd.DataFrame(found)


def lowest_common(measured: pd.DataFrame) -> float:
    """Return the lowest loss at which all runs were measured or can be interpolated (`loss_range`).

    Args:
        measured: rows of `measured_spectra`.

    Raises:
        MeasureError: some run was below all that another reached when it was first measured after the start.
    """
    curves = [own.assign(value=own["own_loss"]) for _, own in measured.groupby("run_id", sort=False)]
    return loss_range(curves)[1]


def at_level(measured: pd.DataFrame, level: float, interpolate: bool) -> list[dict[str, Any]]:
    """Return each run's spectrum where it first reaches a loss (see `matched_spectra`).

    Args:
        measured: rows of `measured_spectra`.

    Raises:
        MeasureError: a run passes the level between the untrained model and its first measurement.
    """
    found = []
    for run, own in measured.groupby("run_id", sort=False):
        losses = own["own_loss"].to_numpy(float)
        reached = np.flatnonzero(losses <= level + ROUNDING)
        if not reached.size:
            continue
        i = int(reached[0])
        row: dict[str, Any] = {str(k): v for k, v in own.iloc[i].items()}
        row |= {"loss": level, "gap": level - losses[i], "bracket": losses[i - 1] - losses[i] if i else 0.0}
        if interpolate and i > 0:
            place = first_passage(own["tokens"].to_numpy(float), losses, level)
            if place is None:
                raise MeasureError(
                    f"{run} passes a loss of {level:.4g} before its first measurement after the start; raise the level "
                    "or measure earlier (measure.early)"
                )
            before, share = own.iloc[i - 1], place[1]
            row["values"] = _between(before["values"], row["values"], share)
            row["tokens"] = before["tokens"] + share * (row["tokens"] - before["tokens"])
            row |= {"own_loss": level, "gap": 0.0}
        found.append(row)
    return found


def batch_divergence(matched: pd.DataFrame) -> pd.DataFrame:
    """Compute the JS (nats) between matched spectra of different batch sizes, and two floors.

    `floor` is what two seeds differ by at equal batch size. `sampling_floor` is what two samples of one Gaussian
    population with the spectrum of the smaller batch differ by (heavier tails have a larger one); NaN where the
    spectra are not of centred activations. `excess` is the mean over pairs of runs of *different* seeds and the two
    batch sizes, minus the mean over pairs of different seeds within them: 0 in expectation if batch size does not
    matter, whatever two runs of one seed have in common.

    Args:
        matched: the result of `matched_spectra`.

    Returns:
        One row for each stage and pair of batch sizes: stage, small, large, loss, js (mean over pairs of runs of
        equal seed), low and high (the smallest and the largest), js_low and js_high (95 % over seeds), pairs,
        floor (mean over all pairs of seeds of the stage), sampling_floor, excess with excess_low and excess_high
        (delete-one-seed jackknife; NaN below three seeds), seeds (that have both sizes).
    """
    rows = []
    for stage, group in matched.groupby("stage", sort=False):
        between = Divergences(group.to_dict("records"))
        level = group["loss"].iloc[0]
        rows += [
            {"stage": stage, "small": pair[0], "large": pair[1], "loss": level, **_compared(between, pair)}
            for pair in combinations(between.groups, 2)
            if between.seeds(*pair)
        ]
    return pd.DataFrame(rows)


def _compared(between: Divergences, pair: tuple[int, int]) -> dict[str, Any]:
    both = between.seeds(*pair)
    values = between.equal_seed(pair, both)
    interval = seed_intervals(pd.DataFrame({"all": 0, "value": values}), ["all"], within=DIVERGENCE).iloc[0]
    excess = seed_jackknife(
        both, lambda kept: between.across(pair, kept) - between.floor(pair, kept), DIVERGENCE.change
    )
    return {
        "js": interval["mean"],
        "low": interval["min"],
        "high": interval["max"],
        "js_low": interval["low"],
        "js_high": interval["high"],
        "pairs": len(both),
        "floor": _mean(v for (a, b), v in between.js.items() if a[0] == b[0]),
        "sampling_floor": between.sampling_floor(pair[0], both[0]),
        "excess": excess.value,
        "excess_low": excess.low,
        "excess_high": excess.high,
        "seeds": len(both),
    }


class Divergences:
    """Hold the JS between all runs of some groups at one loss, computed once.

    Args:
        records: rows of `matched_spectra`, one for each group and seed.
        group: the column that makes a group: batch_size within a stage, or stage at one batch size.
    """

    def __init__(self, records: Sequence[dict[Any, Any]], group: str = "batch_size") -> None:
        self.spectra = {(r[group], int(r["seed"])): _spectrum(r) for r in records}
        self.js = {
            pair: js_divergence(self.spectra[pair[0]], self.spectra[pair[1]])
            for pair in combinations(sorted(self.spectra), 2)
        }
        self.js |= {(b, a): value for (a, b), value in self.js.items()}
        self.groups = sorted({group for group, _ in self.spectra})
        self._sampling_floors: dict[tuple[Any, int], float] = {}

    def seeds(self, *groups: Any) -> list[int]:
        """Return the seeds that have a run in all of these groups."""
        return sorted({s for _, s in self.spectra if all((g, s) in self.spectra for g in groups)})

    def equal_seed(self, pair: tuple[Any, Any], kept: Sequence[int]) -> list[float]:
        """Return the JS between the two groups, one value per seed."""
        return [self.js[(pair[0], s), (pair[1], s)] for s in kept]

    def within(self, group: Any, kept: Sequence[int] | None = None) -> float:
        """Return the mean JS between seeds of one group; NaN with a single seed."""
        seeds = self.seeds(group) if kept is None else kept
        return _mean(self.js[(group, s), (group, t)] for s, t in combinations(seeds, 2))

    def across(self, pair: tuple[Any, Any], kept: Sequence[int]) -> float:
        """Return the mean JS between different seeds in the two groups; NaN with a single seed."""
        return _mean(self.js[(pair[0], s), (pair[1], t)] for s in kept for t in kept if s != t)

    def floor(self, pair: tuple[Any, Any], kept: Sequence[int]) -> float:
        """Return the value of `across` if both groups had one law: the mean of their `within`."""
        return (self.within(pair[0], kept) + self.within(pair[1], kept)) / 2

    def sampling_floor(self, group: Any, seed: int) -> float:
        """Return `sampling_floor` of one run's spectrum; it draws matrices, once a run."""
        run = (group, seed)
        if run not in self._sampling_floors:
            self._sampling_floors[run] = sampling_floor(self.spectra[run])
        return self._sampling_floors[run]


def stage_divergences(measured: pd.DataFrame, before: str, after: str) -> Divergences:
    """Return the JS between all runs of two stages, interpolated to the lowest loss that all of them reached.

    Args:
        measured: rows of `measured_spectra` at one batch size.
        before, after: the stages.

    Raises:
        MeasureError: a stage has no spectrum, or as of `lowest_common`.
    """
    for name in (before, after):
        if name not in set(measured["stage"]):
            raise MeasureError(f"no spectrum of {name} is stored; measure that stage, too")
    own = measured[measured["stage"].isin([before, after])]
    return Divergences(at_level(own, lowest_common(own), interpolate=True), "stage")


def sampling_floor(spectrum: Spectrum, pairs: int = FLOOR_PAIRS) -> float:
    """Return the mean JS (nats) between two Gaussian samples of one population.

    Args:
        spectrum: of a centred covariance with known n; anything else gives NaN.
        pairs: how many pairs are drawn, from a fixed seed.
    """
    if spectrum.kind != "eigenvalue" or not spectrum.centred or spectrum.n is None:
        return float("nan")
    n, shares = spectrum.n, spectrum.shares
    generator = np.random.default_rng([n, len(spectrum)])

    def sample() -> Spectrum:
        if n > max(DRAWN_ROWS, len(shares)):
            return Spectrum(
                sample_eigenvalues(shares, n - 1, generator, 1)[0], n=n, d=len(shares), centred=True
            )
        return covariance_spectrum(generator.standard_normal((n, len(shares))) * np.sqrt(shares))

    return float(np.mean([js_divergence(sample(), sample()) for _ in range(pairs)]))


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return float(np.mean(known)) if known else float("nan")


def _spectrum(record: dict[Any, Any]) -> Spectrum:
    return Spectrum(
        np.asarray(record["values"]),
        kind=record["kind"],
        n=int(record["n"]),
        d=int(record["d"]),
        centred=bool(record["centred"]),
    )


def _between(first: Any, second: Any, share: float) -> np.ndarray:
    """Interpolate rank by rank, a^(1−share)·b^share; 0 where either is 0."""
    a, b = np.asarray(first, float), np.asarray(second, float)
    return a ** (1 - share) * b**share
