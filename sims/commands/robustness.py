"""`speclens robustness`: which conclusions about stages move with the choices of the measurement."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import tyro
from rich.console import Console

from sims.pages.number import cell, intervals
from sims.pages.table import Table
from sims.pages.write import pipes, write_tables
from sims.studies.robustness.measured import RobustnessPlan, robustness_report


@dataclass(frozen=True)
class Robustness:
    """Judge every conclusion again with fewer samples, other windows and poolings, cleaned validation, other data.

    Needs complete runs of at least two seeds, with checkpoints; nothing is trained. About ten seconds for twelve runs
    of the demo's size. For --other-data train the same runs, of one model seed, on other data: with --vary task.seed
    and the task and rates of the folder.

    Examples:
        speclens demo --seeds 3
        speclens robustness demo
        speclens sweep small --batch-sizes 32 --seeds 0 --vary task.seed=1,2 --out other
        speclens robustness demo --other-data other
    """

    folder: tyro.conf.Positional[Path]
    """A folder of runs, made by `speclens demo`, `train` or `sweep`."""
    other_data: Path | None = None
    """A folder of the same runs with other task.seed and one model seed."""
    sequences: int = 1_024
    """Validation sequences of the reference measurement."""
    batch_size: int | None = None
    """The runs of this batch size; by default the smallest."""
    out: Path | None = None
    """Folder for tables and the figure; by default FOLDER/robustness."""

    def run(self) -> int:
        """Run it."""
        console = Console()
        started = time.process_time()
        fewer = tuple(self.sequences // k for k in (2, 4, 8, 16))
        plan = RobustnessPlan(sequences=self.sequences, fewer=fewer, batch_size=self.batch_size)
        report = robustness_report(self.folder, plan, console, self.other_data)
        shown = shown_tables(report.tables)
        out = self.out or self.folder / "robustness"
        page = write_tables(out, "Which conclusions move", report.tables, report.figures, shown)
        console.print(*pipes(Table.of_frame(shown["Counts"])), sep="\n", highlight=False, soft_wrap=True)
        seconds = time.process_time() - started
        console.print(f"\n{seconds:.0f} s of processor time; page: {page}", highlight=False, soft_wrap=True)
        return 0


def shown_tables(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The tables of `robustness_report` as a reader wants them."""
    judged = tables["verdicts"]
    first = judged.drop_duplicates("conclusion")
    reference = pd.DataFrame(
        {
            "conclusion": first["conclusion"],
            "reference": _effect(first, "reference", "reference_"),
            "decided": ["yes" if s else "no" for s in first["reference_sign"]],
        }
    )
    every = judged[["conclusion", "group", "variation", "n"]].assign(
        effect=_effect(judged, "effect", ""),
        reference=_effect(judged, "reference", "reference_"),
        verdict=judged["verdict"],
        shift=intervals(judged, "shift", "shift_low", "shift_high"),
    )
    return {"The conclusions": reference, "Counts": tables["tally"], "Every verdict": every}


def _effect(table: pd.DataFrame, value: str, prefix: str) -> list[str]:
    """The effect with its interval, or with the p-value of its test."""
    text = intervals(table, value, f"{prefix}low", f"{prefix}high")
    return [t if p != p else f"{t} (p = {cell(p)})" for t, p in zip(text, table[f"{prefix}p"], strict=True)]
