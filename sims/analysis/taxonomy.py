"""Label each transition by its outcome and by what moved, with the evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sims.analysis.cells import first_clause, paired_runs, transitions
from sims.analysis.concentration import concentration_changes, concentration_rows
from sims.analysis.intervals import seed_intervals
from sims.analysis.matched import Divergences, measured_spectra, stage_divergences
from sims.analysis.ranges import GAIN, SHARE, Range
from sims.analysis.resampling import seed_jackknife
from sims.analysis.runs import Runs
from sims.analysis.transitions import TRANSITION, gains_by_seed, mean_over_batches
from sims.system.errors import MeasureError
from theory.decision import decide, side

CANNOT_TELL = "cannot tell"
UNTIMED = "the seconds of training are not known"
# (token gain, throughput gain) by sign against the thresholds. A transition that only loses is none of the five
# published outcomes and is called what it is.
_OUTCOMES = {
    ("+", "0"): "learning",
    ("0", "+"): "throughput",
    ("+", "+"): "joint",
    ("+", "-"): "trade-off",
    ("-", "+"): "trade-off",
    ("0", "0"): "neutral",
    ("-", "0"): "regression",
    ("0", "-"): "regression",
    ("-", "-"): "regression",
}


@dataclass(frozen=True)
class Thresholds:
    """Set the thresholds beyond which a figure counts.

    Args:
        token_gain: a loss-proximal token gain within ± this is none.
        throughput_gain: likewise of tokens a second.
        moved: a spectrum has moved if its JS across the transition exceeds this many times the JS between seeds.
        lead: one kind of spectrum leads if its ratio to its floor exceeds the other's this many times.
    """

    token_gain: float = 0.05
    throughput_gain: float = 0.05
    moved: float = 2.0
    lead: float = 2.0

    def __post_init__(self) -> None:
        for name in ("token_gain", "throughput_gain"):
            if not 0 <= getattr(self, name) < math.inf:
                raise MeasureError(f"{name} is {getattr(self, name)}; a gain threshold is 0 or positive")
        for name in ("moved", "lead"):
            if not 1 <= getattr(self, name) < math.inf:
                raise MeasureError(f"{name} is {getattr(self, name)}; a ratio to a floor counts from 1 on")


@dataclass(frozen=True)
class Evidence:
    """Hold a figure with its 95 % interval over seeds; NaN bounds where there is none."""

    value: float
    low: float
    high: float

    def side(self, threshold: float) -> str:
        """Return "+" above the threshold, "-" below minus it, "0" between, "?" where undecided or missing."""
        found = {
            "+": side(self.low, self.high, threshold) > 0,
            "-": side(self.low, self.high, -threshold) < 0,
            "0": decide(self.low, self.high, -threshold, threshold) == "inside",
        }
        return next((name for name, true in found.items() if true), "?")

    def above(self, threshold: float) -> bool | None:
        """Return whether the interval lies above the threshold; None where undecided or missing."""
        return {1: True, -1: False}.get(side(self.low, self.high, threshold))


def outcome_label(token: Evidence, throughput: Evidence, limits: Thresholds | None = None) -> str:
    """Return learning, throughput, joint, trade-off, neutral, regression or "cannot tell".

    Args:
        token, throughput: gains, 0 for no change.
        limits: the thresholds; the defaults of `Thresholds` where None.
    """
    limits = limits or Thresholds()
    sides = (token.side(limits.token_gain), throughput.side(limits.throughput_gain))
    return _OUTCOMES.get(sides, CANNOT_TELL)


def point_label(token: float, throughput: float, limits: Thresholds | None = None) -> str:
    """Return the outcome that two figures have by themselves, whatever their intervals; "cannot tell" where one is NaN.

    Args:
        token, throughput: gains, 0 for no change.
        limits: the thresholds; the defaults of `Thresholds` where None.
    """
    limits = limits or Thresholds()

    def side(gain: float, threshold: float) -> str:
        if math.isnan(gain):
            return "?"
        return "0" if abs(gain) <= threshold else "+" if gain > 0 else "-"

    sides = (side(token, limits.token_gain), side(throughput, limits.throughput_gain))
    return _OUTCOMES.get(sides, CANNOT_TELL)


def mechanism_label(
    activation: Evidence,
    gradient: Evidence,
    lead: Evidence,
    throughput: Evidence,
    limits: Thresholds | None = None,
) -> str:
    """Return activation-led, gradient-led, throughput-leaning, mixed, none or "cannot tell".

    One kind of spectrum leads if only it moved, or if it moved and is ahead of the other beyond the threshold; both
    moved to a like extent is mixed. Where neither moved, a throughput gain leaves that as what the transition is about.

    Args:
        activation, gradient: ln of the JS across the transition over the JS between seeds, at equal loss.
        lead: activation − gradient.
        throughput: the gain.
        limits: as in `outcome_label`.
    """
    limits = limits or Thresholds()
    moved = tuple(e.above(math.log(limits.moved)) for e in (activation, gradient))
    ahead = lead.side(math.log(limits.lead))
    if moved == (True, False) or (moved[0] and ahead == "+"):
        return "activation-led"
    if moved == (False, True) or (moved[1] and ahead == "-"):
        return "gradient-led"
    if moved == (True, True) and ahead == "0":
        return "mixed"
    if moved == (False, False):
        fast = throughput.side(limits.throughput_gain)
        return {"+": "throughput-leaning", "?": CANNOT_TELL}.get(fast, "none")
    return CANNOT_TELL


def taxonomy(runs: Runs, limits: Thresholds | None = None) -> pd.DataFrame:
    """Return outcome and mechanism of each transition between successive stages, with the evidence.

    Every figure is a mean over batch sizes within a seed first; its interval is over seeds. JS is taken at the lowest
    loss that both stages' runs reached at that batch size, between runs of different seeds, against the JS between
    seeds within the two stages; of gradients it is the mean of ln(JS/floor) over the matrices that both stages have.

    Args:
        limits: the thresholds; the defaults of `Thresholds` where None.

    Returns:
        One row a transition: before, after, outcome, mechanism, seeds, and each with …_low and …_high: token_gain,
        throughput_gain, activation (ln JS/floor of the final states), gradient (likewise), lead (their difference), h_s
        (change of the task-band H_S at equal loss, mean over bands); activation_js, activation_floor (nats); and
        reason (why figures are missing, or "").

    Raises:
        MeasureError: as of `gains_by_seed` and `measured_spectra`.
    """
    wanted = transitions(runs)
    by_seed = gains_by_seed(runs, wanted)
    gains, rows = mean_over_batches(by_seed, ["proximal", "throughput"]), []
    for before, after in wanted:
        own = gains[(gains["before"] == before) & (gains["after"] == after)]
        token, throughput = (_mean(own, name, GAIN) for name in ("proximal", "throughput"))
        spectra = _Spectra(runs, before, after)
        activation, gradient, lead = spectra.activation(), spectra.gradient(), spectra.lead()
        h_s, unread = _h_s(runs, before, after)
        lost = by_seed.loc[(by_seed["before"] == before) & (by_seed["after"] == after), "reason"]
        untimed = [UNTIMED] * math.isnan(throughput.value)
        shown = {
            "token_gain": token,
            "throughput_gain": throughput,
            "activation": activation,
            "gradient": gradient,
            "lead": lead,
            "h_s": h_s,
        }
        rows.append(
            {
                "before": before,
                "after": after,
                "outcome": outcome_label(token, throughput, limits),
                "mechanism": mechanism_label(activation, gradient, lead, throughput, limits),
                "seeds": len(own),
                **{f"{name}{end}": v for name, e in shown.items() for end, v in _columns(e)},
                **spectra.divergence(),
                "reason": "; ".join(
                    r for r in dict.fromkeys([*lost, *untimed, *spectra.reasons, *unread]) if r
                ),
            }
        )
    return pd.DataFrame(rows)


class _Spectra:
    """Hold the JS across one transition and within its stages, of activations and gradients.

    Attributes:
        reasons: batch sizes at which the stages have no losses in common, or one has no spectrum of its final states;
            with one of them every figure is missing.
    """

    def __init__(self, runs: Runs, before: str, after: str) -> None:
        self.pair = (before, after)
        self.runs = runs
        self.reasons: list[str] = []
        self.sizes = [size for size, _ in paired_runs(runs, before, after)]
        self.activations = self._between("activation", "final")
        stored = runs.spectra[runs.spectra["object"] == "gradient"]
        sites = [set(stored.loc[stored["stage"] == name, "site"]) for name in self.pair]
        self.gradients = [d for site in sorted(sites[0] & sites[1]) for d in self._between("gradient", site)]
        every = [set(d.seeds(*self.pair)) for _, d in [*self.activations, *self.gradients]]
        self.seeds = [] if self.reasons else sorted(set.intersection(*every))

    def activation(self) -> Evidence:
        return self._over_seeds(lambda kept: self._ratio(self.activations, kept))

    def gradient(self) -> Evidence:
        return self._over_seeds(lambda kept: self._ratio(self.gradients, kept))

    def lead(self) -> Evidence:
        # At the batch sizes of both: a difference of means over other sizes would be one of sizes.
        sizes = {size for size, _ in self.activations} & {size for size, _ in self.gradients}
        activations, gradients = (
            [(size, d) for size, d in own if size in sizes] for own in (self.activations, self.gradients)
        )
        return self._over_seeds(lambda kept: self._ratio(activations, kept) - self._ratio(gradients, kept))

    def divergence(self) -> dict[str, float]:
        if not self.seeds:
            return {"activation_js": math.nan, "activation_floor": math.nan}
        across = [d.across(self.pair, self.seeds) for _, d in self.activations]
        floors = [d.floor(self.pair, self.seeds) for _, d in self.activations]
        return {"activation_js": float(np.mean(across)), "activation_floor": float(np.mean(floors))}

    def _between(self, object_: str, site: str) -> list[tuple[int, Divergences]]:
        measured = measured_spectra(self.runs, site, object_)
        found = []
        for size in self.sizes:
            own = measured[(measured["batch_size"] == size) & measured["stage"].isin(self.pair)]
            # Gradients need not be measured at every batch size.
            if object_ == "gradient" and own["stage"].nunique() < 2:
                continue
            try:
                found.append((size, stage_divergences(own, *self.pair)))
            except MeasureError as error:
                self.reasons.append(f"B = {size}: {first_clause(error)}")
        return found

    def _ratio(self, divergences: Sequence[tuple[int, Divergences]], kept: Sequence[int]) -> float:
        if not divergences or len(kept) < 2:
            return math.nan
        both = [(d.across(self.pair, kept), d.floor(self.pair, kept)) for _, d in divergences]
        # Seeds with one spectrum, as of states that have collapsed, are no level to compare with.
        return float(np.mean([math.log(a / f) if a > 0 and f > 0 else math.nan for a, f in both]))

    def _over_seeds(self, statistic: Any) -> Evidence:
        found = seed_jackknife(self.seeds, statistic)
        return Evidence(found.value, found.low, found.high)


def _h_s(runs: Runs, before: str, after: str) -> tuple[Evidence, list[str]]:
    """Return the change of H_S, and the reasons why it is missing."""
    if concentration_rows(runs).empty:
        return Evidence(math.nan, math.nan, math.nan), []
    changes = concentration_changes(runs, [(before, after)], "H_S task")
    return _mean(mean_over_batches(changes, ["change"]), "change", SHARE.change), list(changes["reason"])


def _mean(table: pd.DataFrame, name: str, within: Range) -> Evidence:
    found = seed_intervals(table, TRANSITION, name, within)
    if found.empty:
        return Evidence(math.nan, math.nan, math.nan)
    row = found.iloc[0]
    return Evidence(float(row["mean"]), float(row["low"]), float(row["high"]))


def _columns(evidence: Evidence) -> tuple[tuple[str, float], ...]:
    return ("", evidence.value), ("_low", evidence.low), ("_high", evidence.high)
