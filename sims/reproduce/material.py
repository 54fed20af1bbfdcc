"""What the figures are made from, and what each of them hands on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from sims.analysis import Runs, best_rates, keep, load
from sims.analysis.cells import loss_curves, paired_runs
from sims.errors import MeasureError
from sims.report.tables import Table
from sims.reproduce.published import BUDGET_A, STEPS, TARGET_A, TARGET_B
from sims.reproduce.verdicts import Check, Ours, check
from sims.store import run_folders
from toymodel.config import ModelConfig, RunConfig
from toymodel.task import TaskConfig

AGAINST, OPEN, SUPPORTS = "against the paper", "open", "with the paper"


@dataclass(frozen=True)
class Material:
    """The complete runs of a folder.

    Attributes:
        a, b: those of the published run "A" (one learning rate a cell, target 2.0) and "B" (scanned rates, of which the
            best stands here; target 2.5). Where a folder has no run with such a target, all its runs are both.
        everything: all of them.
        comparable: whether they have the published size, task and budget.
        steps: optimiser steps at which concentration is compared: the published ones, or where the budget differs the
            same shares of it.
        scanned: whether several learning rates were tried in some cell of B.
    """

    a: Runs
    b: Runs
    everything: Runs
    comparable: bool
    scanned: bool

    @property
    def steps(self) -> tuple[int, ...]:
        budget = BUDGET_A if self.comparable else int(self.a.runs["step"].max())
        return tuple(max(1, round(step * budget / BUDGET_A)) for step in STEPS)


@dataclass(frozen=True)
class Finding:
    """A sentence that the numbers chose.

    Attributes:
        text: what came out, with its uncertainty.
        stance: `AGAINST`, `OPEN` or `SUPPORTS`.
        figure: where it can be seen.
    """

    text: str
    stance: str
    figure: str


@dataclass(frozen=True)
class Section:
    """One reproduced figure.

    Attributes:
        name: of the figure, as the command takes it.
        title, text: what is asked, and how to read the answer.
        figure, caption: the picture; None where there is none.
        table: what is worth reading on the page.
        tables: everything, by name, for CSV.
        checks: published figures beside ours.
        findings: what the numbers say, the most telling first.
    """

    name: str
    title: str
    text: str
    figure: Figure | None = None
    caption: str = ""
    table: Table | None = None
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    findings: tuple[Finding, ...] = ()


def gather(out: Path) -> Material:
    """Read every complete run below a folder.

    Raises:
        StoreError: no complete run there, or a damaged one.
    """
    runs = load(out)
    configs = {f.path.name: f.configs()[0] for f in run_folders(out) if f.done}
    a, b = (_with_target(runs, configs, target) for target in (TARGET_A, TARGET_B))
    rates = b.runs.groupby(["stage", "batch_size"])["lr"].nunique()
    return Material(
        best_rates(a), best_rates(b), runs, all(map(is_published, configs.values())), bool((rates > 1).any())
    )


def is_published(config: RunConfig) -> bool:
    """Whether a run has the published task and model, and a published target or budget."""
    return (
        config.task == TaskConfig()
        and config.model == ModelConfig()
        and (config.target_loss in (TARGET_A, TARGET_B) or config.steps == BUDGET_A)
    )


def _with_target(runs: Runs, configs: Mapping[str, RunConfig], target: float) -> Runs:
    ids = [name for name, config in configs.items() if config.target_loss == target]
    return keep(runs, ids) if ids else runs


def checker(figure: str, material: Material) -> Callable[[str, Ours], Check]:
    """`check` for one figure."""
    return lambda key, ours: check(key, ours, figure, material.comparable)


def unavailable(name: str, title: str, error: MeasureError) -> Section:
    """A figure that these runs do not allow, with the reason."""
    return Section(name, title, f"Not made from these runs: {error}.")


def told(low: float, high: float) -> bool:
    """Whether an interval lies on one side of 0."""
    return low > 0 or high < 0


def share_losses(runs: Runs, before: str, after: str) -> bool:
    """Whether two stages were measured at losses in common once training had begun, at every batch size.

    Otherwise what is read of them at equal loss is interpolated from the untrained model, and says little.
    """
    curves = loss_curves(runs, measured=True)
    begun = {run: curve.loc[curve["step"] > 0, "value"] for run, curve in curves.items()}
    for _, both in paired_runs(runs, before, after):
        earlier, later = ([begun[r] for r in both[side]] for side in ("before", "after"))
        if max(c.min() for c in earlier) >= min(c.max() for c in later):
            return False
    return True
