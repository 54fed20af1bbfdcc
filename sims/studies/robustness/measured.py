"""Measure whether the conclusions about stages hold under other choices of the measurement.

`robustness_report` measures the last checkpoint of every run of one batch size again under each variation, and returns
the tables ("verdicts", "tally", "values") and the figure ("robustness"). The statements and their verdicts are those
of `sims.studies.robustness.tables`; `sims.studies.robustness.figures.robustness_figure` draws them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from torch import Tensor

from sims.measure.activations import pooled
from sims.measure.cache import CheckpointMeasurement, Tables, measured
from sims.models.subject import Subject
from sims.models.transformer import TransformerSubject
from sims.runs.measure_config import Pooling
from sims.runs.rank_windows import HEAD_WINDOW, PUBLISHED_WINDOW, Window
from sims.runs.store import RunFolder
from sims.studies.robustness.figures import robustness_figure
from sims.studies.robustness.tables import EXPONENT, LOSS, REFERENCE, conclusions, tally, verdicts
from sims.studies.stored import chosen_runs, require_one_task
from sims.system.errors import MeasureError
from spectra import Spectrum, covariance_spectrum, rankme, window_exponent
from toymodel.config import RunConfig
from toymodel.data import Dataset, dataset
from toymodel.tasks import ModularWalks

FINAL = "final"
# Variations whose units are the reference's own seeds.
PAIRED = ("samples", "window", "pooling", "validation")
# Of what `variations` measures; raise it when the numbers change.
VERSION = 1
Record = dict[str, Any]
Run = tuple[RunFolder, RunConfig]


@dataclass(frozen=True)
class RobustnessPlan:
    """Set the reference measurement and its variations, one change at a time.

    Args:
        sequences: validation sequences of the reference.
        fewer: smaller numbers of them, each with its n/d.
        window: rank window of the reference exponent.
        windows: other windows; one that does not fit is left out and shows as such.
        poolings: other poolings than the last position.
        batch_size: the runs of this batch size; None takes the smallest.
    """

    sequences: int = 1_024
    fewer: tuple[int, ...] = (512, 256, 128, 64)
    window: Window = PUBLISHED_WINDOW
    windows: tuple[Window, ...] = (HEAD_WINDOW, (5, 20), (10, 20), (20, 40), (10, 50))
    poolings: tuple[Pooling, ...] = ("mean", "token")
    batch_size: int | None = None


@dataclass(frozen=True, eq=False)
class RobustnessReport:
    """Hold tables and figures by name."""

    tables: dict[str, pd.DataFrame]
    figures: dict[str, Figure]


def robustness_report(
    out: Path, plan: RobustnessPlan, console: Console, other_data: Path | None = None
) -> RobustnessReport:
    """Measure the runs and judge every conclusion.

    Args:
        out: folder of complete runs with checkpoints, several seeds of one task.
        other_data: folder of runs with other task.seed and one model seed, which `out` has too; together with the run
            of that model seed in `out` they are the units of the data-seed variation. None leaves it out.

    Raises:
        MeasureError: runs that do not fit the plan, or whose task does not count every next token in its loss; the
            message says what is missing.
    """
    runs = chosen_runs(out, plan.batch_size)
    _one_task(runs)
    _two_stages(runs, out)
    found = list(_measured(runs, plan, console))
    _two_stages([(f, c) for f, c in runs if any(c == config for config, _ in found)], out)
    records = [record for _, record in found]
    if other_data is not None:
        records += _data_seeds(runs, chosen_runs(other_data, runs[0][1].batch_size), plan, console)
    values = conclusions(pd.DataFrame(records))
    judged = verdicts(values, paired=PAIRED)
    tables = {"verdicts": judged, "tally": tally(judged), "values": values}
    return RobustnessReport(tables, {"robustness": robustness_figure(judged)})


def variations(subject: Subject, data: Dataset, plan: RobustnessPlan) -> Iterator[Record]:
    """Yield loss (nats), α and RankMe of the final states of one model, under the reference and each variation.

    Yields:
        group, variation, quantity, value. What cannot be fitted is left out, and so is the loss where a variation
        does not touch it.

    Raises:
        MeasureError: more sequences wanted than the validation split has.
    """
    n = plan.sequences
    if n > len(data.val):
        raise MeasureError(
            f"{n} sequences are wanted and the validation split has {len(data.val)}; lower --sequences"
        )
    tokens = torch.tensor(data.val.tokens[:n])
    states = torch.cat([batch[FINAL] for batch in subject.activations(tokens, (FINAL,))])
    losses = subject.losses(tokens).mean(dim=1)
    last = pooled(states, "last")
    yield from _with_loss(REFERENCE, "reference", last, losses, plan.window)
    for fewer in plan.fewer:
        yield from _spectral("samples", f"n/d = {fewer / last.shape[1]:g}", last[:fewer], plan.window)
    for window in plan.windows:
        name = f"ranks {window[0]}–{window[1]}"
        # RankMe knows no window.
        yield from (r for r in _spectral("window", name, last, window) if r["quantity"] == EXPONENT)
    for pooling in plan.poolings:
        yield from _spectral("pooling", pooling, pooled(states, pooling), plan.window)
    found = occurs_in_training(data)[:n]
    for name, kept in (("not in training", ~found), ("in training", found)):
        if kept.any():
            mask = torch.tensor(kept)
            yield from _with_loss("validation", name, last[mask], losses[mask], plan.window)


def occurs_in_training(data: Dataset) -> np.ndarray:
    """Return (n_val,) whether each validation sequence equals a training sequence, token for token."""
    seen = {row.tobytes() for row in data.train.tokens}
    return np.array([row.tobytes() in seen for row in data.val.tokens])


def _spectral(group: str, variation: str, samples: Tensor, window: Window) -> Iterator[Record]:
    spectrum: Spectrum = covariance_spectrum(samples)
    label = {"group": group, "variation": variation}
    yield {**label, "quantity": "RankMe", "value": rankme(spectrum)}
    alpha = window_exponent(spectrum, *window)
    if alpha.status != "not fitted":
        yield {**label, "quantity": EXPONENT, "value": alpha.value}


def _with_loss(
    group: str, variation: str, samples: Tensor, losses: Tensor, window: Window
) -> Iterator[Record]:
    loss = float(losses.mean())
    yield {"group": group, "variation": variation, "quantity": LOSS, "value": loss}
    yield from _spectral(group, variation, samples, window)


def _measured(
    runs: Sequence[Run], plan: RobustnessPlan, console: Console
) -> Iterator[tuple[RunConfig, Record]]:
    for folder, config in track(
        runs, description="measuring", console=console, disable=not console.is_terminal
    ):
        found = measured(folder, folder.checkpoints()[-1], config, _measurement(config, plan))
        for record in found["variations"] if found else ():
            yield config, {"stage": config.stage, "unit": config.seed, **record}


def _measurement(config: RunConfig, plan: RobustnessPlan) -> CheckpointMeasurement:
    """Return the measurement of one run's last checkpoint."""
    # Which runs are measured is no part of what is measured.
    settings = replace(plan, batch_size=None)

    def measure(subject: TransformerSubject) -> Tables:
        return {"variations": list(variations(subject, dataset(config.task), plan))}

    return CheckpointMeasurement("robustness", VERSION, settings, measure)


