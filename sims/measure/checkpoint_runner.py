"""Measure the checkpoints of a language-model run, one after the other, into a run folder."""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sims.measure.added import has_more, take_up, warn_of_replaced
from sims.measure.diverged import diverged_rows, diverged_sheet
from sims.measure.engine import KEEP_SECONDS, measure
from sims.measure.lm import LmMeasurementData, depth
from sims.measure.registry import check_stored, measured_versions
from sims.models.checkpoints import CheckpointRun
from sims.models.run_network import BIAS
from sims.models.subject import Subject
from sims.models.weights import digests, shared_weights
from sims.runs.layout import read_table
from sims.runs.lm_measure_config import LmRun, RunMetadata
from sims.runs.measurement_checkpoint import MeasurementCheckpoint
from sims.runs.store import RunFolder
from sims.system.errors import MeasureError
from sims.system.files import make_folder, read_object, write_json
from sims.system.hashing import sha256_of_all
from sims.system.process_group import ProcessGroup
from sims.system.provenance import provenance
from spectra.errors import InputError, NotFiniteError

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
    bias = {BIAS: True} if known.get(BIAS) else {}
    return LmRun(
        name=labels.name or _name(run),
        stage=labels.stage or known.get("stage") or found.kind,
        batch_size=labels.batch_size or known.get("batch_size") or max(1, round(tokens_per_step / length)),
        lr=labels.lr or known.get("lr"),
        seed=next((s for s in (labels.seed, known.get("seed")) if s is not None), 0),
        steps=run.steps[-1],
        tokens_per_step=tokens_per_step,
        model={"kind": found.kind, **sizes, **bias},
        checkpoints=tuple((f.step or 0, f.path.name, _bytes(f.path)) for f in run.found),
        data=fingerprint(shards),
    )


def _name(run: CheckpointRun) -> str:
    """Return the default name of a run: that of its folder or model, or of its file where that is more specific."""
    path = run.found[-1].path.resolve()
    if path.parent.name == "snapshots":
        # In the cache of Hugging Face: models--org--name/snapshots/<commit>.
        path = path.parent.parent
    elif path.parent.name == "checkpoints":
        path = path.parent.parent
    elif run.folder is not None:
        path = run.folder.resolve()
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
    over the tokens. A folder of this run with fewer of its checkpoints is taken up again. A checkpoint with weights or
    states that are not finite gets one row, with the status "diverged" and the tensor; what is odd about the run as a
    whole (such steps, steps with the same weights) is under "notes" in done.json.

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
            if not has_more(folder, identity, data.config):
                folder.check(identity, data.config)
            make_folder(folder.path)
            stack.enter_context(folder.locked())
            warn_of_replaced(folder, run)
            if has_more(folder, identity, data.config):
                take_up(folder, identity, data.config)
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

    # Of the file as it was read, and not after hours of measuring.
    digest = sha256_of_all(run.found[k].path) if ranks.first else ""
    diverged = diverged_rows(subject, data)
    try:
        sheet = diverged or measure(
            subject, data, progress=progress, ranks=ranks, keeper=keeper, keep_seconds=keep_seconds
        )
    except (MeasureError, InputError) as error:
        # A process that left would leave the others waiting.
        if isinstance(error, NotFiniteError) and ranks.size == 1:
            sheet = diverged = diverged_sheet(subject, str(error))
        else:
            raise MeasureError(f"step {step} ({run.found[k].path}): {error}") from error
    if not ranks.first:
        return
    tokens = step * identity.tokens_per_step if subject.tokens is None else subject.tokens
    rows, spectra = ([{**r, "tokens": tokens} for r in records] for records in (sheet.rows, sheet.spectra))
    folder.keep_part(step, rows, spectra)
    before = _progress(folder)
    record = {"step": step, "steps": identity.steps, "val_loss": _loss(rows), "ended": None}
    record["seconds"] = before.get("seconds", 0.0) + time.perf_counter() - began
    record["weights"] = {**before.get("weights", {}), str(step): digests(subject)}
    record["files"] = {**before.get("files", {}), str(step): digest}
    record["diverged"] = {
        **before.get("diverged", {}),
        **({str(step): diverged.rows[0]["reason"]} if diverged else {}),
    }
    write_json(folder.path / "progress.json", record)


def _finish(folder: RunFolder, run: CheckpointRun, identity: LmRun) -> None:
    last = _progress(folder)
    found = run.found[-1]
    diverged = {int(step): why for step, why in last.get("diverged", {}).items()}
    weights = {int(step): own for step, own in last.get("weights", {}).items()}
    notes = [*diverged.values(), *shared_weights(dict(sorted(weights.items())))]
    reason = diverged.get(run.steps[-1])
    folder.finish(
        {
            "ended": "finished" if reason is None else "diverged",
            **({} if reason is None else {"reason": reason}),
            **({"notes": "; ".join(notes)} if notes else {}),
            "step": run.steps[-1],
            "tokens": run.steps[-1] * identity.tokens_per_step if found.tokens is None else found.tokens,
            "val_loss": _stored_loss(folder, run.steps[-1]),
            # Not known of a run that was trained elsewhere.
            "validation_overlap": None,
            "seconds": {"training": None, "measurement": last.get("seconds")},
        }
    )


def _progress(folder: RunFolder) -> dict[str, Any]:
    file = folder.path / "progress.json"
    return read_object(file) if file.exists() else {}


def _loss(rows: Sequence[Mapping[str, Any]]) -> float | None:
    value = next((row["value"] for row in rows if row["quantity"] == "val_loss"), None)
    return value if value is not None and math.isfinite(value) else None


def _stored_loss(folder: RunFolder, step: int) -> float | None:
    return _loss(read_table(folder.path / "parts" / f"rows-{step:09d}.parquet").to_pylist())


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
