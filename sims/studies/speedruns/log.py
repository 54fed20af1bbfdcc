"""Read one training log of any known program as a table of points."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from sims.studies.speedruns.formats import FORMATS, Format, Header

POINTS = ("step", "tokens", "train_loss", "val_loss", "seconds", "step_avg_ms")
Status = Literal["whole", "partial", "refused"]


@dataclass(frozen=True)
class TrainingLog:
    """One log.

    Attributes:
        path: the file.
        format: `Format.name`; empty if unknown.
        status: whole; partial (usable, but something is missing or damaged); refused (no points).
        reason: what is missing, damaged or wrong; empty if nothing is.
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


def read_log(path: Path, tokens_per_step: int | None = None) -> TrainingLog:
    """Read one log; a file that is not a log gives a refused result with the reason.

    Args:
        path: a text file in one of `FORMATS`.
        tokens_per_step: if known from elsewhere; None for the number in the log. A log with a different number is
            refused.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        return _refused(path, f"cannot be read: {error.strerror}")
    if not raw.strip():
        return _refused(path, "is empty")
    if b"\0" in raw:
        return _refused(path, "is not text")
    text = raw.decode("utf-8", "replace")
    kinds = Counter(f.name for line in text.splitlines() if (f := _format_of(line)) is not None)
    if not kinds:
        names = ", ".join(f.name for f in FORMATS)
        return _refused(path, f"has no line of a training log that is known here ({names})")
    if len(kinds) > 1:
        parts = " and ".join(f"{n} of {name}" for name, n in kinds.items())
        return _refused(path, f"mixes logs of several programs ({parts} lines); split it")
    written_by = next(f for f in FORMATS if f.name in kinds)
    lines = _Lines(written_by, text)
    if lines.goes_back:
        return _refused(path, lines.goes_back, written_by.name)
    if not lines.steps:
        return _refused(
            path, f"has no whole line of {written_by.name}; it was cut short or damaged", written_by.name
        )
    header = written_by.header(text)
    own = header.tokens_per_step
    if own is not None and tokens_per_step is not None and own != tokens_per_step:
        return _refused(
            path,
            f"says that a step has {own} tokens, but {tokens_per_step} are given; correct that",
            written_by.name,
        )
    points, timing = _table(lines.steps, own or tokens_per_step)
    missing = lines.missing()
    return TrainingLog(
        path,
        written_by.name,
        "partial" if missing else "whole",
        missing,
        points,
        lines.planned,
        timing,
        header,
    )


def _refused(path: Path, reason: str, name: str = "") -> TrainingLog:
    return TrainingLog(path, name, "refused", reason, pd.DataFrame(columns=list(POINTS), dtype=float))


def _format_of(line: str) -> Format | None:
    return next((f for f in FORMATS if f.begins.match(line)), None)


class _Lines:
    """The lines of one format: values by step, and their defects."""

    def __init__(self, written_by: Format, text: str) -> None:
        self.steps: dict[int, dict[str, float]] = {}
        self.planned: int | None = None
        self.goes_back = ""
        self.damaged: list[int] = []
        self.cut = False
        step = 0
        for number, line in self._of(written_by, text):
            found = next((m for p in written_by.lines if (m := p.fullmatch(line)) is not None), None)
            if found is None:
                self.damaged.append(number)
                continue
            values = {name: float(value) for name, value in found.groupdict().items() if value is not None}
            planned = values.pop("planned", None)
            if planned is not None:
                self.planned = int(planned)
            at = int(values.pop("step", step))
            if at < step and not self.goes_back:
                self.goes_back = (
                    f"goes back from step {step} to step {at} at line {number}: two runs, or a resumed one; "
                    "keep one run a file"
                )
            step = at
            # nanoGPT names a step twice: the batch loss, and the evaluation over more batches, which is kept.
            self.steps[step] = values | self.steps.get(step, {})
        self.last = step

    def _of(self, written_by: Format, text: str) -> list[tuple[int, str]]:
        """Return numbers and texts of the lines of this format, without a last one that may be cut."""
        lines = text.splitlines()
        own = [(i, line.rstrip()) for i, line in enumerate(lines, 1) if written_by.begins.match(line)]
        # A line that ends in a number looks complete if it was cut within the number.
        if not written_by.ends and not text.endswith("\n") and own and own[-1][0] == len(lines):
            self.cut = True
            return own[:-1]
        return own

    def missing(self) -> str:
        """Describe the defects."""
        said = []
        if self.cut:
            said.append("the last line does not end and is left out")
        if self.damaged:
            shown = ", ".join(map(str, self.damaged[:5])) + (", …" if len(self.damaged) > 5 else "")
            said.append(f"{len(self.damaged)} damaged line(s) left out (line {shown})")
        if self.planned is not None and self.last < self.planned:
            said.append(f"ends at step {self.last} of {self.planned}")
        wild = [s for s, v in self.steps.items() if any(not math.isfinite(v.get(k, 0.0)) for k in _LOSSES)]
        if wild:
            said.append(f"the loss is not finite at step {wild[0]}" + (" and later" if len(wild) > 1 else ""))
        if not any("val_loss" in v for v in self.steps.values()):
            said.append("no validation loss")
        return "; ".join(said)


_LOSSES = ("train_loss", "val_loss")


def _table(steps: dict[int, dict[str, float]], tokens_per_step: int | None) -> tuple[pd.DataFrame, str]:
    wide = pd.DataFrame.from_dict(steps, orient="index").sort_index()
    count = wide.index.to_numpy(float)

    def column(name: str) -> np.ndarray:
        return wide[name].to_numpy(float) if name in wide else np.full(len(wide), math.nan)

    seconds, average, timing = column("elapsed") / 1e3, column("step_avg"), ""
    if "elapsed" in wide:
        timing = "logged"
    elif "step_ms" in wide:
        # The first steps compile and some steps evaluate; the median is neither.
        median = float(np.nanmedian(column("step_ms")))
        seconds, average, timing = count * median / 1e3, np.full(len(wide), median), "median step"
    table: dict[str, Any] = {
        "step": wide.index.to_numpy(np.int64),
        "tokens": count * (math.nan if tokens_per_step is None else tokens_per_step),
        **{name: column(name) for name in _LOSSES},
        "seconds": seconds,
        "step_avg_ms": average,
    }
    return pd.DataFrame(table), timing
