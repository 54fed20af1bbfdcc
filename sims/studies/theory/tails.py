"""T6 and T7: do flatter tails, or larger eigenvalues, need fewer tokens to the common loss?"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pandas as pd

from sims.analysis.cells import crossing
from sims.runs.columns import first_rank
from sims.studies.theory.checkpoint_tables import CheckpointTables, complete, natural_log
from sims.studies.theory.figures import outcomes as figures
from sims.studies.theory.outcome import Outcome, Question
from theory.predictions import PREDICTIONS

# Spectra are taken at this share of training, where the paper's figure 4a finds them most telling.
EARLY = 0.2
HEAD_END = 10


def tails(evidence: CheckpointTables) -> tuple[Outcome, ...]:
    """Judge domination of raw spectra (T6(i)), and the sign for every tail window, between stages and batch sizes.

    Domination is asked at one batch size alone: T6 speaks of time, and tokens are time where all steps have as many.
    """
    pairs = compared(evidence)
    found = [_domination(pairs[pairs["kind"] == "stages"] if len(pairs) else pairs)]
    windows = sorted({c for c in pairs.columns if c.startswith("flatter ")}, key=_first_rank)
    for kind in ("stages", "batch sizes"):
        chosen = pairs[pairs["kind"] == kind] if len(pairs) else pairs
        names = [w for w in windows if len(chosen) and chosen[w].notna().any()]
        if not names:
            question = Question(PREDICTIONS["flatter-faster"], "+1 (0 by chance)", of=f"pairs of {kind}")
            found.append(question.untestable(f"no two {kind} with a common seed and a fitted tail exponent"))
        found += [_sign(chosen, window, kind) for window in names]
    return tuple(found)


def _first_rank(column: str) -> int:
    return first_rank(column.removeprefix("flatter "))


def _sign(pairs: pd.DataFrame, window: str, kind: str) -> Outcome:
    ranks = window.removeprefix("flatter ")
    used = pairs.dropna(subset=[window]).assign(value=lambda t: np.sign(t[window] * t["fewer"]))
    question = Question(PREDICTIONS["flatter-faster"], "+1 (0 by chance)", of=f"α({ranks}), pairs of {kind}")
    figure = figures.scatter(
        used, window, "fewer", f"α({ranks}): first minus second", "ln tokens: first minus second", zero=True
    )
    return question.over_seeds(used, figure=figure)


def _domination(pairs: pd.DataFrame) -> Outcome:
    question = Question(PREDICTIONS["token-order"], "≤ 0", of="pairs of stages with λ'_j ≥ λ_j at every rank")
    if pairs.empty:
        return question.untestable(
            "no two stages with a common batch size and seed, a spectrum and a common loss"
        )
    figure = figures.scatter(
        pairs,
        "dominated",
        "fewer",
        "share of ranks where the second spectrum is larger",
        "ln tokens: first minus second",
        zero=True,
    )
    met = pairs[pairs["dominated"].isin([0.0, 1.0])]
    if met.empty:
        best = float(np.maximum(pairs["dominated"], 1 - pairs["dominated"]).max())
        reason = (
            f"premise never met: at most {best:.0%} of the ranks of one spectrum exceed the other's in "
            f"{len(pairs)} pairs (RMSNorm fixes the trace, so the head pays for the tail)"
        )
        return replace(question.untestable(reason, pairs), figure=figure)
    # `dominated` is the share of ranks at which the second spectrum is larger; the dominating run comes first in D'/D.
    signed = np.where(met["dominated"] == 1.0, -met["fewer"], met["fewer"])
    return question.over_seeds(met.assign(value=signed), figure=figure)


def compared(evidence: CheckpointTables) -> pd.DataFrame:
    """Pair runs of one seed: neighbouring stages at one batch size, and batch sizes within one stage.

    Returns:
        run_id (both), stage, seed, kind, fewer (ln tokens of the first minus ln tokens of the second, to the loss
        both reach), dominated (share of ranks where the second spectrum is larger), and one column
        "flatter lo-hi" a tail window (α of the first minus α of the second).
    """
    alive = complete(evidence.runs)
    stages = list(dict.fromkeys(alive["stage"]))
    measures = {
        run: _early(evidence, run, int(step))
        for run, step in zip(alive["run_id"], alive["step"], strict=True)
    }
    curves = evidence.runs.values("val_loss")
    rows = []
    for seed, own in alive.groupby("seed"):
        cells = {(r["stage"], r["batch_size"]): r["run_id"] for r in own.to_dict("records")}
        sizes = sorted({b for _, b in cells})
        wanted = [("stages", (a, b), (s, b)) for a, s in pairwise(stages) for b in sizes]
        wanted += [("batch sizes", (s, a), (s, b)) for s in stages for a, b in combinations(sizes, 2)]
        for kind, one, two in wanted:
            if one in cells and two in cells:
                pair = _pair(curves, measures, cells[one], cells[two])
                if pair:
                    rows.append({"stage": two[0], "seed": seed, "kind": kind, **pair})
    return pd.DataFrame(rows)


def _pair(curves: pd.DataFrame, measures: dict[str, dict], one: str, two: str) -> dict | None:
    first, second = (curves[curves["run_id"] == r] for r in (one, two))
    common = max(first["value"].min(), second["value"].min())
    fewer = float(natural_log(crossing(first, common)) - natural_log(crossing(second, common)))
    a, b = measures[one], measures[two]
    if not np.isfinite(fewer) or a["values"] is None or b["values"] is None:
        return None
    if len(a["values"]) != len(b["values"]):
        return None
    windows = {f"flatter {w}": a["alpha"][w] - b["alpha"][w] for w in a["alpha"] if w in b["alpha"]}
    larger = float((b["values"] >= a["values"]).mean())
    # Ranks at which both are equal, such as those without variance, are no reason against the first.
    if larger < 1 and (a["values"] >= b["values"]).all():
        larger = 0.0
    return {"run_id": f"{one} {two}", "fewer": fewer, "dominated": larger, **windows}


def _early(evidence: CheckpointTables, run: str, last: int) -> dict:
    """Return eigenvalues and tail exponents of the final states at the measurement nearest to 20 % of training."""
    spectra = evidence.runs.spectra
    own = spectra[
        (spectra["run_id"] == run) & (spectra["object"] == "activation") & (spectra["site"] == "final")
    ]
    own = own[own["step"] > 0]
    if own.empty:
        return {"values": None, "alpha": {}}
    row = own.iloc[int((own["step"] - EARLY * last).abs().to_numpy().argmin())]
    alphas = evidence.runs.values("alpha", "activation", "final")
    alphas = alphas[(alphas["run_id"] == run) & (alphas["step"] == row["step"])]
    tail = {w: float(v) for w, v in zip(alphas["window"], alphas["value"], strict=True)}
    tail = {w: v for w, v in tail.items() if first_rank(w) >= HEAD_END}
    return {"values": np.asarray(row["values"]), "alpha": tail}
