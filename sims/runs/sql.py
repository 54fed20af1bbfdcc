"""SQL over all runs of a folder, by DuckDB (extra "sql")."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from sims.runs.folders import COMPLETE, listing
from sims.runs.layout import TABLES
from sims.runs.tables import arrow
from sims.system.extras import require

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def connect(folder: Path) -> DuckDBPyConnection:
    """An in-memory DuckDB connection with three tables.

    - `runs`: what `listing` returns, as it stood at this call; names with a dot stand in double quotes.
    - `rows` and `spectra`: tables of the complete runs (columns of `sims.runs.layout.ROWS` and `SPECTRA`) with run_id
      in front. They are views: nothing is read before it is asked for, and only the columns that are.

    Example:
        connect(Path("runs")).execute("SELECT stage, avg(value) FROM rows JOIN runs USING (run_id)
            WHERE quantity = 'rankme' AND site = 'final' GROUP BY stage").df()

    Raises:
        MissingExtraError: duckdb is not installed.
        StoreError: no such folder.
    """
    duckdb = require("duckdb", "sql")
    runs = listing(folder)
    connection = duckdb.connect()
    connection.register("runs", arrow(runs))
    complete = runs.loc[runs["status"].isin(COMPLETE), "run_id"]
    for name, schema in TABLES.items():
        files = [str(Path(folder) / run_id / f"{name}.parquet") for run_id in complete]
        if files:
            connection.execute(_view(name, files))
        else:
            empty = pa.schema([("run_id", pa.string()), *schema]).empty_table()
            connection.register(name, empty)
    return connection


def _view(name: str, files: list[str]) -> str:
    listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
    return (
        f'CREATE VIEW "{name}" AS SELECT parse_path(filename)[-2] AS run_id, * EXCLUDE (filename) '
        f"FROM read_parquet([{listed}], filename = true)"
    )
