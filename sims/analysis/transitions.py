"""Measure the gains of transitions between stages, and their link to concentration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sims.analysis.cells import (
    common_loss,
    crossing,
    levels_or_reason,
    loss_curves,
    paired_runs,
    transitions,
)
from sims.analysis.concentration import concentration_changes
from sims.analysis.intervals import complete_seeds, seed_intervals
from sims.analysis.ranges import GAIN
from sims.analysis.resampling import block_permutation, seed_bootstrap, spearman
from sims.analysis.runs import Runs
from sims.system.errors import MeasureError

Pairs = Sequence[tuple[str, str]]
LEAST_CELLS = 4
TRANSITION = ["before", "after"]


def gains_by_seed(runs: Runs, pairs: Pairs | None = None) -> pd.DataFrame:
    """Return token and throughput gains of transitions, paired by batch size and seed.

    Token gain at a loss is D_before/D_after − 1, D the tokens to that loss. All seeds of a transition and batch size
    are read at the same losses: the lowest that all of these runs reach, and the quantiles of `loss_levels`.

    Args:
        pairs: stages (before, after); None takes successive ones.

    Returns:
        before, after, batch_size, seed, loss (the lowest common one), gain (there), proximal (mean over the quantiles),
        throughput (tokens a second of training, after/before − 1; runs trained as one ensemble share their time, so
        that their seeds do not show its spread), reason (where the runs of a batch size have no losses in common,
        so that loss, gain and proximal are NaN; else "").

    Raises:
        MeasureError: fewer than two stages, or no batch size and seed in common.
    """
    curves = loss_curves(runs)
    facts = runs.runs.set_index("run_id")
    speed = facts["tokens"] / facts["seconds_training"]
    rows = []
    for before, after in transitions(runs, pairs):
        for size, both in paired_runs(runs, before, after):
            own = [curves[r] for r in [*both["before"], *both["after"]]]
            common, reason = levels_or_reason(own)
            lowest = float("nan") if reason else common_loss(own)
            for seed, first, second in both[["seed", "before", "after"]].itertuples(index=False):
                at = [crossing(curves[first], v) / crossing(curves[second], v) - 1 for v in (lowest, *common)]
                rows.append(
                    {
                        "before": before,
                        "after": after,
                        "batch_size": size,
                        "seed": seed,
                        "loss": lowest,
                        "gain": at[0],
                        "proximal": float(np.mean(at[1:])),
                        "throughput": speed[second] / speed[first] - 1,
                        "reason": reason and f"B = {size}: {reason}",
                    }
                )
    return pd.DataFrame(rows)


def transition_gains(by_seed: pd.DataFrame, by_batch: bool = True) -> pd.DataFrame:
    """Return mean gains with 95 % intervals over seeds; no gain is below −1.

    Args:
        by_seed: the result of `gains_by_seed`.
        by_batch: a row for each batch size; otherwise the mean over batch sizes is taken within each seed first, over
            the seeds that have every batch size of the transition; it is missing where one of them has no value.

    Returns:
        before, after, batch_size (where by_batch), n (seeds), and gain, proximal and throughput, each with …_low and
        …_high; reason (why they are missing). Without by_batch also batch_sizes, as text such as "32, 128".
    """
    by = [*TRANSITION, "batch_size"] if by_batch else TRANSITION
    names = ["throughput", "gain", "proximal"]
    rows = by_seed if by_batch else mean_over_batches(by_seed, names)
    # Of runs whose seconds are not known the throughput is missing, and of others the gain.
    table = rows.groupby(by, sort=False).size().rename("n").reset_index()
    for name in names:
        part = seed_intervals(rows, by, name, GAIN).drop(columns=["min", "max"])
        part = part.rename(columns={"mean": name, "low": f"{name}_low", "high": f"{name}_high"})
        table = table.merge(part.drop(columns="n"), on=by)
    table = table.merge(reasons(by_seed, by), on=by)
    if by_batch:
        return table
    sizes = by_seed.groupby(by, sort=False)["batch_size"].agg(
        lambda own: ", ".join(map(str, sorted(set(own))))
    )
    return table.merge(sizes.rename("batch_sizes").reset_index(), on=by)


def reasons(by_seed: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return the `by` columns and every reason of their rows, each once."""
    found = by_seed.groupby(list(by), sort=False)["reason"]
    return found.agg(lambda own: "; ".join(r for r in dict.fromkeys(own) if r)).reset_index()


