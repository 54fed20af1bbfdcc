"""Cells of runs side by side in the terminal."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sims.analysis.caveats import provenance_notes
from sims.analysis.compare import compare
from sims.analysis.origins import distinct
from sims.analysis.runs import Runs, read_runs
from sims.analysis.summaries import label
from sims.pages.answer import Answer
from sims.pages.number import counted, verb
from sims.pages.plain import cell, show_table
from sims.runs.folders import LAST, listing_of
from sims.runs.select import select
from sims.runs.selection import Selection
from sims.runs.status import COMPLETE
from sims.runs.store import RunFolder
from sims.studies.overview.tables import FLAG_NOTE, FLAGGED
from sims.system.errors import QueryError, StoreError
from sims.system.files import need_folder, visible

# Up to this many cells are columns of the table; more of them are rows.
COLUMNS = 5
# Numbers of tokens: in millions, where any is that large.
COUNTS = ("tokens", "tokens_to_common")


def show_side_by_side(
    paths: Sequence[Path],
    selection: Selection | None = None,
    each: bool = False,
    answer: Answer | None = None,
) -> None:
    """Print complete runs side by side: what differs in their configuration, and their results.

    Args:
        paths: run folders, or folders of run folders.
        selection: which of these runs; all of them by default.
        each: show every run separately, also those that differ only in their seed.
        answer: gets fields, common_loss, cells, numbers and notes, in place of the terminal.

    Raises:
        StoreError: no complete run is among them.
        QueryError: two different runs of the same name, or a condition that cannot be evaluated.
    """
    selection = selection or Selection()
    folders = run_paths(paths)
    table = select(listing_of(folders), selection.status, selection.where)
    complete = table[table["status"].isin([s for s in COMPLETE if s != "pruned"])]
    if complete.empty:
        raise StoreError(
            f"none of the {len(folders)} folders given holds a complete run that is asked for; `speclens ls` shows "
            "their status"
        )
    runs, chosen = _chosen([folders[i] for i in complete.index], each)
    names = listing_of(chosen)
    own = names.loc[:, : LAST[0]].columns[:-1]
    found = compare(runs, names[[c for c in own if c != "status"]], each)
    notes = [f"note: {note}" for note in provenance_notes(runs)]
    if len(complete) < len(table):
        missing = len(table) - len(complete)
        notes.insert(
            0,
            f"{missing} of {counted(len(table), 'run')} {verb(missing)} not complete, or pruned, and left out",
        )
    damaged = table[table["status"] == "damaged"]
    notes += [
        f"note: {name} is damaged and left out: {reason}"
        for name, reason in zip(damaged["run_id"], damaged["reason"], strict=True)
    ]
    for note in notes:
        print(note, file=sys.stderr)
    if answer is None:
        show_cells(found.fields, found.cells, found.numbers, found.common_loss)
    else:
        cells = found.cells.reset_index(names="cell")
        facts = {"fields": found.fields, "common_loss": found.common_loss, "notes": notes}
        answer |= {**facts, "cells": cells, "numbers": found.numbers}


def _chosen(paths: Sequence[Path], each: bool) -> tuple[Runs, list[Path]]:
    """Read the runs that count, and return their folders; with `each` all of them count.

    Raises:
        QueryError: two of them have the same name.
    """
    folders = [RunFolder(p) for p in paths]
    kept = folders if each else distinct(folders).folders
    names = Counter(f.path.name for f in kept)
    twice = [str(f.path) for f in kept if names[f.path.name] > 1]
    if twice:
        what = "folders" if each else "different runs"
        raise QueryError(
            f"{' and '.join(twice)} are {what} of one name; rename one of them, or give one only"
        )
    return read_runs(folders, copies=each), [f.path for f in kept]


def run_paths(given: Sequence[Path]) -> list[Path]:
    """Return the run folders among the paths, and those directly below the other paths, each once.

    Raises:
        StoreError: a path that is not a run folder and holds none.
    """
    found: list[Path] = []
    for path in given:
        need_folder(path, "give folders made by speclens")
        below = [file.parent for file in visible(path, "*/run.json")]
        if not (path / "run.json").exists() and not below:
            raise StoreError(f"{path} is not a run folder and holds none; give folders made by speclens")
        found += [path] if (path / "run.json").exists() else below
    return list(dict.fromkeys(p.resolve() for p in found))


def show_cells(fields: Sequence[str], cells: pd.DataFrame, numbers: pd.DataFrame, common_loss: float) -> None:
    """Print cells as columns of a table, or as rows if there are many."""
    quantities = list(dict.fromkeys(numbers["quantity"]))
    few = bool(numbers.loc[numbers["quantity"].isin(COUNTS), "mean"].max() < 1e5)
    heads = [_head(q, common_loss, few) for q in quantities]
    texts = {
        (int(row["cell"]), str(row["quantity"])): _number(row, few) for row in numbers.to_dict("records")
    }
    lines = [
        [
            *(_field(own[name]) for name in fields),
            f"{own['runs']}" + (f", {own['diverged']} diverged" if own["diverged"] else ""),
            *(texts.get((int(str(number)), q), "–") for q in quantities),
        ]
        for number, own in cells.to_dict("index").items()
    ]
    columns = [*fields, "runs", *heads]
    if len(cells) > COLUMNS:
        show_table(columns, lines, left=len(fields))
    else:
        alone = bool((cells["runs"] == 1).all())
        titles = cells["run_id"] if alone else (f"cell {i + 1}" for i in range(len(cells)))
        show_table(("", *titles), list(zip(columns, *lines, strict=True)))
    if numbers["flagged"].any():
        print(FLAG_NOTE, file=sys.stderr)


def _field(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) and value == value else cell(value)


def _head(quantity: str, common_loss: float, few: bool) -> str:
    unit = "" if few else "M "
    names = {
        "val_loss": "final loss (nats)",
        "tokens": f"{unit}tokens seen",
        "tokens_to_common": f"{unit}tokens to {common_loss:.3f}",
        "h_peak_top": "H_peak, highest",
        "h_peak_end": "H_peak, last",
    }
    return names.get(quantity) or label(quantity) or quantity


def _number(row: Mapping[Any, Any], few: bool) -> str:
    counts = row["quantity"] in COUNTS
    mean, low, high = (row[k] * (1e-6 if counts and not few else 1.0) for k in ("mean", "low", "high"))
    if counts and few:
        return f"{mean:.0f}" if low != low else f"{mean:.0f} [{low:.0f}, {high:.0f}]"
    mark = FLAGGED if row["flagged"] else ""
    return (f"{mean:.4g}" if low != low else f"{mean:.4g} [{low:.4g}, {high:.4g}]") + mark
