"""Compare runs with and without a bias of the logits: does the mean state stand in for a missing bias?

Claim T15 says so of free features: without a bias one direction of the states turns into the intercept, the mean state
takes it, and RankMe of the centred states falls late in training, which the second moment (uncentred) does not do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from sims.analysis.cells import CELL, keep, usable
from sims.analysis.entropy_phases import over_seeds
from sims.analysis.geometry import LEAST_MOVE
from sims.analysis.ranges import POSITIVE, SHARE, Range
from sims.analysis.resampling import LEAST_SEEDS
from sims.analysis.runs import Runs
from sims.analysis.verdicts import Verdict
from sims.pages.number import counted, interval
from sims.system.errors import MeasureError
from theory.decision import decide, side, why_undecided
from theory.simulate.features import decline

BIAS = "logit_bias"
# Quantities of states, and whether their fall after the minimum is measured beside their last value.
_QUANTITIES = {"mean_share": False, "rankme": True, "rankme_uncentred": True}
FALL = "fall of "


@dataclass(frozen=True, eq=False)
class Intercepts:
    """Hold the comparison of runs without and with a bias.

    Attributes:
        runs: one row a run and quantity: run_id, stage, batch_size, seed, logit_bias, quantity, value. Quantities are
            mean_share, rankme and rankme_uncentred at the last look, and "fall of rankme" and "fall of
            rankme_uncentred": the fall from the largest value after the minimum to the last look, as a share of the
            former, over looks after the start; what was not measured has no row, nor has the fall of a path that is
            lowest at its last look, which has no maximum after it.
        cells: one row a cell, bias and quantity: stage, batch_size, logit_bias, quantity, seeds, mean, low, high.
        pairs: one row a cell and quantity: stage, batch_size, quantity, seeds, mean, low, high of the value without a
            bias less that with one, paired by seed.
        verdicts: of each cell, on the claims of T15 that rows can test.
    """

    runs: pd.DataFrame
    cells: pd.DataFrame
    pairs: pd.DataFrame
    verdicts: dict[tuple[str, int], tuple[Verdict, ...]]


def intercepts(*sets: Runs, site: str = "final") -> Intercepts:
    """Compare runs of language models without and with a bias of the logits (`--logit-bias`).

    Args:
        sets: of both kinds together, measured with their geometry; each set may have both.
        site: of the states.

    Raises:
        MeasureError: there are no runs of one kind, none of one cell and seed, or such a pair differs in more than the
            bias; or the share of the mean state was not measured.
    """
    rows, configs = [], {}
    for runs in sets:
        biased = {run for run, config in runs.configs.items() if _biased(config)}
        parts = (keep(runs, chosen) for chosen in (set(runs.configs) - biased, biased))
        own = [row for part in parts if len(part.runs) for row in _run_rows(part, site)]
        rows += own
        configs |= {row["run_id"]: runs.configs[row["run_id"]] for row in own}
    table = pd.DataFrame(rows)
    if table.empty or not (table["quantity"] == "mean_share").any():
        raise MeasureError(
            f"the geometry of states at {site!r} was not measured after the start; train with --measuring.geometry"
        )
    kinds = set(table[BIAS])
    if kinds != {False, True}:
        lacking = "with a bias (--logit-bias)" if kinds == {False} else "without a bias"
        raise MeasureError(f"there is no run {lacking} to compare with; give the folders of both kinds")
    _check_alike(table, configs)
    cells = _means(table, [*CELL, BIAS, "quantity"], range_of)
    wide = table.pivot_table(index=[*CELL, "quantity", "seed"], columns=BIAS, values="value", sort=False)
    paired = wide.dropna().pipe(lambda both: both[False] - both[True]).rename("value").reset_index()
    pairs = _means(paired, [*CELL, "quantity"], lambda quantity: range_of(quantity).change)
    verdicts = {
        (stage, size): _verdicts(
            pairs[(pairs["stage"] == stage) & (pairs["batch_size"] == size)].set_index("quantity"),
            table[(table["stage"] == stage) & (table["batch_size"] == size)],
        )
        for stage, size in pairs[CELL].drop_duplicates().itertuples(index=False)
    }
    return Intercepts(table, cells, pairs, verdicts)


def _run_rows(runs: Runs, site: str) -> list[dict[str, Any]]:
    alive = usable(runs)
    found = []
    for quantity, falls in _QUANTITIES.items():
        values = runs.values(quantity, "activation", site)
        values = values[(values["tokens"] > 0) & values["run_id"].isin(alive["run_id"])].sort_values("step")
        for run, own in values.groupby("run_id", sort=False):
            head = own.iloc[0][["run_id", *CELL, "seed"]].to_dict()
            head[BIAS] = _biased(runs.configs[str(run)])
            path = own["value"].to_numpy(float)
            found.append({**head, "quantity": quantity, "value": float(path[-1])})
            if falls and path.argmin() < len(path) - 1:
                fall = float(decline(path[:, None]).last[0])
                found.append({**head, "quantity": f"{FALL}{quantity}", "value": fall})
    return found


def _biased(config: Mapping[str, Any]) -> bool:
    """Return whether the logits have a bias: of a run that was trained here, or of stored checkpoints of one."""
    return bool(config.get(BIAS, config.get("model", {}).get(BIAS, False)))


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what runs of a pair have in common: all but the bias, and names and files of stored checkpoints."""
    model = config.get("model")
    own = {"name", "checkpoints"} if model is not None else set()
    found = {key: value for key, value in config.items() if key not in {BIAS, "model", *own}}
    return found | {f"model.{key}": value for key, value in (model or {}).items() if key != BIAS}


