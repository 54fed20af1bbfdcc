"""Read the spectra of weights of a folder of runs: one row a matrix and look.

Runs are cells: those of one stage, depth, width, batch size, learning rate and schedule are the seeds of one cell.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sims.measure.weight_tails import ALL, HALF, PRODUCT, WEIGHT
from sims.runs.lm_config import LmConfig
from sims.runs.spec import RunSpec
from sims.studies.stored import check_alike, check_distinct
from sims.system.errors import MeasureError
from toymodel.config import RunConfig
from toymodel.stages import stage

# Types of matrices in the order of the forward pass, by the endings of their names.
TYPES: Mapping[str, str] = {
    "attn.q": "q", "attn.k": "k", "attn.v": "v", "attn.o": "o", "mlp.gate": "gate", "mlp.fc": "up", "mlp.proj": "down",
}  # fmt: skip
QK, OV = "qk", "ov"
_MATRIX = re.compile(r"blocks\.(\d+)\.(attn\.[qkvo]|mlp\.(?:gate|fc|proj))")
_PRODUCT = re.compile(r"blocks\.(\d+)\.attn\.(qk|ov)\.(\d+)")
# Column → quantity and detail of its rows.
COLUMNS: Mapping[str, tuple[str, str]] = {
    "stable_rank": ("stable_rank", ""),
    "rankme": ("rankme", ""),
    "trace": ("trace", ""),
    "alpha_half": ("alpha_singular", HALF),
    "alpha_all": ("alpha_singular", ALL),
    "hill": ("hill", ""),
    "farms": ("farms", ""),
}
EXPONENTS = ("alpha_half", "alpha_all", "hill", "farms")
# What makes a cell besides stage and depth; named where a stage and depth has several.
SETTINGS = ("width", "batch_size", "lr", "schedule", "warmup")
CONSTANT, DECAYED, UNKNOWN = "constant rate", "decayed rate", "unknown schedule"
LEAST_LOOKS, LEAST_BLOCKS = 4, 3
Record = dict[str, Any]


@dataclass(frozen=True, eq=False)
class LifeData:
    """Hold what was measured of all runs.

    Attributes:
        runs: one row a run: run, cell, family (the cells of one depth, under several schedules), line (the cells of one
            schedule, at several depths), timing (the schedule in words), stage, optimiser, layers, width, seed,
            batch_size, lr, schedule, warmup (steps), steps.
        matrices: one row a matrix and look: cell, run, seed, step, clock, block, type, the columns of `COLUMNS`, and
            excess_… of each exponent, its value less that of Gaussian matrices of the same shape. clock is the sum of
            learning rates up to the look (steps where no rate is known).
        products: the same of the products of heads: cell, run, seed, step, clock, block, type (qk, ov), head,
            stable_rank, rankme, alpha_half, alpha_all, excess_….
        notes: which runs were left out, and why.
        folders: the folder of each run.
    """

    runs: pd.DataFrame
    matrices: pd.DataFrame
    products: pd.DataFrame
    notes: tuple[str, ...]
    folders: Mapping[str, Path]

    @cached_property
    def cells(self) -> list[str]:
        """Return the cells, by stage, depth and settings."""
        return list(dict.fromkeys(self.runs["cell"]))

    def cell(self, name: str) -> Record:
        """Return what the runs of a cell have in common, and its number of seeds."""
        own = self.runs[self.runs["cell"] == name]
        return {**{str(name): value for name, value in own.iloc[0].items()}, "seeds": len(own)}

    def of(self, cell: str) -> pd.DataFrame:
        """Return the matrices of a cell."""
        return self.matrices[self.matrices["cell"] == cell]

    def types(self, cell: str) -> list[str]:
        """Return the types of matrices of a cell, in the order of the forward pass."""
        there = set(self.of(cell)["type"])
        return [name for name in TYPES.values() if name in there]


@dataclass(frozen=True, eq=False)
class Source:
    """One training run whose weights were measured.

    Attributes:
        name: of the run.
        path: its folder.
        spec: its configuration; None where only its checkpoints are known.
        rows: quantity, object, site, detail, step, value, null.
        kind: what stands for the stage where there is no configuration.
        seed, width: of its model, where there is no configuration; NaN for an unknown width.
    """

    name: str
    path: Path
    spec: RunSpec | None
    rows: pd.DataFrame
    kind: str = ""
    seed: int = 0
    width: float = math.nan


def lifecycle_data(sources: Iterable[Source], where: str) -> LifeData:
    """Return the spectra of weights of training runs of any kind.

    Args:
        sources: the runs.
        where: the folders that they come from, for messages.

    Raises:
        MeasureError: no run with exponents of weights at four looks of three blocks or more, two runs of one cell and
            seed, or runs of one cell that differ in more than their seeds.
    """
    found: list[tuple[Source, pd.DataFrame]] = []
    left_out = []
    for source in sources:
        matrices = _table(source.rows, WEIGHT, _MATRIX, ("block", "type"))
        if (reason := _lacks(matrices)) is None:
            found.append((source, matrices))
        else:
            left_out.append(f"{source.name} ({reason})")
    if not found:
        told = f"; {left_out[0]}" if left_out else ""
        raise MeasureError(
            f"{where} has no complete run with exponents of weights over training{told}: make some with speclens "
            "lifecycle, or train with --measure.tails --measure.schedules weights=25+28/decade (language models: "
            "--measure --measuring.tails --measuring.schedules …), or name a folder of checkpoints"
        )
    names = [source.name for source, _ in found]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise MeasureError(f"two runs are named {double}; rename one of their folders")
    runs = _named(pd.DataFrame([_run(source, matrices) for source, matrices in found]))
    check_alike(runs, {source.name: source.spec for source, _ in found if source.spec is not None})
    labels = runs.set_index("run")[["cell", "seed"]]
    parts: dict[str, list[pd.DataFrame]] = {"matrices": [], "products": []}
    for source, matrices in found:
        label = {str(k): v for k, v in labels.loc[source.name].items()} | {"run": source.name}
        products = _table(source.rows, PRODUCT, _PRODUCT, ("block", "type", "head"))
        for name, table in (("matrices", matrices), ("products", products)):
            parts[name].append(table.assign(clock=clock(source.spec, table["step"]), **label))
    notes = [f"Left out: {'; '.join(left_out)}."] if left_out else []
    notes += [
        f"Times of {source.name} are steps, because its learning rates are not known; its first look is step {first}."
        for source, matrices in found
        if source.spec is None
        for first in (int(matrices["step"].min()),)
    ]
    tables = {name: pd.concat(own, ignore_index=True) for name, own in parts.items()}
    return LifeData(runs, **tables, notes=tuple(notes), folders={s.name: s.path for s, _ in found})


def clock(spec: RunSpec | None, steps: Iterable[int]) -> np.ndarray:
    """Return the sum of learning rates before each step; the steps themselves where no rate is known.

    >>> clock(RunConfig(lr=0.5, steps=10), [0, 4]).tolist()
    [0.0, 2.0]
    """
    at = np.array(list(steps), int)
    if isinstance(spec, RunConfig):
        return spec.lr * at
    if isinstance(spec, LmConfig):
        rates = [spec.lr * spec.lr_scale(step) for step in range(spec.steps)]
        return np.concatenate([[0.0], np.cumsum(rates)])[at]
    return at.astype(float)


def _table(rows: pd.DataFrame, object_: str, pattern: re.Pattern[str], keys: Sequence[str]) -> pd.DataFrame:
    """Return one row a look and matrix (or product of a head), with the columns of `COLUMNS` that were measured."""
    own = rows[(rows["object"] == object_) & rows["quantity"].isin({name for name, _ in COLUMNS.values()})]
    sites = {site: match.groups() for site in own["site"].unique() if (match := pattern.fullmatch(site))}
    own = own[own["site"].isin(sites)]
    # Only the exponents by rank have several details; FARMS names its tiles there.
    named = own["quantity"] + ":" + own["detail"].where(own["quantity"] == "alpha_singular", "").astype(str)
    names = {f"{quantity}:{detail}": name for name, (quantity, detail) in COLUMNS.items()}
    wide = own.assign(column=named.map(names)).pivot(
        index=["step", "site"], columns="column", values=["value", "null"]
    )
    if wide.empty:
        return pd.DataFrame(columns=["step", *keys])
    table = wide["value"].copy()
    for name in EXPONENTS:
        if name in table:
            table[f"excess_{name}"] = table[name] - wide["null"][name]
    table.columns.name = None
    table = table.reset_index()
    parts = pd.DataFrame([sites[site] for site in table["site"]], columns=list(keys))
    numbers = [key for key in keys if key in ("block", "head")]
    return table.drop(columns="site").join(
        parts.replace({"type": dict(TYPES)}).astype(dict.fromkeys(numbers, int))
    )


def _lacks(matrices: pd.DataFrame) -> str | None:
    """Return what a run lacks for this study; None for nothing."""
    if "alpha_half" not in matrices:
        return "no exponents of weights"
    if (blocks := matrices["block"].nunique()) < LEAST_BLOCKS:
        return f"{blocks} of at least {LEAST_BLOCKS} blocks"
    looks = matrices["step"].nunique()
    return None if looks >= LEAST_LOOKS else f"{looks} of at least {LEAST_LOOKS} looks"


def _run(source: Source, matrices: pd.DataFrame) -> Record:
    spec = source.spec
    schedule, warmup = UNKNOWN, math.nan
    if isinstance(spec, RunConfig):
        schedule, warmup = CONSTANT, 0.0
    elif isinstance(spec, LmConfig):
        schedule, warmup = (DECAYED if spec.warmdown else CONSTANT), float(round(spec.warmup * spec.steps))
    trained = isinstance(spec, RunConfig | LmConfig)
    return {
        "run": source.name,
        "stage": source.kind if spec is None else spec.stage,
        "optimiser": ("Muon" if stage(spec.stage).routing.muon else "AdamW") if trained else "",
        "layers": int(matrices["block"].max()) + 1,
        "width": spec.sizes.d if trained else source.width,
        "seed": source.seed if spec is None else spec.seed,
        "batch_size": math.nan if spec is None else spec.batch_size,
        "lr": math.nan if spec is None or spec.lr is None else spec.lr,
        "schedule": schedule,
        "warmup": warmup,
        "steps": int(matrices["step"].max()),
    }


def _named(runs: pd.DataFrame) -> pd.DataFrame:
    """Add the names of cells, families and lines: stage, depth, and the settings in which several of them differ."""
    depth = ", L " + runs["layers"].astype(str)
    told = {
        "width": ", d " + runs["width"].map("{:g}".format),
        "batch_size": ", batch " + runs["batch_size"].map("{:g}".format),
        "lr": ", lr " + runs["lr"].map("{:g}".format),
    }
    settings = runs["stage"].astype(str)
    for setting, text in told.items():
        if runs.groupby("stage")[setting].nunique(dropna=False).max() > 1:
            settings = settings + text
    warmed = ", warm-up " + runs["warmup"].map("{:g}".format)
    timing = runs["schedule"] + warmed.where(runs["warmup"].notna(), "")
    several = runs["schedule"].nunique() > 1 or runs["warmup"].nunique() > 1
    named = ", " + timing if several else ""
    names = {"family": settings + depth, "line": settings + named, "cell": settings + depth + named}
    runs = runs.assign(**names, timing=timing)
    # AdamW first, then by stage and depth.
    runs = runs.sort_values(["optimiser", "stage", *SETTINGS, "layers", "seed"], kind="stable")
    check_distinct(runs)
    return runs
