"""One folder a run. What a reader may rely on:

    run.json             configuration, written first
    provenance.json      versions, device, command, git state
    rows.parquet         every measured number, one a row (see `ROWS`)
    spectra.parquet      every spectrum, one a row (see `SPECTRA`)
    checkpoints/         step-<step>.safetensors, weights alone, for measuring again
    done.json            why and where the run ended, written last: a folder with it is complete

While a run goes on, rows and spectra stand in parts/ and the state to go on from in state.safetensors. Parts of
later steps than the state's are what an interrupted run did not get to keep; resuming drops them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sims.config import MeasureConfig, measure_config
from sims.errors import StoreError
from sims.files import make_folder, read_json, remove_leftovers, write_atomic, write_json
from toymodel.config import RunConfig, as_dict, canonical_hash, run_config
from toymodel.errors import CheckpointError

FORMAT = 1

ROWS = pa.schema(
    [
        ("step", pa.int64()),
        ("tokens", pa.int64()),
        ("quantity", pa.string()),  # what was measured: val_loss, rankme, alpha, h_s, …
        ("object", pa.string()),  # of what: loss, activation, gradient, weight, probe
        ("site", pa.string()),  # where: final, blocks.1.attn.o, embed, …
        ("detail", pa.string()),  # which: window 10-40, band 31:20 clean, …
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("null", pa.float64()),  # what chance alone gives
        ("null_high", pa.float64()),  # its 97.5 % quantile, where known
        ("status", pa.string()),  # ok, flagged, not fitted
        ("reason", pa.string()),
    ]
)
SPECTRA = pa.schema(
    [
        ("step", pa.int64()),
        ("tokens", pa.int64()),
        ("object", pa.string()),
        ("site", pa.string()),
        ("kind", pa.string()),  # eigenvalue or singular
        ("n", pa.int64()),
        ("d", pa.int64()),
        ("centred", pa.bool_()),
        ("values", pa.list_(pa.float64())),
    ]
)
_TABLES = {"rows": ROWS, "spectra": SPECTRA}


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
    def outcome(self) -> dict[str, Any]:
        """What done.json says: ended, step, tokens, val_loss, seconds by part."""
        return read_json(self.path / "done.json")

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions, device, command and git state of the run."""
        return read_json(self.path / "provenance.json")

    def start(self, config: RunConfig, measure: MeasureConfig, origin: Mapping[str, Any]) -> None:
        """Claim the folder for this configuration, or check that it is already its own.

        Raises:
            StoreError: the folder holds a run of another configuration, or cannot be written.
        """
        make_folder(self.path / "parts")
        make_folder(self.path / "checkpoints")
        remove_leftovers(self.path)
        wanted = {"format": FORMAT, "train": as_dict(config), "measure": as_dict(measure)}
        file = self.path / "run.json"
        if file.exists():
            found = read_json(file)
            if found != wanted:
                raise StoreError(
                    f"{self.path} holds a run of another configuration ({_differences(found, wanted)}); "
                    "choose another --out, or delete that folder"
                )
            return
        write_json(self.path / "provenance.json", dict(origin))
        write_json(file, wanted)

    def configs(self) -> tuple[RunConfig, MeasureConfig]:
        """The configuration the run was made with.

        Raises:
            StoreError: not a run folder, or one of another format.
        """
        data = read_json(self.path / "run.json")
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise StoreError(
                f"{self.path}/run.json has format {data.get('format') if isinstance(data, dict) else None!r}, this "
                f"version reads {FORMAT}; read it with the version named in its provenance.json"
            )
        return run_config(data["train"]), measure_config(data["measure"])

    def keep_part(
        self, step: int, rows: Sequence[Mapping[str, Any]], spectra: Sequence[Mapping[str, Any]]
    ) -> None:
        """Store what was measured up to this step since the last part."""
        for name, records in (("rows", rows), ("spectra", spectra)):
            if records:
                write_records(self.path / "parts", name, records, suffix=f"-{step:09d}")

    def keep_state(self, config: RunConfig, step: int, state: Mapping[str, Tensor]) -> None:
        """Store all that the run needs to go on from this step."""
        _write_tensors(self.path / "state.safetensors", config, step, state)

    def resume(self, config: RunConfig) -> tuple[int, dict[str, Tensor]] | None:
        """Step and state to go on from, with everything later dropped; None to start over."""
        file = self.path / "state.safetensors"
        step, state = load_tensors(file, config) if file.exists() else (-1, None)
        for part in (self.path / "parts").glob("*.parquet"):
            if int(part.stem.rsplit("-", 1)[1]) > step:
                part.unlink()
        return None if state is None else (step, state)

    def keep_checkpoint(self, config: RunConfig, step: int, weights: Mapping[str, Tensor]) -> None:
        """Store the weights of this step for measuring again."""
        _write_tensors(self.path / "checkpoints" / f"step-{step:09d}.safetensors", config, step, weights)

    def checkpoints(self) -> list[Path]:
        """Files of stored weights, in the order of steps."""
        return sorted((self.path / "checkpoints").glob("step-*.safetensors"))

    def finish(self, outcome: Mapping[str, Any]) -> None:
        """Join the parts, mark the run complete, and drop what only a running run needs."""
        for name, schema in _TABLES.items():
            parts = [_read_table(p) for p in sorted((self.path / "parts").glob(f"{name}-*.parquet"))]
            _write_table(
                self.path / f"{name}.parquet", pa.concat_tables(parts) if parts else schema.empty_table()
            )
        write_json(self.path / "done.json", dict(outcome))
        (self.path / "state.safetensors").unlink(missing_ok=True)
        shutil.rmtree(self.path / "parts", ignore_errors=True)

    def rows(self) -> pd.DataFrame:
        """Every measured number of a complete run."""
        return self._table("rows")

    def spectra(self) -> pd.DataFrame:
        """Every spectrum of a complete run."""
        return self._table("spectra")

    def _table(self, name: str) -> pd.DataFrame:
        if not self.done:
            raise StoreError(f"{self.path} is not complete; run the command that made it again to finish it")
        return _read_table(self.path / f"{name}.parquet").to_pandas()


