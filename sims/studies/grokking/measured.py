"""Read what runs have measured between their steps: one row a look."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sims.measure.update_rows import FORMS
from sims.runs.store import RunFolder, run_folders
from sims.studies.grokking.preset import WINDOW, control_of
from sims.system.errors import MeasureError
from toymodel.config import RunConfig
from toymodel.tasks.modular_arithmetic import ModularArithmetic

(RAW, _), (UNIT, _) = FORMS
NULLS = ("p_momentum", "p_norms", "p_correlations")


@dataclass(frozen=True)
class Column:
    """Say which row of a run a column of the looks comes from; "" matches rows without a window."""

    quantity: str
    object: str
    site: str
    window: str = ""


COLUMNS: Mapping[str, Column] = {
    "train": Column("accuracy", "prediction", "training"),
    "test": Column("accuracy", "prediction", "validation"),
    "train_loss": Column("loss", "prediction", "training"),
    **{
        name: Column(name, "signal", "all")
        for name in ("gradient_norm", "update_norm", "cosine_weights", "weight_norm")
    },
    "defect": Column("defect", "defect", "all"),
    "defect_fd32": Column("defect_fd32", "defect", "all"),
    **{name: Column(name, RAW, "all", str(WINDOW)) for name in ("edge_gap", "g23", "pc1", "edge_k", *NULLS)},
    "edge_gap_unit": Column("edge_gap", UNIT, "all", str(WINDOW)),
    "decay_cosine": Column("decay_cosine", RAW, "all"),
}


def looks_of(out: Path) -> pd.DataFrame:
    """Return one row a look of every complete run of modular arithmetic in a folder.

    Signals are measured at fewer looks than accuracies, and NaN at the others.

    Returns:
        run, group (the operation), control (see `preset.control_of`), seed, step, train, test, and a column for each
        signal that was measured.

    Raises:
        MeasureError: no such run, or one without accuracies.
    """
    parts = []
    for folder in run_folders(out):
        spec = folder.spec if folder.done else None
        if isinstance(spec, RunConfig) and isinstance(spec.task, ModularArithmetic):
            parts.append(looks_of_run(folder, spec))
    if not parts:
        raise MeasureError(
            f"{out} has no complete run of modular_arithmetic; train some with speclens grokking, or with "
            "speclens train small --task.kind modular_arithmetic --measure.accuracy 25"
        )
    return pd.concat(parts, ignore_index=True)


def looks_of_run(folder: RunFolder, config: RunConfig) -> pd.DataFrame:
    """Return the looks of one complete run (see `looks_of`).

    Raises:
        MeasureError: a run without accuracies.
    """
    rows = folder.rows()
    keys = [tuple(r) for r in rows[["quantity", "object", "site", "window"]].fillna("").to_numpy()]
    names = {(c.quantity, c.object, c.site, c.window): name for name, c in COLUMNS.items()}
    own = rows.assign(column=pd.Series([names.get(key) for key in keys], rows.index)).dropna(
        subset=["column"]
    )
    if not {"train", "test"} <= set(own["column"]):
        raise MeasureError(
            f"{folder.path} has no accuracies on training and other sequences; train it again with "
            "--measure.accuracy 25"
        )
    table = own.pivot(index="step", columns="column", values="value").sort_index()
    table.columns.name = None
    if folder.outcome["ended"] == "diverged":
        # Nothing is measured of weights that are not finite: a last look without accuracies says so.
        table.loc[max(folder.outcome["step"], table.index[-1] + 1)] = math.nan
    label = {
        "run": folder.path.name,
        "group": config.task.op if isinstance(config.task, ModularArithmetic) else "",
        "control": control_of(config),
        "seed": config.seed,
    }
    return table.reset_index().assign(**label)
