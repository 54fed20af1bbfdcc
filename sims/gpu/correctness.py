"""Is a GPU right: training and measuring against the CPU, repetition, company and resuming."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from sims.gpu.lines import Facts, Line, Part
from sims.gpu.setting import Setting
from sims.measure.engine import gather, measure
from sims.measure.toy import MeasurementData, prepare
from sims.models.transformer import TransformerStack, TransformerSubject
from sims.runs.measure_config import MeasureConfig
from toymodel.config import RunConfig
from toymodel.data import dataset
from toymodel.ensemble import Ensemble
from toymodel.stages import CHAIN, STAGES

STEPS = 20
# Relative differences of losses after five steps, and of the validation loss after all. Sums in another order differ
# by 1e-7, and training multiplies differences.
FIFTH, VALIDATION = 1e-4, 2e-3
# Of a measured number, relative; in float64, where rounding is far below it.
MEASURED = 1e-6
SMALL_MEASURE = MeasureConfig(
    sequences=128,
    windows=((1, 10),),
    gradient_sequences=8,
    bands=((17, 5),),
    training_bands=0,
    probe_sequences=240,
    causal_sequences=16,
)


def _training(setting: Setting) -> Iterator[Line]:
    order = [*STAGES, *(name for name in CHAIN if name not in STAGES)]
    if setting.small:
        order = order[:-1:3]
    for name in order:
        yield Line(f"{name}: CPU against {setting.device}", partial(_against_cpu, setting, name), 3)
    for name in STAGES:
        yield Line(f"{name}: again, resumed, eager, alone", partial(_among_themselves, setting, name), 6)


def _against_cpu(setting: Setting, name: str) -> Facts:
    """Train one member here and there; Muon iterates in float32, because in bfloat16 it is chaotic."""
    config = setting.run(stage=name, newton_schulz="float32", batch_size=8)
    host, device = Ensemble([config]), Ensemble([config], setting.device)
    off = []
    for _ in range(STEPS):
        a, b = host.advance(1).item(), device.advance(1).item()
        off.append(abs(a - b) / abs(a))
    a, b = host.evaluate().item(), device.evaluate().item()
    validation = abs(a - b) / abs(a)
    return {
        "first": off[0],
        "fifth": off[4],
        "last": off[-1],
        "validation": validation,
        "ok": off[4] <= FIFTH and validation <= VALIDATION,
    }


def _among_themselves(setting: Setting, name: str) -> Facts:
    """Train four members twice, with a stop in the middle, without CUDA graphs, and one of them alone.

    Repetition and resuming must give the same bits, and steps must be captured. Company need not give the same bits on
    a GPU, whose products depend on their number, and graphs may choose other kernels.
    """
    configs = [setting.run(stage=name, seed=s, lr=6e-4 * (1 + s), batch_size=8) for s in range(4)]
    first, second, half = (Ensemble(configs, setting.device) for _ in range(3))
    eager, alone = Ensemble(configs, setting.device, "off"), Ensemble(configs[2:3], setting.device)
    for ensemble in (first, second, eager, alone):
        ensemble.advance(STEPS)
    half.advance(STEPS // 2)
    states = [half.state(k) for k in range(len(configs))]
    resumed = Ensemble.from_states(configs, states, half.step, setting.device)
    resumed.advance(STEPS - half.step)
    repeat, resume, graphs = (_furthest(first.params, other.params) for other in (second, resumed, eager))
    captured = first.repeated.captures > 0 or not setting.cuda
    return {
        "repeat": repeat,
        "resume": resume,
        "graphs": graphs,
        "company": _furthest(first.weights(2), alone.weights(0)),
        "captures": first.repeated.captures,
        "ok": repeat == 0 and resume == 0 and captured,
    }


def _furthest(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> float:
    """Return the largest difference, over the largest entry of its matrix."""
    pairs = [(a[n].detach(), b[n].detach()) for n in a]
    return max(float((x - y).abs().max() / x.abs().max().clamp_min(1e-12)) for x, y in pairs)


def _measuring(setting: Setting) -> Iterator[Line]:
    members = 2 if setting.small else 15
    yield Line(f"untied: {members} members together", partial(_together, setting, "untied", members), 12)
    for name in reversed(STAGES):
        for dtype in (torch.float64, torch.float32):
            yield Line(f"{name}: measured in {str(dtype)[6:]}", partial(_measured, setting, name, dtype), 8)


def _together(setting: Setting, name: str, members: int) -> Facts:
    """Measure members together, as training on a GPU does, and compare the last with itself alone on the CPU."""
    configs = [setting.run(stage=name, seed=s) for s in range(members)]
    ensemble = Ensemble(configs, setting.device)
    ensemble.advance(30)
    params = {n: p.detach() for n, p in ensemble.params.items()}
    host, device = (_inputs(setting, configs[0], d) for d in ("cpu", setting.device))
    times = []
    for _ in range(2):
        began = setting.now()
        found = gather(TransformerStack(configs, params, ensemble.step), device)
        gathered = setting.now()
        for each in found:
            each.sheet()
        times.append((gathered - began, setting.now() - gathered))
    double = {n: p.double() for n, p in params.items()}
    theirs = gather(TransformerStack(configs, double, ensemble.step), device)[-1].sheet().rows
    weights = {n: w.double() for n, w in ensemble.weights(members - 1).items()}
    alone = measure(TransformerSubject.of_weights(configs[-1], weights, ensemble.step), host)
    worst, where, rows = _worst(alone.rows, theirs)
    facts = {"rows": rows, "worst": worst, "where": where, "device_s": times[-1][0], "host_s": times[-1][1]}
    return {**facts, "ok": worst <= MEASURED}


def _inputs(setting: Setting, config: RunConfig, device: str) -> MeasurementData:
    published = replace(MeasureConfig(), probe_sequences=1_800, training_bands=0)
    return prepare(SMALL_MEASURE if setting.small else published, config, dataset(config.task), device)


def _measured(setting: Setting, name: str, dtype: torch.dtype) -> Facts:
    """Measure the same weights here and there.

    In float64 every number must agree; in float32, as runs are measured, the worst difference is shown.
    """
    config = setting.run(stage=name)
    ensemble = Ensemble([config], setting.device)
    ensemble.advance(30)
    weights = {n: w.to(dtype) for n, w in ensemble.weights(0).items()}
    rows, seconds = [], []
    for device in ("cpu", setting.device):
        data = _inputs(setting, config, device)
        subject = TransformerSubject.of_weights(config, weights, ensemble.step, device)
        began = setting.now()
        rows.append(measure(subject, data).rows)
        seconds.append(setting.now() - began)
    worst, where, compared = _worst(*rows)
    facts = {"rows": compared, "worst": worst, "where": where, "cpu_s": seconds[0], "device_s": seconds[1]}
    return {**facts, "ok": worst <= MEASURED} if dtype == torch.float64 else facts


def _worst(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> tuple[float, str, int]:
    """Return the largest relative difference of two lists of rows, its row, and the number of rows."""
    if [_key(r) for r in ours] != [_key(r) for r in theirs]:
        return math.inf, "the rows are not the same", 0
    worst, where = 0.0, ""
    for a, b in zip(ours, theirs, strict=True):
        for column in ("value", "low", "high"):
            x, y = a[column], b[column]
            if math.isnan(x) and math.isnan(y):
                continue
            off = abs(x - y) / max(abs(x), 1e-9) if math.isfinite(x) and math.isfinite(y) else math.inf
            if x != y and off >= worst:
                worst, where = off, f"{' '.join(filter(None, _key(a)))} {column}"
    return worst, where, len(ours)


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    names = ("object", "site", "quantity", "band", "regime", "set", "window", "detail", "status")
    return tuple(str(row[name]) for name in names)


TRAINING = Part("correct", "Training: CPU against GPU, repetition, resuming", 80, _training)
MEASURING = Part("measure", "Measuring: CPU against GPU", 50, _measuring)
