"""One run in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from sims.pages.plain import cell, show_table
from sims.runs.columns import WHICH, which
from sims.runs.describe import Description

SHOWN = ("loss", "activation", "probe")


def show_run(run: Description, everything: bool) -> None:
    """Print a run.

    Args:
        run: its description.
        everything: also the numbers of gradients and weights, and every file by name.
    """
    print(f"{run.run_id}: {run.status}{f' ({run.reason})' if run.reason else ''}\n")
    show_pairs("configuration", run.configuration)
    show_pairs("provenance", run.provenance)
    show_pairs("outcome", run.outcome)
    show_seconds(run.seconds)
    show_numbers(run.last if everything else run.last[run.last["object"].isin(SHOWN)])
    show_pairs("files", run.files if everything else by_folder(run))


def show_pairs(title: str, values: Mapping[str, Any]) -> None:
    """Print names and values, if there are any."""
    if values:
        show_table((title, ""), [(name, cell(value)) for name, value in values.items()], left=2)
        print()


def show_seconds(seconds: Mapping[str, float]) -> None:
    """Print the seconds of each part and their share of the whole."""
    total = sum(seconds.values())
    if total > 0:
        rows = [(part, f"{s:.1f}", f"{s / total:.1%}") for part, s in seconds.items()]
        show_table(("time", "seconds", "share"), [*rows, ("all", f"{total:.1f}", "100.0%")])
        print()


def show_numbers(last: pd.DataFrame) -> None:
    """Print measured numbers with the values of their nulls."""
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
    """Return the sizes of files by name, those of a subfolder together."""
    found: dict[str, list[int]] = {}
    for path, size in run.files.items():
        folder = path.partition("/")[0] + "/" if "/" in path else path
        found.setdefault(folder, []).append(size)
    return {
        name: f"{sum(sizes):,} bytes" + (f" in {len(sizes)} files" if name.endswith("/") else "")
        for name, sizes in found.items()
    }
