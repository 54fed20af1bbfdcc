"""The published profile in instalments: which cells there are, what each takes here, and what is trained now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from sims.measure.registry import measured_versions
from sims.pages.answer import Answer
from sims.pages.fitted import FittedTable
from sims.pages.number import counted, verb
from sims.runs.kept import MOST_BYTES, Keep, check_store, pack, restore
from sims.runs.store import RunFolder
from sims.studies.paper.cells import DATA, A, B, Cell
from sims.studies.paper.profiles import Profile
from sims.studies.paper.published import RUN_A, SIZES
from sims.sweep.estimate import Costs, costs
from sims.sweep.options import SweepOptions
from sims.sweep.progress import duration
from sims.sweep.sweep_run import SweepRun, earlier_failures, run_all
from sims.system.signals import TimeLimit
from toymodel.config import RunConfig

CELL_COLUMNS = ("cell", "runs", "there", "begun", "steps", "to the published end", "at most")


# What the page reads of runs: all but tables of tokens of run A, of run B losses and exponents, of runs on other data
# outcomes.
KEEP = {
    A: Keep(("loss", "activation", "gradient", "weight", "probe"), ("activation", "gradient")),
    B: Keep(("loss", "activation"), ()),
    DATA: Keep(("loss", "activation", "probe"), ()),
}


@dataclass(frozen=True)
class Share:
    """Say what is there of one cell.

    Attributes:
        cell: its name.
        configs: its runs.
        there: those that are complete.
        begun: those that are under way in the folder where they train.
    """

    cell: Cell
    configs: tuple[RunConfig, ...]
    there: tuple[RunConfig, ...]
    begun: tuple[RunConfig, ...]

    @property
    def left(self) -> tuple[RunConfig, ...]:
        """Return the runs that are not complete."""
        return tuple(c for c in self.configs if c not in self.there)


def shares(cells: Mapping[Cell, Sequence[RunConfig]], out: Path, keep: Path | None = None) -> list[Share]:
    """Return what is there of every cell: complete in either folder, begun in `out`.

    Args:
        cells: the cells with their runs.
        out: folder where they train.
        keep: folder of kept runs, where a run without done.json was only half added.
    """
    folders = [out] if keep is None else [out, keep]
    found = []
    for cell, configs in cells.items():
        there = tuple(c for c in configs if any(RunFolder(folder / c.run_id).done for folder in folders))
        begun = tuple(c for c in configs if c not in there and (out / c.run_id / "run.json").exists())
        found.append(Share(cell, tuple(configs), there, begun))
    return found


def published_steps(cell: Cell, config: RunConfig) -> int:
    """Return the steps after which the published run of a cell ended; all of its budget where it is not known."""
    if cell.part == B or cell.stage not in RUN_A or cell.batch_size not in SIZES:
        return config.steps
    return min(config.steps, RUN_A[cell.stage][SIZES.index(cell.batch_size)][3])


def show_cells(
    found: Sequence[Share],
    profile: Profile,
    device: str,
    workers: int,
    console: Console,
    answer: Answer | None,
) -> None:
    """Print every cell with what is there and the time that the rest takes on this machine as it is now.

    Args:
        found: the cells.
        profile: says how runs are measured.
        device, workers: as the runs will train.
        console: where to print.
        answer: gets cells (name, runs, there, begun, steps, seconds, most_seconds), in place of the console.
    """
    known = costs([c for share in found for c in share.configs], profile.measuring, device)
    records = [_record(share, known, profile, workers) for share in found]
    if answer is not None:
        answer["cells"] = records
        return
    rows = [
        [
            Text(text)
            for text in (
                r["cell"],
                str(r["runs"]),
                str(r["there"]),
                str(r["begun"]),
                f"{r['steps']:,}" if r["steps"] == r["most_steps"] else f"{r['steps']:,}–{r['most_steps']:,}",
                duration(r["seconds"]),
                duration(r["most_seconds"]),
            )
        ]
        for r in records
    ]
    console.print(FittedTable(CELL_COLUMNS, rows))
    there, runs = (sum(r[name] for r in records) for name in ("there", "runs"))
    least, most = (sum(r[name] for r in records) for name in ("seconds", "most_seconds"))
    console.print(
        f"{there} of {counted(runs, 'run')} {verb(there)} complete; the others take {duration(least)} if those of run "
        f"A end where the published ones did, and {duration(most)} at most, on {counted(workers, 'worker')} of this "
        f"machine as it is now. Timed just now: an evaluation {known.evaluation:.2f} s, a measurement "
        f"{known.measurement:.2f} s, a thousand tokens of training {1e3 * max(known.training.values()):.3f} s",
        soft_wrap=True,
        highlight=False,
    )


def take_from(
    store: Path, cells: Mapping[Cell, Sequence[RunConfig]], profile: Profile, out: Path, console: Console
) -> None:
    """Copy the runs that a store holds into the folder of runs, where they are not trained again.

    Raises:
        StoreError: a run of the store is damaged, of other versions, or of another configuration.
    """
    check_store(store, measured_versions(profile.measuring))
    configs = {c.run_id: c for own in cells.values() for c in own}
    for name, config in configs.items():
        RunFolder(store / name).check(config, profile.measuring)
        RunFolder(out / name).check(config, profile.measuring)
    copied = restore(store, out, configs)
    if copied:
        console.print(f"{counted(len(copied), 'run')} {verb(len(copied))} taken from {store}", soft_wrap=True)


def add_to(
    store: Path, cells: Mapping[Cell, Sequence[RunConfig]], profile: Profile, out: Path, console: Console
) -> None:
    """Add every complete run to a store, as far as its tables have room there.

    Raises:
        StoreError: the store or a run is damaged, or the store cannot be written.
    """
    sizes = check_store(store, measured_versions(profile.measuring))
    added, without = 0, []
    for cell, configs in cells.items():
        for config in configs:
            run = RunFolder(out / config.run_id)
            if not run.done or config.run_id in sizes:
                continue
            size = pack(run, store, KEEP[cell.part], MOST_BYTES - sum(sizes.values()))
            if size:
                sizes[config.run_id] = size
                added += 1
            else:
                without.append(config.run_id)
    console.print(
        f"{store}: {counted(len(sizes), 'run')}, {added} of them new; {sum(sizes.values()) / 1e6:.1f} of "
        f"{MOST_BYTES / 1e6:.0f} MB",
        soft_wrap=True,
        highlight=False,
    )
    if without:
        console.print(
            f"[yellow]note:[/] no room for {', '.join(without)}; they stay in {out}", soft_wrap=True
        )


def _record(share: Share, known: Costs, profile: Profile, workers: int) -> dict[str, Any]:
    most = max(c.steps for c in share.configs)
    steps = max(published_steps(share.cell, c) for c in share.configs)
    return {
        "cell": str(share.cell),
        "runs": len(share.configs),
        "there": len(share.there),
        "begun": len(share.begun),
        "steps": steps,
        "most_steps": most,
        "seconds": sum(known.seconds(c, steps, profile.measuring) for c in share.left) / workers,
        "most_seconds": sum(known.seconds(c, most, profile.measuring) for c in share.left) / workers,
    }


def sweep_of(
    cells: Mapping[Cell, Sequence[RunConfig]], profile: Profile, options: SweepOptions, device: str, out: Path
) -> SweepRun[RunConfig]:
    """Return how `train` trains the runs of cells."""
    return SweepRun(
        [config for own in cells.values() for config in own],
        options.work(profile.measuring, device),
        out,
        {"campaign": "reproduce", "profile": profile.name},
        options.workers,
        options.scheduler,
        retry_failed=options.retry_failed,
        in_order=profile.instalments,
    )


def train(
    cells: Mapping[Cell, Sequence[RunConfig]],
    profile: Profile,
    options: SweepOptions,
    device: str,
    out: Path,
    hours: float | None,
    console: Console,
) -> dict[str, str]:
    """Train the runs of cells one cell after the other, until all are complete or the time is over.

    Args:
        cells: the runs, in the order in which they start.
        profile: says how they are measured.
        options, device: where they train.
        out: folder of the run folders.
        hours: after them what is under way is stored and training ends; the same call continues. 0 trains nothing, None
            has no limit.
        console: where to print.

    Returns:
        {run id: error} of the failed runs, also where the time is over or nothing was trained.

    Raises:
        ConfigError, MeasureError, StoreError, EngineError: before any work starts.
        Stopped: a person interrupted, and the states are stored.
    """
    sweep = sweep_of(cells, profile, options, device, out)
    if hours == 0:
        return earlier_failures(sweep)
    if hours is None:
        return run_all(sweep, console)
    limit = TimeLimit(3600 * hours)
    try:
        with limit:
            return run_all(sweep, console)
    except KeyboardInterrupt:
        if not limit.over:
            raise
    console.print(f"stopped after {duration(3600 * hours)}; the same command continues", soft_wrap=True)
    return earlier_failures(sweep)
