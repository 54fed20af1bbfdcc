"""Read one training log of any known program as a table of points."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from sims.studies.speedruns.batches import Batches
from sims.studies.speedruns.formats import FORMATS, JSON_LINES, LOSSES, Format, Header
from sims.studies.speedruns.lines import split_line
from sims.studies.speedruns.steps import read_steps
from sims.studies.speedruns.text import LONGEST, decode, numbered_lines
from sims.studies.speedruns.trajectory import Steps

POINTS = ("step", "tokens", "train_loss", "val_loss", "seconds", "step_avg_ms")
# A training log is text of some MB; more is something else, and is not read into memory.
LARGEST_MB = 512
# First bytes of compressed files.
COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\0": "xz", b"BZh": "bzip2"}
Status = Literal["whole", "partial", "refused", "missing"]


@dataclass(frozen=True)
class TrainingLog:
    """One log.

    Attributes:
        path: the file.
        format: `Format.name`; empty if unknown.
        status: whole; partial (usable, but something is missing or damaged); refused (no points); missing (no file).
        reason: what is missing, damaged or wrong, and what is worth knowing; empty if nothing is.
        points: columns `POINTS`, one row per step in order. Losses in nats; tokens from steps and tokens per step; time
            of training in seconds, and milliseconds per step. NaN for values that the log does not have.
        planned: optimiser steps of the whole run, if the log has them.
        timing: "logged" (times of the log) or "median step" (the log times single steps only; seconds are steps times
            their median); empty without times.
        header: hyperparameters, tokens per step, hardware.
    """

    path: Path
    format: str
    status: Status
    reason: str
    points: pd.DataFrame
    planned: int | None = None
    timing: str = ""
    header: Header = field(default_factory=Header)


def read_log(path: Path, tokens_per_step: int | None = None) -> list[TrainingLog]:
    """Read a file; one that is not a log gives a refused result with the reason.

    Args:
        path: a text file in one of `FORMATS`.
        tokens_per_step: if known from elsewhere; None for the number in the log. A log with a different number is
            refused.

    Returns:
        Its log, or the logs of the runs that follow each other in it.
    """
    try:
        if not path.is_file():
            return [_refused(path, "is not a file")]
        if path.stat().st_size > LARGEST_MB * 2**20:
            return [_refused(path, f"has more than {LARGEST_MB} MB; a training log is smaller")]
        raw = path.read_bytes()
    except OSError as error:
        return [_refused(path, f"cannot be read: {error.strerror}")]
    if not raw.strip(b" \t\r\n\0"):
        return [_refused(path, "is empty")]
    if packed := next((name for mark, name in COMPRESSED.items() if raw.startswith(mark)), None):
        return [_refused(path, f"is compressed ({packed}); unpack it")]
    text = decode(raw)
    written_by = _formats(text)
    if not written_by:
        if b"\0" in raw:
            return [_refused(path, "is not text")]
        names = ", ".join(f.name for f in FORMATS)
        return [_refused(path, f"has no line of a training log that is known here ({names})")]
    if len(written_by) > 1:
        parts = " and ".join(f.name for f in written_by)
        return [_refused(path, f"mixes logs of several programs ({parts}); split it")]
    runs = read_steps(written_by[0], text)
    header = written_by[0].header(runs[0][1])
    logs = []
    for steps, own in runs:
        # What a program says once is of all its runs.
        header = header if own is runs[0][1] else _header(written_by[0], own) or header
        if steps.rows:
            logs.append(_log(path, written_by[0], steps, header, tokens_per_step))
        else:
            why = (
                "NUL bytes in it: it is damaged, or not text"
                if "\0" in own
                else "it was cut short or damaged"
            )
            name = written_by[0].name
            logs.append(_refused(path, f"has no whole line of {name}; {why}", name))
    return logs


def _formats(text: str) -> list[Format]:
    """Return the formats that have a line in a text, or else those that seem to have a damaged one.

    JSON beside lines of another format says the same again.
    """
    having: list[Format] = []
    seeming: list[Format] = []
    for format_ in FORMATS:
        if not any(mark.strip() in text for mark in format_.marks) or (having and format_ is JSON_LINES):
            continue
        lines = [line for _, line in numbered_lines(text[format_.begins(text) :])]
        if any(split_line(format_, line) for line in lines):
            having.append(format_)
        elif any(format_.suspect.search(line[:LONGEST]) for line in lines):
            seeming.append(format_)
    return having or seeming


def _header(written_by: Format, text: str) -> Header | None:
    """Return the header of a text; None if it has none."""
    found = written_by.header(text)
    return found if found.settings or found.batches.sizes or found.hardware else None


def _log(
    path: Path, written_by: Format, steps: Steps, header: Header, tokens_per_step: int | None
) -> TrainingLog:
    batches = header.batches
    if batches.total is not None and steps.planned is not None and batches.total != steps.planned:
        found = f"{batches.found} has {batches.total} steps, and the log {steps.planned}"
        batches = Batches(found=found)
    if tokens_per_step is not None:
        if batches.sizes and batches.sizes != (tokens_per_step,):
            own = " and ".join(str(size) for size in dict.fromkeys(batches.sizes))
            return _refused(
                path,
                f"says that a step has {own} tokens, but {tokens_per_step} are given; correct that",
                written_by.name,
            )
        batches = batches if batches.sizes else Batches.of(tokens_per_step, "given")
    points, timing = _table(steps, batches)
    return TrainingLog(
        path,
        written_by.name,
        "partial" if steps.defects else "whole",
        "; ".join([*steps.defects, *steps.remarks]),
        points,
        steps.planned,
        timing,
        Header(header.settings, batches, header.hardware),
    )


def _refused(path: Path, reason: str, name: str = "") -> TrainingLog:
    return TrainingLog(path, name, "refused", reason, pd.DataFrame(columns=list(POINTS), dtype=float))


def _table(steps: Steps, batches: Batches) -> tuple[pd.DataFrame, str]:
    count = np.array(list(steps.rows), float)
    rows = list(steps.rows.values())

    def column(name: str) -> np.ndarray:
        return np.array([row.get(name, math.nan) for row in rows])

    seconds, average, timing = column("elapsed") / 1e3, column("step_avg"), ""
    step_ms = column("step_ms")
    if np.isfinite(seconds).any():
        timing = "logged"
    elif np.isfinite(step_ms).any():
        # The first steps compile and some steps evaluate; the median is neither.
        median = float(np.nanmedian(step_ms))
        seconds, average, timing = count * median / 1e3, np.full(len(rows), median), "median step"
    table: dict[str, Any] = {
        "step": np.array(list(steps.rows), np.int64),
        "tokens": batches.tokens(count),
        **{name: column(name) for name in LOSSES},
        "seconds": seconds,
        "step_avg_ms": average,
    }
    return pd.DataFrame(table), timing