def _data_seeds(
    runs: Sequence[Run], others: Sequence[Run], plan: RobustnessPlan, console: Console
) -> list[Record]:
    """Return the reference measurement by data seed, at the one model seed that both folders have."""
    task = runs[0][1].task
    models = {config.seed for _, config in others}
    if len(models) > 1 or not models <= {config.seed for _, config in runs}:
        raise MeasureError(
            f"the runs of other data seeds have model seeds {sorted(models)}; they need one, which the main folder "
            "has too, so that the data alone differ"
        )
    for _, config in others:
        if replace(config.task, seed=task.seed) != task or config.task.seed == task.seed:
            raise MeasureError(
                f"{config.run_id} must have the task of the main folder in all but its seed; train it with the same "
                "settings and another --task.seed"
            )
    same = [(folder, config) for folder, config in runs if config.seed in models]
    name = f"model seed {models.pop()}, data seeds " + ", ".join(
        str(s) for s in sorted({config.task.seed for _, config in [*same, *others]})
    )
    return [
        {**record, "unit": config.task.seed, "group": "data seed", "variation": name}
        for config, record in _measured([*same, *others], plan, console)
        if record["group"] == REFERENCE
    ]


def _two_stages(runs: Sequence[Run], out: Path) -> None:
    """Refuse runs of one stage before anything is measured: every conclusion compares two."""
    stages = {config.stage for _, config in runs}
    if len(stages) < 2:
        raise MeasureError(
            f"the runs of {out} have {len(stages)} stage(s) ({', '.join(stages) or 'none is finite'}); a conclusion "
            "compares at least two: train another"
        )


def _one_task(runs: Sequence[Run]) -> None:
    require_one_task(runs)
    task = runs[0][1].task
    val = dataset(task).val
    if val.mask is not None or val.labels is not None:
        raise MeasureError(
            f"the loss of the task {task.kind} does not count every target, or counts others than the next tokens, and "
            f"robustness compares mean losses over all next tokens; give runs of a task such as {ModularWalks.kind}"
        )
