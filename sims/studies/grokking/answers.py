"""Apply the rules of `sims.analysis` to the looks of all runs: which signal warns of grokking, and how early.

Signals, times and rules are fixed here, before any run. A signal is read at equal times after memorisation, where all
compared runs still have a test accuracy below 0.1; its direction and its threshold come from other runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from sims.analysis.alarm_rocs import alarm_rocs, scores_at
from sims.analysis.alarms import GROKS, alarms, controls_of, lead_summary, outcomes
from sims.analysis.early_warning import alarm_confusion, early_warning, gain_at, published_alarms
from sims.analysis.gain import DRAWS, Gain
from sims.analysis.gap_decline import GapDecline, gap_decline
from sims.analysis.leads import LeadLaw, lead_law
from sims.analysis.roc import RESAMPLES
from sims.analysis.verdicts import Verdict


@dataclass(frozen=True)
class Signal:
    """Describe a column of the looks.

    Attributes:
        title: in few words, for figures and tables.
        meaning: what it is.
        log: whether its logarithm is compared; values that are not positive are then missing.
        baseline: whether it is one of the trivial ones, which other signals have to add something to.
    """

    title: str
    meaning: str
    log: bool = False
    baseline: bool = False


DEFECT, DEFECT_32 = "defect", "defect_fd32"
# The published alarm is asked of both: in the published arithmetic, positions are subtracted in float32.
ARITHMETIC: Mapping[str, str] = {DEFECT: "exact", DEFECT_32: "published arithmetic"}
SIGNALS: Mapping[str, Signal] = {
    DEFECT: Signal(
        "commutator defect", "how far gradient steps of two batches are from commuting, exactly", log=True
    ),
    "edge_gap": Signal("edge: gap", "largest σ_k/σ_{k+1} of the last 10 updates of 5 steps each", log=True),
    "edge_gap_unit": Signal("edge: gap, unit", "the same of updates of length 1", log=True),
    "g23": Signal("edge: σ₂² − σ₃²", "of that window", log=True),
    "pc1": Signal("share of PC 1", "λ₁/Σλ of that window"),
    "decay_cosine": Signal(
        "cosine of decay", "of what weight decay did in 5 steps, and the rest of the update"
    ),
    "gradient_norm": Signal("gradient norm", "of one batch", log=True, baseline=True),
    "update_norm": Signal("update norm", "of the last step", log=True, baseline=True),
    "cosine_weights": Signal("cosine of update", "of the last update and the weights", baseline=True),
    "weight_norm": Signal("weight norm", "of all weights together", log=True, baseline=True),
    "train_loss": Signal("training loss", "mean over training sequences, in nats", log=True, baseline=True),
}
BASELINES = tuple(name for name, signal in SIGNALS.items() if signal.baseline)
CANDIDATES = tuple(name for name, signal in SIGNALS.items() if not signal.baseline)
# Steps after memorisation at which signals are read; claims are decided at the second.
TIMES = (0, 100, 300)
DECIDED_AT = 100


@dataclass(frozen=True, eq=False)
class Answers:
    """Hold the looks of all runs, and what the rules say of them.

    Args:
        measured: one row a look: run, group, control, seed, step, train, test and the columns of `SIGNALS`, NaN where
            they were not measured.
        draws, resamples: of permutations and of bootstraps.
    """

    measured: pd.DataFrame
    draws: int = DRAWS
    resamples: int = RESAMPLES

    @cached_property
    def looks(self) -> pd.DataFrame:
        """Return the looks with logarithms where they are compared.

        Between two looks at which a signal is measured it keeps its value. Where it was measured and has none, it is
        missing: it does not keep an older value.
        """
        table = self._logged.copy()
        by_run = table.groupby("run")
        for name in self.signals:
            known = table["step"].where(table[name].notna())
            last = known.groupby(table["run"]).ffill()
            every = known.dropna().groupby(table["run"]).diff().min()
            # With one look in each run there is nothing between looks.
            kept = (table["step"] - last < every) | table[name].notna()
            table[name] = by_run[name].ffill().where(kept)
        return table

    @cached_property
    def _logged(self) -> pd.DataFrame:
        table = self.measured.copy()
        for name in self.signals:
            if SIGNALS[name].log:
                values = table[name].to_numpy(float)
                table[name] = np.log(values, where=values > 0, out=np.full(len(values), np.nan))
        return table

    @cached_property
    def signals(self) -> tuple[str, ...]:
        """Return the signals that were measured at all."""
        return tuple(name for name in SIGNALS if name in self.measured and self.measured[name].notna().any())

    @cached_property
    def candidates(self) -> tuple[str, ...]:
        """Return the measured signals that are no baselines."""
        return tuple(name for name in CANDIDATES if name in self.signals)

    @cached_property
    def baselines(self) -> tuple[str, ...]:
        """Return the measured baselines."""
        return tuple(name for name in BASELINES if name in self.signals)

    @cached_property
    def outcomes(self) -> pd.DataFrame:
        """Return when each run memorises and generalises (`sims.analysis.alarms.outcomes`).

        With `kind`: "groks", a type of control, or why a run counts as neither.
        """
        found = outcomes(self.looks)
        grok = (found["outcome"] == GROKS) & (found["control"] == "")
        other = (found["control"] + ": " + found["outcome"]).str.removeprefix(": ")
        return found.assign(kind=controls_of(found).where(~grok, GROKS).fillna(other))

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Return all signals at all times after memorisation."""
        return scores_at(self.looks, self.signals, TIMES)

    @cached_property
    def rocs(self) -> pd.DataFrame:
        """Return the areas under the curve, by time, signal and type of control."""
        return alarm_rocs(self.scores, resamples=self.resamples)

    @cached_property
    def transfer(self) -> pd.DataFrame:
        """Return the areas at the deciding time, with directions from other operations."""
        return alarm_rocs(
            self.scores[self.scores["time"] == DECIDED_AT], leave="group", resamples=self.resamples
        )

    @cached_property
    def gains(self) -> dict[str, Gain]:
        """Return what each candidate adds to the baselines at the deciding time."""
        at = self.scores[self.scores["time"] == DECIDED_AT]
        return {name: gain_at(at, name, self.baselines, draws=self.draws) for name in self.candidates}

    @cached_property
    def alarms(self) -> dict[str, pd.DataFrame]:
        """Return the alarms of every signal, with thresholds from other runs."""
        return {name: alarms(self._logged, name) for name in self.signals}

    @cached_property
    def leads(self) -> pd.DataFrame:
        """Return lead times and false alarms of every signal."""
        found = {name: lead_summary(own, resamples=self.resamples) for name, own in self.alarms.items()}
        return pd.concat([own.assign(signal=name) for name, own in found.items()], ignore_index=True)

    @cached_property
    def published(self) -> dict[str, pd.DataFrame]:
        """Return the alarms of the published rule, by the arithmetic of the defect; none where it was not measured."""
        known = [name for name in ARITHMETIC if name in self.measured and self.measured[name].notna().any()]
        return {name: published_alarms(self.measured, name) for name in known}

    @cached_property
    def confusion(self) -> dict[str, pd.DataFrame]:
        """Return hits and false alarms of the published rule."""
        return {name: alarm_confusion(found) for name, found in self.published.items()}

    @cached_property
    def sounded(self) -> pd.DataFrame:
        """Return the share of runs in which the published alarm goes off, by kind and arithmetic."""
        parts = [
            lead_summary(found).assign(defect=ARITHMETIC[name]) for name, found in self.published.items()
        ]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    @cached_property
    def laws(self) -> dict[str, LeadLaw]:
        """Return the law of the leads of the published rule."""
        return {name: lead_law(found) for name, found in self.published.items()}

    @cached_property
    def decline(self) -> GapDecline | None:
        """Return how much σ₂² − σ₃² declines until grokking, beside controls; None where it was not measured."""
        if "g23" not in self.signals:
            return None
        found = self.outcomes[(self.outcomes["kind"] == GROKS) | controls_of(self.outcomes).notna()]
        table = self.measured.merge(found[["run", "kind", "t_90"]], on="run")
        return gap_decline(table.dropna(subset=["g23"]), null_draws=10 * self.draws + 9, draws=self.draws)

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """Return, for each candidate, whether it is an early warning."""
        at = self.rocs[self.rocs["time"] == DECIDED_AT]
        return {
            name: early_warning(at[at["signal"] == name], self.gains[name])
            for name in self.candidates
            if (at["signal"] == name).any()
        }

    def count(self, outcome: str = GROKS) -> int:
        """Return how many runs that were meant to generalise had an outcome."""
        found = self.outcomes
        return int(((found["control"] == "") & (found["outcome"] == outcome)).sum())
