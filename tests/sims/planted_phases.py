"""Answers to sets of runs whose geometry has phases that were planted, without noise of training."""

import math
from typing import Any

import numpy as np
import pandas as pd

from sims.analysis.runs import Runs
from sims.runs.layout import ROWS, SPECTRA
from sims.studies.phases.answers import PhaseAnswers
from sims.studies.phases.measured import PhaseData
from sims.studies.phases.published import claims
from sims.studies.phases.settings import LANGUAGE, Setting

LOOKS = np.geomspace(4e3, 2e6, 21)
SHARE = np.linspace(0, 1, 21)
RISE = 2.5 * np.clip(SHARE - 0.2, 0, 0.4)
WE = 3.5 - 6 * np.minimum(SHARE, 0.2) + RISE
WEC = WE - 1.2 * np.maximum(SHARE - 0.6, 0)
BASE = Setting(
    LANGUAGE, "rope", 4, 64, 1024, 32, 3e-3, 540, 16, 0, "text", bias=False, pooling="last", states=768
)


def planted(sets, seeds=3, noise=0.01, draws=39):
    """Return answers to sets of runs: name → setting, and (looks,) of ln RankMe, of it without k directions (0: with
    the mean state) and of the mean share.
    """
    rows, runs = [], []
    label: dict[str, Any] = {}
    for number, (cell, (_, curve, without, share)) in enumerate(sets.items()):
        for seed in range(seeds):
            generator = np.random.default_rng([number, seed])
            label = {"run_id": f"{cell}-{seed}", "stage": cell, "batch_size": 32, "lr": 3e-3, "seed": seed}
            runs.append({**label, "ended": "finished", "step": 540, "tokens": LOOKS[-1], "val_loss": 3.0})

            def add(quantity, values, label=label, generator=generator, **which):
                start = {"step": 0, "tokens": 0.0, "value": values[0]}
                for step, (tokens, value) in enumerate(zip(LOOKS, values, strict=True), 1):
                    noisy = value * math.exp(noise * generator.standard_normal())
                    rows.append({**label, "quantity": quantity, "object": "activation", "site": "final",
                                 "step": step, "tokens": tokens, "value": noisy, "status": "ok", **which})  # fmt: skip
                rows.append({**rows[-1], **start})

            add("rankme", np.exp(curve), null=60.0)
            add("alpha_req", 4 - curve, detail="width")
            add("mean_share", np.array(share))
            for k, own in without.items():
                add(
                    "rankme_without" if k else "rankme_uncentred", np.exp(own), detail=f"top {k}" if k else ""
                )
    table = pd.DataFrame(rows).reindex(columns=[*label, *(c for c in ROWS.names if c not in label)])
    configs = {run["run_id"]: {"logit_bias": sets[run["stage"]][0].bias} for run in runs}
    found = Runs(
        pd.DataFrame(runs), table, pd.DataFrame(columns=["run_id", *SPECTRA.names]), (), configs=configs
    )
    settings = {cell: setting for cell, (setting, *_) in sets.items()}
    return PhaseAnswers(PhaseData(found, settings, {}), draws=draws)


def outcomes(answers):
    return {(c.claim, c.runs): c.outcome for c in claims(answers)}


def of(found, text):
    (outcome,) = {outcome for (claim, _), outcome in found.items() if claim.startswith(text)}
    return outcome


GATHERS = np.interp(SHARE, [0, 0.2, 0.6, 1], [0.2, 0.9, 0.4, 0.3])
