"""Say which ranks of the spectrum carry each phase of the geometry, and what the mean state does meanwhile."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sims.analysis.entropy_balance import Balance, EntropyBalance, SpectrumPath, balance_of
from sims.analysis.geometry import RANKME_ONLY, Phase, Phases
from sims.analysis.intervals import mean_interval
from sims.analysis.resampling import LEAST_SEEDS
from sims.analysis.verdicts import Verdict
from sims.pages.number import counted, interval
from theory.decision import side, why_undecided
from theory.ranges import REAL, SHARE, Range

ALL = "all"


def phase_balance(balance: EntropyBalance, found: Phases, run_ids: Sequence[str]) -> pd.DataFrame:
    """Return what each group of ranks adds to ln RankMe in each phase of a set of seeds.

    A phase begins and ends at the looks nearest to its ends in ln tokens, so that the phases of a run add up to its
    whole change after the start.

    Args:
        balance: of the runs.
        found: the phases of the set.
        run_ids: the runs of the set, one for each seed.

    Returns:
        One row a phase and part, and one for all parts together ("all"): number (from 1), label, tokens_from,
        tokens_to, part, seeds, mean, low, high (nats, 95 % Student interval over seeds), share (of the change, by
        means), residual, rule_error, split_error (largest |value| over seeds, see `Balance`), status, reason. It is
        "flagged" with fewer than three seeds (low, high and share are NaN), where the change has no sign (share is
        NaN), and where the looks are too far apart.
    """
    rows: list[dict[str, Any]] = []
    for where, paths in _phases(balance, found, run_ids):
        each = [balance_of(path.energies, balance.ends) for path in paths]
        total = over_seeds([own.change for own in each])
        sign = side(total["low"], total["high"])
        state = _state(each, total, sign)
        errors = {
            name: max(abs(getattr(own, name)) for own in each)
            for name in ("residual", "rule_error", "split_error")
        }
        values = {name: [own.parts[i] for own in each] for i, name in enumerate(balance.groups)}
        for name, own in (values | {ALL: [own.change for own in each]}).items():
            numbers = over_seeds(own)
            share = numbers["mean"] / total["mean"] if sign else math.nan
            rows.append({**where, "part": name, **numbers, "share": share, **errors, **state})
    return pd.DataFrame(rows)


def mean_state(balance: EntropyBalance, found: Phases, run_ids: Sequence[str]) -> pd.DataFrame:
    """Return how the share ‖h̄‖²/E‖h‖² of the mean state changes in each phase of a set of seeds.

    Args:
        balance, found, run_ids: as in `phase_balance`.

    Returns:
        One row a phase: number, label, tokens_from, tokens_to, before and after (means over seeds), seeds, mean, low
        and high (of the change); no rows where the share was not measured.
    """
    rows = []
    for where, paths in _phases(balance, found, run_ids):
        ends = np.array([path.mean_share[[0, -1]] for path in paths])
        if np.isfinite(ends).all():
            before, after = (float(mean) for mean in ends.mean(axis=0))
            change = over_seeds(ends[:, 1] - ends[:, 0], SHARE.change)
            rows.append({**where, "before": before, "after": after, **change})
    return pd.DataFrame(rows)


def carriers(balance: EntropyBalance, found: Phases, run_ids: Sequence[str]) -> list[Verdict]:
    """Say for each phase whether one group of ranks adds more to it than any other, and how much each adds.

    Shown if the change has a sign, and the group with the largest mean contribution in its direction adds more than
    every other one (95 % intervals over seeds, paired by seed), at looks that are close enough (`Balance.status`).
    Not resolved where the phase rests on RankMe only.

    Args:
        balance, found, run_ids: as in `phase_balance`.
    """
    alone = {number for number, own in enumerate(found.phases, 1) if own.support == RANKME_ONLY}
    return [
        _supported(
            _carrier(
                where["label"], [balance_of(path.energies, balance.ends) for path in paths], balance.groups
            ),
            "" if where["number"] not in alone else f"{where['label']} rests on RankMe only",
        )
        for where, paths in _phases(balance, found, run_ids)
    ]


def _supported(own: Verdict, lacking: str) -> Verdict:
    """Return a verdict, open where support is lacking."""
    return Verdict(own.claim, "not resolved", f"{own.reason}; {lacking}") if lacking else own


def over_seeds(values: Sequence[float] | np.ndarray, within: Range = REAL) -> dict[str, float]:
    """Return seeds, mean, and low and high of its 95 % Student interval, which are NaN with fewer than three seeds.

    The interval lies within the range of the values.

    >>> over_seeds([1.0, 3.0])["mean"]
    2.0
    """
    mean, low, high = mean_interval(values, within, LEAST_SEEDS)
    return {"seeds": len(values), "mean": mean, "low": low, "high": high}


def _phases(
    balance: EntropyBalance, found: Phases, run_ids: Sequence[str]
) -> Iterator[tuple[dict[str, Any], list[SpectrumPath]]]:
    """Yield number, label and ends of each phase with the paths of its runs; those between two looks are left out."""
    phase: Phase
    for number, phase in enumerate(found.phases, 1):
        paths = [balance.paths[run].part(phase.start, phase.end) for run in run_ids]
        if all(len(path.tokens) > 1 for path in paths) and paths:
            ends = [float(np.mean([path.tokens[i] for path in paths])) for i in (0, -1)]
            yield (
                {"number": number, "label": phase.label, "tokens_from": ends[0], "tokens_to": ends[1]},
                paths,
            )


def _state(each: Sequence[Balance], total: dict[str, float], sign: int) -> dict[str, str]:
    """Return status and reason of the parts of a phase."""
    reasons = []
    if rough := [own for own in each if own.status != "ok"]:
        reasons.append(f"looks too far apart in {counted(len(rough), 'seed')}: {rough[0].reason}")
    if len(each) < LEAST_SEEDS:
        reasons.append(f"{counted(len(each), 'seed')}, of {LEAST_SEEDS} needed for an interval")
    elif not sign:
        reasons.append(f"the change has no sign: {why_undecided(total['low'], total['high'])}")
    return {"status": "flagged" if reasons else "ok", "reason": "; ".join(reasons)}


def _carrier(label: str, each: Sequence[Balance], groups: Sequence[str]) -> Verdict:
    claim = f"One group of ranks adds more to phase {label} than any other"
    total = over_seeds([own.change for own in each])
    sign = side(total["low"], total["high"])
    state = _state(each, total, sign)
    if len(each) < LEAST_SEEDS or not sign:
        return Verdict(claim, "not resolved", state["reason"])
    parts = sign * np.array([own.parts for own in each])
    order = np.argsort(-parts.mean(axis=0), kind="stable")
    told = ", ".join(f"ranks {groups[i]} {parts[:, i].mean() / abs(total['mean']):.0%}" for i in order)
    told = f"ΔS {interval(total['mean'], total['low'], total['high'])} nats: {told}"
    if state["reason"]:
        return Verdict(claim, "not resolved", f"{told}; {state['reason']}")
    gaps = [over_seeds(parts[:, order[0]] - parts[:, i]) for i in order[1:]]
    if gaps and all(side(gap["low"], gap["high"]) > 0 for gap in gaps):
        return Verdict(claim, "shown", told)
    return Verdict(claim, "not resolved", f"{told}; the first is not apart from the others")
