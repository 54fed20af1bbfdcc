"""Tables of trained runs with a known answer to each question of the theory."""

import math

import pandas as pd

from sims.analysis.runs import Runs
from sims.runs.columns import WHICH
from sims.runs.layout import ROWS, SPECTRA
from sims.studies.theory.checkpoint_tables import _COLUMNS, CheckpointTables, table
from toymodel.stages import STAGES

LABELS = ["run_id", "stage", "batch_size", "lr", "seed"]
WINDOW = {"window": "10-40"}


def label(stage="untied", batch_size=32, seed=0, step=0):
    return {
        "run_id": f"{stage}-{batch_size}-{seed}",
        "stage": stage,
        "batch_size": batch_size,
        "lr": 1e-3,
        "seed": seed,
        "step": step,
        "tokens": step * 1000,
    }


def row(quantity, value, object_="loss", site="", null=math.nan, null_high=math.nan, which=(), **where):
    kind = {"quantity": quantity, "object": object_, "site": site, "status": "ok", **WHICH, **dict(which)}
    return {**label(**where), **kind, "value": value, "null": null, "null_high": null_high}


def task(band, seen):
    return {"band": band, "regime": "clean", "seen": seen, "set": "task"}


def spectrum(values, **where):
    kind = {"object": "activation", "site": "final", "kind": "eigenvalue", "n": 100, "d": len(values)}
    return {**label(**where), **kind, "centred": True, "values": list(values)}


def evidence(rows=(), spectra=(), **tables):
    rows = pd.DataFrame(list(rows), columns=[*LABELS, *ROWS.names])
    spectra = pd.DataFrame(list(spectra), columns=[*LABELS, *SPECTRA.names])
    parts = [t[[*LABELS, "step", "tokens"]] for t in (rows, spectra)]
    parts += [pd.DataFrame(t) for t in tables.values() if t]
    runs = (
        pd.concat(parts)
        .groupby("run_id", sort=False)
        .agg(dict.fromkeys(LABELS[1:], "first") | {"step": "max", "tokens": "max"})
    )
    order = {name: i for i, name in enumerate(STAGES)}
    runs = (
        runs.reset_index()
        .assign(ended="steps", val_loss=1.0)
        .sort_values("stage", key=lambda c: c.map(order))
    )
    full = {name: table(name, tables.get(name, [])) for name in _COLUMNS}
    return CheckpointTables(
        runs=Runs(runs, rows, spectra, ()), width=dict.fromkeys(runs["run_id"], 8), **full
    )


def by_claim(outcomes):
    return {o.claim: o for o in outcomes}


def concentrations(first, others):
    """The first of five seeds has one course, the others another one, with ends that differ a little."""
    return [
        row("h_s", v - 0.004 * s * (i == 2), "probe", "final", 0.4, 0.45, task("31:2", False), seed=s, step=i)
        for s in range(5)
        for i, v in enumerate(others if s else first)
    ]


def arrivals(stage, times, top=1.0, seeds=3):
    """Modes that rise linearly from 0 and reach `top` at twice the given time."""
    return [
        {
            **label(stage, seed=s, step=t),
            "band": "31:2 clean seen",
            "r": r,
            "amplitude": top * min(1, t / (2 * at)),
            "moved": math.nan,
        }
        for s in range(seeds)
        # The last mode of Muon's later seeds is a little late, so that seeds differ.
        for r, at in enumerate((*times[:-1], times[-1] * (1 + 0.02 * (s - 1) * (stage == "muon"))), start=1)
        for t in range(0, 21 + s, 1)
    ]


def along(by_state, given, gain=2.0, seeds=3):
    return [
        {
            **label(seed=s, step=9),
            "band": "31:2 clean seen",
            "c": 31,
            "position": p,
            "by_state": 0.7 + by_state * (p > 0) + 0.001 * s * p,
            "given_step": 0.7 + given * (p > 0) - 0.001 * s * p,
            "null": 14 / 30,
            "loss": 3.0 - gain * (p > 0),
        }
        for s in range(seeds)
        for p in (0, 5)
    ]


def against_law(gaps, shares, bound=1.0, size=32, last=10):
    """Looks at steps 0 and 10 of three seeds, at two positions: first and last values, a little different by seed."""
    for seed in range(3):
        for k in (1, 2):
            where = {
                "object_": "predictive",
                "site": "final",
                "which": {"detail": f"position {k}"},
                "seed": seed,
                "batch_size": size,
            }
            for step, gap, share in zip((0, last), gaps, shares, strict=True):
                yield row("entropy_gap", gap + 0.01 * seed * (step > 0), step=step, **where)
                yield row("entropy_gap_bound", bound, step=step, **where)
                yield row("alignment_bc", share + 0.01 * seed * (step > 0), step=step, **where)
