"""Measure the checkpoints of a language-model run, one after the other, into a run folder."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sims.measure.engine import KEEP_SECONDS, measure
from sims.measure.lm import LmMeasurementData, depth
from sims.measure.registry import check_stored, measured_versions
from sims.measure.rows import MeasurementRows
from sims.models.checkpoints import CheckpointRun
from sims.models.subject import Subject
from sims.runs.lm_measure_config import LmRun, RunMetadata
from sims.runs.store import MeasurementCheckpoint, RunFolder
from sims.system.errors import MeasureError
from sims.system.files import read_json, write_json
from sims.system.process_group import ProcessGroup
from sims.system.provenance import provenance

# step, which of the checkpoints, how many there are, part, done, total
Tell = Callable[[int, int, int, str, int, int], None]
_CHUNK = 2**24


def text_run(
    run: CheckpointRun, subject: Subject, labels: RunMetadata, length: int, shards: Sequence[Path]
) -> LmRun:
    """Return the identity of a run of checkpoints.

    Args:
        run: the checkpoints.
        subject: one of them.
        labels: what they do not record.
        length: inputs of a measured sequence.
        shards: the text.

    Raises:
        MeasureError: the number of tokens of a step is not known.
    """
    found = run.found[-1]
    known = subject.about
    tokens_per_step = run.options.tokens_per_step
    if tokens_per_step is None and found.tokens and found.step:
        tokens_per_step = round(found.tokens / found.step)
    if tokens_per_step is None:
        raise MeasureError(
            f"nothing says how many tokens a step of {found.path} had; pass --tokens-per-step, without which the run "
            "has no place beside others"
        )
    sizes = {"layers": depth(subject), "width": subject.head.shape[1], "vocabulary": len(subject.head)}
    return LmRun(
        name=labels.name or _name(run),
        stage=labels.stage or known.get("stage") or found.kind,
        batch_size=labels.batch_size or known.get("batch_size") or max(1, round(tokens_per_step / length)),
        lr=labels.lr or known.get("lr"),
        seed=next((s for s in (labels.seed, known.get("seed")) if s is not None), 0),
        steps=run.steps[-1],
        tokens_per_step=tokens_per_step,
        model={"kind": found.kind, **sizes},
        checkpoints=tuple((f.step or 0, f.path.name, _bytes(f.path)) for f in run.found),
        data=fingerprint(shards),
    )


def _name(run: CheckpointRun) -> str:
    """Return the default name of a run: that of its folder, or of its file where that is more specific."""
    path = run.found[-1].path.resolve()
    if path.parent.name == "checkpoints":
        path = path.parent.parent
    elif len(run) > 1 or path.stem == "ckpt":
        path = path.parent
    return re.sub(r"[^\w.+-]+", "-", path.stem if path.is_file() else path.name)


def measure_checkpoints(
    run: CheckpointRun,
    identity: LmRun,
    data: LmMeasurementData,
    folder: RunFolder,
    ranks: ProcessGroup | None = None,
    tell: Tell | None = None,
    keep_seconds: float = KEEP_SECONDS,
) -> None:
    """Measure every checkpoint that is not measured yet, and mark the run complete.

    Every rank calls this; the first one writes. After a stop at any time the same call continues, also within the pass
    over the tokens.

    Args:
        run: the checkpoints, on the device where they are measured.
        identity: of `text_run`.
        data: of `prepare_text`.
        folder: its run folder.
        ranks: this process among those that share the work.
        tell: called after every piece of work.
        keep_seconds: time between two states that are kept.

    Raises:
        StoreError: the folder holds a run of another configuration, or another process works in it.
        MeasureError: something cannot be measured of these models.
        CheckpointError: a checkpoint is damaged, or has other matrices than the first that is measured here.
    """
    ranks = ranks or ProcessGroup()
    check_stored(data.config)
    with ExitStack() as stack:
        if ranks.first:
            folder.check(identity, data.config)
            folder.path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(folder.locked())
            versions = measured_versions(data.config)
            folder.start(identity, data.config, provenance(data.device), versions)
        ranks.wait()
        # The first process decides: it may end the run before another has looked.
        if ranks.agree(ranks.first and folder.done):
            return
        measured = set(folder.parts())
        todo = [k for k, step in enumerate(run.steps) if step not in measured]
        for k, subject in zip(todo, run.subjects(todo), strict=True):
            _measure(run, k, subject, identity, data, folder, ranks, tell, keep_seconds)
        if ranks.first:
            _finish(folder, run, identity)
        ranks.wait()


def _measure(
    run: CheckpointRun,
    k: int,
    subject: Subject,
    identity: LmRun,
    data: LmMeasurementData,
    folder: RunFolder,
    ranks: ProcessGroup,
    tell: Tell | None,
    keep_seconds: float,
) -> None:
    step = run.steps[k]
    began = time.perf_counter()
    keeper = MeasurementCheckpoint(folder, identity, step, ranks)

    def progress(part: str, done: int, total: int) -> None:
        if tell is not None and ranks.first:
            tell(step, k, len(run), part, done, total)

    sheet = measure(
        subject,
        data,
        progress=progress,
        ranks=ranks,
        keeper=keeper,
        keep_seconds=keep_seconds,
    )
    if not ranks.first:
        return
    tokens = step * identity.tokens_per_step if subject.tokens is None else subject.tokens
    rows, spectra = ([{**r, "tokens": tokens} for r in records] for records in (sheet.rows, sheet.spectra))
    folder.keep_part(step, rows, spectra)
    seconds = _progress(folder).get("seconds", 0.0) + time.perf_counter() - began
    record = {"step": step, "steps": identity.steps, "val_loss": _loss(sheet), "ended": None}
    write_json(folder.path / "progress.json", {**record, "seconds": seconds})


def _finish(folder: RunFolder, run: CheckpointRun, identity: LmRun) -> None:
    last = _progress(folder)
    found = run.found[-1]
    folder.finish(
        {
            "ended": "finished",
            "step": run.steps[-1],
            "tokens": run.steps[-1] * identity.tokens_per_step if found.tokens is None else found.tokens,
            "val_loss": last.get("val_loss"),
            # Not known of a run that was trained elsewhere.
            "validation_overlap": None,
            "seconds": {"training": None, "measurement": last.get("seconds")},
        }
    )


def _progress(folder: RunFolder) -> dict[str, Any]:
    file = folder.path / "progress.json"
    return read_json(file) if file.exists() else {}


def _loss(sheet: MeasurementRows) -> float | None:
    return next((row["value"] for row in sheet.rows if row["quantity"] == "val_loss"), None)


def fingerprint(files: Sequence[Path]) -> str:
    """Return the SHA-256 (hex) of the contents of files, in their order."""
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _bytes(path: Path) -> int:
    """Return the size of a checkpoint: a file, or all files in a folder."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(p.stat().st_size for p in files)
