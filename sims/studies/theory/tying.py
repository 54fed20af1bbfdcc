"""T10: where tied and untied heads start (b), and whether a freed direct path takes up the shift (N1, from a)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from sims.pages.number import counted
from sims.studies.theory.checkpoint_tables import CheckpointTables, ended
from sims.studies.theory.figures import outcomes as figures
from sims.studies.theory.outcome import Outcome, Question, seed_mean
from theory.formulas import tying
from theory.predictions import PREDICTIONS
from toymodel.stages import stage

EXACT = 1e-5
SIGMAS = 3.0
# From so many times ln(2V) on, the logits of other tokens add about 0.05 nats at most: V exp(−d/4) is ½ there at most.
WIDTHS = 4.0
# A symmetric matrix is symmetric up to the rounding of a float64 product.
SYMMETRIC = 1e-9


def initial_loss(evidence: CheckpointTables) -> tuple[Outcome, ...]:
    """Compare the loss at step 0 with its prediction: tied within three standard errors; untied ln V."""
    untied = evidence.start["stage"].map(is_untied).astype(bool)
    return (_tied(evidence.start[~untied]), *_zero(evidence.start[untied]))


def _tied(table: pd.DataFrame) -> Outcome:
    question = Question(PREDICTIONS["initial-loss-tied"], "0 ± 3 standard errors", of="tied")
    if table.empty:
        return question.untestable("no tied run with a checkpoint at step 0")
    narrow = table[[d < _least_width(v) for d, v in zip(table["d"], table["V"], strict=True)]]
    if len(narrow):
        first = narrow.iloc[0]
        reason = (
            f"the width is {first['d']}: below 4 ln(2V) = {_least_width(first['V']):.0f} the logits of other tokens "
            "add to the loss at step 0"
        )
        return question.untestable(reason, narrow)
    expected = np.array([tying.tied_initial_loss(int(d)) for d in table["d"]])
    used = table.assign(value=table["loss"] - expected)
    mean, low, high, seeds = seed_mean(used)
    error = float(table["scatter"].mean()) / seeds**0.5
    reason = (
        f"predicted {expected[0]:.2f} nats, scatter of one embedding {table['scatter'].mean():.2f}; the mean over "
        f"{seeds} seeds is {mean / error:+.2f} standard errors away"
    )
    figure = figures.points(used, "stage", "value", "loss at step 0 minus prediction (nats)")
    outcome = question.exact(mean, abs(mean) <= SIGMAS * error, reason, used, figure)
    return replace(outcome, low=low, high=high)


def _least_width(vocab: int) -> float:
    """Return the width from which the formula holds for a tied head."""
    return WIDTHS * math.log(2 * vocab)


def _zero(table: pd.DataFrame) -> tuple[Outcome, ...]:
    loss = Question(PREDICTIONS["initial-loss"], "0 exactly", of="untied")
    alone = Question(PREDICTIONS["head-gradient"], "0 exactly", of="untied")
    if table.empty:
        return tuple(q.untestable("no untied run with a checkpoint at step 0") for q in (loss, alone))
    deviation = (table["loss"] - np.log(table["V"].astype(float))).abs()
    worst = float(deviation.max())
    others = [[n for n in moved.split() if n != "head"] for moved in table["moved"]]
    head_moves = all("head" in moved.split() for moved in table["moved"])
    most = max(len(o) for o in others)
    named = ", ".join(sorted({n for o in others for n in o})) or "none"
    told = f"beside the head: {named}; the head itself {'has' if head_moves else 'has not'} a gradient"
    return (
        loss.exact(
            worst,
            worst <= EXACT,
            f"largest deviation {worst:.1e} nats against {EXACT:g}",
            table,
            missing=int(deviation.isna().sum()),
        ),
        alone.exact(float(most), most == 0 and head_moves, told, table),
    )


def direct_path(evidence: CheckpointTables) -> tuple[Outcome, ...]:
    """Test N1: ρ of the untied stages, and that L of every tied run is symmetric."""
    question = Question(PREDICTIONS["direct-path"], "> 0 (tied: L − Lᵀ = 0)", of="untied")
    paths = ended(evidence.runs, evidence.direct)
    untied = paths["stage"].map(is_untied).astype(bool)
    free = paths[untied].assign(value=lambda t: t["follows"]).dropna(subset=["value"])
    tied = paths[~untied]
    if len(tied) and tied["asymmetry"].max() > SYMMETRIC:
        worst = float(tied["asymmetry"].max())
        return (question.exact(worst, False, f"a tied direct path is asymmetric by {worst:.1e}", tied),)
    if free.empty:
        return (question.untestable("no untied run whose head has left zero"),)
    figure = figures.points(free, "batch_size", "value", "ρ(L − Lᵀ, B − Bᵀ)")
    outcome = question.over_seeds(free, figure=figure)
    told = f"{outcome.reason}; the antisymmetric part is {free['asymmetry'].mean():.0%} of ‖L‖"
    if len(tied):
        told += f", in {counted(len(tied), 'tied run')} it is zero to rounding"
    return (replace(outcome, reason=told),)


def is_untied(name: str) -> bool:
    """Return whether a stage has a head matrix separate from the embedding."""
    return type(stage(name).head) is not type(stage("baseline").head)
