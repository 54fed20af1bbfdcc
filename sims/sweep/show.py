"""What a sweep prints before it trains and after."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sims.sweep.estimate import estimate
from sims.sweep.halving import Halving
from sims.sweep.plan import plan
from sims.sweep.progress import duration
from toymodel.config import RunConfig


def show_plan(
    configs: list[RunConfig], device: str, workers: int, halving: Halving | None, console: Console
) -> None:
    """Print a table of the cells, and the time that they are expected to take."""
    groups = plan(configs, device, workers)
    table = Table(
        "stage", "batch size", "learning rates", "runs", "steps", "million tokens", title_justify="left"
    )
    for column in table.columns[1:]:
        column.justify = "right"
    cells: dict[tuple[str, int], list[RunConfig]] = {}
    for config in configs:
        cells.setdefault((config.stage, config.batch_size), []).append(config)
    for (name, batch), runs in cells.items():
        rates = sorted({c.lr for c in runs})
        shown = f"{rates[0]:.3g}" if len(rates) == 1 else f"{len(rates)}: {rates[0]:.3g}–{rates[-1]:.3g}"
        steps = sorted({c.steps for c in runs})
        tokens = sum(c.steps * c.tokens_per_step for c in runs) / 1e6
        row = (shown, str(len(runs)), "–".join(str(s) for s in {steps[0]: 0, steps[-1]: 0}), f"{tokens:,.1f}")
        table.add_row(name, str(batch), *row)
    console.print(table)
    # The device of the runs may be on another machine.
    found = estimate(groups, device if torch.cuda.is_available() else "cpu")
    tokens = sum(c.steps * c.tokens_per_step for c in configs)
    share = f", {found.timed} of {found.shapes} shapes timed" if found.timed < found.shapes else ""
    console.print(
        f"{len(configs)} runs in {len(groups)} groups, {tokens / 1e6:,.0f} M tokens; training takes about "
        f"{duration(found.seconds / workers)} on {workers} worker{'s'[: workers > 1]} of this machine{share}; "
        "measuring and early ends come on top and off it",
        soft_wrap=True,
    )
    if halving:
        rungs = halving.rungs(configs)
        shown = ", ".join(f"step {min(r.values())}–{max(r.values())}" for r in rungs)
        console.print(f"halving by {halving.factor:g}: learning rates are pruned at {shown}", soft_wrap=True)


def show_failures(failed: Mapping[str, str], console: Console) -> None:
    """Print one line for each run that failed."""
    for name, error in failed.items():
        console.print(f"[red]failed:[/] {name}: {escape(error)}", soft_wrap=True)
