"""Read what runs have measured between their steps: one row a look."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from sims.analysis.origins import distinct
from sims.measure.update_rows import FORMS
from sims.runs.store import RunFolder, run_folders
from sims.studies.grokking.preset import WINDOW, control_of
from sims.studies.stored import check_alike
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

    Signals are measured at fewer looks than accuracies, and NaN at the others. Copies of a run are left out, and runs
    that were pruned: these might have generalised later.

    Returns:
        run, group (the operation), control (see `preset.control_of`), seed, step, train, test, and a column for each
        signal that was measured.

    Raises:
        MeasureError: no such run, one without accuracies, or runs that differ in more than what makes a control, the
            operation and the seed.
    """
    found: list[tuple[RunFolder, RunConfig]] = []
    for folder in distinct([own for own in run_folders(out) if own.done]).folders:
        spec = folder.spec
        if isinstance(spec, RunConfig) and isinstance(spec.task, ModularArithmetic):
            found += [(folder, spec)] if folder.outcome["ended"] != "pruned" else []
    if not found:
        raise MeasureError(
            f"{out} has no complete run of modular_arithmetic; train some with speclens grokking, or with "
            "speclens train small --task.kind modular_arithmetic --measure.accuracy 25"
        )
    _check(found)
    return pd.concat([looks_of_run(folder, config) for folder, config in found], ignore_index=True)


def _check(found: Sequence[tuple[RunFolder, RunConfig]]) -> None:
    """Refuse runs that would count as seeds of one setting, or as its controls, and are neither."""
    specs = {folder.path.name: config for folder, config in found}
    runs = pd.DataFrame({"run": list(specs), "cell": [_label(config) for config in specs.values()]})
    check_alike(runs, specs)
    plain = {run: _without_kind(config) for run, config in specs.items()}
    check_alike(runs.assign(cell="one study"), plain)


def _label(config: RunConfig) -> str:
    return ", ".join(part for part in (_task(config).op, control_of(config)) if part)


def _task(config: RunConfig) -> ModularArithmetic:
    assert isinstance(config.task, ModularArithmetic)
    return config.task


def _without_kind(config: RunConfig) -> RunConfig:
    """Return a configuration without what makes a control, and with one operation."""
    usual = ModularArithmetic()
    task = replace(_task(config), op=usual.op, labels=usual.labels, fraction=usual.fraction)
    return replace(config, task=task, weight_decay=None)


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
        "group": _task(config).op,
        "control": control_of(config),
        "seed": config.seed,
    }
    return table.reset_index().assign(**label)
