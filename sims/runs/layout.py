"""What stands in the files of a run folder: its format and the columns of its tables. Loads without torch."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sims.system.errors import StoreError

FORMAT = 1
# The kinds of a run; run.json names that of a language model alone, checkpoints name either.
TEXT, TOY = "text", "toy"
# What the metadata of our checkpoints say of who wrote them.
WRITER = "spectral-lens"
# Folders beside the runs that are no runs.
NO_RUNS = ("errors", "trackers")

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
TABLES = {"rows": ROWS, "spectra": SPECTRA}


def read_table(path: Path) -> pa.Table:
    """A parquet file of a run.

    Raises:
        StoreError: missing, damaged, or without the columns of this version.
    """
    try:
        return pq.ParquetFile(path).read()
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(
            f"{path} cannot be read ({error}); it is damaged: delete the run folder and run again"
        ) from error
