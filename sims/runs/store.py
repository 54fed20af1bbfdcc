"""Store each run in one folder. Readers may rely on these files:

    run.json             configuration, written first; a run of a language model has "kind": "text"
    config.yaml          the same for people, as options that `--config` reads again (`sims.runs.config_file`)
    provenance.json      versions, device, command, git state
    rows.parquet         every measured number, one per row (see `sims.runs.layout.ROWS`)
    spectra.parquet      every spectrum, one per row (see `sims.runs.layout.SPECTRA`)
    checkpoints/         step-<step>.safetensors: weights and configuration, for measuring again
    measured/            what studies have measured of the checkpoints (`sims.measure.cache`); may be deleted
    done.json            why and where the run ended, and digests of run.json and the tables (`sims.runs.digests`);
                         written last: a folder with it is complete
    failed.json          error and traceback of a failed run; deleted when it is tried again

While a run is incomplete, parts/ holds its rows and spectra, state.safetensors the state to continue from, and
progress.json its position. Parts may be later than the state when a run was interrupted; resuming deletes them. A long
measurement stores intermediate results in partial-<rank>-of-<ranks>.safetensors.
"""

from __future__ import annotations

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
from torch import Tensor

from sims.runs.config_file import write_config
from sims.runs.digests import FILES, OWN, complete_table, read_outcome, read_sealed, sealed
from sims.runs.identity import check_identity, differences, identity
from sims.runs.kinds import run_spec
from sims.runs.layout import FORMAT, MEASURED, TABLES, TEXT, TOY, read_table
from sims.runs.measure_config import MeasureConfig, measure_config
from sims.runs.spec import RunSpec
from sims.runs.tables import frame
from sims.runs.tensors import read_tensors, write_tensors
from sims.system.errors import StoreError
from sims.system.files import (
    make_folder,
    need_folder,
    read_json,
    read_object,
    remove_leftovers,
    visible,
    write_atomic,
    write_json,
)
from sims.system.locks import take_lock
from sims.system.plain import utf8
from toymodel.config import RunConfig, run_config
from toymodel.errors import CheckpointError

# Longer than a worker that was asked to stop, or was killed, takes to release its run.
LOCK_SECONDS = 60.0


@dataclass(frozen=True)
class State:
    """Hold the state from which an interrupted run continues.

    Attributes:
        step: optimiser steps so far.
        tensors: parameters, optimiser state and more, by name.
        seconds: wall time so far, by part.
    """

    step: int
    tensors: dict[str, Tensor]
    seconds: dict[str, float]


