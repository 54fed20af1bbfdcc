"""A small store of finished runs: run folders without checkpoints, with the rows and spectra that a page needs.

A kept run is a run folder like any other, which every command reads. Its numbers are rounded to float32 (losses, and
numbers outside its range, stay as they are), and done.json says under "kept" what was left out. What is refused: a
damaged run, and one whose measurements have other versions than those of the code.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sims.runs.config_file import CONFIG
from sims.runs.digests import SEALED, complete_table, files_of, read_outcome, read_sealed, sealed, sha256
from sims.runs.store import RunFolder, run_folders
from sims.system.errors import StoreError
from sims.system.files import make_folder, write_atomic, write_json

# All tables of a store together: it is to be kept in git.
MOST_BYTES = 20_000_000
# What made a run; the machine's own names are of no use to others.
ORIGIN = ("command", "started", "versions", "python", "git", "device", "device_name", "cores", "threads")
# Last what marks a run as complete.
COPIED = ("run.json", CONFIG, "provenance.json", "rows.parquet", "spectra.parquet", "done.json")
LEVEL = 19
NUMBERS = ("value", "low", "high", "null", "null_high")


@dataclass(frozen=True)
class Keep:
    """Say which objects of a run are kept.

    Attributes:
        rows: objects whose rows are kept, such as "loss".
        spectra: objects whose spectra are kept.
    """

    rows: tuple[str, ...]
    spectra: tuple[str, ...]

    def __str__(self) -> str:
        spectra = ", ".join(self.spectra) or "nothing"
        return f"rows of {', '.join(self.rows)}; spectra of {spectra}; float32 but for losses"


def pack(run: RunFolder, store: Path, keep: Keep, room: int = MOST_BYTES) -> int:
    """Add a complete run to a store.

    Args:
        run: its folder.
        store: folder of the kept runs.
        keep: what is kept of it.
        room: bytes that the tables of the run may have.

    Returns:
        The bytes of its tables; 0 where they have no room, and nothing was added.

    Raises:
        StoreError: the run is not complete or damaged, the store cannot be written, or another process is adding the
            same run.
    """
    tables = {
        "rows": _rows(complete_table(run.path, "rows"), keep.rows),
        "spectra": _spectra(complete_table(run.path, "spectra"), keep.spectra),
    }
    data = {f"{name}.parquet": _parquet(table) for name, table in tables.items()}
    size = sum(map(len, data.values()))
    if size > room:
        return 0
    before = {f"{name}.parquet": sha256(read_sealed(run.path, f"{name}.parquet")) for name in tables}
    to = make_folder(store / run.path.name)
    kept = RunFolder(to)
    with kept.locked():
        for name in COPIED[:2]:
            _copy(run.path / name, to / name)
        write_json(to / "provenance.json", {k: v for k, v in run.provenance.items() if k in ORIGIN})
        for name, content in data.items():
            write_atomic(to / name, lambda file, content=content: file.write(content))
        facts = {"kept": str(keep), "kept_from": json.dumps(before)}
        write_json(to / "done.json", sealed(to, {**run.outcome, **facts}))
        # The store is for git.
        (to / ".lock").unlink(missing_ok=True)
    return size


def restore(store: Path, out: Path, names: Iterable[str]) -> list[str]:
    """Copy kept runs into a folder of runs, so that they are not trained again.

    Args:
        store: folder of the kept runs.
        out: folder of the runs.
        names: ids of the runs that are wanted.

    Returns:
        The ids of those that were copied: kept here and not complete there.

    Raises:
        StoreError: a file cannot be read or written, or another process is working in a run.
    """
    copied = []
    for name in names:
        kept, run = RunFolder(store / name), RunFolder(out / name)
        if not kept.done or run.done:
            continue
        make_folder(run.path)
        with run.locked():
            # Another worker may have ended it meanwhile.
            if run.done:
                continue
            for file in COPIED:
                _copy(kept.path / file, run.path / file)
            run.tidy()
        copied.append(name)
    return copied


def check_store(store: Path, versions: Mapping[str, int]) -> dict[str, int]:
    """Read every file of a store.

    Args:
        store: folder of the kept runs; one that does not exist is empty.
        versions: version of each measurement that this code takes, by name.

    Returns:
        The bytes of the tables of each run, by its id. Folders without done.json do not count: adding their run was
        interrupted, and adding it again writes them anew.

    Raises:
        StoreError: a run is damaged or has no digests, or its measurements have other versions.
    """
    found = {}
    for run in run_folders(store) if store.exists() else []:
        if not run.done:
            continue
        if set(files_of(read_outcome(run.path))) != set(SEALED):
            raise StoreError(
                f"{run.path} has no digests of its files, so that damage would not be found; add it again"
            )
        _check_versions(run, versions)
        tables = [read_sealed(run.path, name) for name in SEALED if name != "run.json"]
        found[run.path.name] = sum(map(len, tables))
    return found


def _check_versions(run: RunFolder, versions: Mapping[str, int]) -> None:
    known = run.identity().get("measured", {})
    other = [name for name in {**known, **versions} if known.get(name) != versions.get(name)]
    if other:
        raise StoreError(
            f"{run.path} was measured with another version of {other[0]!r} (there {known.get(other[0], 'none')}, here "
            f"{versions.get(other[0], 'none')}), and new runs would not compare with it; take the code that its "
            "provenance.json names, or name a new folder"
        )


def _rows(table: pa.Table, objects: Sequence[str]) -> pa.Table:
    table = _of(table, objects)
    exact = np.asarray(table["object"].to_pylist()) == "loss"
    for name in NUMBERS:
        values = table[name].to_pandas().to_numpy(float)
        rounded = np.where(exact, values, _rounded(values))
        place, column = table.schema.get_field_index(name), pa.array(rounded, pa.float64(), from_pandas=True)
        table = table.set_column(place, table.schema.field(name), column)
    return table


def _rounded(values: np.ndarray) -> np.ndarray:
    """Return numbers rounded to float32; those outside its range, which would be Inf or 0, as they are."""
    with np.errstate(over="ignore"):
        single = values.astype(np.float32).astype(float)
    return np.where(np.isfinite(single) & (np.abs(single) >= np.finfo(np.float32).tiny), single, values)


def _spectra(table: pa.Table, objects: Sequence[str]) -> pa.Table:
    table = _of(table, objects)
    values = [_rounded(np.asarray(v, float)) for v in table["values"].to_pylist()]
    field = table.schema.field("values")
    return table.set_column(table.schema.get_field_index("values"), field, pa.array(values, field.type))


def _of(table: pa.Table, objects: Sequence[str]) -> pa.Table:
    """Return the rows of some objects."""
    return table.filter(pa.array([name in objects for name in table["object"].to_pylist()], pa.bool_()))


def _parquet(table: pa.Table) -> bytes:
    """Return a table as Parquet; bytes of one weight lie together, so that the zeros of float32 take no room."""
    split = {name: "BYTE_STREAM_SPLIT" for name in NUMBERS if name in table.column_names}
    if "values" in table.column_names:
        split = {"values.list.element": "BYTE_STREAM_SPLIT"}
    plain = [name for name in table.column_names if name not in split and name != "values"]
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=LEVEL,
        write_page_checksum=True,
        use_dictionary=plain,  # pyright: ignore[reportArgumentType]
        column_encoding=split,
    )
    return sink.getvalue().to_pybytes()


def _copy(source: Path, to: Path) -> None:
    try:
        content = source.read_bytes()
    except OSError as error:
        if source.name == CONFIG and isinstance(error, FileNotFoundError):
            # For people; it may have been deleted, and runs of earlier versions have none.
            return
        raise StoreError(f"cannot read {source}: {error.strerror}; restore it from a copy") from error
    write_atomic(to, lambda file: file.write(content))
