"""Read the losses of trained runs by arm, base rate and seed, and the exponents and multipliers of stored weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from sims.analysis.origins import copied, distinct, made_by
from sims.measure.cache import cached, file_digest
from sims.measure.weight_scores import estimates
from sims.runs.lm_config import LmConfig
from sims.runs.store import RunFolder, run_folders
from sims.runs.tensors import load_tensors
from sims.studies.stored import check_alike
from sims.system.errors import MeasureError
from sims.training.rates import weight_scores
from toymodel.config import RunConfig, canonical_hash
from toymodel.controllers import multipliers
from toymodel.rates import ONE_RATE, Rates, base_of, block_of
from toymodel.transformer import matrices

# Of what is stored of a checkpoint; raise it when the numbers change.
NAME, VERSION = "layer-rates", 1
EXPONENTS: Mapping[str, str] = {"hill": "alpha", "farms": "farms"}
# Models of Gaussian matrices that spreads of exponents are set beside.
NOISE_MODELS = 60
LOSSES = ["cell", "arm", "draw", "lr", "seed", "run", "loss"]
Spec = RunConfig | LmConfig


@dataclass(frozen=True, eq=False)
class RatesData:
    """Hold the runs of a study.

    Attributes:
        losses: one row a run: `LOSSES`; loss is the validation loss at the end in nats, infinite after a divergence.
        folders, specs: of every run.
        notes: which runs were left out, and how they were made.
    """

    losses: pd.DataFrame
    folders: Mapping[str, RunFolder]
    specs: Mapping[str, Spec]
    notes: tuple[str, ...]

    @property
    def cells(self) -> list[str]:
        """Return what is compared: stages, and sizes of language models."""
        return list(dict.fromkeys(self.losses["cell"]))

    def of(self, cell: str) -> pd.DataFrame:
        """Return the losses of a cell."""
        return self.losses[self.losses["cell"] == cell]


def rates_data(paths: Sequence[Path]) -> RatesData:
    """Read the complete runs of some folders.

    Args:
        paths: folders of runs, or run folders.

    Raises:
        MeasureError: no run that was trained to its end, or runs of one cell that differ in more than arm, base rate
            and seed.
    """
    found = [f for path in dict.fromkeys(p.resolve() for p in paths) for f in _folders(path)]
    kept = distinct([f for f in found if f.done])
    notes = [*copied(kept.copies)]
    if unfinished := [f.path.name for f in found if not f.done]:
        notes.append(f"Not complete: {_named(unfinished)}.")
    rows, folders, specs, left_out = [], {}, {}, []
    for folder in kept.folders:
        spec, outcome = folder.spec, folder.outcome
        name = folder.path.name
        if not isinstance(spec, RunConfig | LmConfig):
            left_out.append(f"{name} (its training is not known)")
        elif outcome["ended"] not in ("finished", "diverged"):
            left_out.append(f"{name} (it ended early: {outcome['ended']})")
        else:
            rows.append({**_row(spec), "run": name, "loss": _loss(outcome)})
            folders[name], specs[name] = folder, spec
    if left_out:
        notes.append(f"Left out: {_named(left_out)}.")
    if not rows:
        told = f" ({notes[-1]})" if notes else ""
        raise MeasureError(
            f"{', '.join(map(str, paths))}: no run that was trained to its end{told}; make some with speclens rates, "
            "or with speclens train lm --rates farms beside --rates uniform"
        )
    losses = pd.DataFrame(rows, columns=LOSSES)
    _require_alike(losses, specs)
    notes += made_by(list(folders.values()))
    return RatesData(losses, folders, specs, tuple(notes))


def _folders(path: Path) -> list[RunFolder]:
    return [RunFolder(path)] if (path / "run.json").exists() else run_folders(path)


def _named(names: Sequence[str]) -> str:
    more = f"; and {len(names) - 3} more" if len(names) > 3 else ""
    return "; ".join(names[:3]) + more


def _row(spec: Spec) -> dict[str, Any]:
    cell = spec.stage if isinstance(spec, RunConfig) else f"{spec.tier} {spec.stage}"
    return {"cell": cell, "arm": spec.rates.by, "draw": spec.rates.seed, "lr": spec.lr, "seed": spec.seed}


def _loss(outcome: Mapping[str, Any]) -> float:
    loss = outcome["val_loss"]
    if outcome["ended"] == "diverged" or loss is None or not math.isfinite(loss):
        return math.inf
    return float(loss)


def _require_alike(losses: pd.DataFrame, specs: Mapping[str, Spec]) -> None:
    """Refuse runs of a cell that differ in more than arm, base rate and seed, and two runs of one of these."""
    check_alike(losses, {run: replace(spec, lr=1.0, rates=ONE_RATE) for run, spec in specs.items()})
    for cell, own in losses.groupby("cell", sort=False):
        # A study may take seeds of data for replicates; here one seed is paired over arms.
        data = [(run, spec.task.seed) for run in own["run"] if isinstance(spec := specs[run], RunConfig)]
        if other := [run for run, seed in data if seed != data[0][1]]:
            raise MeasureError(
                f"{data[0][0]} and {other[0]} are both of {cell}, and differ in task.seed: their losses are of other "
                "data and cannot be paired; move one of them to another folder"
            )
        unequal = [(run, specs[run].rates) for run in own["run"] if not specs[run].rates.uniform]
        for run, rates in unequal[1:]:
            if names := [f.name for f in fields(Rates) if _map(rates, f.name) != _map(unequal[0][1], f.name)]:
                raise MeasureError(
                    f"{unequal[0][0]} and {run} are both of {cell}, and differ in rates.{', rates.'.join(names)}; move "
                    "one of them to another folder"
                )
        double = own[own.duplicated(["arm", "draw", "lr", "seed"], keep=False)]
        if len(double):
            raise MeasureError(
                f"{' and '.join(double['run'].iloc[:2])} are runs of {cell}, {double['arm'].iloc[0]}, learning rate "
                f"{double['lr'].iloc[0]:g} and seed {double['seed'].iloc[0]}; keep one of them in the folder"
            )


def _map(rates: Rates, name: str) -> Any:
    """Return a setting of the map; None for what tells arms and draws apart."""
    return None if name in ("by", "seed") else getattr(rates, name)


def exponents(data: RatesData, runs: Sequence[str]) -> pd.DataFrame:
    """Return exponents and multipliers of the matrices of runs, at every stored checkpoint.

    Args:
        data: with these runs.
        runs: names.

    Returns:
        cell, arm, lr, seed, run, step, matrix, block, rows, columns, hill, farms (NaN where there is no exponent),
        multiplier: what the rule gives for these weights.
    """
    labels = data.losses.set_index("run")[["cell", "arm", "lr", "seed"]]
    rows = [
        {**{str(k): v for k, v in labels.loc[run].items()}, "run": run, **row}
        for run in runs
        for file in data.folders[run].checkpoints()
        for row in _of_checkpoint(data.folders[run], data.specs[run], file)
    ]
    columns = [*labels.columns, "run", "step", "matrix", "block", "rows", "columns", *EXPONENTS, "multiplier"]
    return pd.DataFrame(rows, columns=columns)


def _of_checkpoint(folder: RunFolder, spec: Spec, file: Path) -> list[dict[str, Any]]:
    def measure() -> dict[str, list[dict[str, Any]]]:
        step, weights = load_tensors(file, spec)
        return {"matrices": list(matrix_rows(step, weights, spec.rates))}

    return cached(folder.path, NAME, VERSION, [file_digest(file), canonical_hash(spec)], measure)["matrices"]


def matrix_rows(step: int, weights: Mapping[str, torch.Tensor], rates: Rates) -> Iterator[dict[str, Any]]:
    """Yield exponents and the multiplier of every matrix in a block; none of weights that are not finite.

    Args:
        step: of the weights.
        weights: parameters of one model by name.
        rates: of its run.
    """
    every = {name: own[0] for name, own in matrices({n: w[None] for n, w in weights.items()}).items()}
    inside = {name: own for name, own in every.items() if block_of(name)}
    if not all(bool(own.isfinite().all()) for own in inside.values()):
        return
    found = {quantity: estimates(score, inside) for quantity, score in EXPONENTS.items()}
    own = {name: inside[name] for name in rates.taking_part(tuple(inside))}
    sizes = {name: matrix.numel() for name, matrix in own.items()}
    factors: dict[str, float] = {}
    if not rates.uniform:
        factors = multipliers(weight_scores(base_of(rates.by), own), sizes, rates, tuple(own))
    for name, matrix in inside.items():
        values = {q: _value(of[name]) for q, of in found.items()}
        block = int((block_of(name) or "").removeprefix("blocks."))
        sides = {"rows": matrix.shape[0], "columns": matrix.shape[1]}
        head = {"step": step, "matrix": name, "block": block, **sides}
        yield {**head, **values, "multiplier": float(factors.get(name, 1.0))}


def _value(found: Any) -> float:
    return math.nan if found.status == "not fitted" else float(found.value)


@lru_cache(maxsize=16)
def noise_spread(shapes: tuple[tuple[str, int, int], ...], quantity: str) -> tuple[float, float, float]:
    """Return the standard deviation of an exponent over independent Gaussian matrices: mean, 2.5 and 97.5 % of models.

    Args:
        shapes: name, rows and columns of every matrix of a model.
        quantity: "hill" or "farms".
    """
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(NOISE_MODELS):
        drawn = {
            name: torch.randn(rows, columns, generator=generator, dtype=torch.float64)
            for name, rows, columns in shapes
        }
        values = [_value(own) for own in estimates(EXPONENTS[quantity], drawn).values()]
        found.append(float(np.nanstd(values, ddof=1)))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(np.mean(found)), float(low), float(high)