class RunFolder:
    """Write or read the folder of one run.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def done(self) -> bool:
        """Return whether the run is complete."""
        return (self.path / "done.json").exists()

    @property
    def failed(self) -> bool:
        """Return whether the run failed and has not been tried again."""
        return (self.path / "failed.json").exists()

    @property
    def outcome(self) -> dict[str, Any]:
        """Return the content of done.json.

        Its keys are ended, step, tokens, val_loss, and seconds by part.

        Raises:
            StoreError: missing or damaged.
        """
        record = read_outcome(self.path)
        return {key: value for key, value in record.items() if key not in (FILES, OWN)}

    @property
    def provenance(self) -> dict[str, Any]:
        """Return versions, device, command and git state of the run."""
        return read_object(self.path / "provenance.json")

    def start(
        self,
        config: RunSpec,
        measure: Any,
        origin: Mapping[str, Any],
        versions: Mapping[str, int] | None = None,
    ) -> None:
        """Create the folder for this configuration, or check an existing one.

        Args:
            config: the run.
            measure: a dataclass of its measurements.
            origin: its provenance.
            versions: version of each of its measurements by name, which run.json records.

        Raises:
            StoreError: the folder holds a run of another configuration, or one begun with other versions of its
                measurements, or cannot be written.
        """
        known = self.check(config, measure)
        if self.done:
            self.tidy()
            return
        if known:
            self._check_versions(versions or {})
        make_folder(self.path / "parts")
        make_folder(self.path / "checkpoints")
        if not known:
            write_json(self.path / "provenance.json", dict(origin))
            write_config(self.path, config, measure)
            record = identity(config, measure)
            write_json(self.path / "run.json", {**record, "measured": dict(versions)} if versions else record)

    def _check_versions(self, versions: Mapping[str, int]) -> None:
        """Refuse to mix rows of different measurements, or of different versions of one."""
        begun = self.identity().get("measured", {})
        names = [n for n in {**begun, **versions} if begun.get(n) != versions.get(n)]
        if begun and names:
            sides = ", ".join(
                f"{where} {side.get(names[0], 'not measured')}"
                for where, side in (("there", begun), ("here", versions))
            )
            raise StoreError(
                f"{self.path} was begun with another version of the measurement {names[0]!r} ({sides}), and its rows "
                "would mix; continue it with the code it was begun with, or delete that folder to train it anew"
            )

    def check(self, config: RunSpec, measure: Any) -> bool:
        """Return whether the folder holds this run; False when it is empty.

        A complete run of an older readable format counts as this run.

        Raises:
            StoreError: it holds a run of another configuration or of a format that is not readable, an incomplete run
                of an older format, or a complete one without its run.json.
        """
        if not (self.path / "run.json").exists():
            if self.done:
                raise StoreError(
                    f"{self.path} has a done.json and no run.json, which every run has; restore it from a copy, or "
                    "delete that folder to train it anew"
                )
            return False
        wanted, found = identity(config, measure), self.identity()
        version, found["format"] = found["format"], FORMAT
        found.pop("measured", None)
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
        for folder in (self.path, self.path / "checkpoints", self.path / MEASURED):
            remove_leftovers(folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run, so that only one worker writes to it.

        The operating system releases the lock when the process ends.

        Raises:
            StoreError: another process still holds it after `LOCK_SECONDS`, or it cannot be locked.
        """
        patience = time.monotonic() + LOCK_SECONDS
        while (lock := take_lock(self.path / ".lock")) is None:
            if time.monotonic() > patience:
                raise StoreError(
                    f"another process is still working in {self.path}; wait for it or stop it, then run the same "
                    "command again"
                )
            time.sleep(0.2)
        with lock:
            # With the lock held, temporary files can only be left over from a writer that was killed.
            self._remove_leftovers()
            yield

    def fail(self, reason: str, details: str) -> None:
        """Record why the run failed; its stored results stay."""
        write_json(self.path / "failed.json", {"error": reason, "traceback": details})

    def retry(self) -> None:
        """Delete the record of a failure."""
        (self.path / "failed.json").unlink(missing_ok=True)

    def identity(self) -> dict[str, Any]:
        """Return the content of run.json in plain values: format, kind (absent for the toy), train, measure.

        Raises:
            StoreError: not a run folder, one of a format that is not readable, or of a name that no table can hold.
        """
        if utf8(self.path.name) != self.path.name:
            raise StoreError(
                f"the name of the folder {self.path} is not UTF-8; rename it, or move it elsewhere"
            )
        file = self.path / "run.json"
        found = check_identity(file, read_json(file))
        if self.done:
            read_sealed(self.path, file.name)
        return found

    @property
    def spec(self) -> RunSpec:
        """Return the run of this folder, of any kind.

        Raises:
            StoreError: not a run folder, or one of a format that is not readable.
            ConfigError: its fields are those of another version.
        """
        data = self.identity()
        return run_spec(data.get("kind", TOY), data["train"])

    def configs(self) -> tuple[RunConfig, MeasureConfig]:
        """Return the configuration of a toy run and of its measurements.

        Raises:
            StoreError: not a run folder, a format that is not readable, or a run of a language model.
        """
        data = self.identity()
        if data.get("kind") == TEXT:
            raise StoreError(
                f"{self.path} holds a run of a language model or a watched model, and this is for toy runs; `speclens "
                "measure --data SHARDS` measures checkpoints of a language model, `speclens carry-over` compares it "
                "with toy runs"
            )
        return run_config(data["train"]), measure_config(data["measure"])

    def keep_part(
        self, step: int, rows: Sequence[Mapping[str, Any]], spectra: Sequence[Mapping[str, Any]]
    ) -> None:
        """Store the rows and spectra measured since the last part.

        Args:
            step: the last step that the part contains.
            rows, spectra: records with the columns of `sims.runs.layout`.
        """
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
        """Store everything that the run needs to continue from this step.

        Args:
            config, step: the run and its position.
            state: tensors by name.
            seconds: wall time so far, by part.
            upto: last step whose parts belong to the state; later parts are measured again. By default this step.
        """
        last = step if upto is None else upto
        more = {"seconds": json.dumps(dict(seconds)), "upto": str(last), "parts": str(len(self._parts(last)))}
        write_tensors(self.path / "state.safetensors", config, step, state, **more)

    def resume(self, config: RunSpec) -> State | None:
        """Return the stored state, and delete later parts; None without one.

        Raises:
            CheckpointError: the state is damaged, of another run, or lacks a part, whose rows would be missing.
        """
        file = self.path / "state.safetensors"
        state, upto, metadata = None, -1, dict[str, str]()
        if file.exists():
            metadata, tensors = read_tensors(file, config)
            state = State(int(metadata["step"]), tensors, json.loads(metadata.get("seconds", "{}")))
            upto = int(metadata.get("upto", state.step))
        kept = self._parts(upto)
        # States of earlier versions do not say how many there were.
        if len(kept) < int(metadata.get("parts", 0)):
            raise CheckpointError(
                f"{self.path / 'parts'} has {len(kept)} of the {metadata['parts']} tables that belong to the stored "
                "state; restore them from a copy, or delete the run folder and run the same command again"
            )
        for part in set(self._parts()) - set(kept):
            part.unlink()
        return state

    def _parts(self, upto: int | None = None) -> list[Path]:
        """Return the stored tables of parts, those up to a number."""
        found = visible(self.path / "parts", "*.parquet")
        return [p for p in found if upto is None or _number(p) <= upto]

    def parts(self) -> list[int]:
        """Return the last steps of the stored parts, ascending.

        Parts without spectra are left out: spectra are written last, so their part may be incomplete.
        """
        return sorted(map(_number, (self.path / "parts").glob("spectra-*.parquet")))

    def keep_checkpoint(self, config: RunSpec, step: int, weights: Mapping[str, Tensor]) -> None:
        """Store the weights of this step, for measuring again."""
        write_tensors(self.path / "checkpoints" / f"step-{step:09d}.safetensors", config, step, weights)

    def checkpoints(self) -> list[Path]:
        """Return the files of stored weights, in the order of steps."""
        return sorted((self.path / "checkpoints").glob("step-*.safetensors"))

    def finish(self, outcome: Mapping[str, Any]) -> None:
        """Join the parts, mark the run complete, and delete temporary files."""
        for name, schema in TABLES.items():
            parts = [read_table(p) for p in sorted((self.path / "parts").glob(f"{name}-*.parquet"))]
            _write_table(
                self.path / f"{name}.parquet", pa.concat_tables(parts) if parts else schema.empty_table()
            )
        write_json(self.path / "done.json", sealed(self.path, outcome))
        self.tidy()

    def tidy(self) -> None:
        """Delete the files that only an incomplete run needs.

        A worker that was killed right after writing done.json leaves them.
        """
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
        return frame(complete_table(self.path, name))


def write_records(folder: Path, name: str, records: Sequence[Mapping[str, Any]], suffix: str = "") -> None:
    """Write "rows" or "spectra" records to `folder`/<name><suffix>.parquet."""
    table = pa.Table.from_pylist([dict(r) for r in records], schema=TABLES[name])
    _write_table(folder / f"{name}{suffix}.parquet", table)


def run_folders(out: Path | str) -> list[RunFolder]:
    """Return the run folders directly below a folder, ordered by name; hidden ones are passed over.

    Raises:
        StoreError: no such folder.
    """
    out = Path(out)
    need_folder(out, "give a folder of runs")
    return [RunFolder(file.parent) for file in visible(out, "*/run.json")]


def _number(part: Path) -> int:
    """Return the number of a part."""
    return int(part.stem.rsplit("-", 1)[1])


def _write_table(path: Path, table: pa.Table) -> None:
    write_atomic(path, lambda file: pq.write_table(table, file, compression="zstd", write_page_checksum=True))
