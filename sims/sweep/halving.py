"""Prune learning rates by successive halving: the worse ones stop early.

A cell holds the runs that differ only in learning rate and seed. Its learning rates compete by the mean over their
seeds, and all seeds of a learning rate continue or stop together. The decision uses validation loss and tokens, never
a test loss. A pruned run is marked in its outcome; analyses leave it out, since they need whole trajectories.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from sims.runs.spec import TrainableSpec
from sims.runs.store import RunFolder
from sims.runs.tables import rows_so_far
from sims.sweep.work import R
from sims.system.errors import StoreError
from sims.system.files import read_object, write_json
from sims.training.recorder import write_progress
from toymodel.errors import ConfigError


@dataclass(frozen=True)
class Halving:
    """Set how many learning rates are pruned at each rung.

    Args:
        factor: one in `factor` learning rates continues after each rung, for `factor` times as many steps.
    """

    factor: float = 2.0

    def __post_init__(self) -> None:
        if not 1 < self.factor < math.inf:
            raise ConfigError(
                f"the halving factor is {self.factor}; it must be above 1 (2 keeps every second)"
            )

    def rungs(self, configs: Sequence[R]) -> list[dict[R, int]]:
        """Return for each rung {run: step at which it pauses}.

        Every step is a multiple of the run's evaluation interval, before its end.

        Raises:
            ConfigError: no cell has two learning rates, or a run has no evaluation at which it could pause.
        """
        most = max(len(rates) for rates in cells(configs).values())
        if most < 2:
            raise ConfigError("halving needs at least two learning rates in a cell; leave it out")
        for config in configs:
            if config.eval_every >= config.steps:
                raise ConfigError(
                    f"eval_every is {config.eval_every} and steps {config.steps}: halving compares learning rates at "
                    "an evaluation before the end; lower eval_every, or leave halving out"
                )
        count = math.ceil(math.log(most, self.factor) - 1e-9)
        return [{c: _pause(c, self.factor ** (k - count)) for c in configs} for k in range(count)]

    def shares(self, configs: Sequence[R]) -> dict[R, float]:
        """Return the expected share of its steps that each run trains.

        It is the mean over the learning rates of its cell, since the survivors are not known beforehand.
        """
        found: dict[R, float] = {}
        rungs = self.rungs(configs)
        for cell in cells(configs).values():
            alive = [len(cell), *(self.survivors(k, len(cell)) for k in range(len(rungs)))]
            for config in (c for runs in cell.values() for c in runs):
                stops = [0, *(rung[config] for rung in rungs), config.steps]
                trained = sum(n * (b - a) for n, (a, b) in zip(alive, pairwise(stops), strict=True))
                found[config] = trained / (len(cell) * config.steps)
        return found

    def survivors(self, rung: int, count: int) -> int:
        """Return how many of a cell's `count` learning rates survive this rung."""
        return max(1, math.ceil(count / self.factor ** (rung + 1) - 1e-9))


def cells(configs: Sequence[R]) -> dict[R, dict[float, list[R]]]:
    """Group runs by cell, then by learning rate.

    The key of a cell is its run with learning rate 1 and seed 0.
    """
    found: dict[R, dict[float, list[R]]] = {}
    for config in configs:
        cell = replace(config, lr=1.0, seed=0)
        found.setdefault(cell, {}).setdefault(config.lr, []).append(config)
    return found


def _pause(config: TrainableSpec, share: float) -> int:
    last = (config.steps - 1) // config.eval_every
    return config.eval_every * min(max(1, math.ceil(config.steps * share / config.eval_every)), last)


def check_decisions(halving: Halving, configs: Sequence[TrainableSpec], out: Path) -> None:
    """Refuse a folder whose runs were pruned among other runs.

    Raises:
        StoreError: a stored decision names other runs or another factor.
    """
    wanted = {c.run_id for c in configs}
    for rung in range(len(halving.rungs(configs))):
        file = _decision(rung, out)
        if file.exists():
            found = read_object(file, "val_loss", "factor")
            if set(found["val_loss"]) != wanted or found["factor"] != halving.factor:
                raise StoreError(
                    f"{file} was decided among other runs or by another factor; halving does not mix with additions: "
                    "choose another --out"
                )


