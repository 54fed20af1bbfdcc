"""How fast a toy trains: members × arithmetic × whether steps are launched one by one or as CUDA graphs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from sims.gpu.lines import Facts, Line, Part
from sims.gpu.machine import PRECISIONS
from sims.gpu.setting import Setting
from toymodel.config import Graphs, Precision
from toymodel.ensemble import Ensemble

MEMBERS = (15, 1, 5)
STEPS = 5
PUBLISHED_STEPS = 5_000


def _lines(setting: Setting) -> Iterator[Line]:
    for members in (2,) if setting.small else MEMBERS:
        for stage in ("untied", "baseline"):
            for precision in PRECISIONS if setting.cuda else ("float32", "bfloat16"):
                for how, graphs in _ways(setting).items():
                    name = f"{stage}, K = {members}, {precision}, {how}"
                    yield Line(name, partial(_training, setting, stage, members, precision, graphs), 4)
    if setting.cuda:
        for precision in PRECISIONS:
            name = f"untied, K = {MEMBERS[0]}, {precision}, compiled, graphs"
            yield Line(name, partial(_training, setting, "untied", MEMBERS[0], precision, "on", True), 60)
    for stage in ("untied", "baseline"):
        yield Line(f"{stage}, evaluation", partial(_evaluation, setting, stage), 4)


def _ways(setting: Setting) -> dict[str, Graphs]:
    return {"graphs": "on", "eager": "off"} if setting.cuda else {"eager": "off"}


def _training(
    setting: Setting, stage: str, members: int, precision: Precision, graphs: Graphs, compile: bool = False
) -> Facts:
    ensemble = _ensemble(setting, stage, members, precision, graphs, compile)
    ensemble.check_compiled()
    ensemble.advance(STEPS)
    step_ms = setting.milliseconds(lambda: ensemble.advance(STEPS)) / STEPS
    peak = setting.peak_gib(lambda: ensemble.advance(1))
    # Of one run among the members, training alone.
    facts: Facts = {"step_ms": step_ms, "run_s": step_ms * PUBLISHED_STEPS / 1e3 / members}
    return facts if peak is None else {**facts, "peak_gib": peak}


def _evaluation(setting: Setting, stage: str) -> Facts:
    members = 2 if setting.small else MEMBERS[0]
    ensemble = _ensemble(setting, stage, members)
    return {"members": members, "ms": setting.milliseconds(ensemble.evaluate)}


def _ensemble(
    setting: Setting,
    stage: str,
    members: int,
    precision: Precision = "float32",
    graphs: Graphs = "auto",
    compile: bool = False,
) -> Ensemble:
    shared = {"stage": stage, "batch_size": 32, "steps": 10**6, "precision": precision, "compile": compile}
    configs = [setting.run(seed=s, **shared) for s in range(members)]
    return Ensemble(configs, setting.device, graphs)


SPEED = Part("speed", "Training speed", 120, _lines)
