"""Compare stages at equal optimiser steps and at equal loss, as the paper does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sims.analysis.cells import first_clause, paired_runs, transitions, usable
from sims.analysis.concentration import named_bands
from sims.analysis.intervals import seed_intervals
from sims.analysis.matched import measured_spectra, stage_divergences
from sims.analysis.ranges import DIVERGENCE
from sims.analysis.runs import Runs
from sims.analysis.summaries import range_in
from sims.analysis.transitions import TRANSITION, mean_over_batches, reasons
from sims.system.errors import MeasureError

Pairs = Sequence[tuple[str, str]]


def concentration_at_steps(runs: Runs, steps: Sequence[int]) -> pd.DataFrame:
    """Return H_peak and the peak mass of the first principal component at given steps.

    Values are linear between measurements of the trained model. The mean over batch sizes and probe bands is taken
    within each seed first, over the seeds that have all of those which any seed of the stage has at that step.

    Returns:
        stage, step, quantity ("H_peak", "PC1 peak mass"), sizes (batch sizes that get there), n (seeds), mean, low,
        high (95 % over seeds). Steps that no run of a stage gets to, or that no seed has at all of these, are left out.
    """
    mass = runs.values("component_peak_mass", "probe", detail="pc1")
    found: list[dict[str, Any]] = []
    for name, rows in (("H_peak", runs.values("h_peak", "probe")), ("PC1 peak mass", mass)):
        rows = rows[rows["run_id"].isin(usable(runs)["run_id"]) & (rows["step"] > 0)].sort_values("step")
        for (stage, size, seed, band), own in named_bands(rows).groupby(
            ["stage", "batch_size", "seed", "band"], sort=False
        ):
            at = np.interp(steps, own["step"], own["value"], left=np.nan, right=np.nan)
            label = {"stage": stage, "batch_size": size, "seed": seed, "cell": (size, band), "quantity": name}
            found += [{**label, "step": step, "value": v} for step, v in zip(steps, at, strict=True)]
    columns = ["stage", "batch_size", "seed", "cell", "quantity", "step", "value"]
    table = pd.DataFrame(found, columns=columns).dropna(subset=["value"])
    by = ["stage", "step", "quantity"]
    # Without one of them the mean would be one over other batch sizes or bands.
    every = table.groupby(by, sort=False)["cell"].transform("nunique")
    table = table[table.groupby([*by, "seed"], sort=False)["cell"].transform("nunique") == every]
    per_seed = table.groupby([*by, "seed"], sort=False)["value"].mean().reset_index()
    sizes = table.groupby(by, sort=False)["batch_size"].nunique().rename("sizes").reset_index()
    table = seed_intervals(per_seed, by, within=lambda name: range_in(runs, name))
    return sizes.merge(table.drop(columns=["min", "max"]), on=by)


def transition_divergence(runs: Runs, pairs: Pairs | None = None) -> pd.DataFrame:
    """Compute the JS (nats) between spectra of the final states of two stages at equal loss.

    Runs of equal seed are compared.

    Both runs are read at the lowest loss that all runs of the two stages reached at that batch size, interpolated; the
    mean over batch sizes is taken within each seed first, and missing where a batch size has no losses in common.

    Args:
        pairs: stages (before, after); None takes successive ones.

    Returns:
        before, after, n (seeds), js, low, high (95 % over seeds), floor (mean over batch sizes and the two
        stages of the JS between seeds), reason (why they are missing, or "").
    """
    measured = measured_spectra(runs)
    rows: list[dict[str, Any]] = []
    for before, after in transitions(runs, pairs):
        for size, paired in paired_runs(runs, before, after):
            own = measured[measured["batch_size"] == size]
            label = {"before": before, "after": after, "batch_size": size}
            try:
                between = stage_divergences(own, before, after)
            except MeasureError as error:
                missing = {"js": np.nan, "floor": np.nan, "reason": f"B = {size}: {first_clause(error)}"}
                rows += [{**label, "seed": s, **missing} for s in paired["seed"]]
                continue
            both = between.seeds(before, after)
            label |= {"floor": between.floor((before, after), both), "reason": ""}
            values = between.equal_seed((before, after), both)
            rows += [{**label, "seed": s, "js": v} for s, v in zip(both, values, strict=True)]
    by_seed = pd.DataFrame(rows)
    per_seed = mean_over_batches(by_seed, ["js", "floor"])
    floors = per_seed.groupby(TRANSITION, sort=False)["floor"].mean().reset_index()
    table = seed_intervals(per_seed, TRANSITION, "js", DIVERGENCE).rename(columns={"mean": "js"})
    table = table.drop(columns=["min", "max"]).merge(floors, on=TRANSITION)
    return table.merge(reasons(by_seed, TRANSITION), on=TRANSITION)