def write_records(folder: Path, name: str, records: Sequence[Mapping[str, Any]], suffix: str = "") -> None:
    """Write "rows" or "spectra" records to `folder`/<name><suffix>.parquet."""
    table = pa.Table.from_pylist([dict(r) for r in records], schema=_TABLES[name])
    _write_table(folder / f"{name}{suffix}.parquet", table)


def run_folders(out: Path) -> list[RunFolder]:
    """The run folders directly below a folder, by name."""
    return [RunFolder(file.parent) for file in sorted(out.glob("*/run.json"))]


def load_tensors(path: Path, config: RunConfig) -> tuple[int, dict[str, Tensor]]:
    """Step and tensors of a checkpoint or state file of this configuration.

    Raises:
        CheckpointError: truncated, damaged, foreign, or of another configuration.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); it is truncated or damaged: delete it and run the same command again"
        ) from error
    if metadata.get("writer") != "spectral-lens":
        raise CheckpointError(
            f"{path} was not written by this package; toy checkpoints carry their configuration"
        )
    if metadata["config"] != canonical_hash(config):
        raise CheckpointError(
            f"{path} belongs to another configuration ({metadata['run_id']}, expected {config.run_id})"
        )
    return int(metadata["step"]), tensors


def _write_tensors(path: Path, config: RunConfig, step: int, tensors: Mapping[str, Tensor]) -> None:
    metadata = {
        "writer": "spectral-lens",
        "step": str(step),
        "run_id": config.run_id,
        "config": canonical_hash(config),
    }
    data = save({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, metadata)
    write_atomic(path, lambda file: file.write(data))


def _write_table(path: Path, table: pa.Table) -> None:
    write_atomic(path, lambda file: pq.write_table(table, file, compression="zstd"))


def _read_table(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(
            f"{path} cannot be read ({error}); it is damaged: delete the run folder and run again"
        ) from error


def _differences(found: Any, wanted: Any) -> str:
    flat_found, flat_wanted = _flatten(found), _flatten(wanted)
    names = [n for n in {**flat_found, **flat_wanted} if flat_found.get(n) != flat_wanted.get(n)]
    shown = [f"{n} is {flat_found.get(n)!r} there, {flat_wanted.get(n)!r} here" for n in names[:3]]
    return "; ".join(shown + ([f"{len(names) - 3} more"] if len(names) > 3 else []))


def _flatten(data: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(data, dict):
        return {prefix: data}
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat.update(_flatten(value, f"{prefix}.{key}" if prefix else key))
    return flat
