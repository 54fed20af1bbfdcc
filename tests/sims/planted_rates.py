"""Losses of arms with learning rates by layer and exponents over matrices, with effects that were planted."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tiny_runs import MEASURE, RUN

from sims.analysis.rates import (
    against_uniform,
)
from sims.runs.lm_config import LmConfig
from sims.runs.store import RunFolder
from sims.studies.rates.answers import RatesAnswers
from sims.studies.rates.measured import RatesData
from sims.studies.rates.published import claims
from toymodel import ModelConfig
from toymodel.rates import Rates

ARMS = ("uniform", "alpha", "farms", "depth", "reversed-farms")
RATES = (0.5, 1.0, 2.0)
# Losses of the three base rates, and what seeds share and do not share.
SETS = 300
CURVE, SHARED, OWN = (0.03, 0.0, 0.03), 0.015, 0.012


def losses(effects=(), seeds=5, draws: int | range = 0, seed=0, curve=CURVE, arms=ARMS, own=OWN):
    """Losses of one cell: 2 plus a curve over base rates, an effect of the arm, noise of the seed and of the run."""
    generator = np.random.default_rng(seed)
    shared = SHARED * generator.standard_normal(seeds)
    numbers = range(draws) if isinstance(draws, int) else draws
    names = [(arm, 0) for arm in arms] + [("shuffled-farms", k) for k in numbers]
    rows = [
        {
            "cell": "rope", "arm": arm, "draw": k, "lr": lr, "seed": s, "run": f"{arm}-{k}-{lr}-{s}",
            "loss": 2 + more + dict(effects).get(arm, 0.0) + shared[s] + own * generator.standard_normal(),
        }
        for (arm, k), (lr, more), s in product(names, zip(RATES, curve, strict=True), range(seeds))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def farms_row(table) -> dict[str, Any]:
    """The comparison of farms with uniform."""
    (row,) = (r for r in against_uniform(table).to_dict("records") if r["arm"] == "farms")
    return {str(name): value for name, value in row.items()}


def verdicts(table):
    return dict(zip(table["arm"], table["verdict"], strict=True))


def made_of(effects=(), draws=10, spread=(), lm=False, seeds=5, rates_of_draws=RATES, tmp="runs", **more):
    """Answers from made losses, and exponents whose spread over matrices is 1 plus a number of the arm."""
    table = losses(effects, draws=draws, seeds=seeds, **more)
    table = table[~table["arm"].str.startswith("shuffled") | table["lr"].isin(rates_of_draws)]
    answers = answers_of(table, LmConfig("tiny", "rope", 300, 16, 2, 5) if lm else base(), tmp)
    answers.__dict__["matrices"] = matrices_of(table, dict(spread))
    return answers


def answers_of(table, like, tmp, **settings):
    specs = {
        r["run"]: replace(
            like,
            lr=r["lr"],
            seed=r["seed"],
            rates=Rates(r["arm"], seed=r["draw"], **settings if r["arm"] != "uniform" else {}),
        )
        for r in table.to_dict("records")
    }
    folders = {run: RunFolder(Path(tmp) / run) for run in specs}
    return RatesAnswers(RatesData(table.reset_index(drop=True), folders, specs, ("a note",)))


def matrices_of(table, spread):
    generator = np.random.default_rng(0)
    rows = []
    for r in table[(table["lr"] == 1.0) & ~table["arm"].str.startswith("shuffled")].to_dict("records"):
        sd = 1 + spread.get(r["arm"], 0.0) + 0.02 * generator.standard_normal()
        for step, (i, kind) in product((0, 5), enumerate(("attn.q", "attn.o", "mlp.fc", "mlp.proj"))):
            value = 3 + sd * (-1, 1, -1, 1)[i] * (0.5 if step == 0 else 1)
            rows.append(
                {
                    **{name: r[name] for name in ("cell", "arm", "lr", "seed", "run")},
                    "step": step, "matrix": f"blocks.{i // 2}.{kind}", "block": i // 2, "rows": 8, "columns": 8,
                    "hill": value, "farms": value, "multiplier": 1 + 0.1 * i,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def outcomes(answers):
    return {claim.claim: claim.outcome for claim in claims(answers)}


def base():
    return replace(RUN, stage="rope", model=ModelConfig(d_model=16, heads=2, layers=2), steps=4, eval_every=4)


def measure_of():
    return replace(MEASURE, bands=(), training_bands=0, causal_sequences=0, gradient_sequences=0)
