"""One folder a run. What a reader may rely on:

    run.json             configuration, written first: of a toy run, or with "kind": "text" of a language model's
    provenance.json      versions, device, command, git state
    rows.parquet         every measured number, one a row (see `sims.runs.layout.ROWS`)
    spectra.parquet      every spectrum, one a row (see `sims.runs.layout.SPECTRA`)
    checkpoints/         step-<step>.safetensors, weights alone with the configuration, for measuring again
    done.json            why and where the run ended, written last: a folder with it is complete
    failed.json          error and traceback of a run that could not go on; deleted when it is tried again

While a run goes on, rows and spectra stand in parts/, the state to go on from in state.safetensors, and where it
stands in progress.json. Parts of later steps than the state's are what an interrupted run did not get to keep;
resuming drops them. A long measurement keeps what it has gathered in partial-<rank>-of-<ranks>.safetensors.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sims.runs.identity import differences, identity, read_identity
from sims.runs.kinds import run_spec
from sims.runs.layout import FORMAT, TABLES, TEXT, TOY, WRITER, read_table
from sims.runs.measure_config import MeasureConfig, measure_config
from sims.runs.spec import RunSpec
from sims.runs.tables import frame
from sims.system.errors import StoreError
from sims.system.files import make_folder, read_json, remove_leftovers, write_atomic, write_json
from sims.system.process_group import ProcessGroup
from toymodel.config import RunConfig, canonical_hash, canonical_json, run_config
from toymodel.errors import CheckpointError

# A worker that is told to stop, or dies, lets go of its run well within this time.
LOCK_SECONDS = 60.0


@dataclass(frozen=True)
class State:
    """Where an interrupted run goes on: its step, its tensors, and the seconds it has cost by part."""

    step: int
    tensors: dict[str, Tensor]
    seconds: dict[str, float]


class RunFolder:
    """The folder of one run, opened for writing or reading.

    Args:
        path: the run's own folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def done(self) -> bool:
        """Whether the run is complete."""
        return (self.path / "done.json").exists()

    @property
    def failed(self) -> bool:
        """Whether the run could not go on, and has not been tried again."""
        return (self.path / "failed.json").exists()

    @property
    def outcome(self) -> dict[str, Any]:
        """What done.json says: ended, step, tokens, val_loss, seconds by part."""
        return read_json(self.path / "done.json")

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions, device, command and git state of the run."""
        return read_json(self.path / "provenance.json")

    def start(self, config: RunSpec, measure: Any, origin: Mapping[str, Any]) -> None:
        """Claim the folder for this configuration, or check that it is already its own.

        Args:
            config: what the run is.
            measure: a dataclass of what is measured of it.
            origin: its provenance.

        Raises:
            StoreError: the folder holds a run of another configuration, or cannot be written.
        """
        known = self.check(config, measure)
        if self.done:
            self.tidy()
            return
        make_folder(self.path / "parts")
        make_folder(self.path / "checkpoints")
        if not known:
            write_json(self.path / "provenance.json", dict(origin))
            write_json(self.path / "run.json", identity(config, measure))

    def check(self, config: RunSpec, measure: Any) -> bool:
        """Return whether the folder holds this very run; False when it holds none yet.

        A complete run of an older readable format counts as this run.

        Raises:
            StoreError: it holds a run of another configuration or of a format that is not readable, or an incomplete
                run of an older format.
        """
        file = self.path / "run.json"
        if not file.exists():
            return False
        wanted, found = identity(config, measure), read_identity(file)
        version, found["format"] = found["format"], FORMAT
        if found != wanted:
            raise StoreError(
                f"{self.path} holds a run of another configuration ({differences(found, wanted)}); "
                "choose another --out, or delete that folder"
            )
        if version != FORMAT and not self.done:
            raise StoreError(
                f"{self.path} holds an incomplete run of format {version}, and this version continues runs of format "
                f"{FORMAT} only; complete it with the version named in its provenance.json, or delete that folder to "
                "train it anew"
            )
        return True

    def _remove_leftovers(self) -> None:
        for folder in (self.path, self.path / "checkpoints"):
            remove_leftovers(folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run, so that no two workers write to it; the system lets go when the process ends.

        Raises:
            StoreError: another process still holds it after `LOCK_SECONDS`.
        """
        patience = time.monotonic() + LOCK_SECONDS
        with open(self.path / ".lock", "a") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError as error:
                    if time.monotonic() > patience:
                        raise StoreError(
                            f"another process is still working in {self.path}; wait for it or stop it, then run the "
                            "same command again"
                        ) from error
                    time.sleep(0.2)
            # What is there now was left by a writer that is gone.
            self._remove_leftovers()
            yield

    def fail(self, reason: str, details: str) -> None:
        """Record why the run cannot go on; what it has stored stays."""
        write_json(self.path / "failed.json", {"error": reason, "traceback": details})

    def retry(self) -> None:
        """Forget a recorded failure."""
        (self.path / "failed.json").unlink(missing_ok=True)

    def identity(self) -> dict[str, Any]:
        """Return the content of run.json in plain values: format, kind (absent for the toy), train, measure.

        Raises:
            StoreError: not a run folder, or one of a format that is not readable.
        """
        return read_identity(self.path / "run.json")

    @property
    def spec(self) -> RunSpec:
        """The run of this folder, of whatever kind.

        Raises:
            StoreError: not a run folder, or one of a format that is not readable.
            ConfigError: fields of another version.
        """
        data = self.identity()
        return run_spec(data.get("kind", TOY), data["train"])

    def configs(self) -> tuple[RunConfig, MeasureConfig]:
        """The configuration that a toy run was made with.

        Raises:
            StoreError: as `identity`, or a run of a language model.
        """
        data = self.identity()
        if data.get("kind") == TEXT:
            raise StoreError(
                f"{self.path} holds a run of a language model, and this is for toy runs; `speclens bridge compare` "
                "reads both"
            )
        return run_config(data["train"]), measure_config(data["measure"])

    def keep_part(
        self, step: int, rows: Sequence[Mapping[str, Any]], spectra: Sequence[Mapping[str, Any]]
    ) -> None:
        """Store what was measured up to this step since the last part."""
        for name, records in (("rows", rows), ("spectra", spectra)):
            if records:
                write_records(self.path / "parts", name, records, suffix=f"-{step:09d}")

    def keep_state(
        self,
        config: RunSpec,
        step: int,
        state: Mapping[str, Tensor],
        seconds: Mapping[str, float],
        upto: int | None = None,
    ) -> None:
        """Store all that the run needs to go on from this step.

        Args:
            config, step: what the run is, and where it stands.
            state: by name.
            seconds: what it has cost so far, by part.
            upto: the last step of which parts belong to the state; later ones are found again. By default this step.
        """
        more = {"seconds": json.dumps(dict(seconds)), "upto": str(step if upto is None else upto)}
        _write_tensors(self.path / "state.safetensors", config, step, state, **more)

    def resume(self, config: RunSpec) -> State | None:
        """What to go on from, with everything later dropped; None to start over."""
        file = self.path / "state.safetensors"
        state, upto = None, -1
        if file.exists():
            metadata, tensors = _read_tensors(file, config)
            state = State(int(metadata["step"]), tensors, json.loads(metadata.get("seconds", "{}")))
            upto = int(metadata.get("upto", state.step))
        for part in (self.path / "parts").glob("*.parquet"):
            if int(part.stem.rsplit("-", 1)[1]) > upto:
                part.unlink()
        return state

    def keep_partial(self, config: RunSpec, step: int, part: str, state: Mapping[str, Tensor]) -> None:
        """Store what a measurement at this step has gathered so far.

        Args:
            part: whose: "0-of-1" for rank 0 of one.
        """
        _write_tensors(self.path / f"partial-{part}.safetensors", config, step, state)

    def partial(self, config: RunSpec, step: int, part: str) -> dict[str, Tensor]:
        """What `keep_partial` stored of this step; empty where nothing was."""
        file = self.path / f"partial-{part}.safetensors"
        if not file.exists():
            return {}
        metadata, tensors = _read_tensors(file, config)
        return tensors if int(metadata["step"]) == step else {}

    def parts(self) -> list[int]:
        """The steps up to which parts are stored, ascending: those with spectra, which are written last."""
        return sorted(int(p.stem.rsplit("-", 1)[1]) for p in (self.path / "parts").glob("spectra-*.parquet"))

    def keep_checkpoint(self, config: RunSpec, step: int, weights: Mapping[str, Tensor]) -> None:
        """Store the weights of this step for measuring again."""
        _write_tensors(self.path / "checkpoints" / f"step-{step:09d}.safetensors", config, step, weights)

    def checkpoints(self) -> list[Path]:
        """Files of stored weights, in the order of steps."""
        return sorted((self.path / "checkpoints").glob("step-*.safetensors"))

    def finish(self, outcome: Mapping[str, Any]) -> None:
        """Join the parts, mark the run complete, and drop what only a running run needs."""
        for name, schema in TABLES.items():
            parts = [read_table(p) for p in sorted((self.path / "parts").glob(f"{name}-*.parquet"))]
            _write_table(
                self.path / f"{name}.parquet", pa.concat_tables(parts) if parts else schema.empty_table()
            )
        write_json(self.path / "done.json", dict(outcome))
        self.tidy()

    def tidy(self) -> None:
        """Drop what only a running run needs; also what a worker that died just after the marker did not get to."""
        self.retry()
        for state in (self.path / "state.safetensors", *self.path.glob("partial-*.safetensors")):
            state.unlink(missing_ok=True)
        shutil.rmtree(self.path / "parts", ignore_errors=True)
        self._remove_leftovers()

    def rows(self) -> pd.DataFrame:
        """Return every measured number of a complete run (columns of `ROWS`)."""
        return self._table("rows")

    def spectra(self) -> pd.DataFrame:
        """Return every spectrum of a complete run (columns of `SPECTRA`)."""
        return self._table("spectra")

    def _table(self, name: str) -> pd.DataFrame:
        if not self.done:
            raise StoreError(f"{self.path} is not complete; run the command that made it again to finish it")
        return frame(read_table(self.path / f"{name}.parquet"))


