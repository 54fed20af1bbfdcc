"""The floors of the losses of stored toy runs, for tables and figures."""

from __future__ import annotations

import math

import pandas as pd

from sims.analysis.runs import Runs
from sims.analysis.task_floor import LARGEST_VOCABULARY, run_floor
from sims.runs.layout import TOY
from toymodel.config import run_config


def floors(runs: Runs) -> pd.Series:
    """Return the floor of each run's validation losses by run id (nats); NaN where it is not known.

    Language models have none.
    """
    known = runs.configs if runs.kind == TOY else {}
    found = [
        run_floor(run_config(dict(known[run]))) if run in known else math.nan for run in runs.runs["run_id"]
    ]
    return pd.Series(found, index=runs.runs["run_id"], dtype=float)


def mean_floor(runs: Runs) -> float | None:
    """Return the mean floor of these runs, to be drawn beside their losses; None where one is not known."""
    found = runs.once(floors)
    return None if found.empty or found.isna().any() else float(found.mean())


def uniform_guess(runs: Runs) -> float | None:
    """Return the loss of a uniform guess, ln V nats; None where the runs have no vocabulary of V tokens in common."""
    known = runs.configs if runs.kind == TOY else {}
    sizes = {run_config(dict(known[run])).task.vocab for run in runs.runs["run_id"] if run in known}
    return math.log(sizes.pop()) if len(sizes) == 1 else None


def too_large(runs: Runs) -> str:
    """Return why the floor of toy runs is not computed, where their vocabulary is the reason; "" where it is not."""
    known = runs.configs if runs.kind == TOY else {}
    tasks = [run_config(dict(known[run])).task for run in runs.runs["run_id"] if run in known]
    most = max((task.vocab for task in tasks), default=0)
    if most <= LARGEST_VOCABULARY:
        return ""
    return f"the vocabulary has {most} tokens, and the exact law is known up to {LARGEST_VOCABULARY}"