def _check_alike(table: pd.DataFrame, configs: dict[str, Any]) -> None:
    """Refuse pairs that differ in more than the bias, or in nothing that can be paired."""
    of = table.drop_duplicates("run_id").set_index([*CELL, "seed", BIAS])["run_id"]
    if table.duplicated([*CELL, "seed", BIAS, "quantity"]).any():
        raise MeasureError("several runs have one stage, batch size, seed and bias; give one of each")
    paired = 0
    for key, run in of.items():
        assert isinstance(key, tuple)
        other = of.get((*key[:-1], True)) if not key[-1] else None
        if other is None:
            continue
        paired += 1
        one, two = (_settings(configs[r]) for r in (str(run), str(other)))
        if differing := sorted(k for k in one.keys() | two.keys() if one.get(k) != two.get(k)):
            raise MeasureError(
                f"{run} and {other} differ in {', '.join(differing)} beside the bias; give runs that differ in nothing "
                "else"
            )
    if not paired:
        raise MeasureError(
            "no run with a bias has the stage, batch size and seed of one without; train both alike"
        )


def range_of(quantity: str) -> Range:
    """Return the values that a quantity of `Intercepts.runs` can take: shares from 0 to 1, RankMe above 0.

    >>> range_of("mean_share").high, range_of("fall of rankme").low, range_of("rankme").high
    (1.0, 0.0, inf)
    """
    return SHARE if quantity == "mean_share" or quantity.startswith(FALL) else POSITIVE


def _means(table: pd.DataFrame, by: list[str], within: Callable[[str], Range]) -> pd.DataFrame:
    """Return seeds, mean and interval of the values of each group, within those that its quantity can take."""
    rows = []
    for key, own in table.groupby(by, sort=False):
        where = dict(zip(by, cast("tuple[Any, ...]", key), strict=True))
        rows.append({**where, **over_seeds(own["value"].to_numpy(float), within(where["quantity"]))})
    return pd.DataFrame(rows)


def _verdicts(pairs: pd.DataFrame, runs: pd.DataFrame) -> tuple[Verdict, ...]:
    found = [
        _larger("Without a bias of the logits the mean state has a larger share", pairs, "mean_share"),
        _larger("Without a bias RankMe falls more after its maximum", pairs, f"{FALL}rankme"),
    ]
    for bias, kind in ((False, "Without"), (True, "With")):
        claim = (
            f"{kind} a bias RankMe of the second moment falls by less than {LEAST_MOVE:.0%} after its maximum"
        )
        own = runs[(runs[BIAS] == bias) & (runs["quantity"] == f"{FALL}rankme_uncentred")]
        found.append(_below(claim, own["value"].to_numpy(float)))
    return tuple(found)


def _told(own: dict[Any, Any]) -> str:
    return interval(own["mean"], own["low"], own["high"])


def _larger(claim: str, pairs: pd.DataFrame, quantity: str) -> Verdict:
    if quantity not in pairs.index:
        reason = "it was not measured in both"
        if quantity.startswith(FALL):
            reason = "no maximum after a minimum before the end in any pair, or not measured"
        return Verdict(claim, "not resolved", reason)
    own = pairs.loc[[quantity]].to_dict("records")[0]
    if own["seeds"] < LEAST_SEEDS:
        return Verdict(claim, "not resolved", f"{counted(own['seeds'], 'pair')}, of {LEAST_SEEDS} needed")
    told = f"without less with, paired by seed: {_told(own)}"
    sign = side(own["low"], own["high"])
    if sign:
        return Verdict(claim, "shown" if sign > 0 else "not shown", told)
    return Verdict(claim, "not resolved", f"{told}; {why_undecided(own['low'], own['high'])}")


def _below(claim: str, falls: np.ndarray) -> Verdict:
    if len(falls) < LEAST_SEEDS:
        seeds = counted(len(falls), "seed")
        return Verdict(
            claim,
            "not resolved",
            f"measured after a minimum before the end in {seeds}, of {LEAST_SEEDS} needed",
        )
    if not falls.any():
        return Verdict(claim, "shown", "it does not fall in any seed")
    own = over_seeds(falls, SHARE)
    decision = decide(own["low"], own["high"], most=LEAST_MOVE)
    if decision == "undecided":
        return Verdict(claim, "not resolved", f"falls by {_told(own)}")
    return Verdict(claim, "shown" if decision == "inside" else "not shown", f"falls by {_told(own)}")