@dataclass(frozen=True)
class MeasurementCheckpoint:
    """Keeps what one rank has gathered of one measurement (a `sims.measure.lm.Keeper`).

    Args:
        folder: of the run.
        config: what the run is.
        step: of the model that is measured.
        ranks: this process among those that share the work.
    """

    folder: RunFolder
    config: RunSpec
    step: int
    ranks: ProcessGroup

    @property
    def _part(self) -> str:
        return f"{self.ranks.rank}-of-{self.ranks.size}"

    def load(self) -> dict[str, Tensor]:
        """What was kept last of this step; empty where nothing was."""
        return self.folder.partial(self.config, self.step, self._part)

    def keep(self, state: Mapping[str, Tensor]) -> None:
        """Replace what was kept."""
        self.folder.keep_partial(self.config, self.step, self._part, state)


def write_records(folder: Path, name: str, records: Sequence[Mapping[str, Any]], suffix: str = "") -> None:
    """Write "rows" or "spectra" records to `folder`/<name><suffix>.parquet."""
    table = pa.Table.from_pylist([dict(r) for r in records], schema=TABLES[name])
    _write_table(folder / f"{name}{suffix}.parquet", table)


def run_folders(out: Path) -> list[RunFolder]:
    """The run folders directly below a folder, by name."""
    return [RunFolder(file.parent) for file in sorted(out.glob("*/run.json"))]


