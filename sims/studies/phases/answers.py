"""Apply the rules of `sims.analysis.geometry` to the sets of runs, and measure what each phase does.

Rules were fixed before any run: docs/decision-rules.md. Looks are those of the set's mean curve, the same for all
seeds, so that no seed is read at an extreme of its own; only times of extremes are of each seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd

from sims.analysis.cells import keep
from sims.analysis.entropy_balance import EntropyBalance, entropy_balance
from sims.analysis.geometry import ENTROPY, FLAT, UNKNOWN, WARMUP, Phase, Phases, label_phases
from sims.analysis.geometry_claims import Coincidence, coincidence, whole_phases
from sims.analysis.geometry_runs import ONE_RUN, GeometryPhases, corrected, enough_draws, geometry_phases
from sims.analysis.intercept import Intercepts, intercepts
from sims.analysis.intervals import mean_interval
from sims.analysis.memorisation_runs import CORRELATION, OBJECT, Memorisation, memorisation
from sims.measure.geometry import LEFT_OUT
from sims.pages.number import counted
from sims.studies.phases.measured import Curve, PhaseData
from sims.studies.phases.settings import Setting
from sims.system.errors import MeasureError
from theory.ranges import REAL, SHARE, Range
from toymodel.transformer import FINAL

RANKME, MEAN_SHARE, ALPHA = "rankme", "mean_share", "alpha_req"
# RankMe of a part of the states, or with what centring takes away → quantity and detail of its rows.
VARIANTS: Mapping[str, tuple[str, str]] = {
    **{f"without the first {counted(k, 'direction')}": ("rankme_without", f"top {k}") for k in LEFT_OUT},
    "with the mean state": ("rankme_uncentred", ""),
}

# A set ends with another one if its last look is at most this factor later.
LATEST = 1.01


@dataclass(frozen=True)
class Change:
    """Hold by which factor, or by how much, a number changes between two looks.

    Attributes:
        value, low, high: with the 95 % interval over seeds; NaN bounds with one seed.
        start, end: tokens of the looks.
    """

    value: float
    low: float
    high: float
    start: float = math.nan
    end: float = math.nan


@dataclass(frozen=True, eq=False)
class PhaseAnswers:
    """Hold the geometry of states, and what the rules say of it; each answer is computed when it is first asked for.

    Args:
        data: what was measured.
        draws: of the tests of changes; by default `enough_draws` of the sets.
        label: labels phases; `StoredLabels` keeps what it labels.
    """

    data: PhaseData
    draws: int | None = None
    label: Callable[..., Phases] = label_phases
    _shorter: dict[tuple[str, float], Phases] = field(default_factory=dict, init=False, repr=False)
    _balances: dict[str, EntropyBalance | str] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def found(self) -> GeometryPhases:
        """Return the phases of all runs and sets; `stage` is the name of a set."""
        return geometry_phases(self.data.runs, draws=self._draws, label=self.label)

    @cached_property
    def _draws(self) -> int:
        return enough_draws(len(self.data.cells)) if self.draws is None else self.draws

    @cached_property
    def words(self) -> Mapping[str, Phases]:
        """Return the phases of each set."""
        return {cell: own for (cell, _), own in self.found.sets.items()}

    @cached_property
    def runs(self) -> pd.DataFrame:
        """Return one row a run: the columns of `GeometryPhases.words`, the set as stage."""
        words = self.found.words
        return words[words["of"] == ONE_RUN]

    def p_holm(self, cell: str) -> float:
        """Return the p-value of the word of a set, over all sets."""
        words = self.found.words
        return float(words.loc[(words["stage"] == cell) & (words["of"] != ONE_RUN), "p_holm"].iloc[0])

    def curve(self, cell: str, quantity: str = RANKME, detail: str = "") -> Curve | None:
        """Return a number of the states of a set over training."""
        return self.data.curve(cell, quantity, detail)

    def rankme(self, cell: str) -> Curve:
        """Return RankMe of a set, which every set has."""
        own = self.data.curve(cell, RANKME)
        if own is None:
            raise MeasureError(f"the seeds of {cell} have no look in common; measure them at the same steps")
        return own

    def alpha(self, cell: str) -> tuple[str, Curve | None]:
        """Return which α-ReQ a set has ("published", "width" or empty), and its curve."""
        words = self.found.words
        name = str(words.loc[words["stage"] == cell, "alpha"].iloc[0])
        return name, self.curve(cell, ALPHA, name) if name else None

    # Extremes.

    def extremes(self, cell: str) -> tuple[Change, Change]:
        """Return RankMe at the look with the least mean over seeds, and with the largest after it; `end` is its tokens.

        The least one is sought up to the end of E, so that it is that before the rise.
        """
        own = self.rankme(cell).trained
        mean = np.log(own.values).mean(axis=0)
        least = int(mean[: self._until(cell, own)].argmin())
        found = []
        for place in (least, least + int(mean[least:].argmax())):
            value, low, high = (math.exp(v) for v in _interval(np.log(own.values[:, place])))
            found.append(Change(value, low, high, end=float(own.tokens[place])))
        return found[0], found[1]

    def _until(self, cell: str, own: Curve) -> int:
        """Return the number of looks up to the end of E; all where there is none."""
        rise = self.phase(cell, ENTROPY)
        return len(own.tokens) if rise is None else int(np.searchsorted(own.tokens, rise.end * 1.0001))

    def phase(self, cell: str, label: str) -> Phase | None:
        """Return the first phase of a set with this letter, all of its pieces; None where none is supported."""
        return next((own for own in whole_phases(self.words[cell]) if own.label == label), None)

    def factor(self, cell: str, label: str) -> Change | None:
        """Return by which factor RankMe changes within the first phase with this letter."""
        phase, own = self.phase(cell, label), self.curve(cell, RANKME)
        if phase is None or own is None:
            return None
        change = np.log(own.at(phase.end) / own.at(phase.start))
        value, low, high = (math.exp(v) for v in _interval(change))
        return Change(value, low, high, phase.start, phase.end)

    def minimum_times(self, cell: str) -> np.ndarray:
        """Return (seeds,) tokens of the least RankMe of each seed, up to the end of E.

        NaN where that is the first or the last look that is searched: RankMe does not turn there.
        """
        own = self.rankme(cell).trained
        until = self._until(cell, own)
        places = own.values[:, :until].argmin(axis=1)
        return np.where((places > 0) & (places < until - 1), own.tokens[places], math.nan)

    # What carries a phase.

    @cached_property
    def variants(self) -> dict[tuple[str, str], Phases]:
        """Return by set and name of `VARIANTS` the phases of this RankMe, by itself."""
        found = {}
        for cell in self.data.cells:
            for name, which in VARIANTS.items():
                own = self.curve(cell, *which)
                if own is not None and len(own.trained.tokens):
                    own = own.trained
                    found[cell, name] = self.label(own.tokens, own.values, draws=self._draws)
        return found

    @cached_property
    def memorised(self) -> Memorisation | None:
        """Return when the sets agree most with n-grams of their text; None where that was not measured."""
        rows = self.data.runs.values(CORRELATION, OBJECT)
        there = set(rows.loc[rows["tokens"] > 0, "run_id"])
        whole = [run for cell in self.data.cells for own in (self.data.run_ids(cell),) if there >= set(own)
                 for run in own]  # fmt: skip
        if not whole:
            return None
        try:
            return memorisation(keep(self.data.runs, whole), self.found.sets)
        except MeasureError:
            # Fewer than three looks.
            return None

    def balance(self, cell: str) -> EntropyBalance | str:
        """Return what each rank adds to ln RankMe between looks, or why that is not known."""
        if cell not in self._balances:
            try:
                self._balances[cell] = entropy_balance(self.data.alone(cell), FINAL)
            except MeasureError as error:
                self._balances[cell] = str(error)
        return self._balances[cell]

    def intercept(self, cells: Sequence[str]) -> Intercepts | str:
        """Return what a bias on the logits changes between sets that differ in it alone, or why that is not known.

        Args:
            cells: a group of `biases`.
        """
        runs = keep(self.data.runs, [run for cell in cells for run in self.data.run_ids(cell)])
        # The comparison pairs by stage, batch size and seed.
        parts = {name: getattr(runs, name).assign(stage=cells[0]) for name in ("runs", "rows", "spectra")}
        configs = {run: runs.configs[run] for run in runs.runs["run_id"] if run in runs.configs}
        try:
            return intercepts(replace(runs, **parts, configs=configs))
        except MeasureError as error:
            return str(error)

    def mean_share(self, cell: str) -> tuple[Change, Change] | None:
        """Return how the share of the mean state changes from the start to the end of W, and in the E after it."""
        fall, rise, own = self.phase(cell, WARMUP), self.phase(cell, ENTROPY), self.curve(cell, MEAN_SHARE)
        if fall is None or rise is None or own is None:
            return None
        start = 0.0 if own.tokens[0] == 0 else fall.start
        return tuple(  # pyright: ignore[reportReturnType]
            Change(*_interval(own.at(b) - own.at(a), SHARE.change), a, b)
            for a, b in ((start, fall.end), (fall.end, rise.end))
        )

    # Sets that differ in one setting.

    @cached_property
    def ramps(self) -> list[list[str]]:
        """Return sets that differ in their warm-up alone, those with the shortest first."""
        return self._alike("warmup")

    @cached_property
    def widths(self) -> list[list[str]]:
        """Return sets that differ in their width alone, the narrowest first."""
        return self._alike("width")

    @cached_property
    def biases(self) -> list[list[str]]:
        """Return sets that differ in a bias on the logits alone, the one without first."""
        return self._alike("bias")

    def _alike(self, name: str) -> list[list[str]]:
        """Return sets that differ in one setting alone, without those on null texts."""
        settings = self.data.settings
        return [own for own in self.data.alike(name) if not any(settings[cell].null for cell in own)]

    @cached_property
    def nulls(self) -> list[str]:
        """Return the sets in which no third phase is expected."""
        return [cell for cell, setting in self.data.settings.items() if setting.is_null]

    def nulls_of(self, cell: str) -> list[str]:
        """Return the nulls that differ from a set in their text or width alone; else all of its kind and stage."""
        own, settings = self.data.settings[cell], self.data.settings
        same = [n for n in self.nulls if (settings[n].kind, settings[n].stage) == (own.kind, own.stage)]
        return [n for n in same if _but_for_null(settings[n]) == _but_for_null(own)] or same

    def compared(self, cells: Sequence[str]) -> Mapping[str, Phases]:
        """Return the phases of some sets up to the tokens that all of them reach."""
        ends = {cell: float(self.rankme(cell).tokens[-1]) for cell in cells}
        until = min(ends.values()) * LATEST
        return {
            cell: self.words[cell] if ends[cell] <= until else self._until_tokens(cell, until)
            for cell in cells
        }

    def _until_tokens(self, cell: str, tokens: float) -> Phases:
        if (cell, tokens) not in self._shorter:
            own, (_, alpha) = self.rankme(cell).trained, self.alpha(cell)
            kept = own.tokens <= tokens
            other = None if alpha is None else alpha.trained.onto(own.tokens)[:, kept]
            found = self.label(own.tokens[kept], own.values[:, kept], other, draws=self._draws)
            # As many sets are tested as with all of their looks.
            sets = max(sum(not math.isnan(whole.p) for whole in self.words.values()), 1)
            self._shorter[cell, tokens] = corrected(found, min(found.p * sets, 1.0), sets)
        return self._shorter[cell, tokens]

    def same_minimum(self, first: str, second: str) -> Coincidence:
        """Say whether two sets reach their least RankMe after the same tokens, paired by seed."""
        times = [dict(zip(self.rankme(c).seeds, self.minimum_times(c), strict=True)) for c in (first, second)]
        seeds = list(dict.fromkeys([*times[0], *times[1]]))
        a, b = ([own.get(seed, math.nan) for seed in seeds] for own in times)
        spacing = max(self.spacing(c, [*own.values()]) for c, own in zip((first, second), times, strict=True))
        return coincidence(a, b, spacing=spacing, claim="The first phase ends at the same tokens")

    def spacing(self, cell: str, times: Sequence[float]) -> float:
        """Return the largest factor between looks that are neighbours of some times; NaN among these is left out."""
        tokens = self.rankme(cell).trained.tokens
        ratios = tokens[1:] / tokens[:-1]
        places = np.searchsorted(tokens, [time for time in times if not math.isnan(time)])
        near = [ratios[i] for p in places for i in (p - 1, p) if 0 <= i < len(ratios)]
        return float(max(near)) if near else 1.0


def has_letter(found: Phases, letter: str) -> bool | None:
    """Return whether a word has a letter; None where it is not known.

    >>> [has_letter(Phases(w, "ok", "", 3, 30), "C") for w in ("WEC", "WE", "WE?", "")]
    [True, False, None, None]
    """
    known, unknown, _ = found.word.partition(UNKNOWN)
    if letter in known and found.word != FLAT:
        return True
    return None if unknown or found.status == "not fitted" or not found.word else False


def ends_with(found: Phases, letter: str) -> bool | None:
    """Return whether the last letter of a word is this one; None where it is not known."""
    if found.status == "not fitted" or UNKNOWN in found.word or not found.word:
        return None
    return found.word.endswith(letter) and found.word != FLAT


def _interval(values: np.ndarray, within: Range = REAL) -> tuple[float, float, float]:
    """Return the mean over seeds with its 95 % interval, within the range of the values."""
    return mean_interval(values[np.isfinite(values)], within)


def _but_for_null(own: Setting) -> Setting:
    """Return a setting without what makes a null, and without the length of a run at a constant rate."""
    return own.without("text", "null", "width", *(("steps",) if own.warmdown == 0 else ()))
