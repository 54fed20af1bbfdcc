"""`speclens sweep`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from sims.runs.measure_config import MeasureConfig
from sims.sweep.options import SweepOptions, check_seeds
from sims.sweep.presets import PUBLISHED, SMALL, SMALL_MEASURE, SWEEP_MEASURE, small_base_lrs
from sims.sweep.scaling import Rule
from sims.sweep.task_options import TaskKind
from toymodel.config import RunConfig
from toymodel.errors import ConfigError
from toymodel.stages import STAGES
from toymodel.tasks import DEFAULT_KIND

if TYPE_CHECKING:
    from sims.pages.answer import Answer
    from sims.sweep.grid import Grid


@dataclass(frozen=True)
class Base(RunConfig):
    """Hold a configuration without options for its stage, batch size, learning rate and seed, which a sweep varies."""

    stage: tyro.conf.Suppress[str] = "baseline"
    # No larger than a small training split.
    batch_size: tyro.conf.Suppress[int] = 1
    lr: tyro.conf.Suppress[float] = RunConfig.lr
    seed: tyro.conf.Suppress[int] = 0

    @classmethod
    def of(cls, config: RunConfig) -> Base:
        """Return the other settings of a run."""
        return cls(**{f.name: getattr(config, f.name) for f in fields(config) if f.name != "batch_size"})

    def plain(self) -> RunConfig:
        """Return them as a run."""
        return RunConfig(**{f.name: getattr(self, f.name) for f in fields(RunConfig)})


_PUBLISHED, _SMALL = Base.of(PUBLISHED), Base.of(SMALL)


@dataclass(frozen=True)
class _Sweep:
    run: Annotated[Base, tyro.conf.arg(name="")]
    """Everything that is not varied."""
    measure: MeasureConfig
    task_kind: TaskKind = DEFAULT_KIND
    stages: tuple[str, ...] = tuple(STAGES)
    """Stages to train."""
    batch_sizes: tuple[int, ...] = (32, 128, 512)
    """Batch sizes to train."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of each cell."""
    lrs: tuple[float, ...] = ()
    """Learning rates for every stage and batch size; by default the rule below decides."""
    base_lr: float | None = None
    """Learning rate at batch size 32 that the rule scales; by default that of the preset, by stage."""
    lr_rule: tuple[Rule, ...] = ("sqrt",)
    """Scaling of the base with batch size / 32: sqrt, linear, or both."""
    lr_factors: tuple[float, ...] = (1.0,)
    """Multiples of each scaled rate; the published scan is 0.5 0.707 1 1.414 2."""
    steps_at: tuple[str, ...] = ()
    """Steps by batch size, such as 32:40000 512:2500; other batch sizes take --steps."""
    vary: tuple[str, ...] = ()
    """Further fields and their values, such as task.length=16,32 newton_schulz=bfloat16,exact."""
    halving: float | None = None
    """Prune learning rates: one in this many continues at each rung; the others enter no analysis."""
    out: Path = Path("sweep")
    """Folder for the run folders and the report."""
    dry_run: bool = False
    """Show the plan and what it costs, and stop."""
    options: Annotated[SweepOptions, tyro.conf.arg(name="")] = field(default_factory=SweepOptions)

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        for size in self.batch_sizes:
            if size < 1:
                raise ConfigError(f"--batch-sizes has {size}; each must be at least 1")

    def base_lrs(self) -> Mapping[str, float]:
        """Learning rate at batch size 32, by stage."""
        raise NotImplementedError

    def execute(self) -> int:
        """Train the grid; return 0 when every run is complete, else 1."""
        from rich.console import Console

        from sims.pages.answer import answering
        from sims.studies.overview.finish import finish
        from sims.sweep.halving import Halving
        from sims.sweep.show import show_plan
        from sims.sweep.sweep_run import SweepRun, run_all
        from sims.sweep.unread import notes
        from sims.training.toy_runner import chosen_device

        console, options = Console(), self.options
        device = chosen_device(options.device, elsewhere=options.scheduler is not None)
        configs = self.grid().configs()
        work, workers = options.work(self.measure, device), options.processes(device)
        halving = Halving(self.halving) if self.halving is not None else None
        usual = type(self).__dataclass_fields__

        def tell(answer: Answer | None = None) -> None:
            for note in notes(configs, usual["run"].default, self.measure, usual["measure"].default):
                warnings.warn(note, stacklevel=2)
            show_plan(configs, device, workers, halving, console, answer)

        with answering(options.json) as answer:
            if self.dry_run:
                work.ready(configs)
                if halving:
                    halving.rungs(configs)
                tell(answer)
                return 0
            label = {"campaign": "sweep"}
            sweep = SweepRun(
                configs, work, self.out, label, workers, options.scheduler, halving, options.retry_failed
            )
            return finish(self.out, run_all(sweep, console, tell), console, answer)

    def grid(self) -> Grid:
        """Return the grid of runs.

        Raises:
            ConfigError: options that exclude each other, an empty or repeated axis, an unknown field or value.
        """
        from sims.sweep.grid import Grid

        if self.lrs and (self.base_lr is not None or self.lr_rule != ("sqrt",) or self.lr_factors != (1.0,)):
            raise ConfigError(
                "--lrs gives the learning rates, and --base-lr, --lr-rule or --lr-factors a rule for them; use one"
            )
        base = dict.fromkeys(self.stages, self.base_lr) if self.base_lr is not None else self.base_lrs()
        return Grid(
            base=self.run.plain(),
            stages=self.stages,
            batch_sizes=self.batch_sizes,
            seeds=self.seeds,
            base_lrs={s: lr for s, lr in base.items() if lr is not None},
            lrs=self.lrs or None,
            rules=self.lr_rule,
            factors=self.lr_factors,
            steps_at=_steps(self.steps_at),
            vary=_values(self.vary),
        )