def load_tensors(path: Path, config: RunSpec) -> tuple[int, dict[str, Tensor]]:
    """Step and tensors of a checkpoint of this configuration.

    Raises:
        CheckpointError: truncated, damaged, foreign, or of another configuration.
    """
    metadata, tensors = _read_tensors(path, config)
    return int(metadata["step"]), tensors


def _read_tensors(path: Path, config: RunSpec) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); it is truncated or damaged: delete it and run the same command again "
            "(a sweep also needs --retry-failed)"
        ) from error
    if metadata.get("writer") != WRITER:
        raise CheckpointError(
            f"{path} was not written by this package; toy checkpoints carry their configuration"
        )
    if metadata["config"] != canonical_hash(config):
        raise CheckpointError(
            f"{path} belongs to another configuration ({metadata['run_id']}, expected {config.run_id})"
        )
    return metadata, tensors


def _write_tensors(
    path: Path, config: RunSpec, step: int, tensors: Mapping[str, Tensor], **more: str
) -> None:
    metadata = {
        "writer": WRITER,
        "step": str(step),
        "run_id": config.run_id,
        "config": canonical_hash(config),
        "kind": TOY if isinstance(config, RunConfig) else TEXT,
        "train": canonical_json(config),
        **more,
    }
    data = save({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, metadata)
    write_atomic(path, lambda file: file.write(data))


def _write_table(path: Path, table: pa.Table) -> None:
    write_atomic(path, lambda file: pq.write_table(table, file, compression="zstd"))
