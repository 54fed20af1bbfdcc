"""`speclens records`."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from sims.studies.speedruns.target import TARGET
from sims.system.errors import MeasureError
from sims.system.given import given, refuse


@dataclass(frozen=True)
class Records:
    """Compare the records of a speed-run by their training logs: tokens and time to a loss.

    Reads logs of modded-nanogpt, llm.c (main.log or its output) and nanoGPT, and JSON lines, in files ending in .log,
    .txt, .out, .stdout or .jsonl, in the folder and below it. An index.csv in it (record, run, log; date, change,
    tokens_per_step) describes them; without one each log is a record, in the order of names. Missing, cut, damaged
    or unknown logs keep their row, with the reason.

    A terminal gets tables for people; a file or a pipe gets them tab-separated.

    Examples:
        speclens records logs
        speclens records logs --target 3.4 --figure records.svg
        speclens records logs --out tables --format parquet
    """

    folder: tyro.conf.Positional[Path]
    """The folder that holds the logs."""
    target: float = TARGET
    """Validation loss (nats) to which tokens and seconds are counted."""
    tokens_per_step: int | None = None
    """Tokens of one optimiser step, for logs that do not record it."""
    token_gain: float = 0.05
    """Token gains within ± this count as none."""
    throughput_gain: float = 0.05
    """Throughput gains within ± this count as none."""
    out: Path | None = None
    """Folder for the tables runs, points, records and transitions, one file each."""
    format: Literal["csv", "json", "parquet"] = "csv"
    """Format of these files."""
    figure: Path | None = None
    """Loss curves and gains as a picture: an .svg or .png file."""
    json: bool = False
    """One JSON object on stdout in place of tables; notes go to stderr."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.target):
            raise MeasureError(f"--target is {self.target}; give a loss in nats")
        if not self.target > 0:
            raise MeasureError(f"--target is {self.target}; a loss in nats is positive")
        if self.out is None:
            refuse(given(self, ("format",)), "only for the files of --out; name that folder too")

    def run(self) -> int:
        """Print and write the tables; return 0."""
        from sims.analysis.taxonomy import Thresholds
        from sims.pages.answer import answering
        from sims.runs.tables import write_table
        from sims.studies.speedruns.folder import read_logs
        from sims.studies.speedruns.tables import record_gains, record_table
        from sims.studies.speedruns.terminal import show_records
        from sims.system.as_json import json_text
        from sims.system.files import check_folder, make_folder

        if self.out is not None:
            check_folder(self.out)
        if self.figure is not None:
            from sims.pages.figure_file import check_figure_file

            check_figure_file(self.figure)
        limits = Thresholds(self.token_gain, self.throughput_gain)
        logs = read_logs(self.folder, self.tokens_per_step)
        records = record_table(logs, self.target)
        gains = record_gains(logs, self.target, limits)
        with answering(self.json) as answer:
            show_records(logs, records, gains, self.target, answer)
        if self.out is not None:
            folder = make_folder(self.out)
            runs = logs.runs.assign(settings=[json_text(s) for s in logs.runs["settings"]])
            tables = {"runs": runs, "points": logs.points, "records": records, "transitions": gains}
            for name, table in tables.items():
                write_table(folder / f"{name}.{self.format}", table)
            print(f"tables: {folder}", file=sys.stderr)
        if self.figure is not None:
            from sims.pages.figure_file import save_figure
            from sims.studies.speedruns.figures import records_figure

            save_figure(self.figure, lambda: records_figure(logs.counted_curves(), gains, self.target))
        return 0
