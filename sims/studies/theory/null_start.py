"""T3: before training H_S is that of noise."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from sims.analysis.concentration import named_bands
from sims.runs.columns import modulus
from sims.studies.theory.checkpoint_tables import CheckpointTables
from sims.studies.theory.figures import outcomes as figures
from sims.studies.theory.outcome import Outcome, Question
from spectra import h_s_null, task_band
from theory.predictions import PREDICTIONS

TAIL = 0.025


def null_start(evidence: CheckpointTables) -> tuple[Outcome, ...]:
    """Test upper-tail probabilities of H_S (task) at step 0 under Beta(ds, d(K−s)): uniform if the claim is right.

    All runs of one seed start from nearly the same embedding, so that a seed and band counts once (their mean), and
    the interval is over seeds. A run's seeds are few, so that 64 initialisations of its configuration are asked too.
    """
    return (
        _answer("these runs", probabilities(evidence)),
        _answer("64 initialisations", untrained(evidence)),
    )


def _answer(of: str, table: pd.DataFrame) -> Outcome:
    question = Question(PREDICTIONS["null-h-s"], "1/2 (uniform)", of=of)
    if table.empty:
        return question.untestable("no H_S of the task band at step 0 for an odd modulus above 15")
    by_seed = table.groupby(["seed", "band"])["value"].mean()
    figure = figures.quantiles(by_seed.tolist(), "uniform quantile", "upper-tail probability of H_S")
    beyond = ((by_seed < TAIL) | (by_seed > 1 - TAIL)).mean()
    told = f"{len(by_seed)} seeds and bands, {beyond:.0%} of them in the outer {2 * TAIL:.0%} of the null"
    outcome = question.over_seeds(table, figure=figure)
    return replace(outcome, reason=f"{outcome.reason}; {told}")


def probabilities(evidence: CheckpointTables) -> pd.DataFrame:
    """Return P(null ≥ H_S) at step 0, one row a run and clean band: run_id, seed, stage, band (full name) and value.

    In the matched regime a class mean averages over the tokens of other walks, and rows are not independent.
    """
    rows = evidence.runs.values("h_s", "probe", set="task", regime="clean")
    rows = rows[rows["step"] == 0]
    rows = rows.assign(modulus=[modulus(band) for band in rows["band"]])
    rows = rows[(rows["modulus"] % 2 == 1) & rows["run_id"].isin(list(evidence.width))]
    values = [
        h_s_null(c, evidence.width[run], task_band(c)).p_value(observed)
        for run, c, observed in zip(rows["run_id"], rows["modulus"], rows["value"], strict=True)
    ]
    return named_bands(rows)[["run_id", "seed", "stage", "band"]].assign(value=values)


def untrained(evidence: CheckpointTables) -> pd.DataFrame:
    """Return the same probabilities of fresh initialisations."""
    table = evidence.initial
    laws = [h_s_null(c, d, task_band(c)) for c, d in zip(table["c"], table["d"], strict=True)]
    values = [law.p_value(h) for law, h in zip(laws, table["h_s"], strict=True)]
    return table.assign(value=values)
