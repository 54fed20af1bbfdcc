"""Results of measuring stored checkpoints, kept in the folder of the run so that nothing is measured twice.

    <run>/measured/<measurement>-<key>.tables

Such a file is the SHA-256 (32 bytes) of what follows, and a Parquet file. The key is a digest of the checkpoint file,
the configuration of the run, the name, version and settings of the measurement, and the formats of this package.
Whatever changes one of them is measured again; a file that is damaged or incomplete too. The folder may be deleted at
any time.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sims.models.transformer import TransformerSubject
from sims.models.weights import faulty_weights
from sims.runs.layout import FORMAT, MEASURED
from sims.runs.store import RunFolder
from sims.runs.tensors import load_tensors
from sims.system.errors import StoreError
from sims.system.files import make_folder, write_atomic
from sims.system.hashing import sha256_of_version
from spectra.errors import NotFiniteError
from toymodel.config import RunConfig, canonical_hash

Record = dict[str, Any]
# Records by the name of their table.
Tables = dict[str, list[Record]]

CACHE_FORMAT = 2
_DIGEST_BYTES = 32
_KEY, _NAMES, _TABLE = b"key", b"tables", "table"


@dataclass(frozen=True, eq=False)
class CheckpointMeasurement:
    """Describe what a study measures of one stored checkpoint.

    Args:
        name: unique name, part of a file name.
        version: raise it by one when the numbers change.
        settings: all that the numbers depend on, apart from the checkpoint and the configuration of its run, as plain
            values, dataclasses and sequences of them.
        measure: returns the tables of one model: records of numbers and texts, without None.
    """

    name: str
    version: int
    settings: Any
    measure: Callable[[TransformerSubject], Tables]


def measured(folder: RunFolder, file: Path, config: RunConfig, what: CheckpointMeasurement) -> Tables | None:
    """Return what a measurement finds of one checkpoint, from the cache where it has been measured before.

    A checkpoint whose numbers are none is named, and gives None: the others of a study go on.

    Args:
        folder: of the run.
        file: one of its checkpoints.
        config: of the run, one of the toy.
        what: the measurement.

    Raises:
        CheckpointError: the checkpoint is damaged, or of another run.

    Warns:
        UserWarning: weights, or what is measured of them, have NaN or Inf.
    """

    def measure() -> Tables:
        step, weights = load_tensors(file, config)
        subject = TransformerSubject.of_weights(config, weights, step)
        if fault := faulty_weights(subject):
            raise NotFiniteError(fault)
        return what.measure(subject)

    source = [file_digest(file), canonical_hash(config)]
    try:
        return cached(folder.path, what.name, what.version, [*source, what.settings], measure)
    except NotFiniteError as error:
        warnings.warn(f"{file}: {error}; the run has diverged here, and this step is left out", stacklevel=2)
        return None


def cached(folder: Path, name: str, version: int, source: Any, measure: Callable[[], Tables]) -> Tables:
    """Return stored tables, or measure and store them.

    Where the folder cannot be written to, a warning says so and the tables are returned all the same.

    Args:
        folder: of the run.
        name, version: of the measurement.
        source: everything else that the result depends on, as plain values, dataclasses and sequences of them.
        measure: called where nothing is stored.
    """
    key = cache_key(name, version, source)
    path = folder / MEASURED / f"{name}-{key[:16]}.tables"
    found = _read(path, key)
    if found is not None:
        return found
    table = _to_table(measure(), key)
    try:
        make_folder(path.parent)
        write_atomic(path, lambda file: file.write(_packed(table)))
    except StoreError as error:
        warnings.warn(f"{error}; what was measured is not stored", stacklevel=2)
    return _from_table(table)


def cache_key(name: str, version: int, source: Any) -> str:
    """Return the SHA-256 (hex) by which `cached` knows a result; it changes with any of its arguments."""
    text = json.dumps([FORMAT, CACHE_FORMAT, name, version, source], sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 (hex) of a file, computed once for each of its versions."""
    status = path.stat()
    return sha256_of_version(path, status.st_size, status.st_mtime_ns)


def _read(path: Path, key: str) -> Tables | None:
    """Return the tables of a file; None where it is missing, damaged, or of another key."""
    try:
        data = path.read_bytes()
        if hashlib.sha256(data[_DIGEST_BYTES:]).digest() != data[:_DIGEST_BYTES]:
            return None
        table = pq.ParquetFile(pa.BufferReader(data[_DIGEST_BYTES:])).read()
        if (table.schema.metadata or {}).get(_KEY) != key.encode():
            return None
        return _from_table(table)
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None


def _packed(table: pa.Table) -> bytes:
    """Return a file whose every byte its digest covers: a flipped bit is found and not taken for a number."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    data = buffer.getvalue().to_pybytes()
    return hashlib.sha256(data).digest() + data


def _to_table(found: Mapping[str, Sequence[Record]], key: str) -> pa.Table:
    """Return one table of all records: column "table", and the columns of each table under its name."""
    rows = [
        {_TABLE: name, **{f"{name}.{column}": value for column, value in record.items()}}
        for name, records in found.items()
        for record in records
    ]
    # from_pylist would take only the columns of the first row.
    columns = dict.fromkeys(column for row in rows for column in row)
    table = pa.table({column: [row.get(column) for row in rows] for column in columns})
    return table.replace_schema_metadata({_KEY: key, _NAMES: json.dumps(list(found))})


def _from_table(table: pa.Table) -> Tables:
    found: Tables = {name: [] for name in json.loads(table.schema.metadata[_NAMES])}
    for row in table.to_pylist():
        name = row[_TABLE]
        prefix = f"{name}."
        found[name].append(
            {
                column.removeprefix(prefix): value
                for column, value in row.items()
                if column.startswith(prefix) and value is not None
            }
        )
    return found


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{value!r} is no plain value; give numbers, texts, dataclasses and sequences of them")
