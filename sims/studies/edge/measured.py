"""Read windows of updates of a folder of runs, one group of parameters of each run.

Runs are cells: those of one stage, model size, batch size, learning rate and stride are the seeds of one cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from sims.measure.update_groups import groups_of, parameter_count
from sims.measure.update_rows import FORMS
from sims.runs.lm_config import LmConfig
from sims.runs.step_settings import GROUPS, MATRIX
from sims.runs.store import RunFolder, run_folders
from sims.studies.stored import check_alike, check_distinct, cut_short
from sims.system.errors import MeasureError
from toymodel.config import RunConfig
from toymodel.stages import BESIDE, CHAIN

(RAW, _), (UNIT, _) = FORMS
# The published W, and the one at which the lag is said to turn.
MAIN, LONG = 10, 20
LEAST = 3
# Where the command names none, the first group that all runs have.
PREFERRED = ("trunk", "all", "attention", "muon", "adamw", "embedding")
# What makes a cell besides stage and size; named where a stage and size has several.
SETTINGS = ("batch_size", "lr", "stride")
Record = dict[str, Any]


@dataclass(frozen=True, eq=False)
class EdgeData:
    """Hold what was measured of all runs.

    Attributes:
        runs: one row a run: run, cell, stage, size, seed, batch_size, lr, stride (steps of an update), travel (stride
            times learning rate), momentum (NaN where it is not known), parameters (of the group).
        windows: one row a window: cell, run, seed, step, form (object of its rows), window (W), and its quantities.
        updates: one row an update, as far as their norms were measured: cell, run, seed, step, norm.
        losses: cell, run, seed, step, loss (nats, of validation).
        spectra: of raw windows: cell, run, seed, step, window, values.
        group: the parameters.
        notes: which runs were left out, and why.
    """

    runs: pd.DataFrame
    windows: pd.DataFrame
    updates: pd.DataFrame
    losses: pd.DataFrame
    spectra: pd.DataFrame
    group: str
    notes: tuple[str, ...] = ()

    @cached_property
    def cells(self) -> list[str]:
        """Return the cells, those of a stage beside each other."""
        return list(dict.fromkeys(self.runs["cell"]))

    @cached_property
    def lengths(self) -> list[int]:
        """Return every W that was measured, ascending."""
        return sorted(int(w) for w in self.windows["window"].unique())

    @cached_property
    def main(self) -> int:
        """Return the W that questions are decided at: the published one, or the shortest."""
        return MAIN if MAIN in self.lengths else self.lengths[0]

    @cached_property
    def long(self) -> int | None:
        """Return the W that lags are compared with; None where there is one W."""
        longer = [w for w in self.lengths if w > self.main]
        return LONG if LONG in longer else longer[-1] if longer else None

    def cell(self, name: str) -> dict[Any, Any]:
        """Return what the runs of a cell have in common."""
        return self.runs[self.runs["cell"] == name].iloc[0].to_dict()

    def until_both(self, table: pd.DataFrame, cells: Sequence[str]) -> pd.DataFrame:
        """Return the rows of some cells up to the last step that all of these have: longer runs have learned more."""
        own = table[table["cell"].isin(cells)]
        return own[own["step"] <= own.groupby("cell")["step"].max().min()]

    def of(self, cell: str, form: str, window: int) -> pd.DataFrame:
        """Return the windows of a cell of one form and length."""
        table = self.windows
        return table[(table["cell"] == cell) & (table["form"] == form) & (table["window"] == window)]


def edge_data(out: Path, group: str | None = None) -> EdgeData:
    """Return the windows of updates of every complete run of a folder, toy or language model.

    Runs that diverged or were pruned are left out.

    Args:
        out: folder of runs.
        group: of parameters; None takes the first of trunk, all, attention, muon, adamw, embedding that all have.

    Raises:
        MeasureError: no run with windows of updates, no such group, two runs of one cell and seed, or runs of one cell
            that differ in more than their seeds.
    """
    found, left_out = [], []
    for folder in run_folders(out):
        if folder.done and (ended := cut_short(folder)):
            left_out.append(f"{folder.path.name} ({ended})")
            continue
        spec = folder.spec if folder.done else None
        if isinstance(spec, RunConfig | LmConfig):
            rows = folder.rows()
            if (rows["object"] == RAW).any():
                found.append((folder, spec, rows))
            else:
                left_out.append(folder.path.name)
    if not found:
        raise MeasureError(
            f"{out} has no complete run with windows of updates; make some with speclens edge, or train with "
            "--measure.updates 5 --measure.update-stride 5 --measure.update-windows 10 20 --measure.update-groups "
            "trunk (language models: --measure --measuring.updates 5 …)"
        )
    group = _group([rows for _, _, rows in found], group, out)
    runs = _named(pd.DataFrame([_run(folder, spec, group) for folder, spec, _ in found]))
    check_alike(runs, {folder.path.name: spec for folder, spec, _ in found})
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in ("windows", "updates", "losses", "spectra")}
    labels = runs.set_index("run")[["cell", "seed"]]
    for folder, _, rows in found:
        label = labels.loc[folder.path.name].to_dict() | {"run": folder.path.name}
        own = rows[rows["site"] == group]
        tables = {
            "windows": _windows(own),
            "updates": _series(own, "last_norm", "norm"),
            "losses": _series(rows[rows["object"] == "loss"], "val_loss", "loss"),
            "spectra": _spectra(folder.spectra(), group),
        }
        for name, table in tables.items():
            parts[name].append(table.assign(**label))
    if not sum(map(len, parts["windows"])):
        raise MeasureError(
            f"the windows of {group} in {out} hold fewer than {LEAST} updates, or updates of parameters that do not "
            "move; train with --measure.update-windows 10 20"
        )
    notes = (f"No windows of updates that count, and left out: {', '.join(left_out)}.",) if left_out else ()
    return EdgeData(
        runs,
        **{name: pd.concat(own, ignore_index=True) for name, own in parts.items()},
        group=group,
        notes=notes,
    )


def _group(tables: Sequence[pd.DataFrame], wanted: str | None, out: Path) -> str:
    sites = [set(rows.loc[rows["object"] == RAW, "site"]) for rows in tables]
    common, known = set.intersection(*sites), sorted(set.union(*sites))
    chosen = wanted or next((name for name in PREFERRED if name in common), None)
    if chosen is None or chosen not in common:
        what = "no group that all have" if wanted is None else f"no windows of {wanted} in all of them"
        raise MeasureError(
            f"the runs of {out} have {what}, but {', '.join(known)} in some; move those of one group to a folder of "
            "their own, or name another group by --group"
        )
    return chosen


def _run(folder: RunFolder, spec: RunConfig | LmConfig, group: str) -> Record:
    measure = folder.identity()["measure"]
    stride = int(measure.get("update_stride", 1))
    named = group in GROUPS or group.startswith(MATRIX)
    (own,) = [g for g in groups_of(spec, (group if named else "optimiser",)) if g.name == group]
    size = f"width {spec.model.d_model}" if isinstance(spec, RunConfig) else spec.tier
    return {
        "run": folder.path.name,
        "stage": spec.stage,
        "size": size,
        "seed": spec.seed,
        "batch_size": spec.batch_size,
        "lr": spec.lr,
        "stride": stride,
        "travel": stride * spec.lr,
        "momentum": math.nan if own.momentum is None else own.momentum,
        "parameters": parameter_count(spec, [own]),
    }


def _named(runs: pd.DataFrame) -> pd.DataFrame:
    """Add the names of cells: stage and size, and the settings in which several of them differ."""
    names = runs["stage"] + ", " + runs["size"]
    for setting in SETTINGS:
        several = runs.groupby(["stage", "size"])[setting].transform("nunique") > 1
        told = f", {setting.replace('_', ' ')} " + runs[setting].map("{:g}".format)
        names = names.where(~several, names + told)
    place = runs["stage"].map({name: i for i, name in enumerate((*CHAIN, *BESIDE))})
    order = ["place", "parameters", *SETTINGS, "seed"]
    runs = runs.assign(cell=names, place=place).sort_values(order, kind="stable").drop(columns="place")
    check_distinct(runs)
    return runs


def _windows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row a window of one group: step, form, window and its quantities."""
    own = rows[rows["object"].isin((RAW, UNIT)) & (rows["window"] != "") & (rows["detail"] == "")]
    wide = own.pivot(index=["step", "object", "window"], columns="quantity", values="value").reset_index()
    wide = wide.rename(columns={"object": "form"}).rename_axis(columns=None).astype({"window": int})
    # A window of parameters that did not move has no edge, and one of two updates no σ₂/σ₃.
    return wide[wide["edge_k"].notna() & wide["edge_k_half"].notna() & (wide["window"] >= LEAST)]


def _series(rows: pd.DataFrame, quantity: str, name: str) -> pd.DataFrame:
    own = rows[rows["quantity"] == quantity].drop_duplicates("step")
    return own[["step", "value"]].rename(columns={"value": name})


def _spectra(spectra: pd.DataFrame, group: str) -> pd.DataFrame:
    own = spectra[(spectra["object"] == RAW) & (spectra["site"] == group)]
    return own[["step", "n", "values"]].rename(columns={"n": "window"})
