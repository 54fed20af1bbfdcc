"""One published cell: untied, 32 sequences a step, three seeds, to the published loss."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from statistics import mean

from sims.gpu.lines import Facts, Line, Part
from sims.gpu.setting import Setting
from sims.studies.paper.published import RUN_A, SIZES, TARGET_A
from toymodel.ensemble import Ensemble
from toymodel.training import train

STAGE, SIZE, SEEDS = "untied", 32, range(3)
# A run ends at an evaluation: the published ones looked as often.
EVALUATE_EVERY = 10
SECONDS = 90.0
# Seconds that a cell leaves to its last evaluation.
SPARE = 5.0


def _lines(setting: Setting) -> Iterator[Line]:
    size = "tiny" if setting.small else f"B = {SIZE}"
    yield Line(f"{STAGE}, {size}, {len(SEEDS)} seeds to {TARGET_A:g}", partial(_cell, setting), SECONDS)


def _cell(setting: Setting) -> Facts:
    """Train the seeds as one ensemble, as a sweep does, and set what comes out beside what was published."""
    lr, loss, tokens, steps = RUN_A[STAGE][SIZES.index(SIZE)]
    most = 30 if setting.small else 2 * steps
    configs = [
        setting.run(
            stage=STAGE,
            batch_size=SIZE,
            lr=lr,
            seed=s,
            steps=most,
            eval_every=EVALUATE_EVERY,
            target_loss=TARGET_A,
        )
        for s in SEEDS
    ]
    until = time.perf_counter() + min(setting.left() - SPARE, 2 * SECONDS)
    began = setting.now()
    ended: dict[int, tuple[int, int, float, str]] = {}
    for snapshot in train(Ensemble(configs, setting.device)):
        late = time.perf_counter() > until
        for config, value, reason in zip(snapshot.configs, snapshot.val_losses, snapshot.ended, strict=True):
            if reason or late:
                ended[config.seed] = (snapshot.step, snapshot.tokens, value, reason or "out of time")
        if late:
            break
    seconds = setting.now() - began
    each = [ended[s] for s in SEEDS]
    published: Facts = {"steps_published": steps, "mtokens_published": tokens, "val_loss_published": loss}
    return {
        "steps": " ".join(str(e[0]) for e in each),
        "mtokens_mean": mean(e[1] for e in each) / 1e6,
        "val_loss": " ".join(f"{e[2]:.4f}" for e in each),
        # Nothing was published of a tiny size.
        **({} if setting.small else published),
        "ended": " ".join(e[3].replace(" ", "-") for e in each),
        "seconds": seconds,
        "ms_a_step": 1e3 * seconds / max(e[0] for e in each),
    }


CELL = Part("cell", "One published cell", 100, _lines)
