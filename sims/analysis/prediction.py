"""Test whether an exponent measured early orders the batch sizes by token efficiency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sims.analysis.cells import LABEL, tokens_to
from sims.analysis.resampling import benjamini_hochberg, seed_bootstrap, spearman, spearman_permutation
from sims.analysis.runs import Runs
from sims.system.errors import MeasureError

FRACTIONS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
LEAST_SIZES = 3


def early_exponents(
    runs: Runs, *, fractions: Sequence[float] = FRACTIONS, site: str = "final"
) -> pd.DataFrame:
    """Return exponents of activations at fractions of each run's training, and its tokens to the target.

    The target of a stage is the loss that all of its runs reached (`tokens_to`).

    A fraction f is f times the tokens (with a constant batch size: the steps) at which the run ended; α is linear in
    tokens between measurements, that of the untrained model left out. Runs that stop at a target end when they reach
    it, so that for them the fraction knows the outcome; runs of a fixed budget do not have that.

    Args:
        fractions: in (0, 1].
        site: of which activations.

    Returns:
        run_id, stage, batch_size, lr, seed, target, tokens (D(B; L*)), site, window, fraction, alpha (NaN where the
        window was not fitted on both sides of that moment, or it lies before the first measurement of training).

    Raises:
        MeasureError: no exponent measured there, or a fraction outside (0, 1].
    """
    if not all(0 < f <= 1 for f in fractions):
        raise MeasureError(f"fractions are {tuple(fractions)}; each must lie in (0, 1]")
    fitted = runs.values("alpha", "activation", site)
    if fitted.empty:
        raise MeasureError(
            f"no fitted exponent of activation spectra at {site!r}; measure some (measure.windows)"
        )
    fitted = fitted[fitted["step"] > 0]
    outcome = tokens_to(runs).set_index("run_id")
    ends = runs.runs.set_index("run_id")["tokens"]
    rows: list[dict[str, Any]] = []
    for (run, window), own in fitted[fitted["run_id"].isin(outcome.index)].groupby(
        ["run_id", "window"], sort=False
    ):
        own = own.sort_values("tokens")
        moments = np.asarray(fractions) * float(ends[str(run)])
        alpha = np.interp(moments, own["tokens"], own["value"], left=np.nan, right=np.nan)
        label = {name: own[name].iloc[0] for name in LABEL}
        known = {"target": outcome.at[run, "target"], "tokens": outcome.at[run, "tokens"]}
        rows += [
            {**label, **known, "site": site, "window": window, "fraction": f, "alpha": float(a)}
            for f, a in zip(fractions, alpha, strict=True)
        ]
    if not rows:
        raise MeasureError(
            f"no exponent of activation spectra at {site!r} was measured after the start; measure later checkpoints too"
        )
    return pd.DataFrame(rows)


def early_prediction(table: pd.DataFrame) -> pd.DataFrame:
    """Correlate ε_tok(B) = D(B)/min D − 1 with α over batch sizes, by window and fraction.

    The batch sizes are the units: α and ln D are averaged over seeds first, and the labels of the batch sizes are
    permuted for all seeds at once, so that seeds do not pass for independent evidence. All permutations are counted up
    to seven sizes, drawn above. Under the null of the test any assignment of outcomes to batch sizes is as good as
    any other. ε_tok is a rising function of ln D, so both have the same ranks.

    Args:
        table: the result of `early_exponents`.

    Returns:
        One row for each stage, site, window and fraction: stage, site, window, fraction, target, sizes, seeds (those
        with every batch size), rho, low, high (95 % bootstrap over seeds, all resamples up to five seeds; NaN below
        three), p (two-sided permutation), p_min (the smallest possible), q (Benjamini–Hochberg over the windows ×
        fractions of the stage and site), exact, and rho_size: the correlation of ε_tok with the batch size itself,
        which α must be set against. Where that is ±1, whatever follows the batch size predicts ε_tok as well, the
        learning rate among them. rho is NaN where α was not fitted in every run or does not vary.

    Raises:
        MeasureError: fewer than three batch sizes with a seed in common.
    """
    found = [
        _stage_rows(str(stage), str(site), own)
        for (stage, site), own in table.groupby(["stage", "site"], sort=False)
    ]
    if not found:
        raise MeasureError("early prediction has no rows to work on; measure exponents of some runs first")
    return pd.concat(found, ignore_index=True)


def token_inefficiency(table: pd.DataFrame) -> pd.DataFrame:
    """Return ε_tok(B) of each stage, from geometric means of D over complete seeds.

    Args:
        table: columns stage, batch_size, seed, tokens (of `tokens_to` or `early_exponents`).

    Returns:
        stage, batch_size, seeds, tokens (geometric mean), inefficiency (0 at the best size), low, high (95 % bootstrap
        over seeds; NaN below three).

    Raises:
        MeasureError: no seed has every batch size of a stage.
    """
    found = []
    for stage, own in table.groupby("stage", sort=False):
        wide = _log_tokens(own)
        logs = wide.to_numpy(float)
        if not len(logs):
            raise MeasureError(
                f"no seed of stage {stage} has all of its {own['batch_size'].nunique()} batch sizes; train the missing "
                "runs"
            )

        def excess(mean: np.ndarray) -> np.ndarray:
            return np.expm1(mean - mean.min(axis=-1, keepdims=True))

        low, high = seed_bootstrap(lambda chosen, v=logs: excess(v[chosen].mean(axis=1)), len(logs))
        mean = logs.mean(axis=0)
        columns = {"tokens": np.exp(mean), "inefficiency": excess(mean), "low": low, "high": high}
        found.append(
            pd.DataFrame(
                {"stage": stage, "batch_size": wide.columns.to_numpy(), "seeds": len(wide), **columns}
            )
        )
    return pd.concat(found, ignore_index=True)


def _stage_rows(stage: str, site: str, own: pd.DataFrame) -> pd.DataFrame:
    outcome = _log_tokens(own)
    seeds, sizes = outcome.index, outcome.columns
    if len(sizes) < LEAST_SIZES or len(seeds) == 0:
        raise MeasureError(
            f"early prediction in stage {stage} needs ≥ {LEAST_SIZES} batch sizes that share a seed; there are "
            f"{len(sizes)} sizes and {len(seeds)} seeds with all of them: train more batch sizes"
        )
    family = own[["window", "fraction"]].drop_duplicates()
    alpha = np.full((len(family), len(seeds), len(sizes)), np.nan)
    known = own["seed"].isin(seeds).to_numpy()
    place = own.groupby(["window", "fraction"], sort=False).ngroup().to_numpy()[known]
    columns = (
        seeds.get_indexer(pd.Index(own["seed"][known])),
        sizes.get_indexer(pd.Index(own["batch_size"][known])),
    )
    alpha[place, *columns] = own["alpha"][known]
    head = {
        "stage": stage,
        "site": site,
        "window": family["window"].array,
        "fraction": family["fraction"].array,
    }
    own_order = float(spearman(sizes.to_numpy(float), outcome.to_numpy(float).mean(axis=0)))
    tail = {"target": own["target"].iloc[0], "sizes": len(sizes), "seeds": len(seeds), "rho_size": own_order}
    return pd.DataFrame({**head, **tail, **associate(alpha, outcome.to_numpy(float))})


def associate(alpha: np.ndarray, log_tokens: np.ndarray) -> dict[str, np.ndarray | bool]:
    """Compute the statistics of `early_prediction` for one family of hypotheses.

    Args:
        alpha: (hypotheses, seeds, sizes), NaN where not fitted.
        log_tokens: (seeds, sizes) ln D.

    Returns:
        rho, low, high, p, p_min, q, each (hypotheses,), and exact.
    """
    complete = np.isfinite(alpha).all(axis=(1, 2))
    fitted = alpha[complete]
    columns = {name: np.full(len(alpha), np.nan) for name in ("rho", "low", "high", "p", "p_min", "q")}
    if not complete.any():
        return {**columns, "exact": True}
    tested = spearman_permutation(fitted.mean(axis=1), log_tokens.mean(axis=0))

    def resampled(chosen: np.ndarray) -> np.ndarray:
        means = fitted[:, chosen].mean(axis=2).swapaxes(0, 1)
        return spearman(means, log_tokens[chosen].mean(axis=1)[:, None])

    low, high = seed_bootstrap(resampled, len(log_tokens))
    values = (tested.rho, low, high, tested.p, tested.p_min, benjamini_hochberg(tested.p))
    for column, value in zip(columns.values(), values, strict=True):
        column[complete] = value
    return {**columns, "exact": tested.exact}


def _log_tokens(own: pd.DataFrame) -> pd.DataFrame:
    """Return ln D, (seeds, batch sizes), of the seeds that have every batch size."""
    unique = own[["seed", "batch_size", "tokens"]].drop_duplicates()
    wide = unique.pivot(index="seed", columns="batch_size", values="tokens").dropna()
    # Tokens to a loss that a run starts below are 0 and have no logarithm: the seed lacks that batch size.
    return wide.where(wide > 0).dropna().map(np.log)
