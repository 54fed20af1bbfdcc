"""Comparison of runs at equal loss instead of at equal step."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from sims.analysis.runs import Runs
from spectra import Spectrum, js_divergence


def crossing(curve: pd.DataFrame, loss: float) -> float:
    """Tokens at which a validation curve first reaches a loss, linear between evaluations; NaN if it never does.

    Args:
        curve: columns tokens and value (validation loss) of one run.
        loss: the level, in nats.
    """
    ordered = curve.sort_values("tokens")
    tokens, losses = ordered["tokens"].to_numpy(float), ordered["value"].to_numpy(float)
    reached = np.flatnonzero(losses <= loss)
    if not reached.size:
        return float("nan")
    i = int(reached[0])
    if i == 0:
        return float(tokens[0])
    share = (losses[i - 1] - loss) / (losses[i - 1] - losses[i])
    return float(tokens[i - 1] + share * (tokens[i] - tokens[i - 1]))


def matched_spectra(runs: Runs, site: str = "final") -> pd.DataFrame:
    """Activation spectra of the runs of each stage at that stage's common loss.

    The common loss of a stage is the largest of its runs' smallest measured losses, so that every run reached it.
    Each run enters with its first measured spectrum at or below it; what is then left of the loss gap is reported.

    Returns:
        One row a run: stage, batch_size, lr, seed, run_id, loss (common), own_loss, gap, step, tokens, n, d, values.
    """
    losses = runs.values("val_loss")[["run_id", "step", "value"]].rename(columns={"value": "own_loss"})
    chosen = runs.spectra[(runs.spectra["object"] == "activation") & (runs.spectra["site"] == site)]
    measured = chosen.merge(losses, on=["run_id", "step"])
    found = []
    for _, group in measured.groupby("stage", sort=False):
        common = group.groupby("run_id")["own_loss"].min().max()
        at_or_below = group[group["own_loss"] <= common].sort_values("step")
        first = at_or_below.groupby("run_id", sort=False).first().reset_index()
        found.append(first.assign(loss=common, gap=common - first["own_loss"]))
    return pd.concat(found, ignore_index=True)


def batch_divergence(matched: pd.DataFrame) -> pd.DataFrame:
    """JS divergence (nats) between matched spectra of different batch sizes, beside the floor between seeds.

    Args:
        matched: the result of `matched_spectra`.

    Returns:
        One row for each stage and pair of batch sizes: small, large, js (mean over pairs of runs of equal seed),
        low and high (smallest and largest), floor (mean JS between seeds at one batch size), pairs.
    """
    rows = []
    for stage, group in matched.groupby("stage", sort=False):
        spectra = {
            (int(r["batch_size"]), int(r["seed"])): Spectrum(
                np.asarray(r["values"]), n=int(r["n"]), d=int(r["d"])
            )
            for r in group.to_dict("records")
        }
        floors = [
            js_divergence(spectra[a], spectra[b])
            for a, b in combinations(sorted(spectra), 2)
            if a[0] == b[0] and a[1] != b[1]
        ]
        for small, large in combinations(sorted({b for b, _ in spectra}), 2):
            both = sorted(s for b, s in spectra if b == small and (large, s) in spectra)
            values = [js_divergence(spectra[small, s], spectra[large, s]) for s in both]
            if values:
                rows.append(
                    {
                        "stage": stage,
                        "small": small,
                        "large": large,
                        "js": float(np.mean(values)),
                        "low": min(values),
                        "high": max(values),
                        "floor": float(np.mean(floors)) if floors else float("nan"),
                        "pairs": len(values),
                    }
                )
    return pd.DataFrame(rows)
