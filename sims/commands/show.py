"""`speclens show`: one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import tyro

from sims.pages.plain import cell, show_table
from sims.runs.describe import Description, describe
from sims.runs.layout import WHICH, which

SHOWN = ("loss", "activation", "probe")


@dataclass(frozen=True)
class Show:
    """Show one run: configuration, provenance, outcome, time by part, the last measured numbers, files.

    Examples:
        speclens show runs/untied-b32-lr0.0006-s0-1a2b3c4d5e
        speclens show runs/untied-b32-lr0.0006-s0-1a2b3c4d5e --everything
    """

    folder: tyro.conf.Positional[Path]
    """The folder of one run."""
    everything: bool = False
    """Also the numbers of gradients and weights, and every file by name."""

    def run(self) -> int:
        """Run it."""
        run = describe(self.folder)
        print(f"{run.run_id}: {run.status}{f' ({run.reason})' if run.reason else ''}\n")
        show_pairs("configuration", run.configuration)
        show_pairs("provenance", run.provenance)
        show_pairs("outcome", run.outcome)
        show_seconds(run.seconds)
        show_numbers(run.last if self.everything else run.last[run.last["object"].isin(SHOWN)])
        show_pairs("files", run.files if self.everything else by_folder(run))
        return 0


def show_pairs(title: str, values: Mapping[str, Any]) -> None:
    """Names and values, if there are any."""
    if values:
        show_table((title, ""), [(name, cell(value)) for name, value in values.items()], left=2)
        print()


def show_seconds(seconds: Mapping[str, float]) -> None:
    """Seconds by part and their share of the whole."""
    total = sum(seconds.values())
    if total > 0:
        rows = [(part, f"{s:.1f}", f"{s / total:.1%}") for part, s in seconds.items()]
        show_table(("time", "seconds", "share"), [*rows, ("all", f"{total:.1f}", "100.0%")])
        print()


def show_numbers(last: pd.DataFrame) -> None:
    """Measured numbers with what chance alone would give."""
    if last.empty:
        return
    columns = ("step", "object", "site", "quantity", "which", "value", "null", "null_high", "status")
    last = last.assign(which=[which(row) for row in last[list(WHICH)].to_dict("records")])
    rows = [
        tuple(f"{v:.4g}" if isinstance(v, float) and v == v else cell(v) for v in row)
        for row in zip(*(last[name].tolist() for name in columns), strict=True)
    ]
    show_table(columns, rows, title="last measured", left=5)
    print()


def by_folder(run: Description) -> dict[str, str]:
    """Files by name, those of a folder below the run's together."""
    found: dict[str, list[int]] = {}
    for path, size in run.files.items():
        folder = path.partition("/")[0] + "/" if "/" in path else path
        found.setdefault(folder, []).append(size)
    return {
        name: f"{sum(sizes):,} bytes" + (f" in {len(sizes)} files" if name.endswith("/") else "")
        for name, sizes in found.items()
    }
