"""Train the runs of a command that names them itself, and say how long it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from sims.pages.answer import Answer
from sims.runs.measure_config import MeasureConfig
from sims.runs.store import RunFolder
from sims.sweep.options import LocalOptions
from sims.sweep.show import show_plan, show_time
from sims.sweep.sweep_run import SweepRun, check_place, run_all
from sims.training.toy_runner import chosen_device
from toymodel.config import RunConfig


def show_named(
    configs: Sequence[RunConfig],
    measuring: MeasureConfig,
    options: LocalOptions,
    console: Console,
    answer: Answer | None,
) -> None:
    """Print the runs and how long they take on this machine; nothing is written."""
    device = chosen_device(options.device)
    show_plan(list(configs), device, options.processes(device), None, console, answer, measuring)


def train_named(
    configs: Sequence[RunConfig],
    measuring: MeasureConfig,
    options: LocalOptions,
    out: Path,
    label: Mapping[str, Any],
    console: Console,
) -> dict[str, str]:
    """Train every run that is not complete, also those that failed before; a first line says how long it takes.

    Args:
        configs, measuring: the runs and what is measured of them.
        options: where they train.
        out: folder of their folders.
        label: purpose of the folder; a folder with another label is refused.
        console: where to print.

    Returns:
        {run id: error} of the failed runs; all others are complete.

    Raises:
        ConfigError, MeasureError, StoreError, EngineError: before any work starts.
    """
    sweep = _sweep(configs, measuring, options, out, label)
    device = sweep.work.device

    def tell() -> None:
        if waiting := [config for config in configs if not RunFolder(out / config.run_id).done]:
            show_time(waiting, device, options.processes(device), measuring, console)

    return run_all(sweep, console, tell)


def check_named(
    configs: Sequence[RunConfig],
    measuring: MeasureConfig,
    options: LocalOptions,
    out: Path,
    label: Mapping[str, Any],
) -> None:
    """Refuse what `train_named` would refuse, where other runs train before these; nothing is printed."""
    check_place(_sweep(configs, measuring, options, out, label))


def _sweep(
    configs: Sequence[RunConfig],
    measuring: MeasureConfig,
    options: LocalOptions,
    out: Path,
    label: Mapping[str, Any],
) -> SweepRun[RunConfig]:
    work = options.work(measuring, chosen_device(options.device))
    return SweepRun(configs, work, out, label, options.workers, retry_failed=True)
