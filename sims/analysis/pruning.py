"""What one allocation of zeros costs beside another, with equal zeros: over sequences of one model, and over models."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from sims.analysis.intervals import mean_interval
from theory.decision import side

SAVES, COSTS, OPEN = VERDICTS = ("saves", "costs", "cannot be told")
UNIFORM = "uniform"
# What is compared at once.
CELL = ["method", "sparsity", "unit"]


def verdict(low: float, high: float) -> str:
    """Say what an interval of a difference of losses says.

    >>> verdict(-0.2, -0.1), verdict(0.1, 0.2), verdict(-0.1, 0.1)
    ('saves', 'costs', 'cannot be told')
    """
    return {-1: SAVES, 0: OPEN, 1: COSTS}[side(low, high)]


def differences(losses: pd.DataFrame, against: str = UNIFORM) -> pd.DataFrame:
    """Compare every allocation with another one, model by model, over the same sequences.

    Args:
        losses: one row a model, method, sparsity, unit, by, draw (of a shuffle; 0 otherwise) and sequence, with loss in
            nats per token.
        against: the allocation to compare with; its own rows compare it with itself and are left out.

    Returns:
        One row a model and allocation, draws averaged (over the sequences that all of them have): model, method,
        sparsity, unit, by, loss, delta (loss − that of `against`) with low, high (95 % Student over sequences),
        sequences, verdict.
    """
    losses, of = losses.dropna(subset=["loss"]), ["model", *CELL, "by"]
    draws = losses.groupby(of, sort=False)["draw"].transform("nunique")
    # A mean over draws of which one is missing would be of other draws.
    losses = losses[losses.groupby([*of, "sequence"], sort=False)["draw"].transform("nunique") == draws]
    mean = losses.groupby([*of, "sequence"], sort=False)["loss"].mean().reset_index()
    other = mean[mean["by"] == against].drop(columns="by").rename(columns={"loss": "base"})
    both = mean[mean["by"] != against].merge(other, on=["model", *CELL, "sequence"])
    rows = []
    for keys, own in both.groupby(["model", *CELL, "by"], sort=False):
        delta, low, high = mean_interval((own["loss"] - own["base"]).to_numpy())
        rows.append(
            {
                **dict(zip(("model", *CELL, "by"), keys, strict=True)),
                "loss": float(own["loss"].mean()),
                "delta": delta,
                "low": low,
                "high": high,
                "sequences": len(own),
                "verdict": verdict(low, high),
            }
        )
    columns = ["model", *CELL, "by", "loss", "delta", "low", "high", "sequences", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def over_models(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean difference of every allocation over models, with its interval and verdict.

    Args:
        table: of `differences`.

    Returns:
        One row an allocation: method, sparsity, unit, by, models, delta, low, high (95 % Student over models; of one
        model over its sequences), over ("models" or "sequences"), saves, costs (numbers of models with this verdict of
        their own), verdict.
    """
    rows = []
    for keys, own in table.groupby([*CELL, "by"], sort=False):
        several = len(own) > 1
        one = own.iloc[0]
        alone = (float(one["delta"]), float(one["low"]), float(one["high"]))
        delta, low, high = mean_interval(own["delta"].to_numpy()) if several else alone
        rows.append(
            {
                **dict(zip((*CELL, "by"), keys, strict=True)),
                "models": len(own),
                "delta": delta,
                "low": low,
                "high": high,
                "over": "models" if several else "sequences",
                "saves": int((own["verdict"] == SAVES).sum()),
                "costs": int((own["verdict"] == COSTS).sum()),
                "verdict": verdict(low, high),
            }
        )
    columns = [*CELL, "by", "models", "delta", "low", "high", "over", "saves", "costs", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def shuffle_ranks(losses: pd.DataFrame, prefix: str) -> pd.DataFrame:
    """Compare scores with their own shuffles: p = (1 + shuffles that are at least as good)/(1 + shuffles).

    A shuffle counts by its mean over models and sequences, as the score does: over those that the score and all of its
    shuffles have, since easier ones would favour whichever was tried on them.

    Args:
        losses: as for `differences`.
        prefix: of the names of shuffles.

    Returns:
        One row a score whose shuffles are there: method, sparsity, unit, by, control (prefix), shuffles, models (that
        all have), loss, shuffled (mean loss), p; NaN where they have no model and sequence in common.
    """
    pairs = ["model", "sequence"]
    rows = []
    for keys, own in losses.groupby(CELL, sort=False):
        wide = own.groupby([*pairs, "by", "draw"], sort=False)["loss"].mean().unstack(["by", "draw"])
        for name in dict.fromkeys(own["by"]):
            if f"{prefix}{name}" not in wide:
                continue
            both = wide[[name, f"{prefix}{name}"]].dropna()
            shuffles = both.shape[1] - 1
            row = dict(zip(CELL, keys, strict=True)) | {"by": name, "control": prefix, "shuffles": shuffles}
            row |= {"models": both.index.get_level_values("model").nunique()}
            row |= dict.fromkeys(("loss", "shuffled", "p"), math.nan)
            if len(both):
                # One sum for all, so that equal losses are tied to the last bit.
                loss, *drawn = both.to_numpy(float).mean(axis=0).tolist()
                row |= {"loss": loss, "shuffled": float(np.mean(drawn))}
                row["p"] = (1 + sum(other <= loss for other in drawn)) / (1 + shuffles)
            rows.append(row)
    columns = [*CELL, "by", "control", "shuffles", "models", "loss", "shuffled", "p"]
    return pd.DataFrame(rows, columns=columns)


def score_correlations(scores: pd.DataFrame, measured: str) -> pd.DataFrame:
    """Correlate scores by rank with what pruning alone was measured to cost, model by model.

    Args:
        scores: model, method, sparsity, unit, by, name (of the matrix or block), score.
        measured: the score that was measured.

    Returns:
        One row a score: method, sparsity, unit, by, models, rho (mean Spearman over models) with low, high (95 %
        Student over models; NaN for one).
    """
    wanted = scores[scores["by"] == measured].rename(columns={"score": "wanted"}).drop(columns="by")
    both = scores[scores["by"] != measured].merge(wanted, on=["model", *CELL, "name"])
    rows = []
    for keys, own in both.groupby([*CELL, "by"], sort=False):
        found = []
        for _, one in own.groupby("model", sort=False):
            if one["score"].nunique() > 1 and one["wanted"].nunique() > 1:
                ranks = one[["score", "wanted"]].rank()
                found.append(float(ranks["score"].corr(ranks["wanted"])))
        if found:
            rho, low, high = mean_interval(found)
            row = dict(zip((*CELL, "by"), keys, strict=True)) | {"models": len(found)}
            # An interval of a mean of correlations may reach beyond what one can be.
            rows.append({**row, "rho": rho, "low": max(low, -1.0), "high": min(high, 1.0)})
    return pd.DataFrame(rows, columns=[*CELL, "by", "models", "rho", "low", "high"])
