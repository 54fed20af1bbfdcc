"""Group runs into cells (stage and batch size), and read them at equal losses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd

from sims.analysis.runs import Runs
from sims.pages.number import counted, verb
from sims.system.errors import MeasureError
from toymodel.stages import CHAIN

CELL = ["stage", "batch_size"]
LABEL = ["run_id", "stage", "batch_size", "lr", "seed"]
# Loss levels behind a loss-proximal mean.
LEVELS = 5
# A loss that differs from a level by rounding has reached it.
ROUNDING = 1e-12


def in_chain_order(stages: Iterable[str]) -> list[str]:
    """Return every stage once: those of the chain in its order, then all others as they come."""
    found = dict.fromkeys(stages)
    return [*(s for s in CHAIN if s in found), *(s for s in found if s not in CHAIN)]


def keep(runs: Runs, run_ids: Iterable[str]) -> Runs:
    """Return only these runs, for instance those at the best learning rate of each cell."""
    ids = set(run_ids)

    def kept(table: pd.DataFrame) -> pd.DataFrame:
        return table[table["run_id"].isin(ids)].reset_index(drop=True)

    return replace(runs, runs=kept(runs.runs), rows=kept(runs.rows), spectra=kept(runs.spectra))


def apart(runs: Runs) -> Runs:
    """Return the runs with their names as stages: each one is a cell of its own."""

    def named(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(stage=table["run_id"])

    return replace(
        runs, runs=named(runs.runs), rows=named(runs.rows), spectra=named(runs.spectra), differing=()
    )


def best_rates(runs: Runs) -> Runs:
    """Return the runs of each cell at its best learning rate.

    Only the rates of a cell with the largest number of seeds that did not diverge are compared, over the seeds that all
    of these have (each over its own where they share none): a rate tried with one seed does not displace one with
    three. Best is the fewest tokens, mean over seeds, among rates at which every seed reached its target loss; failing
    that, the lowest mean final loss. A diverged seed counts as an infinite loss; rates that were pruned are left out.
    The choice looks at the same seeds as the analyses that follow, which favours each cell a little.
    """
    table = runs.runs[runs.runs["ended"] != "pruned"]
    scores = _scores(_comparable(table))
    best = scores.sort_values(["missed", "score", "lr"]).drop_duplicates(CELL)[[*CELL, "lr"]]
    return keep(runs, table.merge(best, on=[*CELL, "lr"])["run_id"])


def _comparable(table: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that decide on the rate of their cell: see `best_rates`."""
    table = table.assign(alive=table["seed"].where(table["ended"] != "diverged"))
    seeds = table.groupby([*CELL, "lr"], dropna=False)["alive"].transform("nunique")
    table = table[seeds == seeds.groupby([table[name] for name in CELL], dropna=False).transform("max")]
    of_cell = table.groupby(CELL, dropna=False)["lr"]
    of_seed = table.groupby([*CELL, "seed"], dropna=False)["lr"]
    shared = of_cell.transform("nunique", dropna=False) == of_seed.transform("nunique", dropna=False)
    none = ~shared.groupby([table[name] for name in CELL], dropna=False).transform("any")
    return table[shared | none | table["alive"].isna()]


