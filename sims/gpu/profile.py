"""Carry out the published profile as far as time allows; the next call goes on from the stored states."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sims.gpu.correctness import SMALL_MEASURE
from sims.gpu.lines import Facts, Results
from sims.gpu.setting import Setting
from sims.runs.measure_config import MeasureConfig
from sims.system.errors import MissingExtraError
from sims.system.signals import TimeLimit
from toymodel.config import RunConfig

# What storing and analysing runs needs beside torch, numpy and scipy.
NEEDED = ("pyarrow", "pandas", "safetensors", "rich", "matplotlib", "threadpoolctl")
FOLDER, SMALL = "profile", "small"
STORE_EVERY = 30.0
# The states of the group in training are stored within this time.
SPARE = 15.0


def carry_out(setting: Setting, results: Results) -> bool:
    """Train runs of the profile until the deadline; return whether all are complete.

    The runs lie in a folder that `speclens reproduce all --profile published --out` makes its page from.

    Raises:
        MissingExtraError: packages are missing here.
        ConfigError, MeasureError, StoreError: before any work starts.
    """
    missing = [name for name in NEEDED if not _there(name)]
    if missing:
        raise MissingExtraError(
            f"the profile stores its runs, for which this Python lacks {', '.join(missing)}; pip install "
            f"{' '.join(missing)} (the other parts of `gpu` do without)"
        )
    from rich.console import Console

    from sims.runs.store import RunFolder
    from sims.sweep.options import summary_processes
    from sims.sweep.sweep_run import SweepRun, run_all
    from sims.sweep.work import ToyWork

    name, configs, measuring = _runs(setting)
    out = results.folder / FOLDER
    sweep = SweepRun(
        configs,
        ToyWork(measuring, setting.device, STORE_EVERY, summary_workers=summary_processes(setting.device)),
        out,
        {"campaign": "reproduce", "profile": name},
        workers=1,
        retry_failed=True,
        in_order=not setting.small,
    )

    def complete() -> int:
        return sum(RunFolder(out / c.run_id).done for c in configs)

    before, began = complete(), time.perf_counter()
    failed: dict[str, str] = {}
    left = setting.left() - setting.needed(SPARE)
    limit = TimeLimit(left)
    try:
        # Without time left nothing begins.
        if left > 0:
            with limit:
                failed = run_all(sweep, Console())
    except KeyboardInterrupt:
        if not limit.over:
            raise
    facts: Facts = {
        "complete_before": before,
        "complete": complete(),
        "of": len(configs),
        "failed": len(failed),
        "seconds": time.perf_counter() - began,
        "ok": not failed,
    }
    calls = sum(row["part"] == FOLDER for row in results.rows)
    results.add(FOLDER, f"call {calls + 1}", facts)
    print(f"{facts['complete']} of {len(configs)} runs are complete; {_next(facts, failed, out, name)}")
    return facts["complete"] == len(configs)


def _there(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def _runs(setting: Setting) -> tuple[str, Sequence[RunConfig], MeasureConfig]:
    if setting.small:
        configs = [setting.run(stage=s, steps=20, eval_every=10) for s in ("baseline", "untied")]
        return SMALL, configs, replace(SMALL_MEASURE, every=20, checkpoints=False)
    from sims.studies.paper.profiles import published

    profile = published()
    return profile.name, [c for own in profile.cells().values() for c in own], profile.measuring


def _next(facts: Facts, failed: dict[str, str], out: Path, name: str) -> str:
    if failed:
        return "failed: " + "; ".join(f"{run}: {error}" for run, error in failed.items())
    if facts["complete"] < facts["of"]:
        return "the same command goes on from the stored states"
    return (
        f"`speclens reproduce all --profile {name} --out {out}` makes the page"
        if name != SMALL
        else "all there is"
    )
