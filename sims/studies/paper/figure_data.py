"""The data of the figures: complete runs, sorted into the published sets A and B."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from sims.analysis.cells import CELL, best_rates, keep
from sims.analysis.runs import Runs, load
from sims.pages.number import ABSENT
from sims.pages.table import Table
from sims.runs.rank_windows import PUBLISHED_RANKS
from sims.runs.store import RunFolder
from sims.studies.paper.cells import A, B, Cell, needed
from sims.studies.paper.language import Language, language, without_unmeasured
from sims.studies.paper.published import BUDGET_A, MEASURED_EVERY, STEPS, TARGET_A, TARGET_B
from sims.studies.paper.verdicts import Check, Ours, check
from sims.system.errors import MeasureError
from theory.decision import side
from toymodel import TaskConfig
from toymodel.config import ModelConfig, RunConfig

AGAINST, SUPPORTS = "against the paper", "with the paper"


@dataclass(frozen=True, eq=False)
class FigureData:
    """The complete runs of a folder.

    Attributes:
        a, b: those of the published run "A" (one learning rate a cell, target 2.0) and "B" (scanned rates, of which the
            best stands here; target 2.5). Where a folder has no run with such a target, all its runs are both. Where
            the runs have several data seeds (task.seed), these have the one with the most runs.
        everything: all of them.
        comparable: whether they have the published size, task and budget.
        steps: optimiser steps at which concentration is compared: the published ones, or where the budget differs the
            same shares of it.
        scanned: whether several learning rates were tried in some cell of B.
        folder: where the runs are.
        vocab: of their task; 0 of language models.
        language: what they are, where they are language models: nothing published stands beside those.
        scans: whether some runs have the target of B; without them all runs are both.
        on_data: runs on other data than `a`, in its cells and at its rates, with those of `a` in these cells; None
            without any.
    """

    a: Runs
    b: Runs
    everything: Runs
    comparable: bool
    scanned: bool
    folder: Path
    vocab: int
    language: Language | None = None
    scans: bool = True
    on_data: Runs | None = None

    def missing(self, key: str) -> list[str]:
        """Return the cells that a published figure was read from and that these runs of the published size lack."""
        return [str(cell) for cell in needed(key) if cell not in self.cells] if self.comparable else []

    @cached_property
    def cells(self) -> frozenset[Cell]:
        """Return the cells that have a run."""
        parts = {A: self.a, B: self.b} if self.scans else {A: self.a}
        return frozenset(
            Cell(str(stage), int(size), part)
            for part, runs in parts.items()
            for stage, size in runs.runs[["stage", "batch_size"]].itertuples(index=False)
        )

    @cached_property
    def window(self) -> str:
        """Return the rank window of the published exponents; if language models lack it, their first one.

        Raises:
            MeasureError: no exponent of activations was fitted.
        """
        if self.language is None:
            return PUBLISHED_RANKS
        fitted = list(self.everything.values("alpha", "activation")["window"].unique())
        if not fitted:
            raise MeasureError("no exponent of the activations was fitted in these runs")
        return PUBLISHED_RANKS if PUBLISHED_RANKS in fitted else fitted[0]

    @property
    def steps(self) -> tuple[int, ...]:
        return tuple(self._in_budget(step) for step in STEPS)

    @property
    def measured_every(self) -> int:
        """Return the steps from one published measurement to the next, or the same share of another budget."""
        return self._in_budget(MEASURED_EVERY)

    def _in_budget(self, step: int) -> int:
        budget = BUDGET_A if self.comparable else int(self.a.runs["step"].max())
        return max(1, round(step * budget / BUDGET_A))


def gather(out: Path) -> FigureData:
    """Read every complete run below a folder.

    Raises:
        StoreError: no complete run there, a damaged one, toy runs beside language models, or these of several sizes.
    """
    runs = load(out)
    folders = [RunFolder(out / run) for run in sorted(runs.runs["run_id"])]
    text = language(folders, runs, out)
    if text is not None:
        chosen = best_rates(without_unmeasured(runs))
        scanned = _scanned(without_unmeasured(runs))
        return FigureData(chosen, chosen, runs, False, scanned, out, vocab=0, language=text)
    configs = {f.path.name: f.configs()[0] for f in folders}
    main = _most_common(config.task.seed for config in configs.values())
    same = keep(runs, [name for name, config in configs.items() if config.task.seed == main])
    a, b = (best_rates(_with_target(same, configs, target)) for target in (TARGET_A, TARGET_B))
    return FigureData(
        a,
        b,
        runs,
        all(map(is_published, configs.values())),
        _scanned(_with_target(same, configs, TARGET_B)),
        out,
        next(iter(configs.values())).task.vocab,
        scans=any(configs[name].target_loss == TARGET_B for name in same.runs["run_id"]),
        on_data=_on_data(runs, same, a),
    )


def _most_common(seeds: Iterable[int]) -> int:
    """Return the seed that occurs most often; of several the smallest."""
    counts = Counter(seeds)
    return min(counts, key=lambda seed: (-counts[seed], seed))


def _on_data(runs: Runs, same: Runs, a: Runs) -> Runs | None:
    """Return the runs on several data in cells of `a`, at its rates; None where all are in `same`."""
    key = [*CELL, "lr"]
    other = runs.runs[~runs.runs["run_id"].isin(same.runs["run_id"])]
    other = other.merge(a.runs[key].drop_duplicates(), on=key)
    here = a.runs.merge(other[key].drop_duplicates(), on=key)
    return keep(runs, [*here["run_id"], *other["run_id"]]) if len(other) else None


def is_published(config: RunConfig) -> bool:
    """Return whether a run has the published task, of any data seed, and model, and a published target or budget."""
    return (
        replace(config.task, seed=TaskConfig().seed) == TaskConfig()
        and config.model == ModelConfig()
        and (config.target_loss in (TARGET_A, TARGET_B) or config.steps == BUDGET_A)
    )


def _scanned(runs: Runs) -> bool:
    return bool((runs.runs.groupby(["stage", "batch_size"])["lr"].nunique() > 1).any())


def _with_target(runs: Runs, configs: Mapping[str, RunConfig], target: float) -> Runs:
    ids = [name for name in runs.runs["run_id"] if configs[name].target_loss == target]
    return keep(runs, ids) if ids else runs


def checker(figure: str, data: FigureData) -> Callable[[str, Ours], Check]:
    """Return `check` for one figure."""
    return lambda key, ours: check(key, ours, figure, data.comparable, data.missing(key))


def told(low: float, high: float) -> bool:
    """Return whether an interval lies on one side of 0."""
    return side(low, high) != 0


def steeper_or_flatter(stages: Sequence[tuple[float, str]]) -> str:
    """Group stages by what their exponents do: "steeper in a, b; flatter in c".

    Args:
        stages: +1 where the exponent is demonstrably larger, −1 where it is smaller, 0 where neither; and the words for
            the stage.
    """
    names = {1.0: "steeper", -1.0: "flatter", 0.0: "not demonstrably different"}
    found = {name: [words for sign, words in stages if sign == value] for value, name in names.items()}
    return "; ".join(f"{name} in {', '.join(words)}" for name, words in found.items() if words)


def with_reasons(table: Table, reasons: Sequence[str]) -> Table:
    """Add a last column that says why numbers are missing, where any are.

    Args:
        reasons: one a row; "" where nothing is missing.
    """
    if not any(reasons):
        return table
    rows = tuple((*row, reason or ABSENT) for row, reason in zip(table.rows, reasons, strict=True))
    return Table((*table.columns, "missing because"), rows, (*table.text, len(table.columns)))