def _scores(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row a cell and rate: the cell, lr, missed (the target, by any seed), score (the lower the better)."""
    missed = table["ended"] != "target"
    loss = table["val_loss"].where(table["ended"] != "diverged", np.inf).fillna(np.inf)
    rates = table.assign(missed=missed, score=loss).groupby([*CELL, "lr"], sort=False, dropna=False)
    scores = rates.agg(
        missed=("missed", "any"), loss=("score", "mean"), tokens=("tokens", "mean")
    ).reset_index()
    return scores.assign(score=scores["loss"].where(scores["missed"], scores["tokens"]))


def usable(runs: Runs) -> pd.DataFrame:
    """Return the rows of `runs.runs` that ended regularly: neither diverged nor pruned.

    Raises:
        MeasureError: none is left, or a cell holds runs at several learning rates, or several runs of one seed.
    """
    alive = runs.runs[~runs.runs["ended"].isin(["diverged", "pruned"])]
    if alive.empty:
        raise MeasureError(
            f"diverged or pruned: {counted(len(runs.runs), 'run')}, which is all; lower the learning rates"
        )
    rates = alive.groupby(CELL, sort=False)["lr"].unique()
    for (stage, size), found in rates.items():  # pyright: ignore[reportGeneralTypeIssues]
        if len(found) > 1:
            shown = ", ".join(f"{r:.3g}" for r in sorted(found))
            raise MeasureError(
                f"stage {stage} at B = {size} has runs at {len(found)} learning rates ({shown}); an analysis compares "
                "one rate a cell: choose with `best_rates` or `keep`"
            )
    if same := same_seed(alive):
        raise MeasureError(
            f"{same}; an analysis compares one run a seed: put the others in a folder of their own"
        )
    return alive


def same_seed(runs: pd.DataFrame) -> str | None:
    """Name runs of one stage, batch size, learning rate and seed, of which none may be chosen; None without such."""
    key = [*CELL, "lr", "seed"]
    double = runs[runs.duplicated(key, keep=False)]
    if double.empty:
        return None
    first = double.iloc[0]
    names = double[(double[key] == first[key]).all(axis=1)]["run_id"].tolist()
    return (
        f"stage {first['stage']} at B = {first['batch_size']} has {len(names)} runs of seed {first['seed']} "
        f"({', '.join(names[:2])})"
    )


def loss_curves(runs: Runs, measured: bool = False) -> dict[str, pd.DataFrame]:
    """Return validation curves (step, tokens, value) of the usable runs, ordered by step.

    Args:
        measured: only at the steps where spectra or probes were measured.

    Raises:
        MeasureError: as of `usable`, or a run without such a loss.
    """
    alive = usable(runs)
    rows = runs.values("val_loss")
    rows = rows[rows["run_id"].isin(alive["run_id"])].sort_values("step")
    if measured:
        others = runs.rows[runs.rows["object"] != "loss"][["run_id", "step"]].drop_duplicates()
        rows = rows.merge(others, on=["run_id", "step"])
    curves = {str(run): own[["step", "tokens", "value"]] for run, own in rows.groupby("run_id", sort=False)}
    without = [run for run in alive["run_id"] if run not in curves]
    if without:
        where = " at a step where anything else was measured" if measured else ""
        raise MeasureError(
            f"{len(without)} of {counted(len(alive), 'run')} {verb(len(without), 'has', 'have')} no validation "
            f"loss{where} (for instance {without[0]}); measure them, or leave them out"
        )
    return curves


def common_loss(curves: Iterable[pd.DataFrame]) -> float:
    """Return the lowest loss that all of these runs reached."""
    return max(float(curve["value"].min()) for curve in curves)


def loss_range(curves: Sequence[pd.DataFrame]) -> tuple[float, float]:
    """Return the highest and the lowest loss at which these runs can be compared.

    The range begins at the first record after the start and ends at the lowest loss that all runs reached by training:
    a run that never got below its start has learned nothing to be compared. Nothing is interpolated between the
    untrained model and its first record: the loss falls most steeply there, so that a line through the two points would
    not describe it.

    Args:
        curves: columns tokens and value (validation loss) of each run, in the order of steps.

    Returns:
        The highest and the lowest such loss, in nats.

    Raises:
        MeasureError: some run was below all that another reached when it was first recorded.
    """
    high = min(float(curve["value"].iloc[: _first_trained(curve) + 1].min()) for curve in curves)
    low = common_loss(curve.iloc[_first_trained(curve) :] for curve in curves)
    if low > high or low >= _lowest_start(curves):
        raise MeasureError(
            f"the runs share no range of losses: one is at {high:.3f} by its first record after the start, and another "
            f"never falls below {low:.3f} after it; record earlier (measure.early, eval_every), train longer, or leave "
            "that run out"
        )
    return high, low


def _first_trained(curve: pd.DataFrame) -> int:
    """Return the index of the first record after step 0, or of the only record."""
    trained = np.flatnonzero(curve["tokens"].to_numpy(float) != 0)
    return int(trained[0]) if trained.size else 0


def _lowest_start(curves: Sequence[pd.DataFrame]) -> float:
    """Return the lowest loss of an untrained model; infinite where none was recorded."""
    return min((float(curve["value"].iloc[0]) for curve in curves if _first_trained(curve)), default=np.inf)


def loss_levels(curves: Sequence[pd.DataFrame], levels: int = LEVELS) -> np.ndarray:
    """Return falling loss levels that every run passes after its first record of training.

    They are the quantiles (i − ½)/levels of the pooled recorded losses within `loss_range`, so that they lie where the
    runs spend their evaluations.

    Raises:
        MeasureError: the runs have no range of losses in common.
    """
    high, low = loss_range(curves)
    pooled = np.concatenate([curve["value"].to_numpy(float) for curve in curves])
    # A run is at the loss of its start before it has seen a token.
    inside = pooled[(pooled >= low) & (pooled <= high) & (pooled < _lowest_start(curves))]
    return np.quantile(inside, 1 - (np.arange(levels) + 0.5) / levels)


def levels_or_reason(curves: Sequence[pd.DataFrame], levels: int = LEVELS) -> tuple[np.ndarray, str]:
    """Return `loss_levels`, or NaN and the reason why there are none.

    Returns:
        (levels,) and ""; or NaN at each and why.
    """
    try:
        return loss_levels(curves, levels), ""
    except MeasureError as error:
        return np.full(levels, np.nan), first_clause(error)


def first_clause(error: MeasureError) -> str:
    """Return the fault that a message names, without the remedy after the semicolon."""
    return str(error).split(";")[0]


def crossing(curve: pd.DataFrame, loss: float) -> float:
    """Return the tokens at which a validation curve first reaches a loss.

    The curve is linear between evaluations.

    Args:
        curve: columns tokens and value (validation loss) of one run.
        loss: the level, in nats.

    Returns:
        NaN if the run never reaches the loss, or passes it before its first evaluation after the start (also where the
        untrained model was not evaluated: the tokens of the first record are then but a bound); 0 if it begins below
        it.
    """
    ordered = curve.sort_values("tokens")
    losses, tokens = ordered["value"].to_numpy(float), ordered["tokens"].to_numpy(float)
    if not len(losses):
        return float("nan")
    # A run that starts below the loss needed nothing to reach it.
    if tokens[0] == 0 and losses[0] <= loss:
        return 0.0
    return float(at_losses(tokens, losses, tokens, np.array([loss]))[0])


def at_losses(tokens: np.ndarray, losses: np.ndarray, values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return quantities where the loss first reaches each level.

    They are linear in the loss between the two records around a level.

    Args:
        tokens: (t,) training tokens (or steps) of one run at its records, in order; 0 marks the untrained model.
        losses: (t,) there.
        values: (t, …) there.
        levels: (k,) in nats.

    Returns:
        (k, …) values; NaN where the records start below the level, never reach it, or pass it between the untrained
        model and the next record (see `loss_range`).
    """
    found = np.full((len(levels), *values.shape[1:]), np.nan)
    for k, level in enumerate(levels):
        place = first_passage(tokens, losses, level)
        if place is not None:
            i, share = place
            found[k] = values[i] if share == 1 else values[i - 1] + share * (values[i] - values[i - 1])
    return found


def first_passage(tokens: np.ndarray, losses: np.ndarray, level: float) -> tuple[int, float] | None:
    """Find where a loss first reaches a level.

    Returns:
        (i, share) with share in (0, 1], 1 where record i itself is at the level; None where `at_losses` has no value.
    """
    reached = np.flatnonzero(losses <= level + ROUNDING)
    if not reached.size:
        return None
    i = int(reached[0])
    if losses[i] >= level - ROUNDING:
        return i, 1.0
    if i == 0 or tokens[i - 1] == 0:
        return None
    return i, float((losses[i - 1] - level) / (losses[i - 1] - losses[i]))


def read_at_losses(rows: pd.DataFrame, curve: pd.DataFrame, levels: np.ndarray) -> pd.DataFrame:
    """Apply `at_losses` to every measured quantity of one run at once.

    Args:
        rows: of one run: step, value, and a column or columns that name the quantity, in `key` (one string a quantity).
        curve: of `loss_curves`, measured.
        levels: (k,) in nats.

    Returns:
        (k, quantities) with the keys as columns; NaN as in `at_losses`, and where a quantity is missing (not fitted) on
        either side of the level.
    """
    wide = rows.pivot(index="step", columns="key", values="value").reindex(curve["step"])
    tokens, losses = curve["tokens"].to_numpy(float), curve["value"].to_numpy(float)
    values = at_losses(tokens, losses, wide.to_numpy(float), levels)
    return pd.DataFrame(values, columns=wide.columns)


def tokens_to(runs: Runs, target: float | None = None) -> pd.DataFrame:
    """Return D(B; L*), the tokens of each usable run to a validation loss.

    Args:
        target: L* in nats, the same for all stages; None takes for each stage the loss that all its runs reached.

    Returns:
        One row a run: run_id, stage, batch_size, lr, seed, target, tokens.

    Raises:
        MeasureError: a run does not reach the target, or passes it before its first evaluation after the start.
    """
    curves = loss_curves(runs)
    found = []
    for _, own in usable(runs)[LABEL].groupby("stage", sort=False):
        reached = common_loss([curves[r] for r in own["run_id"]])
        level = reached if target is None else target
        if level < reached:
            late = [r for r in own["run_id"] if curves[r]["value"].min() > level]
            raise MeasureError(
                f"{len(late)} of {counted(len(own), 'run')} of stage {own['stage'].iloc[0]} never "
                f"{verb(len(late), 'reaches', 'reach')} a loss of {level:.4g} "
                f"(for instance {late[0]}); all of them reach {reached:.4g}: raise the target or train longer"
            )
        tokens = [crossing(curves[r], level) for r in own["run_id"]]
        if np.isnan(tokens).any():
            early = own["run_id"].iloc[int(np.flatnonzero(np.isnan(tokens))[0])]
            raise MeasureError(
                f"{early} passes a loss of {level:.4g} before its first evaluation after the start, so that its tokens "
                "to it are not known; lower the target or eval_every"
            )
        found.append(own.assign(target=level, tokens=tokens))
    return pd.concat(found, ignore_index=True)


def transitions(runs: Runs, pairs: Sequence[tuple[str, str]] | None = None) -> list[tuple[str, str]]:
    """Return the pairs of stages to compare: those given, or successive ones.

    Raises:
        MeasureError: fewer than two stages, or a stage that has no usable run.
    """
    stages = list(usable(runs)["stage"].unique())
    wanted = list(pairwise(stages)) if pairs is None else list(pairs)
    if not wanted:
        raise MeasureError(f"a transition needs two stages; these runs have {', '.join(stages)} only")
    for name in (name for pair in wanted for name in pair):
        if name not in stages:
            raise MeasureError(f"stage {name} has no usable run here; there are {', '.join(stages)}")
    return wanted


def paired_runs(runs: Runs, before: str, after: str) -> list[tuple[int, pd.DataFrame]]:
    """Pair the runs of two stages with equal seed, by batch size.

    Returns:
        For each common batch size a table seed, before, after (run ids).

    Raises:
        MeasureError: no batch size and seed in common.
    """
    alive = usable(runs)
    wide = alive[alive["stage"].isin([before, after])].pivot_table(
        index=["batch_size", "seed"], columns="stage", values="run_id", aggfunc="first"
    )
    both = wide.reindex(columns=[before, after]).dropna().set_axis(["before", "after"], axis=1)
    if both.empty:
        raise MeasureError(
            f"{before} and {after} have no batch size and seed in common; train both at the same ones"
        )
    both = both.reset_index()
    return [(int(size), both[both["batch_size"] == size]) for size in both["batch_size"].unique()]
