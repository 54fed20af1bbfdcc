"""Query all runs of a folder with SQL, by DuckDB (extra "sql")."""

from __future__ import annotations

from collections.abc import Iterable
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from sims.runs.digests import read_sealed
from sims.runs.folders import listing
from sims.runs.layout import TABLES, read_table
from sims.runs.status import COMPLETE
from sims.runs.tables import arrow
from sims.system.errors import StoreError
from sims.system.extras import require

if TYPE_CHECKING:
    import pandas as pd
    from duckdb import DuckDBPyConnection


def connect(folder: Path | str) -> DuckDBPyConnection:
    """Open an in-memory DuckDB connection with three tables.

    - `runs`: what `listing` returns at the time of this call; names with a dot need double quotes.
    - `rows` and `spectra`: tables of the complete runs (columns of `sims.runs.layout.ROWS` and `SPECTRA`) with run_id
      in front. They are views, which read only the columns that a query asks for. Every file is read once at the
      start, to compare it with its digest, and rows of runs of format 1 to bring them into the present columns.

    Example:
        connect(Path("runs")).execute("SELECT stage, avg(value) FROM rows JOIN runs USING (run_id)
            WHERE quantity = 'rankme' AND site = 'final' GROUP BY stage").df()

    Raises:
        MissingExtraError: duckdb is not installed.
        StoreError: no such folder, or a damaged complete run in it.
    """
    duckdb = require("duckdb", "sql")
    runs = listing(folder)
    connection = duckdb.connect()
    connection.register("runs", arrow(runs))
    _refuse_damaged(Path(folder), runs[runs["status"] == "damaged"])
    complete = runs.loc[runs["status"].isin(COMPLETE), "run_id"]
    for name, schema in TABLES.items():
        paths = {run_id: Path(folder) / run_id / f"{name}.parquet" for run_id in complete}
        for run_id in complete:
            read_sealed(Path(folder) / run_id, f"{name}.parquet")
        older = _format_1(connection, paths) if name == "rows" else {}
        before = pa.schema([("run_id", pa.string()), *schema]).empty_table()
        connection.register(
            f"{name}_before", pa.concat_tables([before, *map(_labelled, older, older.values())])
        )
        view = f'CREATE VIEW "{name}" AS SELECT * FROM "{name}_before"'
        if present := [path for run_id, path in paths.items() if run_id not in older]:
            view += f" UNION ALL BY NAME {_select(present)}"
        connection.execute(view)
    return connection


def _refuse_damaged(folder: Path, damaged: pd.DataFrame) -> None:
    """Refuse complete runs that are damaged: means over the others would look like those of all."""
    for run_id, reason in zip(damaged["run_id"], damaged["reason"], strict=True):
        if (folder / run_id / "done.json").exists():
            raise StoreError(
                f"{folder / run_id} cannot be read: {reason}; restore it, or move it out of the folder of runs"
            )


def _format_1(connection: DuckDBPyConnection, paths: dict[str, Path]) -> dict[str, Path]:
    """Return the run ids and paths of the rows in format 1."""
    if not paths:
        return {}
    query = (
        f"SELECT DISTINCT file_name FROM parquet_schema([{_listed(paths.values())}]) WHERE name = 'window'"
    )
    present = {file for (file,) in connection.execute(query).fetchall()}
    return {run_id: path for run_id, path in paths.items() if str(path) not in present}


def _labelled(run_id: str, path: Path) -> pa.Table:
    table = read_table(path)
    return table.add_column(0, "run_id", pa.array([run_id] * len(table), pa.string()))


def _select(paths: Iterable[Path]) -> str:
    return (
        "SELECT parse_path(filename)[-2] AS run_id, * EXCLUDE (filename) "
        f"FROM read_parquet([{_listed(paths)}], filename = true)"
    )


def _listed(paths: Iterable[Path]) -> str:
    # DuckDB takes * ? and [ for wildcards.
    return ", ".join("'" + escape(str(path)).replace("'", "''") + "'" for path in paths)
