"""The runs behind `speclens reproduce`: three profiles, each a set of grids and one way of measuring."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sims.config import MeasureConfig
from sims.experiments.demo import ADAMW_LR, MUON_LR, REFERENCE_BATCH
from sims.experiments.presets import PUBLISHED, SMALL, SMALL_MEASURE, SWEEP_MEASURE
from sims.reproduce.published import BUDGET_A, RUN_A, SIZES, STAGES, TARGET_A, TARGET_B
from sims.sweep.grid import BASE_BATCH, FACTORS, Grid
from toymodel.config import RunConfig
from toymodel.stages import stage

ProfileName = Literal["quick", "published", "extended"]
RunSet = Literal["A", "B"]
# Of which published set of runs each figure is, and which stages it needs.
NEEDS: dict[str, tuple[RunSet, tuple[str, ...]]] = {
    **dict.fromkeys(("tables", "fig1a", "fig3", "fig4b", "fig9", "fig11b", "fig18"), ("A", STAGES)),
    "fig4a": ("B", STAGES),
    "fig7": ("A", ("rope", "muon")),
    "fig11a": ("B", ("untied",)),
}
# Batch size: steps, of which a twelfth lies between evaluations; every evaluation is measured.
QUICK_BUDGETS = {16: 840, 64: 420, 128: 240}
MEASUREMENTS = 12
SCAN_SIZES = (32, 64, 128, 256, 512)
# The published budget of run B at batch size 32; others have as many tokens.
BUDGET_B = 40_000
# Coarser than this a batch size of 512 would be read past its target; with `every` it gives one measurement a 25,600
# sequences in run B, and one each 50 steps in run A.
EVALUATE_A, EVALUATE_B, EVERY = 10, 5_120, 50


@dataclass(frozen=True)
class Profile:
    """A set of runs.

    Attributes:
        name: as the command takes it.
        a, b: grids of the published runs "A" and "B"; the same grids may serve both.
        measuring: how every run is measured.
    """

    name: ProfileName
    a: tuple[Grid, ...]
    b: tuple[Grid, ...]
    measuring: MeasureConfig

    def configs(self, names: Sequence[str]) -> list[RunConfig]:
        """The runs that these figures need, each once."""
        found: list[RunConfig] = []
        for which in ("A", "B"):
            wanted = _stages(names, which)
            for grid in self.a if which == "A" else self.b:
                stages = [s for s in grid.stages if s in wanted]
                if stages:
                    found += replace(grid, stages=stages).configs()
        return list(dict.fromkeys(found))


def profile(name: ProfileName) -> Profile:
    """The profile of that name."""
    if name == "quick":
        return _quick()
    seeds = range(3) if name == "published" else range(5)
    # Three factors around both rules, or all five: the published scan.
    factors = FACTORS[1:4] if name == "published" else FACTORS
    measuring = replace(SWEEP_MEASURE, every=EVERY, causal_sequences=0, checkpoints=False)
    return Profile(name, _run_a(seeds), _run_b(seeds, factors), measuring)


def _stages(names: Sequence[str], which: RunSet) -> set[str]:
    return {stage for name in names if NEEDS[name][0] == which for stage in NEEDS[name][1]}


def _quick() -> Profile:
    """The demo's size at three batch sizes, three seeds and its own learning rates; no target, so no early ends."""
    scale = math.sqrt(BASE_BATCH / REFERENCE_BATCH)
    stages = tuple(RUN_A)
    grids = tuple(
        Grid(
            base=replace(SMALL, steps=steps, eval_every=steps // MEASUREMENTS),
            stages=stages,
            batch_sizes=(size,),
            seeds=range(3),
            base_lrs={s: scale * (MUON_LR if stage(s).routing.muon else ADAMW_LR) for s in stages},
            factors=(1.0,),
        )
        for size, steps in QUICK_BUDGETS.items()
    )
    every = math.gcd(*(steps // MEASUREMENTS for steps in QUICK_BUDGETS.values()))
    measuring = replace(
        SMALL_MEASURE,
        every=every,
        bands=SMALL_MEASURE.bands[:2],
        probe_sequences=480,
        gradient_sequences=48,
        gradient_matrices=("attn.o", "mlp.proj"),
        causal_sequences=0,
    )
    return Profile("quick", grids, grids, measuring)


def _run_a(seeds: Sequence[int]) -> tuple[Grid, ...]:
    """The published learning rate of each cell, to loss 2.0 or 5,000 steps."""
    base = replace(PUBLISHED, steps=BUDGET_A, target_loss=TARGET_A, eval_every=EVALUATE_A)
    return tuple(
        Grid(base, (name,), (size,), seeds, base_lrs={}, lrs=(cell[0],))
        for name, cells in RUN_A.items()
        for size, cell in zip(SIZES, cells, strict=True)
    )


def _run_b(seeds: Sequence[int], factors: Sequence[float]) -> tuple[Grid, ...]:
    """Learning rates scanned around both rules from the published rate at batch size 32, to loss 2.5."""
    return tuple(
        Grid(
            replace(
                PUBLISHED,
                steps=BUDGET_B * BASE_BATCH // size,
                target_loss=TARGET_B,
                eval_every=EVALUATE_B // size,
            ),
            tuple(RUN_A),
            (size,),
            seeds,
            base_lrs={name: cells[0][0] for name, cells in RUN_A.items()},
            rules=("sqrt", "linear"),
            factors=factors,
        )
        for size in SCAN_SIZES
    )
