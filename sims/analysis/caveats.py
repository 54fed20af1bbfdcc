"""Collect what a reader of a page must know about its runs, and their cost."""

from __future__ import annotations

import pandas as pd

from sims.analysis.cells import CELL
from sims.analysis.origins import copied
from sims.analysis.runs import Runs
from sims.pages.number import counted, verb


def caveats(runs: Runs) -> list[str]:
    """Return what limits the numbers: runs left out, single seeds, mixed versions, validation data seen in training."""
    found = provenance_notes(runs)
    if runs.incomplete:
        left = len(runs.incomplete)
        found.append(
            f"{counted(left, 'run')} {verb(left)} not complete and left out: {', '.join(runs.incomplete[:5])}."
        )
    diverged = runs.runs[runs.runs["ended"] == "diverged"]
    if len(diverged):
        names = ", ".join(diverged["run_id"].head(5))
        found.append(
            f"{counted(len(diverged), 'run')} diverged, since the loss was no longer finite: {names}. They have no "
            "part in means, intervals and comparisons."
        )
    alive = runs.runs[runs.runs["ended"] != "diverged"]
    seeds = (
        alive.groupby([*CELL, "lr"], dropna=False)["seed"].nunique().reset_index().dropna(subset="batch_size")
    )
    # A cell stands at the rate that has the most.
    if seeds.groupby(CELL)["seed"].max().min() < 2:
        found.append(
            "Some cells have a single seed: they have no interval, and no difference between them is established."
        )
    found += uneven_sizes(runs)
    # Known only of runs whose validation sequences can occur in training.
    overlap = runs.runs["validation_overlap"].max() if "validation_overlap" in runs.runs else 0.0
    if overlap > 0:
        share = f"{overlap:.0%}" if overlap >= 0.01 else f"{100 * overlap:.2g}%"
        found.append(
            f"Up to {share} of the validation sequences occur in training, as in the paper: "
            "the validation loss is partly a training loss. Runs with --task.unique-val have none of these."
        )
    return found


def uneven_sizes(runs: Runs) -> list[str]:
    """Say which batch sizes each stage has, where these are not the same."""
    stages: dict[tuple[int, ...], list[str]] = {}
    # Watched models have none.
    for stage, sizes in runs.runs.dropna(subset="batch_size").groupby("stage", sort=False)["batch_size"]:
        stages.setdefault(tuple(sorted({int(size) for size in sizes})), []).append(str(stage))
    if len(stages) < 2:
        return []
    told = "; ".join(
        f"{', '.join(names)}: B = {', '.join(map(str, sizes))}" for sizes, names in stages.items()
    )
    return [
        f"Not every stage has every batch size ({told}). A mean over batch sizes is over those of its stage, and a "
        "transition stands for those that both of its stages have."
    ]


def provenance_notes(runs: Runs) -> list[str]:
    """Return sentences about runs that lie in several folders, were not made or measured alike, or are odd themselves.

    Every page and table of several runs carries them.
    """
    found = [*copied(runs.copies), *runs.made_by]
    if runs.mixed:
        found.append(
            f"The runs were measured by different versions, or some were not measured: {', '.join(runs.mixed)}. Train "
            "them with one version before you compare these numbers."
        )
    if runs.watched:
        found.append(
            "Losses on the probe are in nats where they are cross-entropies; others have units of their own."
        )
    if "notes" in runs.runs:
        noted = runs.runs[runs.runs["notes"].fillna("") != ""]
        found += [f"{r['run_id']}: {r['notes']}." for r in noted.to_dict("records")]
    return found


def other_rates(runs: Runs, best: Runs) -> list[str]:
    """Say which runs are left out as their cell stands at its best learning rate; nothing where none is.

    Args:
        runs: all of them.
        best: `sims.analysis.cells.best_rates` of these.
    """
    left = len(runs.runs) - len(best.runs)
    if not left:
        return []
    rates = runs.runs.groupby(CELL)["lr"].nunique(dropna=False)
    unequal = ""
    if rates.min() < rates.max():
        unequal = f", of {rates.min()} to {rates.max()} rates, where more to choose from favour a cell"
    return [
        f"{left} of {counted(len(runs.runs), 'run')} at other learning rates {verb(left)} left out: each cell stands "
        "with its best one of those with the most seeds (fewest tokens to the target, or else the lowest mean loss), "
        f"chosen on the same seeds{unequal}."
    ]


def seconds_by_part(runs: Runs) -> pd.Series:
    """Return the seconds of all runs by part (training, evaluation, …), summed over processes."""
    parts = [c for c in runs.runs.columns if c.startswith("seconds_")]
    return runs.runs[parts].sum().rename(lambda c: c.removeprefix("seconds_"))
