"""`speclens bridge records`: what the records of a speed-run gained, from their logs."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import tyro

from sims.analysis.taxonomy import Thresholds
from sims.pages.plain import cell, show_table
from sims.runs.tables import json_text, write_table
from sims.studies.speedruns.folder import TrainingLogs, read_logs
from sims.studies.speedruns.tables import TARGET, Spread, record_gains, record_table, run_spread
from sims.system.errors import MeasureError
from sims.system.files import make_folder


@dataclass(frozen=True)
class Records:
    """Tokens and time to a loss of every log in a folder, and what each record gained over the one before.

    Reads logs of modded-nanogpt, llm.c (main.log or its output) and nanoGPT, ending in .log, .txt or .out. An index.csv
    beside them (record, run, log; date, change, tokens_per_step) says what they are; without one each file is a
    record, in the order of names. Logs that are missing, cut, damaged or foreign keep their row, with the reason.

    A terminal gets tables for people; a file or a pipe gets them tab-separated.

    Examples:
        speclens bridge records logs
        speclens bridge records logs --target 3.4 --figure records.svg
        speclens bridge records logs --out tables --format parquet
    """

    folder: tyro.conf.Positional[Path]
    """The folder that holds the logs."""
    target: float = TARGET
    """Validation loss (nats) to which tokens and seconds are counted."""
    tokens_per_step: int | None = None
    """Tokens of one optimiser step, for logs that do not say it."""
    token_gain: float = 0.05
    """A token gain within ± this is none."""
    throughput_gain: float = 0.05
    """A throughput gain within ± this is none."""
    out: Path | None = None
    """Folder for the tables runs, points, records and transitions, one file each."""
    format: Literal["csv", "json", "parquet"] = "csv"
    """What kind of files."""
    figure: Path | None = None
    """Loss curves and gains as a picture: an .svg or .png file."""

    def run(self) -> int:
        """Run it."""
        if not math.isfinite(self.target):
            raise MeasureError(f"--target is {self.target}; give a loss in nats")
        limits = Thresholds(self.token_gain, self.throughput_gain)
        logs = read_logs(self.folder, self.tokens_per_step)
        records = record_table(logs, self.target)
        gains = record_gains(logs, self.target, limits)
        show_table(*_records(records, self.target), left=3)
        print()
        show_table(*_transitions(gains), left=1)
        _explain(logs, run_spread(logs))
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


def _records(table: pd.DataFrame, target: float) -> tuple[list[str], list[list[str]]]:
    columns = [
        *("record", "date", "change", "M tokens", "final loss", f"M tokens to {target:g}", "± at most"),
        *(f"s to {target:g}", "ms a step", "k tokens/s", "status", "note"),
    ]
    rows = [
        [
            *(str(r["record"]), r["date"], r["change"]),
            *(_scaled(r["tokens"], 1e-6), _scaled(r["val_loss"], 1, 4), _scaled(r["tokens_to_target"], 1e-6)),
            *(
                _scaled(r["bracket"], 1e-6),
                _scaled(r["seconds_to_target"], 1),
                _scaled(r["step_avg_ms"], 1, 2),
            ),
            *(_scaled(r["tokens_per_second"], 1e-3, 0), r["status"], r["reason"]),
        ]
        for r in table.to_dict("records")
    ]
    return columns, rows


def _transitions(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    columns = [
        *("transition", "token gain", "95 %", "over quantiles", "throughput gain", "95 %"),
        *("outcome", "outcome of the intervals", "note"),
    ]
    rows = [
        [
            f"{r['before']}→{r['after']}",
            *_gain(r, "token_gain"),
            _scaled(r["proximal"], 1, 3),
            *_gain(r, "throughput_gain"),
            *(r["outcome"], r["settled"], r["reason"]),
        ]
        for r in table.to_dict("records")
    ]
    return columns, rows


def _gain(row: dict[Any, Any], name: str) -> tuple[str, str]:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return _scaled(row[name], 1, 3), "" if math.isnan(low) else f"[{low:.3f}, {high:.3f}]"


def _scaled(value: float, scale: float, digits: int = 1) -> str:
    return cell(None) if math.isnan(value) else f"{value * scale:.{digits}f}"


def _explain(logs: TrainingLogs, spread: Spread) -> None:
    """What the tables rest on, and what the folder itself says about its logs."""
    print()
    if spread.freedom:
        shown = ", ".join(map(str, spread.records))
        print(
            f"Every record is one run. Its intervals are from the runs of records {shown} ({spread.freedom} degrees of "
            f"freedom), which differ by {100 * spread.tokens:.2f} % in tokens to a loss and "
            f"{100 * spread.throughput:.2f} % in throughput; another machine is not in it."
        )
    else:
        print(
            "Every record is one run, and no record has a second one of the same speed: there are no intervals."
        )
    if logs.notes:
        print(f"\nWhat the folder's README says:\n{logs.notes}")