def prune(halving: Halving, rung: int, configs: Sequence[TrainableSpec], out: Path) -> None:
    """Mark the runs that do not continue after a rung.

    The decision is stored before it is applied: a later call, for example after this process was killed, applies the
    same decision.
    """
    file = _decision(rung, out)
    if not file.exists():
        pauses = halving.rungs(configs)[rung]
        progress = {c: _progress(c, out, pauses[c]) for c in _alive(rung, configs, out)}
        kept = [c.run_id for cell in cells(configs).values() for c in _best(halving, rung, cell, progress)]
        losses = {c.run_id: progress[c][-1] if c in progress else None for c in configs}
        write_json(file, {"factor": halving.factor, "kept": sorted(kept), "val_loss": losses})
    kept = set(read_object(file, "kept")["kept"])
    for config in configs:
        folder = RunFolder(out / config.run_id)
        if config.run_id not in kept and not folder.done and not folder.failed:
            _mark_pruned(folder, config)


def _decision(rung: int, out: Path) -> Path:
    return out / f"halving-{rung}.json"


def _alive(rung: int, configs: Sequence[R], out: Path) -> list[R]:
    """Return the runs that were kept before a rung: no other takes part, however far it was trained."""
    if not rung:
        return list(configs)
    kept = set(read_object(_decision(rung - 1, out), "kept")["kept"])
    return [c for c in configs if c.run_id in kept]


def _best(
    halving: Halving,
    rung: int,
    cell: Mapping[float, list[R]],
    progress: Mapping[R, tuple[bool, float, float]],
) -> list[R]:
    scores = {lr: score([progress[c] for c in runs]) for lr, runs in cell.items() if runs[0] in progress}
    ranked = sorted(scores, key=lambda lr: (scores[lr], lr))
    return [c for lr in ranked[: halving.survivors(rung, len(cell))] for c in cell[lr]]


def score(seeds: Sequence[tuple[bool, float, float]]) -> tuple[int, float]:
    """Return the sort key of a learning rate; lower is better.

    Learning rates whose seeds all reached the target come first, ordered by mean tokens; the others follow, ordered by
    mean loss.

    Args:
        seeds: (reached the target, tokens, validation loss) of each seed; a loss that is not finite is inf.
    """
    if all(reached for reached, _, _ in seeds):
        return 0, sum(tokens for _, tokens, _ in seeds) / len(seeds)
    return 1, sum(loss for _, _, loss in seeds) / len(seeds)


def _progress(config: TrainableSpec, out: Path, pause: int) -> tuple[bool, float, float]:
    """Read (reached the target, tokens, validation loss or inf) of a run at the step where it pauses.

    An earlier command may have trained it further: what it reached after that step does not count.
    """
    folder = RunFolder(out / config.run_id)
    if folder.failed:
        return False, math.inf, math.inf
    keys = ("val_loss", "ended", "step")
    record = folder.outcome if folder.done else read_object(folder.path / "progress.json", *keys)
    if record["step"] > pause:
        return False, float(pause * config.tokens_per_step), _loss_at(folder, pause)
    known: float | None = record["val_loss"]
    loss = math.inf if known is None or record["ended"] == "diverged" else known
    return record["ended"] == "target", float(record["step"] * config.tokens_per_step), loss


def _loss_at(folder: RunFolder, step: int) -> float:
    """Return the validation loss of the last evaluation at or before a step; inf without one."""
    rows = rows_so_far(folder.path, folder.done)
    rows = rows[(rows["object"] == "loss") & (rows["quantity"] == "val_loss") & (rows["step"] <= step)]
    # Of one step the first row is that of the evaluation.
    last = rows[rows["step"] == rows["step"].max()]["value"]
    return float(last.iloc[0]) if len(last) and math.isfinite(last.iloc[0]) else math.inf


def _mark_pruned(folder: RunFolder, config: TrainableSpec) -> None:
    state = folder.resume(config)
    if state is None:
        return
    # The run may have gone on from there before it was killed, and progress.json tells of that.
    loss = _loss_at(folder, state.step)
    folder.finish(
        {
            "ended": "pruned",
            "step": state.step,
            "tokens": state.step * config.tokens_per_step,
            "val_loss": loss,
            "seconds": state.seconds,
        }
    )
    write_progress(folder, state.step, config.steps, loss, "pruned")