def mean_over_batches(
    by_seed: pd.DataFrame, names: Sequence[str], by: Sequence[str] = TRANSITION
) -> pd.DataFrame:
    """Return means over batch sizes, one row per transition and complete seed.

    A seed counts if it has every batch size of the transition.

    Where one batch size has no value the mean is missing: it would be one over other batch sizes.

    Args:
        by_seed: with columns batch_size and seed.
        names: columns of numbers.
        by: columns that make a group.
    """
    own = complete_seeds(by_seed, by, ["batch_size"])
    means = own.groupby([*by, "seed"], sort=False)[list(names)]
    return means.agg(lambda v: v.mean(skipna=False)).reset_index()


def gain_link(runs: Runs, steps: Sequence[int | None] = (None,)) -> pd.DataFrame:
    """Correlate the change of H_peak with the token gain over successive transitions × batch sizes.

    The gain is the mean over common loss quantiles ("proximal" of `gains_by_seed`).

    Cells are averaged over seeds first; batch sizes at which a transition has no losses in common are left out and not
    counted. Whole transitions are permuted, each with its batch sizes: what is particular to a transition is so at all
    of them. Successive transitions share a stage, so that they are not quite exchangeable: read the p-value as a guide,
    not as exact.

    Args:
        steps: optimiser steps at which the concentration is compared; None among them compares at equal loss.

    Returns:
        One row a step: at ("equal loss" or "step 500"), quantity, gain, cells, seeds (those in every cell), rho, low,
        high (95 % bootstrap over seeds; NaN below three), p, p_min, exact.

    Raises:
        MeasureError: fewer than four cells.
    """
    quantity, gain = "H_peak", "proximal"
    gains = gains_by_seed(runs)
    rows = []
    for step in steps:
        at = "equal loss" if step is None else f"step {step}"
        changes = concentration_changes(runs, transitions(runs), quantity, step)
        both = gains.merge(changes, on=[*TRANSITION, "batch_size", "seed"])
        # A cell has both numbers or none: a pivot leaves out the columns of either that are NaN for every seed.
        both = both.dropna(subset=["change", gain])
        wide = both.pivot_table(index="seed", columns=[*TRANSITION, "batch_size"], values=["change", gain])
        wide = _at_all_sizes(wide).dropna()
        cells = wide.shape[1] // 2
        if cells < LEAST_CELLS or wide.empty:
            raise MeasureError(
                f"the link at {at} needs ≥ {LEAST_CELLS} cells (transitions × batch sizes) that share a seed; there "
                f"are {cells} cells and {len(wide)} seeds with all of them: train more batch sizes or stages"
            )
        x, y = wide["change"].to_numpy(float), wide[gain].to_numpy(float)
        blocks = (cells // wide.columns.get_level_values("batch_size").nunique(), -1)
        tested = block_permutation(x.mean(axis=0).reshape(blocks), y.mean(axis=0).reshape(blocks))
        low, high = seed_bootstrap(
            lambda k, x=x, y=y: spearman(x[k].mean(axis=1), y[k].mean(axis=1)), len(wide)
        )
        rows.append(
            {
                "at": at,
                "quantity": quantity,
                "gain": gain,
                "cells": cells,
                "seeds": len(wide),
                "rho": tested.rho[0],
                "low": float(low),
                "high": float(high),
                "p": tested.p[0],
                "p_min": tested.p_min[0],
                "exact": tested.exact,
            }
        )
    return pd.DataFrame(rows)


def _at_all_sizes(wide: pd.DataFrame) -> pd.DataFrame:
    """Return the columns (number, before, after, batch size) of the batch sizes that every transition has."""
    sizes = wide.columns.get_level_values("batch_size")
    pairs = wide.columns.droplevel("batch_size")  # pyright: ignore[reportArgumentType]
    every = pairs.nunique()
    return wide.loc[:, [pairs[sizes == size].nunique() == every for size in sizes]]
