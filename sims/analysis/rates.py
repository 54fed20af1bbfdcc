"""Compare ways to share learning rates over matrices: losses by base rate and seed, paired with those of one rate.

An arm is one way to share them ("uniform" is none), a draw one shuffle of it, a cell what is compared: runs that differ
in nothing but arm, base rate and seed. Every arm has its own best base rate, that of the lowest mean loss over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sims.analysis.intervals import mean_interval, seed_intervals, t_test
from sims.analysis.paired import SIGNIFICANT
from sims.analysis.pruning import COSTS, OPEN, SAVES
from sims.analysis.resampling import holm, spearman
from theory.decision import side, why_undecided
from toymodel.rates import REVERSED, SHUFFLED, UNIFORM, base_of

# Of a comparison, and of a score that is credited with what it saves.
LEAST_SEEDS, LEAST_DRAWS = 5, 10
# At the lowest, the highest or the only base rate: a better one may lie beyond.
LOWEST, HIGHEST, ONLY = "lowest", "highest", "only"
COMPARED = [
    "cell", "arm", "base", "seeds", "lr", "base_lr", "edge", "base_edge", "loss", "base_loss", "delta", "low", "high",
    "p",
]  # fmt: skip


def is_control(arm: str) -> bool:
    """Return whether an arm does not read the weights, or reads them the wrong way round.

    >>> is_control("depth"), is_control("reversed-farms"), is_control("farms")
    (True, True, False)
    """
    return arm in (UNIFORM, "depth") or base_of(arm) != arm


def arms_of(losses: pd.DataFrame) -> list[str]:
    """Return the arms that are no shuffles, uniform first, then scores before their controls."""
    found = [arm for arm in dict.fromkeys(losses["arm"]) if not arm.startswith(SHUFFLED)]
    return sorted(found, key=lambda arm: (arm != UNIFORM, is_control(arm), arm.startswith(REVERSED)))


def grid(losses: pd.DataFrame) -> list[float]:
    """Return the base rates of a cell: of all arms together that are no shuffles, ascending."""
    return sorted(losses.loc[~losses["arm"].str.startswith(SHUFFLED), "lr"].unique())


def by_rate(losses: pd.DataFrame, arm: str, rates: Sequence[float], draw: int = 0) -> pd.DataFrame:
    """Return the losses of one arm of a cell, a column a rate and a row a seed that has all of them.

    Args:
        losses: of one cell: arm, draw, lr, seed, loss (infinite where a run diverged).
        arm, draw: which.
        rates: of the columns.
    """
    own = losses[(losses["arm"] == arm) & (losses["draw"] == draw)]
    return own.pivot(index="seed", columns="lr", values="loss").reindex(columns=list(rates)).dropna()


def best_rate(table: pd.DataFrame) -> tuple[float, str]:
    """Return the rate of the lowest mean loss, and whether it is the lowest, the highest or the only one ("" inside).

    Where runs diverged at every rate no mean is finite: the first rate, and "".

    >>> best_rate(pd.DataFrame({0.1: [3.0, 3.0], 0.2: [2.0, 2.0], 0.4: [1.0, 4.0]}))
    (0.2, '')
    """
    chosen = int(np.argmin(table.mean().to_numpy(float)))
    last = len(table.columns) - 1
    if not math.isfinite(table.mean().iloc[chosen]):
        return float(table.columns[chosen]), ""
    edge = ONLY if not last else "" if 0 < chosen < last else LOWEST if chosen == 0 else HIGHEST
    return float(table.columns[chosen]), edge


def difference(losses: pd.DataFrame, arm: str, base: str) -> dict[str, Any]:
    """Compare two arms of a cell, each at its own best rate, over the seeds that both have at every rate.

    Args:
        losses: as for `by_rate`.
        arm, base: which.

    Returns:
        arm, base, seeds, lr, base_lr, edge, base_edge, loss, base_loss (means), delta with low and high (paired over
        seeds, 95 % Student), p (two-sided t). NaN and 0 seeds where nothing can be compared; no rate is the best of
        an arm that diverged at each (lr, base_lr NaN).
    """
    rates = grid(losses)
    one, other = by_rate(losses, arm, rates), by_rate(losses, base, rates)
    seeds = one.index.intersection(other.index)
    named: dict[str, Any] = {"arm": arm, "base": base, "seeds": len(seeds)}
    if not len(seeds):
        texts = dict.fromkeys(("edge", "base_edge"), "")
        return {**dict.fromkeys(COMPARED[1:], math.nan), **texts, **named}
    one, other = one.loc[seeds], other.loc[seeds]
    (lr, edge), (base_lr, base_edge) = best_rate(one), best_rate(other)
    own, its = one[lr].to_numpy(float), other[base_lr].to_numpy(float)
    named |= {"lr": lr, "base_lr": base_lr, "edge": edge, "base_edge": base_edge}
    named |= {"loss": float(own.mean()), "base_loss": float(its.mean())}
    if diverged := [name for name in ("", "base_") if math.isinf(named[f"{name}loss"])]:
        named |= {f"{name}lr": math.nan for name in diverged}
        delta = named["loss"] - named["base_loss"]
        return named | {"delta": delta, **dict.fromkeys(("low", "high", "p"), math.nan)}
    delta, low, high = mean_interval(own - its)
    return named | {"delta": delta, "low": low, "high": high, "p": t_test(own - its)}


def against_uniform(losses: pd.DataFrame) -> pd.DataFrame:
    """Compare every arm that is no shuffle with one rate for all matrices.

    An arm saves (or costs) if its 95 % interval lies below (above) 0, Holm's adjusted p over all arms of the cell is at
    most 0.05, and five seeds were compared.

    Args:
        losses: cell, arm, draw, lr, seed, loss.

    Returns:
        One row a cell and arm: `COMPARED`, p_holm, verdict ("saves", "costs", "cannot be told"), reason.
    """
    rows = []
    for cell, own in losses.groupby("cell", sort=False):
        found = [{"cell": cell, **difference(own, arm, UNIFORM)} for arm in arms_of(own) if arm != UNIFORM]
        adjusted = holm(np.array([row["p"] for row in found], float))
        for row, p in zip(found, adjusted.tolist(), strict=True):
            decided, reason = _verdict(row, p)
            rows.append({**row, "p_holm": p, "verdict": decided, "reason": reason})
    return pd.DataFrame(rows, columns=[*COMPARED, "p_holm", "verdict", "reason"])


def _verdict(row: dict[str, Any], p: float) -> tuple[str, str]:
    if row["seeds"] < LEAST_SEEDS:
        return OPEN, f"{row['seeds']} of {LEAST_SEEDS} seeds have both arms at every rate"
    if math.isinf(row["loss"]) or math.isinf(row["base_loss"]):
        named = [
            row[name] for name in ("arm", "base") if math.isinf(row[f"{'base_' * (name == 'base')}loss"])
        ]
        return OPEN, f"runs of {' and of '.join(named)} diverged at every rate"
    which = side(row["low"], row["high"])
    if which == 0:
        return OPEN, why_undecided(row["low"], row["high"])
    if not p <= SIGNIFICANT:
        return OPEN, f"p = {p:.2g} after Holm's correction for all arms"
    return (SAVES if which < 0 else COSTS), f"p = {p:.2g} after Holm's correction for all arms"


def against_controls(losses: pd.DataFrame) -> pd.DataFrame:
    """Compare every score with the controls of its cell that are no shuffles: depth, and its own reverse.

    Returns:
        One row a cell, score and control: `COMPARED`.
    """
    rows = [
        {"cell": cell, **difference(own, arm, control)}
        for cell, own in losses.groupby("cell", sort=False)
        for arm in arms_of(own)
        if not is_control(arm)
        for control in ("depth", REVERSED + arm)
        if control in set(own["arm"])
    ]
    return pd.DataFrame(rows, columns=COMPARED)


def shuffle_ranks(losses: pd.DataFrame) -> pd.DataFrame:
    """Compare scores with their own multipliers, up to one common factor, given to other matrices.

    p = (1 + draws as good)/(1 + draws). Score and draws count by their mean loss over the seeds that all of them have,
    each at its own best rate; of a draw, the rates that the score has too. Draws may lack rates of the score. That
    favours the score, so that its rank can then only refute it.

    Returns:
        One row a cell and score whose shuffles are there: cell, arm, draws, seeds, rates (of the score that every draw
        has), grid (rates of the score), other (rates of some draw that the score lacks), loss, shuffled (mean loss of
        the draws), as_good (draws with at most its loss), p; NaN without a common rate or seed.
    """
    rows = []
    for cell, own in losses.groupby("cell", sort=False):
        for arm in arms_of(own):
            drawn = own[own["arm"] == f"{SHUFFLED}{arm}"]
            if drawn.empty or arm == UNIFORM:
                continue
            score = by_rate(own, arm, grid(own))
            rates, other = _rates_of_draws(drawn, grid(own))
            tables = [
                by_rate(own, f"{SHUFFLED}{arm}", rates, draw) for draw in sorted(drawn["draw"].unique())
            ]
            seeds = score.index
            for table in tables:
                seeds = seeds.intersection(table.index)
            row = {"cell": cell, "arm": arm, "draws": len(tables), "seeds": len(seeds), "rates": len(rates)}
            row |= {"grid": len(score.columns), "other": other, "as_good": 0}
            row |= dict.fromkeys(("loss", "shuffled", "p"), math.nan)
            if len(seeds) and rates:
                loss, *others = (float(t.loc[seeds].mean().min()) for t in (score, *tables))
                as_good = sum(other <= loss for other in others)
                row |= {"loss": loss, "shuffled": float(np.mean(others)), "as_good": as_good}
                row["p"] = (1 + as_good) / (1 + len(others))
            rows.append(row)
    columns = ["cell", "arm", "draws", "seeds", "rates", "grid", "other", "loss", "shuffled", "as_good", "p"]
    return pd.DataFrame(rows, columns=columns)


def _rates_of_draws(drawn: pd.DataFrame, rates: Sequence[float]) -> tuple[list[float], int]:
    """Return those of some rates that every draw has, and how many others draws have."""
    sets = [set(own["lr"]) for _, own in drawn.groupby("draw")]
    return sorted(set(rates).intersection(*sets)), len(set().union(*sets) - set(rates))


def missing_runs(losses: pd.DataFrame, seeds: int = LEAST_SEEDS, draws: int = LEAST_DRAWS) -> pd.DataFrame:
    """Return the runs that the rules lack: arms at every rate and seed, uniform, and shuffles of the scores.

    Args:
        losses: cell, arm, draw, lr, seed, loss.
        seeds: at least; those of a cell are counted over all its arms, and the smallest unused ones are added.
        draws: of each score, of any numbers; those that are there count, and the smallest unused numbers are added.

    Returns:
        One row a run: cell, arm, draw, lr, seed. Every arm and draw gets every base rate of its cell.
    """
    rows = [
        row
        for cell, own in losses.groupby("cell", sort=False)
        for row in _missing(str(cell), own, seeds, draws)
    ]
    return pd.DataFrame(rows, columns=["cell", "arm", "draw", "lr", "seed"])


def _missing(cell: str, own: pd.DataFrame, seeds: int, draws: int) -> Iterator[dict[str, Any]]:
    there = {(r["arm"], r["draw"], r["lr"], r["seed"]) for r in own.to_dict("records")}
    wanted = sorted(own["seed"].unique().tolist())
    wanted += [s for s in range(seeds + len(wanted)) if s not in wanted][: max(0, seeds - len(wanted))]
    drawn = own[own["arm"].str.startswith(SHUFFLED)]
    arms = dict.fromkeys([UNIFORM, *arms_of(own), *map(base_of, drawn["arm"])])
    sets = [(arm, 0) for arm in arms]
    for arm in (f"{SHUFFLED}{arm}" for arm in arms if not is_control(arm)):
        numbers = sorted(drawn.loc[drawn["arm"] == arm, "draw"].unique().tolist())
        unused = [k for k in range(draws + len(numbers)) if k not in numbers]
        sets += [(arm, k) for k in sorted([*numbers, *unused[: max(0, draws - len(numbers))]])]
    for arm, draw in sets:
        for lr in sorted(own["lr"].unique()):
            for seed in wanted:
                if (arm, draw, lr, seed) not in there:
                    yield {"cell": cell, "arm": arm, "draw": draw, "lr": lr, "seed": seed}


def spreads(exponents: pd.DataFrame) -> pd.DataFrame:
    """Return the standard deviation of exponents over the matrices of each run.

    Args:
        exponents: cell, arm, seed, when ("start" or "end"), quantity, matrix, block, value; matrices without a value in
            some arm of a cell, seed and look are left out of all of them, since spreads over other matrices differ.

    Returns:
        One row a run, look and quantity: cell, arm, seed, when, quantity, matrices, sd, rho (Spearman's correlation
        with the number of the block).
    """
    rows = []
    keys = ["cell", "arm", "seed", "when", "quantity"]
    found, paired = exponents.dropna(subset=["value"]), ["cell", "seed", "when", "quantity"]
    arms = found.groupby(paired, sort=False)["arm"].transform("nunique")
    found = found[found.groupby([*paired, "matrix"], sort=False)["arm"].transform("nunique") == arms]
    for key, own in found.groupby(keys, sort=False):
        if len(own) > 2:
            values, blocks = own["value"].to_numpy(float), own["block"].to_numpy(float)
            varied = len(set(values)) > 1 and len(set(blocks)) > 1
            rho = float(spearman(blocks[None], values[None])[0]) if varied else math.nan
            row = dict(zip(keys, key, strict=True)) | {"matrices": len(own)}
            rows.append({**row, "sd": float(values.std(ddof=1)), "rho": rho})
    return pd.DataFrame(rows, columns=[*keys, "matrices", "sd", "rho"])


def spread_changes(table: pd.DataFrame) -> pd.DataFrame:
    """Compare the spread of exponents of every arm with that of uniform, paired over seeds.

    Args:
        table: of `spreads`.

    Returns:
        One row a cell, arm, look and quantity: cell, arm, when, quantity, n (seeds), mean, low, high (of the difference
        of sd, 95 % Student), p.
    """
    keys = ["cell", "seed", "when", "quantity"]
    base = table[table["arm"] == UNIFORM][[*keys, "sd"]].rename(columns={"sd": "base"})
    both = table[table["arm"] != UNIFORM].merge(base, on=keys)
    both = both.assign(value=both["sd"] - both["base"])
    by = ["cell", "arm", "when", "quantity"]
    found = seed_intervals(both, by).drop(columns=["min", "max"])
    tests = both.groupby(by, sort=False)["value"].apply(t_test).rename("p").reset_index()
    return found.merge(tests, on=by)
