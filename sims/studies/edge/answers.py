"""Apply the rules of `sims.analysis` to windows of updates: which published claims they show, and against which null.

Rules were fixed before any run: docs/decision-rules.md. Edges are decided at the published W = 10 with k* ≤ ⌊W/2⌋: of
the ten published singular values the ninth ratio is the largest, and k* = 2 is that of the first five.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from sims.analysis.edge_runs import LEVEL, edge_mode, edge_runs, edge_scales
from sims.analysis.edge_runs import SHARE as EDGE_SHARE
from sims.analysis.gap_phases import GapPhases, gap_phases
from sims.analysis.intervals import seed_intervals
from sims.analysis.lags import lag_coupling, lag_couplings, lag_flip
from sims.analysis.ranges import POSITIVE, SHARE
from sims.analysis.verdicts import LEAST_SEEDS, Verdict, agreeing
from sims.pages.number import ABSENT, interval
from sims.studies.claims import NOT_SHOWN, OPEN, SHOWN
from sims.studies.edge.measured import RAW, UNIT, EdgeData
from sims.studies.edge.optimisers import compared_optimisers
from sims.studies.edge.sketches import COLUMN, RATIO, sketch_sizes, sketched_windows
from sims.system.errors import MeasureError
from spectra.nulls.edge import EFFECTIVE_DIMENSIONS, find_edges, null_values
from theory.decision import has_width, side

# Of rows; each has one more property of the window than the one before.
NULLS = {"momentum": "N0: momentum", "norms": "N1: + lengths", "correlations": "N2: + lag correlations"}
NULL_DRAWS = 999
# Of the detrendings that the lags are not decided on.
OTHER_DRAWS = 1_999


@dataclass(frozen=True, eq=False)
class EdgeAnswers:
    """Hold windows of updates, and what the rules say of them; each answer is computed when it is first asked for.

    Args:
        data: what was measured.
        null_draws: simulated runs of the null of phases.
        permutations: of the test of lags.
    """

    data: EdgeData
    null_draws: int = 200
    permutations: int = 9_999

    @property
    def half(self) -> int:
        """Return J, the largest k* that is decided on."""
        return max(1, self.data.main // 2)

    def span(self, cell: str, window: int) -> float:
        """Return the steps of a window."""
        return float(window * self.data.cell(cell)["stride"])

    @cached_property
    def edges(self) -> pd.DataFrame:
        """Return whether each run has an edge: cell, form, window, most, null and the columns of `edge_runs`."""
        parts = []
        for cell, form, window in self._windows():
            own = self.data.of(cell, form, window)
            own = own.reindex(columns=[*own.columns, *self._missing(own)])
            own = own[own["p_correlations"].notna()]
            for null in NULLS if len(own) else ():
                for most, end in ((window - 1, ""), (window // 2, "_half")):
                    found = edge_runs(own, span=self.span(cell, window), p=f"p_{null}{end}")
                    label = {"cell": cell, "form": form, "window": window, "most": most, "null": null}
                    parts.append(found.assign(**label, decided=end != ""))
        if not parts:
            raise MeasureError("no window has nulls; train longer, or with --measure.update-nulls 1")
        return pd.concat(parts, ignore_index=True)

    @staticmethod
    def _missing(own: pd.DataFrame) -> list[str]:
        names = [f"p_{null}{end}" for null in NULLS for end in ("", "_half")]
        return [name for name in names if name not in own.columns]

    def _windows(self) -> Iterator[tuple[str, str, int]]:
        for cell in self.data.cells:
            for form in (RAW, UNIT):
                for window in self.data.lengths:
                    if len(self.data.of(cell, form, window)):
                        yield cell, form, window

    @cached_property
    def shares(self) -> pd.DataFrame:
        """Return the share of disjoint windows with an edge, mean over seeds with 95 % interval."""
        known = self.edges[self.edges["status"] == "ok"]
        by = ["cell", "form", "window", "most", "decided", "null"]
        found = seed_intervals(known, by, value="share", within=SHARE)
        counts = known.groupby(by, sort=False)[["edge", "windows"]].sum().reset_index()
        return found.merge(counts, on=by).rename(columns={"edge": "runs"})

    def share(self, cell: str, null: str, form: str = RAW) -> dict[Any, Any] | None:
        """Return the row of `shares` that a claim is decided on; None without one."""
        table = self.shares
        own = table[(table["cell"] == cell) & (table["form"] == form) & (table["null"] == null)]
        own = own[(own["window"] == self.data.main) & own["decided"]]
        return own.iloc[0].to_dict() if len(own) else None

    def told_share(self, cell: str, null: str) -> str:
        """Return that share with its interval; where all seeds have the same, with its count: it has no width."""
        row = self.share(cell, null)
        if row is None:
            return ABSENT
        told = interval(row["mean"], row["low"], row["high"], 2)
        if row["min"] < row["max"] or row["n"] < 2:
            return told
        each = row["windows"] / row["n"]
        return f"{told}, {row['mean'] * each:.0f} of {each:.0f} in each seed"

    @cached_property
    def quarters(self) -> pd.DataFrame:
        """Return the share of raw windows of the main W beyond each null in each quarter of training.

        One row a cell and null, with the columns 1, 2, 3, 4: of the windows of all seeds. All windows with nulls count.
        """
        rows = []
        for cell in self.data.cells:
            own = self.data.of(cell, RAW, self.data.main)
            own = own.reindex(columns=[*own.columns, *self._missing(own)])
            own = own[own["p_correlations"].notna()]
            quarter = np.ceil(4 * own["step"] / own["step"].max()).astype(int)
            for null in NULLS:
                p = own[f"p_{null}_half"]
                shares = (p < LEVEL).where(p.notna()).astype(float).groupby(quarter).mean()
                rows.append({"cell": cell, "null": null, **{i: shares.get(i, np.nan) for i in range(1, 5)}})
        return pd.DataFrame(rows)

    def edge(self, cell: str, null: str) -> Verdict:
        """Say whether the runs of a cell have an edge beyond a null: three of four seeds, of the raw updates.

        Without it is not resolved while the interval of the share of windows reaches above what a run with an edge has.
        """
        claim = f"{cell}: updates have an edge beyond {NULLS[null]}"
        table = self.edges
        own = table[(table["cell"] == cell) & (table["null"] == null) & (table["form"] == RAW)]
        own = own[(own["window"] == self.data.main) & own["decided"]]
        known = own[own["status"] == "ok"]
        if len(known) < LEAST_SEEDS:
            why = "; ".join(dict.fromkeys(own.loc[own["status"] != "ok", "reason"]))
            told = f"{len(known)} usable seeds, and the rule needs {LEAST_SEEDS}" + (
                f"; {why}" if why else ""
            )
            return Verdict(claim, OPEN, told)
        hits, needed = int(known["edge"].sum()), agreeing(len(known))
        reason = (
            f"{int(known['edges'].sum())} of {int(known['windows'].sum())} disjoint windows have p < .01; "
            f"{hits} of {len(known)} seeds have an edge, {needed} needed"
        )
        if hits >= needed:
            return Verdict(claim, SHOWN, reason)
        share = self.share(cell, null)
        if (
            share
            and has_width(share["low"], share["high"])
            and side(share["low"], share["high"], EDGE_SHARE) >= 0
        ):
            reason += (
                f"; the share may be as large as {share['high']:.2f}, and a run with an edge has {EDGE_SHARE}"
            )
            return Verdict(claim, OPEN, reason)
        return Verdict(claim, NOT_SHOWN, reason)

    @cached_property
    def modes(self) -> pd.DataFrame:
        """Return k* of each cell, form, W and J, beside the most frequent k* of momentum noise."""
        rows = []
        for cell, form, window in self._windows():
            own = self.data.of(cell, form, window)
            for most, end in ((window - 1, ""), (window // 2, "_half")):
                found = edge_mode(own, span=self.span(cell, window), k=f"edge_k{end}")
                label = {"cell": cell, "form": form, "window": window, "most": most}
                rows.append(label | found | {"null_k": self.null_edge(cell, window, most)[0]})
        return pd.DataFrame(rows)

    @cached_property
    def scales(self) -> dict[tuple[str, ...], Verdict]:
        """Say of each two sizes of a stage whether k* differs: unit updates, the main W, k* ≤ ⌊W/2⌋."""
        found: dict[tuple[str, ...], Verdict] = {}
        for first, second in combinations(self.data.cells, 2):
            one, two = self.data.cell(first), self.data.cell(second)
            if one["stage"] == two["stage"] and one["size"] != two["size"]:
                tables = [self.data.of(name, UNIT, self.data.main) for name in (first, second)]
                table = self.data.until_both(pd.concat(tables), (first, second))
                table = table.rename(columns={"cell": "scale"})
                travel = self.data.runs.set_index("run")["travel"]
                table = table.assign(most=self.half, row_normalised=True, travel=table["run"].map(travel))
                # The same windows in updates; a span in steps of the longer stride keeps both disjoint.
                span = max(self.span(name, self.data.main) for name in (first, second))
                found[first, second] = edge_scales(table, first, second, span=span, k="edge_k_half")
        open_ = Verdict("k* differs between sizes", OPEN, "no stage has runs of two sizes")
        return found or {tuple(self.data.cells): open_}

    def null_edge(self, cell: str, window: int, most: int) -> tuple[float, float, float, float]:
        """Return k* and the median gap of momentum noise of a cell, and the 95 % range of its gaps; NaN if not known.

        The range holds that of both numbers of independent directions; updates have unit length.
        """
        key = (cell, window, most)
        if key not in self._null_edges:
            self._null_edges[key] = self._null_edge(*key)
        return self._null_edges[key]

    @cached_property
    def _null_edges(self) -> dict[tuple[str, int, int], tuple[float, float, float, float]]:
        return {}

    def _null_edge(self, cell: str, window: int, most: int) -> tuple[float, float, float, float]:
        own = self.data.cell(cell)
        if np.isnan(own["momentum"]):
            return np.nan, np.nan, np.nan, np.nan
        found = [
            find_edges(
                null_values(
                    *(window, min(d, own["parameters"]), own["momentum"], NULL_DRAWS),
                    stride=own["stride"],
                    norms=np.ones(window),
                ),
                most,
            )
            for d in EFFECTIVE_DIMENSIONS
        ]
        ks, gaps = (np.concatenate(part) for part in zip(*found, strict=True))
        low, high = zip(*(np.quantile(own_gaps, [0.025, 0.975]) for _, own_gaps in found), strict=True)
        return float(np.bincount(ks).argmax()), float(np.median(gaps)), min(low), max(high)

    @cached_property
    def gaps(self) -> pd.DataFrame:
        """Return the gap of unit updates over training: cell, seed, step, gap, and relative to momentum noise.

        relative is the gap over the median of momentum noise; relative_low and relative_high are the noise's range.
        """
        parts = []
        for cell in self.data.cells:
            own = self.data.of(cell, UNIT, self.data.main)
            _, middle, low, high = self.null_edge(cell, self.data.main, self.half)
            parts.append(
                own[["cell", "run", "seed", "step", "pc1", "k95", "direction_change"]].assign(
                    gap=own["edge_gap_half"],
                    relative=own["edge_gap_half"] / middle,
                    relative_low=low / middle,
                    relative_high=high / middle,
                )
            )
        return pd.concat(parts, ignore_index=True)

    @cached_property
    def phases(self) -> dict[str, GapPhases | Verdict]:
        """Return the phases of σ₂/σ₃ of raw updates of each cell; a verdict where they cannot be asked about."""
        return {cell: self._phases(cell) for cell in self.data.cells}

    def _phases(self, cell: str) -> GapPhases | Verdict:
        claim = "The gap rises, stays and collapses"
        window, stride = self.data.main, self.data.cell(cell)["stride"]
        own, updates = self.data.of(cell, RAW, window), self.data.updates
        updates = updates[updates["cell"] == cell]
        steps = updates.groupby("seed")["step"]
        if updates.empty or (steps.diff().dropna() != stride).any():
            told = "the norms of all updates are needed; measure at every snapshot (--measure.updates as the stride)"
            return Verdict(claim, OPEN, told)
        # The first windows end before the norms of all their updates are recorded.
        first = own["seed"].map(steps.min()) + (window - 1) * stride
        own = own[(own["step"] >= first) & own[COLUMN].notna()]
        if own.empty:
            return Verdict(
                claim, OPEN, f"no window of {window} updates has the norms of all of them; train longer"
            )
        # With fewer seeds the null decides nothing, and is not told.
        draws = self.null_draws if own["seed"].nunique() >= LEAST_SEEDS else 1
        return gap_phases(own, updates, window=window, j=RATIO, value=COLUMN, null_draws=draws)

    def phase_verdict(self, cell: str) -> Verdict:
        """Return the verdict on the phases of a cell."""
        found = self.phases[cell]
        return found if isinstance(found, Verdict) else found.verdict

    def phase_null(self, cell: str) -> str:
        """Return the share of independent updates of the same lengths that have the phases; a dash if not known."""
        found = self.phases[cell]
        if isinstance(found, Verdict) or len(found.seeds) < LEAST_SEEDS or not len(found.null):
            return ABSENT
        return f"{found.null['share'].max():.1%}"

    @cached_property
    def lags(self) -> pd.DataFrame:
        """Return the lags of σ₂/σ₃ and the validation loss: cell, and the columns of `lag_couplings`."""
        parts = []
        for cell in self.data.cells:
            table = self.lag_series(cell)
            if isinstance(table, Verdict):
                continue
            one = lag_couplings(table, detrends=("cubic",), draws=self.permutations)
            other = lag_couplings(
                table,
                stamps=("end",),
                detrends=("linear", "differences"),
                draws=min(OTHER_DRAWS, self.permutations),
            )
            parts.append(pd.concat([one, other]).assign(cell=cell))
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def lag_series(self, cell: str) -> pd.DataFrame | Verdict:
        """Return σ₂/σ₃ and the loss at every snapshot, for both W; a verdict where a cell does not have them."""
        claim, stride = "The lag changes its sign between two W", self.data.cell(cell)["stride"]
        if self.data.long is None:
            told = f"the runs have windows of {self.data.main} updates alone; add others by --measure.update-windows"
            return Verdict(claim, OPEN, told)
        losses = self.data.losses
        losses = losses[(losses["cell"] == cell) & (losses["step"] > 0)]
        parts = []
        for window in (self.data.main, self.data.long):
            own = self.data.of(cell, RAW, window)[["seed", "step", COLUMN]]
            table = losses.merge(own, on=["seed", "step"], how="left")
            steps, met = table.groupby("seed")["step"], table.dropna(subset=[COLUMN])
            if met.empty or (steps.diff().dropna() != stride).any() or len(met) < len(own):
                told = (
                    f"a lag needs a loss and a window at every snapshot; train with --eval-every {stride} and "
                    f"--measure.updates {stride}"
                )
                return Verdict(claim, OPEN, told)
            parts.append(table.assign(window=window, value=table[COLUMN]))
        return pd.concat(parts, ignore_index=True)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Return r at every lag: cell, seed, window, stamp, lag, r (cubic trend taken out of both)."""
        parts = []
        for cell in self.data.cells:
            table = self.lag_series(cell)
            for window, seed, own in () if isinstance(table, Verdict) else _series(table):
                for stamp in ("end", "centre"):
                    found = lag_coupling(own, window=window, stamp=stamp, draws=1, resamples=1)
                    label = {"cell": cell, "seed": seed, "window": window, "stamp": stamp}
                    parts.append(found.curve.assign(**label))
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def flip(self, cell: str, stamp: Any = "end", negative: bool = False) -> Verdict:
        """Say whether the lag of a cell changes its sign between both W."""
        table = self.lag_series(cell)
        if isinstance(table, Verdict) or self.data.long is None:
            return table if isinstance(table, Verdict) else Verdict("", OPEN, "")
        own = self.lags[self.lags["cell"] == cell]
        return lag_flip(own, self.data.main, self.data.long, stamp=stamp, negative=negative)

    @cached_property
    def sketches(self) -> pd.DataFrame:
        """Return the error of σ₂/σ₃ in a sketch of d = 10 W of every disjoint window (`sketched_windows`)."""
        return sketched_windows(self.data)

    @cached_property
    def sketch_curves(self) -> pd.DataFrame:
        """Return error and kept k* by size of the sketch (`sketch_sizes`)."""
        return sketch_sizes(self.data)

    @cached_property
    def sketch_means(self) -> pd.DataFrame:
        """Return the mean error and the share of kept k* of each cell, with 95 % intervals over seeds."""
        seeds = self.sketches.groupby(["cell", "seed"], sort=False)[["mean", "kept"]].mean().reset_index()
        long = seeds.melt(["cell", "seed"], var_name="quantity", value_name="value")
        by = ["cell", "quantity"]
        return seed_intervals(long, by, within=lambda name: SHARE if name == "kept" else POSITIVE)

    @cached_property
    def optimisers(self) -> pd.DataFrame:
        """Compare Muon with AdamW at equal size, seed by seed (`compared_optimisers`)."""
        return compared_optimisers(self.data, self.gaps)


def _series(table: pd.DataFrame) -> Iterator[tuple[int, int, pd.DataFrame]]:
    """Yield window, seed and rows of each series."""
    for window in table["window"].unique():
        for seed in table["seed"].unique():
            yield int(window), int(seed), table[(table["window"] == window) & (table["seed"] == seed)]
