"""Apply the rules of `sims.analysis` to spectra of weights over training and depth.

Rules were fixed before any run: docs/decision-rules.md. Ranks are ln stable ranks; exponents are those of the first
half of the ranks, in excess of Gaussian matrices of the same shape, where nothing else is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from sims.analysis.asymmetry import Asymmetry, asymmetry, asymmetry_verdict
from sims.analysis.depth import correlation_verdict, depth_correlations
from sims.analysis.fronts import depth_slopes, fronts, wave_verdict, waves
from sims.analysis.peaks import InvertedU, PeakShift, inverted_u, inverted_u_verdict, peak_shift
from sims.analysis.removal import advantages
from sims.analysis.removal_rules import LAST, LAST_INTERIOR, RANDOM, SPECTRAL
from sims.analysis.reversal import Reversal, reversal, reversal_verdict
from sims.analysis.set_ranks import guidance, pooled_ranks
from sims.analysis.spread import Measure, SpreadLaw, spread_law, spread_verdict
from sims.analysis.timescale_gain import Gain, slow_exponents
from sims.analysis.two_times import RESAMPLES, TwoTimes, timescales_verdict, two_timescales
from sims.analysis.verdicts import Verdict
from sims.studies.lifecycle.curves import Curves, curves, product_curves, summary
from sims.studies.lifecycle.measured import CONSTANT, EXPONENTS, OV, QK, LifeData
from sims.studies.lifecycle.removal import Removals
from sims.system.errors import MeasureError

RANK, EXPONENT = "stable_rank", "excess_alpha_half"
Q_K, V_O = ("q", "k"), ("v", "o")
MATRICES, PRODUCTS, DECAYS = FORMS = ("matrices", "products of heads", "exponents of matrices")
ALL_LAYERS, INTERIOR = PARTS = ("all layers", "interior layers")
SUMMARY = "mean of types"
WITHOUT_DEPTH = "without depth"
NO_SEED = "no seed that every number of blocks has"
# What is taken out of the rank correlation of exponents and importance; interior layers alone decide.
IMPORTANCE: Mapping[str, Mapping[str, Any]] = {
    ALL_LAYERS: {},
    WITHOUT_DEPTH: {"partial": ("linear",)},
    "without the ends": {"partial": ("ends",)},
    INTERIOR: {"interior": True},
}


@dataclass(frozen=True, eq=False)
class LifeAnswers:
    """Hold spectra of weights, and what the rules say of them; each answer is computed when it is first asked for.

    Args:
        data: what was measured.
        removals: costs of removed blocks; None where none were measured.
        resamples: of layers, for intervals of two times.
    """

    data: LifeData
    removals: Removals | None = None
    resamples: int = RESAMPLES

    @cached_property
    def families(self) -> dict[str, dict[str, str]]:
        """Return for runs that differ in schedule and seed only: schedule → cell."""
        return self._grouped("family", "timing")

    @cached_property
    def lines(self) -> dict[str, dict[int, str]]:
        """Return for runs that differ in depth and seed only: number of layers → cell, rising."""
        found = self._grouped("line", "layers")
        return {line: dict(sorted(cells.items())) for line, cells in found.items()}

    def _grouped(self, by: str, key: str) -> dict[str, dict[Any, str]]:
        runs = self.data.runs
        return {
            str(name): dict(zip(own[key], own["cell"], strict=True))
            for name, own in runs.groupby(by, sort=False)
        }

    def seeds(self, cell: str) -> int:
        """Return the number of seeds of a cell."""
        return int((self.data.runs["cell"] == cell).sum())

    def ranks(self, cell: str) -> Curves:
        """Return ln stable ranks of a cell, from the first look at which all matrices have one."""
        return curves(self.data, cell, RANK).whole

    def ends(self, cell: str, column: str = EXPONENT) -> dict[str, np.ndarray]:
        """Return a column of the matrices of a cell at the end of training, (seeds, layers) for each type."""
        return curves(self.data, cell, column).last

    # Waves.

    def compressed(self, cell: str) -> Curves:
        """Return ln stable ranks of the types of a cell that have one before training."""
        own = curves(self.data, cell, RANK).started
        if not own.values:
            raise MeasureError(f"every matrix of {cell} starts at zero")
        return own.whole

    @cached_property
    def waves(self) -> pd.DataFrame:
        """Return the test of fronts for each cell, part (all or interior layers) and type: see `fronts.waves`."""
        parts = []
        for cell in self.data.cells:
            own = self.compressed(cell)
            for part in PARTS:
                found = waves(own.clock, own.values, interior=part == INTERIOR)
                parts.append(found.assign(cell=cell, part=part))
        return pd.concat(parts, ignore_index=True)

    def wave(self, family: str, part: str = ALL_LAYERS) -> Verdict:
        """Say whether compression passes from early to late layers."""
        table = self.waves[self.waves["part"] == part]
        return wave_verdict(
            {timing: table[table["cell"] == cell] for timing, cell in self.families[family].items()}
        )

    @cached_property
    def fronts(self) -> pd.DataFrame:
        """Return the step of each layer's front: cell, type, block, seed, step, resolved."""
        rows = []
        for cell in self.data.cells:
            own = self.compressed(cell)
            for name, values in own.values.items():
                found, resolved = fronts(own.steps, values), fronts(own.clock, values).status == "ok"
                rows += [
                    {"cell": cell, "type": name, "block": block, "seed": seed, "step": found.times[i, block],
                     "resolved": resolved}
                    for i, seed in enumerate(own.seeds)
                    for block in range(values.shape[-1])
                ]  # fmt: skip
        return pd.DataFrame(rows).dropna()

    @cached_property
    def slopes(self) -> pd.DataFrame:
        """Return γ, the slope of ln stable rank over depth: cell, family, timing, type, seed, step, value."""
        parts = []
        labels = self.data.runs.drop_duplicates("cell").set_index("cell")[["family", "timing"]]
        for cell in self.data.cells:
            own = self.ranks(cell)
            for name, values in own.values.items():
                found = depth_slopes(values)
                index = pd.MultiIndex.from_product([own.seeds, own.steps], names=["seed", "step"])
                table = pd.DataFrame({"value": found.ravel()}, index).reset_index()
                label = {str(k): v for k, v in labels.loc[cell].items()}
                parts.append(table.assign(cell=cell, type=name, **label))
        return pd.concat(parts, ignore_index=True)

    @cached_property
    def reversals(self) -> dict[tuple[str, str], Reversal]:
        """Return by cell and type the gradient over depth at its peak and at the end; the mean is of `compressed`."""
        found = {}
        for cell in self.data.cells:
            own = self.ranks(cell)
            for name, values in own.values.items():
                found[cell, name] = reversal(own.clock, values)
            mean = self.compressed(cell)
            found[cell, SUMMARY] = reversal(mean.clock, np.mean(list(mean.values.values()), axis=0))
        return found

    def reverses(self, family: str) -> Verdict:
        """Say whether the mean gradient over depth of all types peaks early and reverses."""
        found: dict[str, Reversal] = {}
        for timing, cell in self.families[family].items():
            constant = self.data.cell(cell)["schedule"] == CONSTANT and "constant" not in found
            found["constant" if constant else timing] = self.reversals[cell, SUMMARY]
        return reversal_verdict(found)

    # Spread over layers.

    @cached_property
    def asymmetries(self) -> dict[tuple[str, str, str], Asymmetry]:
        """Return by cell, form (see `FORMS`) and part the ratio of spreads of q and k to v and o at the end."""
        found = {}
        for cell in self.data.cells:
            for form in FORMS:
                sides = self._sides(cell, form)
                for part in PARTS if sides else ():
                    found[cell, form, part] = asymmetry(*sides, interior=part == INTERIOR)
        return found

    def _sides(self, cell: str, form: str) -> tuple[np.ndarray, np.ndarray] | tuple[()]:
        """Return (seeds, types, layers) of q and k, or qk, and of v and o, or ov, at the end of training."""
        if form == PRODUCTS:
            products = product_curves(self.data, cell, RANK)
            own, names = {} if products is None else products.last, ((QK,), (OV,))
        else:
            own, names = self.ends(cell, EXPONENT) if form == DECAYS else self.ranks(cell).last, (Q_K, V_O)
        if any(name not in own for name in (*names[0], *names[1])):
            return ()
        first, second = (np.stack([own[n] for n in group], axis=1) for group in names)
        return first, second

    def asymmetric(self, cell: str, form: str) -> Verdict | None:
        """Say whether the spread over depth is larger in q and k; None where it was not measured."""
        if (cell, form, ALL_LAYERS) not in self.asymmetries:
            return None
        names = "W_qᵀW_k" if form == PRODUCTS else "q and k"
        return asymmetry_verdict(*(self.asymmetries[cell, form, part] for part in PARTS), names=names)

    @cached_property
    def spreads(self) -> pd.DataFrame:
        """Return the sd over layers of ln stable rank: cell, of (matrices or products), type, seed, step, value."""
        parts = []
        for cell in self.data.cells:
            sources = {MATRICES: self.ranks(cell), PRODUCTS: product_curves(self.data, cell, RANK)}
            for form, own in sources.items():
                if own is None:
                    continue
                for name, values in own.values.items():
                    index = pd.MultiIndex.from_product([own.seeds, own.steps], names=["seed", "step"])
                    table = pd.DataFrame({"value": values.std(axis=-1, ddof=1).ravel()}, index).reset_index()
                    parts.append(table.dropna().assign(cell=cell, of=form, type=name))
        return pd.concat(parts, ignore_index=True)

    # Time.

    @cached_property
    def timed(self) -> dict[tuple[str, str], TwoTimes | str]:
        """Return by cell and type whether ln stable ranks need two shared times, or why no time can be fitted.

        Time is the sum of learning rates.
        """
        found: dict[tuple[str, str], TwoTimes | str] = {}
        for cell in self.data.cells:
            own = self.compressed(cell)
            for name, values in own.values.items():
                try:
                    found[cell, name] = two_timescales(own.clock, values, resamples=self.resamples)
                except MeasureError as error:
                    found[cell, name] = str(error)
        return found

    @property
    def times(self) -> dict[tuple[str, str], TwoTimes]:
        """Return the fitted ones of `timed`."""
        return {key: one for key, one in self.timed.items() if isinstance(one, TwoTimes)}

    @cached_property
    def slow(self) -> dict[tuple[str, str], Gain]:
        """Return by cell and type whether exponents follow the slow time of the ranks, or the fast one."""
        found = {}
        for cell, name in self.times:
            ranks, exponents = self.compressed(cell), curves(self.data, cell, EXPONENT)
            own = exponents.values[name][:, np.isin(exponents.steps, ranks.steps)]
            if np.isfinite(own).all():
                found[cell, name] = slow_exponents(ranks.clock, ranks.values[name], own)
        return found

    def two_times(self, family: str, kind: str) -> Verdict:
        """Say whether compression of a type of matrix has a fast and a slow time."""
        own = {t: self.timed[c, kind] for t, c in self.families[family].items() if (c, kind) in self.timed}
        found = timescales_verdict({t: one for t, one in own.items() if isinstance(one, TwoTimes)})
        missing = [f"{t}: {why}" for t, why in own.items() if isinstance(why, str)]
        return Verdict(found.claim, "not resolved", "; ".join(missing)) if missing else found

    # Depth.

    def profile(self, cell: str, exponent: str, *, standardised: bool = True) -> np.ndarray:
        """Return one exponent of each layer at the end, (seeds, layers), the mean over types of its excess."""
        return summary(self.ends(cell, f"excess_{exponent}"), standardised=standardised)

    @cached_property
    def humps(self) -> dict[tuple[str, str, str], InvertedU]:
        """Return by cell, exponent and part whether the profile over depth rises and falls, and its peak."""
        return {
            (cell, exponent, part): inverted_u(self.profile(cell, exponent), interior=part == INTERIOR)
            for cell in self.data.cells
            for exponent in EXPONENTS
            for part in PARTS
        }

    def humped(self, cell: str) -> Verdict:
        """Say whether the profile over depth is an inverted U."""
        return inverted_u_verdict(*(self.humps[cell, EXPONENTS[0], part] for part in PARTS))

    def shift(self, line: str) -> PeakShift:
        """Return whether the peak comes earlier in deeper models."""
        return peak_shift(
            {n: self.humps[cell, EXPONENTS[0], ALL_LAYERS] for n, cell in self.lines[line].items()}
        )

    def common_seeds(self, line: str) -> tuple[int, ...]:
        """Return the seeds that every number of layers of a line has."""
        return tuple(
            sorted(set.intersection(*(set(self.seeds_of(cell)) for cell in self.lines[line].values())))
        )

    def seeds_of(self, cell: str) -> list[int]:
        """Return the seeds of a cell, rising."""
        runs = self.data.runs
        return sorted(int(seed) for seed in runs.loc[runs["cell"] == cell, "seed"])

    @cached_property
    def laws(self) -> dict[tuple[str, str, Measure], SpreadLaw]:
        """Return by line, exponent and measure how the spread over layers grows with their number.

        Of every depth it takes the seeds that all depths have.
        """
        measures: tuple[Measure, ...] = ("sd", "amplitude", "range")
        found = {}
        for line, cells in self.lines.items():
            seeds = self.common_seeds(line)
            for exponent in EXPONENTS:
                # Standardised values have the same spread at every depth.
                profiles = {
                    layers: self.profile(cell, exponent, standardised=False)[
                        np.isin(self.seeds_of(cell), seeds)
                    ]
                    for layers, cell in cells.items()
                }
                for measure in measures:
                    found[line, exponent, measure] = (
                        spread_law(profiles, measure)
                        if seeds
                        else SpreadLaw(measure, tuple(cells), 0, status="not resolved", reason=NO_SEED)
                    )
        return found

    def grows(self, line: str) -> Verdict:
        """Say whether the sd over layers grows with their number."""
        return spread_verdict(self.laws[line, EXPONENTS[0], "sd"])

    # Removal of blocks.

    @cached_property
    def importances(self) -> pd.DataFrame:
        """Return the rank correlation of exponents and importance for each cell and part: see `depth_correlations`."""
        if self.removals is None:
            return pd.DataFrame()
        parts = []
        for cell in dict.fromkeys(self.removals.cells.values()):
            other = self.removals.importance(cell)
            kept = self.measured_seeds(cell)
            tables = {name: self.profile(cell, name)[kept] for name in EXPONENTS}
            for part, options in IMPORTANCE.items():
                found = self._correlations(tables, other, options)
                parts.append(found.assign(cell=cell, part=part))
        return pd.concat(parts, ignore_index=True)

    @staticmethod
    def _correlations(
        tables: Mapping[str, np.ndarray], other: np.ndarray, options: Mapping[str, Any]
    ) -> pd.DataFrame:
        return depth_correlations(tables, other, **options)

    def measured_seeds(self, cell: str) -> list[int]:
        """Return the places of the seeds of a cell whose blocks were removed."""
        assert self.removals is not None
        own = self.data.runs[self.data.runs["cell"] == cell].sort_values("seed")
        return [i for i, run in enumerate(own["run"]) if run in self.removals.cells]

    def important(self, cell: str) -> Verdict | None:
        """Say whether the importance of blocks follows one of the exponents; None where it was not measured.

        Decided on interior blocks alone, and with linear depth taken out.
        """
        table = self.importances
        if table.empty or cell not in set(table["cell"]):
            return None
        own = table[table["cell"] == cell]
        found = {part: own[own["part"] == part] for part in (INTERIOR, WITHOUT_DEPTH)}
        return correlation_verdict(found, "The exponent of a block says how important it is")

    def guided(self, line: str) -> Verdict | None:
        """Say whether exponents are a guide to the removal of blocks; None where it was not measured."""
        models = [] if self.removals is None else self.removals.of(list(self.lines[line].values()))
        return guidance(models) if models else None

    @cached_property
    def advantages(self) -> pd.DataFrame:
        """Return by how much rules are cheaper than the last N blocks: cell, run, and the columns of `advantages`."""
        if self.removals is None:
            return pd.DataFrame()
        parts = []
        for run, (costs, choices) in self.removals.models.items():
            for rule in SPECTRAL:
                for against in (LAST, LAST_INTERIOR):
                    found = advantages(costs, choices, rule, against)
                    parts.append(found.assign(cell=self.removals.cells[run], run=run))
        return pd.concat(parts, ignore_index=True)

    @cached_property
    def pooled(self) -> pd.DataFrame:
        """Return the rank of every rule among all sets of interior blocks, pooled over the models of a line."""
        if self.removals is None:
            return pd.DataFrame()
        parts = []
        for line, cells in self.lines.items():
            models = self.removals.of(list(cells.values()))
            rules = [rule for rule in models[0].choices if rule not in (LAST, RANDOM)] if models else []
            if rules:
                parts.append(pooled_ranks(models, rules).assign(line=line))
        return pd.concat(parts, ignore_index=True)
