"""What a sweep of language models prints before it trains and after."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch

from sims.pages.answer import Answer
from sims.pages.number import counted
from sims.pages.plain import show_table
from sims.runs.lm_config import LmConfig
from sims.runs.store import RunFolder
from sims.sweep.lm_work import LmWork
from sims.sweep.progress import clock
from sims.system.process_group import ProcessGroup
from sims.training.execution import Execution
from sims.training.failures import explained
from sims.training.memory import Memory, step_memory
from sims.training.trainer import Trainer, profile

_GB = 1e9
# Share of a card that a step may take by the estimate, which leaves out what allocators lose.
_FITS = 0.9
_REMEDY = "Its last stored weights are kept; take a lower --lr or a longer --warmup, or --precision float32"
# What tells runs apart.
CELL = ("stage", "batch_size", "tokens_per_step", "lr", "seed")
PLAN = (
    *("stage", "batch tokens", "learning rates", "runs", "steps", "tokens", "parameters"),
    *("micro-batch", "held", "step"),
)


def plan_rows(configs: Sequence[LmConfig], work: LmWork, ranks: ProcessGroup) -> tuple[list[list[str]], int]:
    """Return a row per size, stage and batch, with the memory of a step on one device; and the largest such memory."""
    cells: dict[tuple[str, str, int], list[LmConfig]] = {}
    for config in configs:
        cells.setdefault((config.tier, config.stage, config.tokens_per_step), []).append(config)
    several = len({config.tier for config in configs}) > 1
    rows: list[list[str]] = []
    takes: dict[tuple[str, str, int], Memory] = {}
    for (tier, stage, batch), runs in cells.items():
        first, execution = runs[0], work.setup.execution(runs[0], ranks)
        key = (tier, stage, execution.micro_batch)
        if key not in takes:
            # Seconds for a large tier.
            takes[key] = step_memory(first, execution.micro_batch, execution.recompute)
        memory = takes[key]
        rates = sorted({c.lr for c in runs})
        shown = f"{rates[0]:.3g}" if len(rates) == 1 else f"{rates[0]:.3g}–{rates[-1]:.3g} ({len(rates)})"
        counts = (f"{len(runs)}", f"{first.steps:,}", f"{first.steps * batch:,}")
        size = f"{first.transformer().parameter_count():,}"
        bytes_ = (_size(memory.resident), _size(memory.peak))
        name = f"{tier} {stage}" if several else stage
        rows.append([name, f"{batch:,}", shown, *counts, size, str(execution.micro_batch), *bytes_])
    return rows, max(memory.peak for memory in takes.values())


def show_plan(
    configs: Sequence[LmConfig], work: LmWork, ranks: ProcessGroup, answer: Answer | None = None
) -> None:
    """Print the runs, their memory (parameters, gradients, moments), and the largest memory of a step.

    Args:
        configs, work, ranks: as the runs will train.
        answer: gets the runs, and step_bytes, the largest memory of a step, in place of the terminal.
    """
    rows, most = plan_rows(configs, work, ranks)
    if answer is None:
        show_table(PLAN, rows)
        return
    runs = [
        {**_cell(c), "steps": c.steps, "tokens": c.steps * c.tokens_per_step}
        | {"parameters": c.transformer().parameter_count()}
        for c in configs
    ]
    answer |= {"runs": runs, "step_bytes": most}


def _cell(config: LmConfig) -> dict[str, Any]:
    return {"run_id": config.run_id, **{name: getattr(config, name) for name in CELL}}


def announce(configs: Sequence[LmConfig], work: LmWork, ranks: ProcessGroup) -> None:
    """Print the plan on stderr, one line per stage and batch; warn when a step may not fit on the GPU."""
    rows, most = plan_rows(configs, work, ranks)
    again = ", blocks run a second time" if work.setup.recompute else ""
    for stage, batch, rates, runs, steps, tokens, parameters, micro, held, step in rows:
        say(
            f"{stage}: {parameters} parameters, {counted(int(runs), 'run')} of {steps} steps of {batch} tokens "
            f"({tokens} in all), "
            f"lr {rates}; a step takes about {step}, {held} of it for parameters, gradients, moments "
            f"({counted(int(micro), 'sequence')} at once{again})"
        )
    if work.device != "cpu" and torch.cuda.is_available():
        whole = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        if most > _FITS * whole:
            say(
                f"that is more than is safe on {whole / _GB:.0f} GB: lower --micro-batch, or pass --recompute"
            )


def say(text: str) -> None:
    """Print a message on stderr."""
    print(text, file=sys.stderr, flush=True)


def summarise(folders: Sequence[RunFolder], answer: Answer | None = None) -> None:
    """Print the complete runs as a table, and what to try when one diverged.

    Args:
        folders: of all runs.
        answer: gets the complete ones, in place of the terminal.
    """
    rows = []
    if answer is not None:
        answer["runs"] = [
            {"run_id": f.path.name} | {k: f.identity()["train"].get(k) for k in CELL} | f.outcome
            for f in folders
            if f.done
        ]
    for folder in (f for f in folders if f.done):
        train, outcome = folder.identity()["train"], folder.outcome
        training = outcome["seconds"].get("training", 0.0)
        rate = f"{outcome['tokens'] / training:.0f}" if training else ""
        loss = "" if outcome["val_loss"] is None else f"{outcome['val_loss']:.4f}"
        cells = [train["stage"], str(train["tokens_per_step"]), f"{train['lr']:.3g}", str(train["seed"])]
        counts = [str(outcome["step"]), f"{outcome['tokens']:.4g}", loss, rate, clock(training)]
        rows.append([*cells, outcome["ended"], *counts, folder.path.name])
        if outcome["ended"] == "diverged":
            say(f"{folder.path.name} diverged: {outcome['reason']}. {_REMEDY}")
    columns = ("stage", "batch tokens", "lr", "seed", "ended", "steps", "tokens", "val loss", "tokens/s")
    # A terminal has no room for the names of folders.
    shown = slice(-1) if sys.stdout.isatty() else slice(None)
    if rows and answer is None:
        show_table((*columns, "training", "folder")[shown], [row[shown] for row in rows])


def show_profile(
    configs: Sequence[LmConfig],
    work: LmWork,
    ranks: ProcessGroup,
    steps: int,
    answer: Answer | None = None,
) -> None:
    """Time some steps of every run and print the result; nothing is stored.

    Args:
        configs, work, ranks: as the runs would train.
        steps: of each run.
        answer: gets the timings, in place of the terminal.
    """
    timed = [_profiled(c, work.setup.execution(c, ranks), work, ranks, steps) for c in configs]
    if answer is not None:
        answer["profiles"] = timed
    elif ranks.first:
        rows = [
            [
                *(t["run_id"], str(t["micro_batch"]), f"{t['step_seconds']:.4g}"),
                *(f"{t['tokens_per_second']:.0f}", f"{100 * t['mfu']:.1f}"),
                f"{t['peak_bytes'] / _GB:.2f}" if t["peak_bytes"] else "",
            ]
            for t in timed
        ]
        show_table(("run", "micro-batch", "s a step", "tokens/s", "MFU %", "peak GB"), rows)


def _profiled(
    config: LmConfig, execution: Execution, work: LmWork, ranks: ProcessGroup, steps: int
) -> dict[str, Any]:
    on_gpu = execution.device.type == "cuda"
    pace = work.setup.throughput(config, ranks)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(execution.device)
    with explained(execution, ranks, lambda: 0):
        trainer = Trainer(config, execution, work.setup.corpus(config), ranks)
        pace.see(sorted(profile(trainer, steps))[steps // 2])
    return {
        "run_id": config.run_id,
        "micro_batch": execution.micro_batch,
        "step_seconds": pace.seconds,
        "tokens_per_second": pace.tokens,
        "mfu": pace.mfu,
        "peak_bytes": torch.cuda.max_memory_allocated(execution.device) if on_gpu else None,
    }


def _size(count: int) -> str:
    return f"{count / _GB:.1f} GB" if count >= _GB else f"{count / 1e6:.0f} MB"
