"""Runs whose losses, spectra and concentrations are functions of a test's choice, made without training."""

from itertools import product

import numpy as np
import pandas as pd

from sims.analysis.runs import Runs
from sims.runs.columns import WHICH

POINTS = 9
RANKS = np.arange(1, 31)
BAND = {"band": "31:20", "regime": "clean", "seen": False}


def power_law(exponent):
    return RANKS**-exponent


def build(
    stages=("baseline", "rope", "muon"),
    sizes=(32, 128),
    seeds=(0, 1, 2),
    *,
    rate=lambda stage, size, seed: 1.0,
    alpha=lambda stage, size, seed, loss: 1.0,
    gradient=None,
    peak=lambda stage, size, seed, loss: 0.1,
    rankme=lambda stage, size, seed, loss: 10.0,
    speed=lambda stage, seed: 1_000.0,
    points=POINTS,
):
    """Runs whose loss falls linearly in tokens, 4 − rate · (million tokens), each over its own million tokens.

    Everything else is a function of the stage (by its place), the batch size, the seed and the loss.
    """
    runs, rows, spectra = [], [], []
    for (i, stage), size, seed in product(enumerate(stages), sizes, seeds):
        run_id = f"{stage}-{size}-{seed}"
        label = {"run_id": run_id, "stage": stage, "batch_size": size, "lr": 1e-3, "seed": seed}
        for step in range(points):
            tokens = step * 1e6 / (points - 1)
            loss = 4.0 - rate(i, size, seed) * tokens / 1e6
            key = (i, size, seed, loss)
            place = {**label, "step": step, "tokens": tokens}
            rows += measured_rows(place, loss, peak(*key), alpha(*key), rankme(*key))
            spectra.append(spectrum_row(place, "activation", "final", "eigenvalue", alpha(*key)))
            if gradient:
                spectra.append(spectrum_row(place, "gradient", "attn.o", "singular", gradient(*key) / 2))
        ended = {"ended": "finished", "step": points - 1, "tokens": 1e6, "val_loss": loss}
        runs.append({**label, **ended, "seconds_training": 1e6 / speed(i, seed)})
    return Runs(pd.DataFrame(runs), pd.DataFrame(rows), pd.DataFrame(spectra), ())


def measured_rows(place, loss, peak, alpha, rankme):
    """What one measurement says of the model; the weights' RankMe is a function of the seed alone."""
    base = {**place, "status": "ok", "null": 0.05, "null_high": 0.1}
    return [
        {**base, "quantity": q, "object": o, "site": s, **WHICH, **which, "value": v}
        for q, o, s, which, v in (
            ("val_loss", "loss", "validation", {}, loss),
            ("h_peak", "probe", "final", BAND, peak),
            ("h_s", "probe", "final", {**BAND, "set": "task"}, 2 * peak),
            ("alpha", "activation", "final", {"window": "10-40"}, alpha),
            ("rankme", "activation", "final", {}, rankme),
            ("rankme", "weight", "embed", {}, 20.0 + place["seed"]),
        )
    ]


def spectrum_row(place, what, site, kind, exponent):
    shape = {"n": 100, "d": 30, "centred": True}
    return {**place, **shape, "object": what, "site": site, "kind": kind, "values": power_law(exponent)}
