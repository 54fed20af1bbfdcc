"""Measure the stored checkpoints of a run with other settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.progress import track
from rich.text import Text

from sims.measure.diverged import diverged_rows, diverged_sheet
from sims.measure.engine import measure
from sims.measure.registry import between_steps, check_stored
from sims.measure.toy import prepare
from sims.models.transformer import TransformerSubject
from sims.pages.answer import Answer
from sims.pages.fitted import FittedTable
from sims.pages.number import counted
from sims.runs.columns import which
from sims.runs.measure_config import MeasureChanges, changed
from sims.runs.store import RunFolder, write_records
from sims.runs.tensors import load_tensors
from sims.system.errors import StoreError
from sims.system.files import check_folder, make_folder, write_json
from spectra.errors import NotFiniteError
from toymodel.config import as_dict, canonical_hash
from toymodel.data import dataset


def remeasure(
    folder: Path, changes: MeasureChanges, device: str, console: Console
) -> tuple[Path, pd.DataFrame]:
    """Measure every checkpoint of a run with its own settings, but for some; return the new folder and its rows.

    A checkpoint with weights, states or gradients that are not finite gets one row, with the status "diverged".

    Measurements between training steps are left out, unless the changes name them: then they are refused.

    Raises:
        StoreError: not a run folder, or one without checkpoints.
        CheckpointError: a checkpoint is truncated or foreign.
        MeasureError: the settings do not fit the run.
    """
    if not (folder / "run.json").exists():
        why = "is not a run folder (it has no run.json)" if folder.exists() else "does not exist"
        raise StoreError(
            f"{folder} {why}; give the folder of one run, or add --data for a checkpoint of a language model"
        )
    run = RunFolder(folder)
    config, own = run.configs()
    measuring = changed(replace(own, schedules=(), **dict.fromkeys(between_steps(own), 0)), changes)
    check_stored(measuring)
    files = run.checkpoints()
    if not files:
        raise StoreError(
            f"{folder} has no checkpoints; train with --measure.checkpoints to be able to measure again"
        )
    check_folder(folder)
    data = prepare(measuring, config, dataset(config.task), device)
    rows, spectra = [], []
    for file in track(files, description="measuring", console=console, disable=not console.is_terminal):
        step, weights = load_tensors(file, config)
        subject = TransformerSubject.of_weights(config, weights, step, device)
        try:
            sheet = diverged_rows(subject, data) or measure(subject, data)
        except NotFiniteError as error:
            sheet = diverged_sheet(subject, str(error))
        if sheet.rows[0]["status"] == "diverged":
            console.print(f"note: {sheet.rows[0]['reason']}", soft_wrap=True, highlight=False, markup=False)
        rows += sheet.rows
        spectra += sheet.spectra
    out = make_folder(folder / f"measured-{canonical_hash(measuring)[:8]}")
    write_json(out / "measure.json", as_dict(measuring))
    write_records(out, "spectra", spectra)
    write_records(out, "rows", rows)
    return out, pd.DataFrame(rows)


def show_last(path: Path, rows: pd.DataFrame, console: Console, answer: Answer | None = None) -> None:
    """Print activations and probes of the last checkpoint, and where all rows are.

    Args:
        path: where the rows are.
        rows: of all checkpoints.
        console: where to print.
        answer: gets folder and every row of the last checkpoint, in place of the terminal.
    """
    last = rows[rows["step"] == rows["step"].max()]
    if answer is not None:
        answer |= {"folder": path, "last": last}
        return
    last = last[last["object"].isin(["activation", "probe"])]
    columns = ("quantity", "site", "which", "value", "null", "status")
    lines = []
    for row in last.to_dict("records"):
        values = (f"{row[name]:.4g}" for name in ("value", "null"))
        lines.append([Text(t) for t in (row["quantity"], row["site"], which(row), *values, row["status"])])
    console.print(FittedTable(columns, lines, f"step {rows['step'].max()}", left=range(len(columns))))
    console.print(f"{counted(len(rows), 'row')} in {path}", soft_wrap=True, markup=False)