@dataclass(frozen=True)
class Published(_Sweep):
    """Start from the published size (V=1024, T=64, d=128, 2 layers; 5,000 steps)."""

    run: Annotated[Base, tyro.conf.arg(name="")] = _PUBLISHED
    measure: MeasureConfig = SWEEP_MEASURE

    def base_lrs(self) -> Mapping[str, float]:
        return dict.fromkeys(self.stages, PUBLISHED.lr)


@dataclass(frozen=True)
class Small(_Sweep):
    """Start from the demo's size (V=64, T=32, d=64, 2 layers): half a minute a run."""

    run: Annotated[Base, tyro.conf.arg(name="")] = _SMALL
    measure: MeasureConfig = SMALL_MEASURE
    batch_sizes: tuple[int, ...] = (32, 128)
    """Batch sizes to train."""

    def base_lrs(self) -> Mapping[str, float]:
        return small_base_lrs(self.stages)


@dataclass(frozen=True)
class Sweep:
    """Train and measure a grid of toy runs.

    After an interruption or a kill, the same command continues.

    Examples:
        speclens sweep small --dry-run
        speclens sweep small --batch-sizes 32 128 --seeds 0 1 --lr-factors .707 1 1.414
        speclens sweep small --stages muon untied --vary task.noise=0,0.5 newton_schulz=bfloat16,exact
        speclens sweep published --lr-rule sqrt linear --lr-factors .5 .707 1 1.414 2 --halving 2
        speclens sweep published --target-loss 2.5 --steps-at 32:40000 128:10000 512:2500
        speclens sweep published --scheduler tcp://login-node:8786 --out /shared/sweep
    """

    # Without a name of their own the options stand in one group, below the description.
    preset: Annotated[
        tyro.conf.OmitSubcommandPrefixes[
            Annotated[Published, tyro.conf.subcommand("published")]
            | Annotated[Small, tyro.conf.subcommand("small")]
        ],
        tyro.conf.arg(name=""),
    ]

    def run(self) -> int:
        """Train the grid; return 0 when every run is complete, else 1."""
        return self.preset.execute()


def _steps(pairs: tuple[str, ...]) -> dict[int, int]:
    found: dict[int, int] = {}
    for pair in pairs:
        batch, colon, steps = pair.partition(":")
        if not (colon and batch.isdecimal() and steps.isdecimal()):
            raise ConfigError(f"--steps-at {pair!r} is not BATCH:STEPS, such as 32:40000")
        if int(batch) in found:
            raise ConfigError(f"--steps-at names batch size {batch} twice; name it once")
        found[int(batch)] = int(steps)
    return found


def _values(pairs: tuple[str, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, values = pair.partition("=")
        if not (name and equals and values):
            raise ConfigError(f"--vary {pair!r} is not FIELD=VALUE,VALUE, such as task.length=16,32")
        name = name.replace("-", "_")
        if name in found:
            raise ConfigError(f"--vary names {name} twice; give all its values at once")
        found[name] = values.split(",")
    return found
