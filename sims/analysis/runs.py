"""All runs of a folder as three tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sims.errors import StoreError
from sims.store import RunFolder, run_folders
from toymodel.stages import STAGES


@dataclass(frozen=True)
class Runs:
    """Complete runs of one folder.

    Attributes:
        runs: one row a run: run_id, stage, batch_size, lr, seed, ended, step, tokens, val_loss, seconds_….
        rows: every measured number (columns of `sims.store.ROWS`) with run_id, stage, batch_size, lr, seed.
        spectra: every spectrum, likewise.
        incomplete: run ids without a done marker.
    """

    runs: pd.DataFrame
    rows: pd.DataFrame
    spectra: pd.DataFrame
    incomplete: tuple[str, ...]

    def values(self, quantity: str, object_: str = "", site: str = "", detail: str = "") -> pd.DataFrame:
        """The rows of one quantity, narrowed by whatever is given; what was not fitted is left out."""
        rows = self.rows[(self.rows["quantity"] == quantity) & (self.rows["status"] != "not fitted")]
        for column, wanted in (("object", object_), ("site", site), ("detail", detail)):
            if wanted:
                rows = rows[rows[column] == wanted]
        return rows


def load(out: Path) -> Runs:
    """Read every complete run directly below a folder.

    Raises:
        StoreError: no complete run there.
    """
    folders = run_folders(out)
    # In the order of the stages, so that every table and figure made from these is.
    complete = sorted((f for f in folders if f.done), key=_place)
    if not complete:
        raise StoreError(
            f"{out} holds no complete run; make some with `speclens demo --out {out}` or `speclens train`"
        )
    runs, rows, spectra = [], [], []
    for folder in complete:
        label = _label(folder)
        outcome = folder.outcome
        seconds = {f"seconds_{part}": s for part, s in outcome.pop("seconds").items()}
        runs.append({**label, **outcome, **seconds})
        rows.append(folder.rows().assign(**label))
        spectra.append(folder.spectra().assign(**label))
    incomplete = tuple(f.path.name for f in folders if not f.done)
    return Runs(
        pd.DataFrame(runs),
        pd.concat(rows, ignore_index=True),
        pd.concat(spectra, ignore_index=True),
        incomplete,
    )


def _place(folder: RunFolder) -> tuple[int, int, float, int]:
    config, _ = folder.configs()
    return list(STAGES).index(config.stage), config.batch_size, config.lr, config.seed


def _label(folder: RunFolder) -> dict[str, Any]:
    config, _ = folder.configs()
    return {
        "run_id": folder.path.name,
        "stage": config.stage,
        "batch_size": config.batch_size,
        "lr": config.lr,
        "seed": config.seed,
    }
