"""What a sweep prints before it trains and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from sims.pages.answer import Answer
from sims.pages.fitted import FittedTable
from sims.pages.number import counted, verb
from sims.runs.measure_config import MeasureConfig
from sims.sweep.estimate import Estimate, estimate, looking
from sims.sweep.halving import Halving
from sims.sweep.plan import plan
from sims.sweep.progress import duration
from sims.system.machine import crowding
from toymodel.config import RunConfig


def show_plan(
    configs: list[RunConfig],
    device: str,
    workers: int,
    halving: Halving | None,
    console: Console,
    answer: Answer | None = None,
    measuring: MeasureConfig | None = None,
) -> None:
    """Print a table of the cells, and the time that they are expected to take.

    Args:
        configs, device, workers, halving: as the runs will train.
        console: where to print.
        answer: gets runs, groups, tokens, workers and seconds (until all have trained), in place of the console.
        measuring: of runs of one size, whose evaluations and measurements are then timed too.
    """
    groups = plan(configs, device, workers)
    tokens = sum(c.steps * c.tokens_per_step for c in configs)
    if answer is not None:
        runs = [
            {"run_id": c.run_id, "stage": c.stage, "batch_size": c.batch_size, "lr": c.lr, "seed": c.seed}
            | {"steps": c.steps, "tokens": c.steps * c.tokens_per_step}
            for c in configs
        ]
        answer |= {"runs": runs, "groups": len(groups), "tokens": tokens, "workers": workers}
        answer["seconds"] = _shared(_estimated(groups, device).seconds, workers, device)
        if measuring is not None:
            answer["seconds_of_measuring"] = _shared(looking(configs, measuring, device), workers, device)
        return
    columns = ("stage", "batch size", "learning rates", "runs", "steps", "million tokens")
    rows: list[list[Text]] = []
    cells: dict[tuple[str, int], list[RunConfig]] = {}
    for config in configs:
        cells.setdefault((config.stage, config.batch_size), []).append(config)
    for (name, batch), runs in cells.items():
        rates = sorted({c.lr for c in runs})
        shown = f"{rates[0]:.3g}" if len(rates) == 1 else f"{len(rates)}: {rates[0]:.3g}–{rates[-1]:.3g}"
        steps = sorted({c.steps for c in runs})
        seen = sum(c.steps * c.tokens_per_step for c in runs) / 1e6
        million = f"{seen:,.1f}" if seen >= 0.1 else f"{seen:.2g}"
        row = (shown, str(len(runs)), "–".join(str(s) for s in {steps[0]: 0, steps[-1]: 0}), million)
        rows.append([Text(text) for text in (name, str(batch), *row)])
    console.print(FittedTable(columns, rows))
    if measuring is not None:
        show_time(configs, device, workers, measuring, console)
        return
    found = _estimated(groups, device)
    share = f", {found.timed} of {found.shapes} shapes timed" if found.timed < found.shapes else ""
    amount = f"{tokens / 1e6:,.0f} M" if tokens >= 1e6 else f"{tokens:,}"
    console.print(
        f"{counted(len(configs), 'run')} in {counted(len(groups), 'group')}, {amount} tokens; training takes about "
        f"{duration(_shared(found.seconds, workers, device))} on {counted(workers, 'worker')} of this machine{share}; "
        "measuring is not included, and a run that ends early takes less",
        soft_wrap=True,
    )
    if halving:
        rungs = halving.rungs(configs)
        shown = ", ".join(f"step {min(r.values())}–{max(r.values())}" for r in rungs)
        console.print(f"halving by {halving.factor:g}: learning rates are pruned at {shown}", soft_wrap=True)


def show_time(
    configs: list[RunConfig], device: str, workers: int, measuring: MeasureConfig, console: Console
) -> None:
    """Print how long runs of one size take on this machine, from steps and a measurement that are timed now.

    Args:
        configs, device, workers, measuring: as the runs will train and be measured.
        console: where to print.
    """
    training = _shared(estimate(plan(configs, device, workers), device).seconds, workers, device)
    looked = _shared(looking(configs, measuring, device), workers, device)
    console.print(
        f"{counted(len(configs), 'run')} {verb(len(configs), 'takes', 'take')} about {duration(training + looked)} on "
        f"{counted(workers, 'worker')} of this machine as it is now, {duration(looked)} of them to evaluate and "
        "measure (timed just now)",
        soft_wrap=True,
        highlight=False,
    )


def _estimated(groups: Sequence[Sequence[RunConfig]], device: str) -> Estimate:
    # The device of the runs may be on another machine.
    return estimate(groups, device if torch.cuda.is_available() else "cpu")


def _shared(seconds: float, workers: int, device: str) -> float:
    """Return what several workers take for the work of one, which was timed alone, on the cores that are free now."""
    return seconds / workers * (1.0 if device.startswith("cuda") else crowding(workers))


def show_failures(failed: Mapping[str, str], console: Console) -> None:
    """Print one line for each run that failed."""
    for name, error in failed.items():
        console.print(f"[red]failed:[/] {name}: {escape(error)}", soft_wrap=True)
