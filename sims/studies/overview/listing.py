"""The runs of a folder as a table in the terminal, or as JSON."""

from __future__ import annotations

import sys
from collections import Counter

import pandas as pd
from rich.console import Console

from sims.pages.number import counted
from sims.pages.plain import cell, show_table
from sims.runs.status import STATUSES
from sims.system.as_json import json_text, records

TERMINAL_ROWS = 200
_PLACED = ("run_id", "status", "stage", "batch_size", "lr", "seed", "steps", "step", "tokens", "val_loss")


def show_listing(chosen: pd.DataFrame, limit: int | None, json: bool) -> None:
    """Print runs: for people on a terminal, else every column, tab-separated and in full precision.

    Args:
        chosen: rows of a listing, in the order in which they are shown.
        limit: rows at most; None for all, on a terminal for 200.
        json: print a JSON array of objects instead.
    """
    terminal = sys.stdout.isatty() and not json
    if limit is None and terminal:
        limit = TERMINAL_ROWS
    shown = chosen if limit is None else chosen.head(limit)
    if json:
        lines = [json_text(record) for record in records(shown)]
        sys.stdout.write("[" + ",\n ".join(lines) + "]\n")
    elif terminal:
        _show_for_people(shown, chosen)
    else:
        cells = ([cell(v) for v in shown[name].tolist()] for name in shown.columns)
        show_table(list(shown.columns), list(zip(*cells, strict=True)))


def _show_for_people(shown: pd.DataFrame, chosen: pd.DataFrame) -> None:
    """Print few digits, without what the run's name contains."""
    own = [c for c in shown.columns if c not in _PLACED and not c.startswith("seconds_")]
    varied = [c for c in own if c not in ("when", "reason")]
    seconds = shown[[c for c in shown.columns if c.startswith("seconds_")]].sum(axis=1, min_count=1)
    tokens = shown["tokens"].astype("float64")
    # Of short runs all would have 0.00 million.
    few = bool(tokens.max() < 1e5)
    columns = ["run", "status", *varied, "step", "tokens" if few else "M tokens"]
    columns += ["val loss", "minutes", "last written"]
    values = [
        shown["run_id"].tolist(),
        shown["status"].tolist(),
        *([cell(v) for v in shown[name]] for name in varied),
        [f"{cell(step)}/{cell(steps)}" for step, steps in zip(shown["step"], shown["steps"], strict=True)],
        [_short(v, 0) if few else _short(v / 1e6, 2) for v in tokens],
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
        f"{counted(len(chosen), 'run')}{': ' if counts else ''}{counts}{more}",
        soft_wrap=True,
        highlight=False,
    )


def _short(value: float, digits: int) -> str:
    return "" if value != value else f"{value:,.{digits}f}"


def _moment(value: pd.Timestamp) -> str:
    return "" if value is pd.NaT else f"{value.tz_convert(None):%Y-%m-%d %H:%M} UTC"
