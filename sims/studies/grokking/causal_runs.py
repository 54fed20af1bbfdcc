"""Define and read the runs of causal tests: each seed once as it is, and again with one thing changed.

Times and lengths are fixed here. What is changed in a run depends on its unchanged twin alone, with which it is
identical, bit for bit, up to the change: an intervention at the alarm of the twin is one at its own alarm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from sims.analysis.alarms import DIVERGED, GROKS, outcomes
from sims.analysis.early_warning import published_alarms
from sims.pages.number import counted
from sims.runs.measure_config import MeasureConfig
from sims.runs.store import RunFolder, run_folders
from sims.studies.grokking.answers import DECIDED_AT, DEFECT_32
from sims.studies.grokking.measured import looks_of_run
from sims.studies.grokking.preset import NETWORKS, grokking_configs, grokking_measurements
from sims.sweep.named_runs import train_named
from sims.sweep.options import LocalOptions
from sims.system.errors import MeasureError
from toymodel.config import RunConfig
from toymodel.intervention import Intervention, Kind

SEEDS = 8
# More than in the other runs: grokking may come later.
STEPS = 4_000
# Steps without weight decay, and how many other times they begin at, in each seed.
PULSE, OTHERS = 400, 3
LABEL = {"campaign": "grokking-causal", "preset": f"mlp, p = 47, {STEPS} steps, pulses of {PULSE}"}

UNCHANGED = "unchanged"
AT_ALARM, ELSEWHERE, FOR_GOOD = (
    "no decay at the alarm",
    "no decay at other times",
    "no decay from the alarm on",
)
EDGE, RANDOM, EVEN, DRIFT = "edge removed", "random directions", "evenly less", "mean update removed"
ARMS: Mapping[str, str] = {
    UNCHANGED: "the run as it is",
    AT_ALARM: f"weight decay 0 for {PULSE} steps from the published alarm on (defect in its published arithmetic)",
    ELSEWHERE: f"the same from {OTHERS} random steps between memorisation and {PULSE} steps before test accuracy 0.9",
    FOR_GOOD: "weight decay 0 from the alarm to the end",
    EDGE: f"from {DECIDED_AT} steps after memorisation to the end, updates lose their part in the directions above the "
    "edge of the last 10 updates of 5 steps each",
    RANDOM: "they lose a part of the same energy in a random direction of these 10 updates",
    EVEN: "they are shortened by the same energy, and keep their direction",
    DRIFT: "they lose their part along the mean of these 10 updates, a single direction",
}


@dataclass(frozen=True)
class Moments:
    """Hold when an unchanged run memorises, has its alarm, and groks."""

    memorised: int
    alarm: int
    grokked: int


def twins(seeds: Sequence[int]) -> list[RunConfig]:
    """Return the unchanged runs: those of the small network on addition, of which each seed's are the first."""
    return [replace(grokking_configs([seed])[0], steps=STEPS) for seed in seeds]


def twin_measurements() -> MeasureConfig:
    """Return what is measured of unchanged runs: accuracies, and the defect that the alarm needs."""
    return replace(grokking_measurements(), every=STEPS, updates=0, update_decay=False)


def changed_measurements() -> MeasureConfig:
    """Return what is measured of changed runs: accuracies."""
    return replace(twin_measurements(), defect=0)


def changed(twin: RunConfig, moments: Moments) -> Iterator[tuple[str, RunConfig]]:
    """Yield the arm and the configuration of every changed run of a seed."""

    def pulse(start: int, stop: int | None) -> RunConfig:
        return replace(twin, intervention=Intervention("decay", start, stop))

    yield AT_ALARM, pulse(moments.alarm, moments.alarm + PULSE)
    for start in other_times(twin.seed, moments):
        yield ELSEWHERE, pulse(start, start + PULSE)
    yield FOR_GOOD, pulse(moments.alarm, None)
    kinds: dict[str, Kind] = {EDGE: "edge", RANDOM: "random", EVEN: "even", DRIFT: "drift"}
    for arm, kind in kinds.items():
        yield arm, replace(twin, intervention=Intervention(kind, moments.memorised + DECIDED_AT))


