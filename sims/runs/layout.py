"""Define the format of a run folder and the columns of its tables. Loads without torch."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sims.runs import format_1
from sims.system.errors import StoreError

FORMAT = 2
# Formats that are read; runs are written in the present one only.
READABLE = (1, 2)
# The kinds of a run. run.json states the kind of a language model only; checkpoints state either.
TEXT, TOY = "text", "toy"
# The writer that the metadata of our checkpoints name.
WRITER = "spectral-lens"
# Folders next to the runs that are not runs, unless they hold the file of one: by their names, and by the files that a
# command writes as results: a folder of a page has one of the first, and no others than these and tables.
NO_RUNS = ("errors", "trackers")
PAGES, TABLE = frozenset({".html", ".md", ".svg", ".png", ".csv"}), ".parquet"
# File next to the runs: what a sweep was asked for.
CAMPAIGN = "campaign.json"
# Folder in a run of what studies have measured of its checkpoints.
MEASURED = "measured"

ROWS = pa.schema(
    [
        ("step", pa.int64()),
        ("tokens", pa.int64()),
        ("quantity", pa.string()),  # what was measured: val_loss, rankme, alpha, h_s, …
        ("object", pa.string()),  # of what: loss, activation, gradient, weight, probe
        ("site", pa.string()),  # where: final, blocks.1.attn.o, embed, …
        ("band", pa.string()),  # of a probe: modulus and offset, 31:20
        ("regime", pa.string()),  # of a probe: clean or matched
        ("seen", pa.bool_()),  # of a probe: whether training has the band
        ("set", pa.string()),  # frequencies that H_S is taken over: task, peak, top3
        ("window", pa.string()),  # ranks of an exponent: 10-40
        ("detail", pa.string()),  # what remains: component pc1, 10 of top_share, a token family
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("null", pa.float64()),  # expected by chance
        ("null_high", pa.float64()),  # its 97.5 % quantile, where known
        ("status", pa.string()),  # ok, flagged, not fitted, diverged
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
TABLES = {"rows": ROWS, "spectra": SPECTRA}


def read_table(path: Path, data: bytes | None = None) -> pa.Table:
    """Read rows or spectra of a run, in the columns of the present format.

    Args:
        path: of the file.
        data: its content, where it has been read before.

    Raises:
        StoreError: missing, damaged, or with columns of no known format.
    """
    try:
        source = path if data is None else pa.BufferReader(data)
        table = pq.ParquetFile(source, page_checksum_verification=True).read()
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            f"{path} cannot be read ({error}); it is damaged: delete the run folder and run again"
        ) from error
    if format_1.has_rows(table):
        table = format_1.with_columns(table)
    for schema in TABLES.values():
        if set(schema.names) == set(table.column_names):
            return _typed(path, table.select(schema.names), schema)
    raise StoreError(
        f"{path} has the columns {', '.join(table.column_names)}, which are those of no known format; it was written "
        "by a newer version or by hand: read it with the version named in provenance.json"
    )


def _typed(path: Path, table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with the types of the format; pandas, for one, writes some texts and empty columns as others."""
    other = [f.name for f in schema if not _alike(table.schema.field(f.name).type, f.type)]
    if not other:
        return table.cast(schema)
    found = ", ".join(f"{name} of type {table.schema.field(name).type}" for name in other)
    raise StoreError(
        f"{path} has {found}, where the format has {', '.join(str(schema.field(name).type) for name in other)}; it was "
        "written by hand: restore it from a copy"
    )


def _alike(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Return whether values of one type are those of the other, in another layout."""
    texts = (pa.string(), pa.large_string(), pa.null())
    if pa.types.is_list(wanted) and (pa.types.is_list(found) or pa.types.is_large_list(found)):
        return _alike(found.value_type, wanted.value_type)
    return found == wanted or found == pa.null() or (found in texts and wanted in texts)
