"""`speclens ls`: the runs of a folder."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import tyro
from rich.console import Console

from sims.pages.plain import cell, show_table
from sims.runs.select import select
from sims.runs.selection import Selection
from sims.runs.status import STATUSES
from sims.runs.tables import json_text
from sims.system.errors import QueryError

ON_A_TERMINAL = 200
_PLACED = ("run_id", "status", "stage", "batch_size", "lr", "seed", "steps", "step", "tokens", "val_loss")


@dataclass(frozen=True)
class Ls:
    """List the runs of a folder: how they stand, what distinguishes them, and their losses.

    A terminal gets a table for people; a file or a pipe gets every column, tab-separated and in full precision.
    Columns are run_id, status, stage, batch_size, lr, seed, steps, every other field of the configuration that
    differs between the runs (task.length, measure.every, …), step, tokens, val_loss, seconds_<part>, when, reason.

    Examples:
        speclens ls runs
        speclens ls runs --sort val_loss --limit 10
        speclens ls runs --status failed damaged
        speclens ls runs --where "stage == 'muon' and lr < 1e-3" --json
        speclens ls runs | cut -f 1,10
    """

    folder: tyro.conf.Positional[Path]
    """A folder that holds one folder a run."""
    selection: Annotated[Selection, tyro.conf.arg(name="")] = field(default_factory=Selection)
    sort: str | None = None
    """Column to sort by; by default the order of names."""
    descending: bool = False
    """Largest first."""
    limit: int | None = None
    """Rows at most; by default all, and 200 on a terminal."""
    json: bool = False
    """A JSON array of objects, one a run, instead of a table."""

    def run(self) -> int:
        """Run it."""
        if self.limit is not None and self.limit < 1:
            raise QueryError(f"--limit is {self.limit}; it must be at least 1")
        chosen = self.selection.of(self.folder)
        chosen = select(chosen, sort=self.sort, descending=self.descending)
        terminal = sys.stdout.isatty() and not self.json
        limit = self.limit if self.limit is not None else ON_A_TERMINAL if terminal else None
        shown = chosen.head(limit) if limit is not None else chosen
        if self.json:
            lines = [json_text(_known(record)) for record in shown.to_dict("records")]
            sys.stdout.write("[" + ",\n ".join(lines) + "]\n")
        elif terminal:
            _for_people(shown, chosen)
        else:
            cells = ([cell(v) for v in shown[name].tolist()] for name in shown.columns)
            show_table(list(shown.columns), list(zip(*cells, strict=True)))
        return 0


def _known(record: dict[Hashable, Any]) -> dict[Hashable, Any]:
    return {name: None if value is pd.NA or value is pd.NaT else value for name, value in record.items()}


def _for_people(shown: pd.DataFrame, chosen: pd.DataFrame) -> None:
    """Few digits; what the run's name says already is left out."""
    own = [c for c in shown.columns if c not in _PLACED and not c.startswith("seconds_")]
    varied = [c for c in own if c not in ("when", "reason")]
    seconds = shown[[c for c in shown.columns if c.startswith("seconds_")]].sum(axis=1, min_count=1)
    columns = ["run", "status", *varied, "step", "M tokens", "val loss", "minutes", "last written"]
    values = [
        shown["run_id"].tolist(),
        shown["status"].tolist(),
        *([cell(v) for v in shown[name]] for name in varied),
        [f"{cell(step)}/{cell(steps)}" for step, steps in zip(shown["step"], shown["steps"], strict=True)],
        [_short(v / 1e6, 2) for v in shown["tokens"].astype("float64")],
        [_short(v, 4) for v in shown["val_loss"]],
        [_short(v / 60, 1) for v in seconds],
        [_moment(v) for v in shown["when"]],
    ]
    reasons = shown["reason"].tolist()
    if any(reasons):
        columns.append("reason")
        values.append([r.strip().splitlines()[0] if r.strip() else "" for r in reasons])
    show_table(columns, list(zip(*values, strict=True)), left=2)
    states = Counter(chosen["status"])
    counts = ", ".join(f"{states[s]} {s}" for s in STATUSES if states[s])
    more = f"; the first {len(shown)} are shown, see --limit" if len(shown) < len(chosen) else ""
    Console().print(
        f"{len(chosen)} runs{': ' if counts else ''}{counts}{more}", soft_wrap=True, highlight=False
    )


def _short(value: float, digits: int) -> str:
    return "" if value != value else f"{value:,.{digits}f}"


def _moment(value: pd.Timestamp) -> str:
    return "" if value is pd.NaT else f"{value.tz_convert(None):%Y-%m-%d %H:%M} UTC"