def other_times(seed: int, moments: Moments) -> list[int]:
    """Draw the steps at which the decay is lowered for comparison: all looks at the defect are as likely.

    >>> other_times(0, Moments(200, 700, 1500))
    [650, 750, 900]
    """
    every = NETWORKS["mlp"].signals
    possible = np.arange(-(-moments.memorised // every) * every, moments.grokked - PULSE + 1, every)
    drawn = np.random.default_rng(seed).choice(possible, min(OTHERS, len(possible)), replace=False)
    return sorted(int(step) for step in drawn)


def expected(seeds: Sequence[int]) -> list[RunConfig]:
    """Return all runs as if each seed had the times of a usual one, before the unchanged runs tell its own."""
    return [
        config
        for twin in twins(seeds)
        for config in (twin, *(own for _, own in changed(twin, Moments(225, 700, 1_600))))
    ]


def train_arms(seeds: Sequence[int], options: LocalOptions, out: Path, console: Console) -> dict[str, str]:
    """Train the unchanged runs, then, of those that have an alarm and grok, the changed ones.

    Returns:
        {run id: error} of the failed runs.

    Raises:
        ConfigError, MeasureError, StoreError, EngineError: before any work starts.
    """
    failed = train_named(twins(seeds), twin_measurements(), options, out, LABEL, console)
    arms: list[RunConfig] = []
    for twin in twins(seeds):
        moments = moments_of(twin, out) if RunFolder(out / twin.run_id).done else ""
        if isinstance(moments, Moments):
            arms += [config for _, config in changed(twin, moments)]
    if arms:
        failed |= train_named(arms, changed_measurements(), options, out, LABEL, console)
    return failed


def seeds_in(out: Path) -> list[int]:
    """Return the seeds of the unchanged runs of a folder."""
    specs = [folder.spec for folder in run_folders(out)]
    # A copy of a run is no other seed.
    return sorted({s.seed for s in specs if isinstance(s, RunConfig) and [s] == twins([s.seed])})


def moments_of(twin: RunConfig, out: Path) -> Moments | str:
    """Return when an unchanged run had its alarm, or why it cannot be compared.

    Raises:
        MeasureError: it lacks accuracies or the defect.
    """
    looks = looks_of_run(RunFolder(out / twin.run_id), twin)
    found = outcomes(looks).iloc[0]
    if found["outcome"] != GROKS:
        return f"seed {twin.seed}, unchanged: {found['outcome']}"
    alarm = published_alarms(looks, DEFECT_32).iloc[0]["alarm"]
    if not alarm < found["t_90"]:
        return f"seed {twin.seed} has no alarm before it groks"
    if found["t_90"] - PULSE < found["t_mem"]:
        return f"seed {twin.seed} groks within {PULSE} steps of memorisation"
    return Moments(int(found["t_mem"]), int(alarm), int(found["t_90"]))


def times_of(out: Path, seeds: Sequence[int]) -> tuple[pd.DataFrame, list[str]]:
    """Return when every complete run groks, and which seeds and runs are left out.

    A run that diverged before it grokked has no time: it might have grokked at any later step.

    Returns:
        seed, arm, start (of the change; 0 for none), t_mem, alarm (of the unchanged run), time (step of test accuracy
        0.9, or the steps of the run), reached; and the reasons.

    Raises:
        MeasureError: no seed can be compared.
    """
    rows, notes = [], []
    lacking: Counter[int] = Counter()
    for twin in twins(seeds):
        if not RunFolder(out / twin.run_id).done:
            notes.append(f"seed {twin.seed} has no complete unchanged run")
            continue
        moments = moments_of(twin, out)
        if isinstance(moments, str):
            notes.append(moments)
            continue
        for arm, config in [(UNCHANGED, twin), *changed(twin, moments)]:
            folder = RunFolder(out / config.run_id)
            if not folder.done:
                lacking[twin.seed] += 1
                continue
            found = outcomes(looks_of_run(folder, config)).iloc[0]
            if found["outcome"] == DIVERGED:
                notes.append(f"seed {twin.seed}, {arm}: diverged")
                continue
            t_90 = float(found["t_90"])
            rows.append(
                {
                    "seed": twin.seed,
                    "arm": arm,
                    "start": config.intervention.start,
                    "t_mem": moments.memorised,
                    "alarm": moments.alarm,
                    "time": t_90 if np.isfinite(t_90) else float(config.steps),
                    "reached": bool(np.isfinite(t_90)),
                }
            )
    notes += [f"seed {seed} lacks {counted(number, 'run')} with a change" for seed, number in lacking.items()]
    if not rows:
        why = f" ({'; '.join(notes)})" if notes else ""
        raise MeasureError(f"{out} has no runs to compare{why}; train them with `speclens grokking --causal`")
    return pd.DataFrame(rows), notes
