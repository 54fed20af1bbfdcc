"""Join the tables of many runs, in memory or run by run into a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
from pandas.api.types import infer_dtype

from sims.runs.digests import complete_table, read_sealed
from sims.runs.folders import FIRST, LAST
from sims.runs.layout import CAMPAIGN, TABLES, read_table
from sims.runs.status import COMPLETE
from sims.system.as_json import json_text
from sims.system.errors import QueryError, StoreError
from sims.system.files import check_file, write_atomic


def joined(folders: Sequence[Path], name: str, labels: pd.DataFrame) -> pd.DataFrame:
    """Join the tables of complete runs.

    Args:
        folders: run folders.
        name: "rows" or "spectra".
        labels: one row a folder; its columns follow those of the table.

    Raises:
        StoreError: a table is missing or damaged.
    """
    parts = [complete_table(folder, name) for folder in folders]
    # In one piece: to choose rows of text that lies in hundreds takes three times as long.
    table = frame(pa.concat_tables([TABLES[name].empty_table(), *parts]).combine_chunks())
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return table.assign(**{str(column): labels[column].to_numpy()[owner] for column in labels})


def rows_so_far(folder: Path, complete: bool) -> pd.DataFrame:
    """Return every measured number that a run folder holds (columns of `ROWS`).

    Args:
        folder: of the run.
        complete: whether the run is; the rows of others lie in parts.

    Raises:
        StoreError: a table is damaged.
    """
    if complete:
        return frame(complete_table(folder, "rows"))
    parts = [read_table(part) for part in sorted((folder / "parts").glob("rows-*.parquet"))]
    return frame(pa.concat_tables([TABLES["rows"].empty_table(), *parts]))


def frame(table: pa.Table) -> pd.DataFrame:
    """Convert rows or spectra to pandas; `seen` of rows becomes a nullable boolean."""
    found = table.to_pandas()
    return found.astype({"seen": "boolean"}) if "seen" in found else found


def export(folder: Path, runs: pd.DataFrame, table: str, to: Path) -> int:
    """Write runs of a folder, or their measured numbers, to one file atomically.

    Args:
        folder: the folder of runs.
        runs: rows of its listing.
        table: "runs", "rows" or "spectra"; the latter two get the run's id and its varying fields in front.
        to: a .csv, .parquet or .json file.

    Returns:
        How many rows were written.

    Raises:
        QueryError: another ending, or a place among the files of runs.
        StoreError: a run's table is damaged, or the file cannot be written.
    """
    write = _writer(to)
    tables = iter([arrow(runs)]) if table == "runs" else _measured(folder, runs, table)
    written = [0]

    def counted() -> Iterator[pa.Table]:
        for part in tables:
            written[0] += len(part)
            yield part

    write_atomic(to, lambda file: write(file, counted()))
    return written[0]


def write_table(to: Path, table: pd.DataFrame) -> None:
    """Write one table to a .csv, .parquet or .json file atomically.

    Raises:
        QueryError: another ending, or a place among the files of runs.
        StoreError: the file cannot be written.
    """
    write = _writer(to)
    write_atomic(to, lambda file: write(file, iter([arrow(table)])))


def check_table_file(to: Path) -> None:
    """Refuse a file that `write_table` would refuse, before its table is made.

    Raises:
        QueryError: another ending, or a place among the files of runs.
        StoreError: the file cannot be written.
    """
    _writer(to)


def arrow(table: pd.DataFrame) -> pa.Table:
    """Convert a listing to an Arrow table."""
    # A field may be a number in one run and a text in another; a column of a file has one type.
    mixed = [c for c in table.columns if infer_dtype(table[c], skipna=True).startswith("mixed")]
    return pa.Table.from_pandas(table.astype(dict.fromkeys(mixed, "str")), preserve_index=False)


def _measured(folder: Path, runs: pd.DataFrame, name: str) -> Iterator[pa.Table]:
    """Yield an empty table with the columns, then one table per complete run.

    Raises:
        StoreError: one of the runs is damaged.
    """
    _refuse_damaged(folder, runs[runs["status"] == "damaged"], name)
    complete = runs[runs["status"].isin(COMPLETE)]
    start, end = runs.columns.get_loc(FIRST[-1]), runs.columns.get_loc(LAST[0])
    assert isinstance(start, int)
    assert isinstance(end, int)
    own = ("run_id", "stage", "batch_size", "lr", "seed", *runs.columns[start + 1 : end])
    labels = arrow(complete[list(own)])

    def labelled(table: pa.Table, run: int) -> pa.Table:
        repeated = labels.take(pa.array([run] * len(table), pa.int64()))
        columns = {**_columns(repeated), **_columns(table)}
        return pa.table(columns)

    yield labelled(TABLES[name].empty_table(), 0)
    for i, run_id in enumerate(complete["run_id"]):
        # The labels are those of its configuration.
        read_sealed(folder / run_id, "run.json")
        yield labelled(complete_table(folder / run_id, name), i)


def _refuse_damaged(folder: Path, damaged: pd.DataFrame, name: str) -> None:
    for run_id, reason in zip(damaged["run_id"], damaged["reason"], strict=True):
        # The error of a table that cannot be read is the more exact one.
        complete_table(folder / run_id, name)
        raise StoreError(
            f"{folder / run_id} is damaged ({reason}); repair or delete it, or leave it out by --status "
            f"{' '.join(COMPLETE)}"
        )


def _columns(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    return {name: table[name] for name in table.column_names}


def _write_parquet(file: BinaryIO, tables: Iterator[pa.Table]) -> None:
    first = next(tables)
    with pq.ParquetWriter(file, first.schema, compression="zstd") as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def _write_csv(file: BinaryIO, tables: Iterator[pa.Table]) -> None:
    first = _as_csv(next(tables))
    with pc.CSVWriter(file, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(_as_csv(table))


def _as_csv(table: pa.Table) -> pa.Table:
    """Write lists as JSON, since CSV has none, and leave what was not measured empty, as missing values are."""
    columns = _columns(table)
    for name, column in columns.items():
        if pa.types.is_list(column.type):
            columns[name] = pa.chunked_array([[json_text(v) for v in column.to_pylist()]], pa.string())
        elif pa.types.is_floating(column.type):
            columns[name] = pa.chunked_array([pa.array(column.to_numpy(), column.type, from_pandas=True)])
    return pa.table(columns)


def _write_json(file: BinaryIO, tables: Iterator[pa.Table]) -> None:
    before = "[\n"
    for table in tables:
        for record in table.to_pylist():
            file.write((before + json_text(record)).encode())
            before = ",\n"
    file.write(("\n]\n" if before != "[\n" else "[]\n").encode())


_WRITERS: dict[str, Callable[[BinaryIO, Iterator[pa.Table]], None]] = {
    ".csv": _write_csv,
    ".parquet": _write_parquet,
    ".json": _write_json,
}


def _writer(to: Path) -> Callable[[BinaryIO, Iterator[pa.Table]], None]:
    write = _WRITERS.get(to.suffix)
    if write is None:
        raise QueryError(f"{to} ends in {to.suffix!r}; the formats are {', '.join(_WRITERS)}")
    if (to.parent / "run.json").exists() or to.name == CAMPAIGN:
        raise QueryError(
            f"{to} would stand among the files that runs are read from; write it to another place"
        )
    check_file(to)
    return write
