"""The runs behind `speclens reproduce`: each profile is a set of grids and one way of measuring."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sims.runs.measure_config import MeasureConfig
from sims.studies.paper.cells import DATA, ON_OTHER_DATA, SCAN_SIZES, A, B, Cell, by_worth
from sims.studies.paper.published import BUDGET_A, RUN_A, SIZES, STAGES, TARGET_A, TARGET_B
from sims.studies.paper.study import PAGE, STUDY
from sims.studies.study import figures, profiles
from sims.sweep.grid import Grid
from sims.sweep.presets import (
    PUBLISHED,
    SMALL,
    SMALL_MEASURE,
    SWEEP_MEASURE,
    small_base_lrs,
)
from sims.sweep.scaling import BASE_BATCH, FACTORS
from toymodel.config import RunConfig
from toymodel.errors import ConfigError
from toymodel.stages import CHAIN

# Batch size: steps. A thirtieth lies between evaluations and a tenth between measurements; the first evaluations are
# measured besides, because Muon is soon below all that AdamW reaches, and stages are compared at common losses.
QUICK_BUDGETS = {16: 840, 64: 420, 128: 240}
EVALUATIONS, MEASUREMENTS, EARLY = 30, 10, 2
# Two evaluations of 256 sequences cost one of 512, and the same sequences serve every run.
QUICK_EVALUATION = 256
# The later stages at one batch size, beginning with the last one of the core chain.
LATER = tuple(CHAIN)[list(CHAIN).index("untied") :]
LATER_SIZE = 64
# Steps are measured that are a multiple of both this and a thirtieth of the budget: a tenth of each of them.
SMALL_MEASURING = replace(
    SMALL_MEASURE,
    every=math.gcd(*(steps // MEASUREMENTS for steps in QUICK_BUDGETS.values())),
    early=EARLY,
    bands=SMALL_MEASURE.bands[:2],
    probe_sequences=480,
    gradient_sequences=48,
    gradient_matrices=("attn.o", "mlp.proj"),
    causal_sequences=0,
)
# The published budget of run B at batch size 32; others have as many tokens.
BUDGET_B = 40_000
# Coarser than this a batch size of 512 would be read past its target; with `every` it gives one measurement a 25,600
# sequences in run B, and one each 50 steps in run A.
EVALUATE_A, EVALUATE_B, EVERY = 10, 5_120, 50
# Of the runs on other data; those of run A have the data of PUBLISHED.
DATA_SEEDS = range(1, 6)


@dataclass(frozen=True)
class Profile:
    """A set of runs.

    Attributes:
        name: as the command takes it.
        a, b: grids of the published runs "A" and "B"; the same grids may serve both.
        d: grids of runs like those of A at one of their model seeds, on other data.
        measuring: how every run is measured.
        only: the figures that can be made of them; None for all that say which runs they need.
        instalments: whether the runs take so long that they are trained cell by cell, in the order of their worth.
    """

    name: str
    a: tuple[Grid, ...]
    b: tuple[Grid, ...]
    measuring: MeasureConfig
    only: tuple[str, ...] | None = None
    instalments: bool = False
    d: tuple[Grid, ...] = ()

    @property
    def figures(self) -> tuple[str, ...]:
        """Return the figures that can be made of these runs, in the order of the page."""
        known = figures(PAGE)
        if self.only is not None:
            return tuple(n for n in known if n in self.only)
        return tuple(n for n, f in known.items() if f.runs is not None and self._grids(f.runs))

    def _grids(self, part: str) -> tuple[Grid, ...]:
        """Return the grids that a figure needs; other data are compared with the model seeds of run A."""
        if part == DATA:
            return (*self._of(ON_OTHER_DATA), *self.d) if self.d else ()
        return self.a if part == A else self.b

    def _of(self, stages: Sequence[str]) -> tuple[Grid, ...]:
        return tuple(grid for grid in self.a if set(grid.stages) <= set(stages))

    def cells(self, names: Sequence[str] = ()) -> dict[Cell, list[RunConfig]]:
        """Return the runs that these figures need by cell, in the order of their worth.

        Args:
            names: of figures; none takes all that these runs allow.

        Raises:
            ConfigError: a figure that these runs do not allow.
        """
        found: dict[Cell, list[RunConfig]] = {}
        in_a, in_d = ({c for grid in grids for c in grid.configs()} for grids in (self.a, self.d))
        for config in self.configs(names or self.figures):
            part = A if config in in_a else DATA if config in in_d else B
            found.setdefault(Cell(config.stage, config.batch_size, part), []).append(config)
        return {cell: found[cell] for cell in by_worth(found)}

    def configs(self, names: Sequence[str]) -> list[RunConfig]:
        """Return the runs that these figures need, each once.

        Raises:
            ConfigError: a figure that these runs do not allow.
        """
        refused = [name for name in names if name not in self.figures]
        if refused:
            raise ConfigError(
                f"the runs of profile {self.name} do not allow {', '.join(refused)}; they allow "
                f"{', '.join(self.figures)}"
            )
        known, found = figures(PAGE), list[RunConfig]()
        for name in names:
            figure = known[name]
            for grid in self._grids(figure.runs or A):
                stages = [s for s in grid.stages if figure.stages is None or s in figure.stages]
                found += replace(grid, stages=stages).configs() if stages else []
        return sorted(dict.fromkeys(found), key=lambda c: list(CHAIN).index(c.stage))


def profile(name: str) -> Profile:
    """Return the profile of that name."""
    return profiles(PAGE)[name]()


@STUDY.profile
def quick() -> Profile:
    """Return runs of minutes on two CPU cores."""
    grids = _small(STAGES, QUICK_BUDGETS)
    return Profile("quick", grids, grids, SMALL_MEASURING)


@STUDY.profile
def chain() -> Profile:
    """Return the later stages at the size of `quick`."""
    grids = _small(LATER, {LATER_SIZE: QUICK_BUDGETS[LATER_SIZE]})
    return Profile("chain", grids, (), SMALL_MEASURING, ("tables", "fig3", "fig11b"))


@STUDY.profile
def published() -> Profile:
    """Return the published size: run A with five seeds, run B with three and three factors around both rules."""
    return _full("published", range(5), range(3), FACTORS[1:4])


@STUDY.profile
def extended() -> Profile:
    """Return the published size, five seeds and the published scan of five factors."""
    return _full("extended", range(5), range(5), FACTORS)


def _full(name: str, seeds_a: Sequence[int], seeds_b: Sequence[int], factors: Sequence[float]) -> Profile:
    measuring = replace(SWEEP_MEASURE, every=EVERY, early=EARLY, causal_sequences=0, checkpoints=False)
    return Profile(
        name,
        _run_a(seeds_a),
        _run_b(seeds_b, factors),
        measuring,
        instalments=True,
        d=tuple(grid for seed in DATA_SEEDS for grid in _run_a(seeds_a[:1], ON_OTHER_DATA, seed)),
    )


def _small(stages: Sequence[str], budgets: Mapping[int, int]) -> tuple[Grid, ...]:
    """Return grids of the demo's size with three seeds and its learning rates; no target, so no early ends."""
    base_lrs = small_base_lrs(stages)
    return tuple(
        Grid(
            base=replace(SMALL, steps=steps, eval_every=steps // EVALUATIONS, eval_size=QUICK_EVALUATION),
            stages=stages,
            batch_sizes=(size,),
            seeds=range(3),
            base_lrs=base_lrs,
            factors=(1.0,),
        )
        for size, steps in budgets.items()
    )


def _run_a(
    seeds: Sequence[int], stages: Sequence[str] = STAGES, data_seed: int = PUBLISHED.task.seed
) -> tuple[Grid, ...]:
    """Return grids of the published learning rate of each cell, to loss 2.0 or 5,000 steps."""
    task = replace(PUBLISHED.task, seed=data_seed)
    base = replace(PUBLISHED, task=task, steps=BUDGET_A, target_loss=TARGET_A, eval_every=EVALUATE_A)
    return tuple(
        Grid(base, (name,), (size,), seeds, base_lrs={}, lrs=(cell[0],))
        for name, cells in RUN_A.items()
        if name in stages
        for size, cell in zip(SIZES, cells, strict=True)
    )


def _run_b(seeds: Sequence[int], factors: Sequence[float]) -> tuple[Grid, ...]:
    """Return grids of rates scanned around both rules from the published rate at batch size 32, to loss 2.5."""
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
