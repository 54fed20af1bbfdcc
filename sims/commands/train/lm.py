"""`speclens train lm`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from sims.runs.lm_config import LmConfig, Precision
from sims.runs.lm_measure_config import LmOptions
from sims.sweep.options import check_scheduler, check_seeds, check_store_every, check_workers
from sims.sweep.scaling import Rule
from sims.system.command_options import ConfigFileOrRun
from sims.system.given import given, refuse
from sims.training.defaults import STORE_SECONDS
from toymodel.config import NewtonSchulz
from toymodel.errors import ConfigError
from toymodel.intervention import NONE, Intervention
from toymodel.rates import ONE_RATE, Rates

# What is measured in training unless it is said otherwise.
_MEASURING = LmOptions(families=(), loss_tokens=0)

if TYPE_CHECKING:
    from sims.pages.answer import Answer
    from sims.sweep.halving import Halving
    from sims.sweep.lm_work import LmWork
    from sims.system.process_group import ProcessGroup

LABEL = {"campaign": "language models"}

_Narrow = Literal["narrow8", "narrow16", "narrow32"]
_Deep = Literal["tiny6", "tiny8", "tiny10", "tiny12"]
TierName = Literal["tiny", _Narrow, _Deep, "d8", "d12", "d24", "d24x960", "d36", "d48"]


@dataclass(frozen=True)
class Settings:
    """Settings that all runs of a grid share.

    Args:
        length: inputs a sequence; by default the tier's.
        tokens: of a whole run; by default the tier's. Runs of other batch sizes see as many.
        warmup: share of the steps over which the learning rate rises from 0, linearly; it is constant between.
        warmdown: share of the steps over which it falls to 0 in the end, linearly.
        weight_decay: of the AdamW group; by default the stage's own.
        newton_schulz: arithmetic of Muon's orthogonalisation.
        precision: by default bfloat16 on a GPU that has it, float32 otherwise.
        eval_every: steps between evaluations; by default the tier's.
        eval_tokens: validation tokens an evaluation; by default the tier's.
        target_loss: end a run whose validation loss is at or below it.
        checkpoints: shares of the run after which weights are kept, and measured.
        looks: in place of checkpoints, so many steps at equal distances in ln step, and the start.
        logit_bias: learn one number for each token that is added to its logit; they start at 0.
        intervention: what is changed in some updates on purpose; by default nothing.
        rates: of the matrices of blocks, by the spectra of their weights; by default one rate.
    """

    length: int | None = None
    tokens: int | None = None
    warmup: float | None = None
    warmdown: float | None = None
    weight_decay: float | None = None
    newton_schulz: NewtonSchulz | None = None
    precision: Precision | None = None
    eval_every: int | None = None
    eval_tokens: int | None = None
    target_loss: float | None = None
    checkpoints: tuple[float, ...] | None = None
    looks: int | None = None
    logit_bias: bool = False
    intervention: Intervention = NONE
    rates: Rates = ONE_RATE


@dataclass(frozen=True)
class Lm:
    """Train language models of the toy's stages on token shards, and keep checkpoints to be measured.

    Each combination of --stage, --batch-tokens, --lr and --seeds is a run with its own folder in OUT; several train at
    once, one per core, or according to --workers or --scheduler. After an interruption (Ctrl-C, SIGTERM, a kill, a full
    disk) the same command continues from the last stored state, with identical bits on a CPU; complete runs are not
    trained again. torchrun shares each step between several devices, one run after the other; a run can continue with
    another number of ranks.

    Examples:
        speclens data --source files notes/ --merges 767 --out shards  # a small vocabulary, for tiny
        speclens train lm --data shards --tier tiny --stage untied
        speclens train lm --data shards --tier tiny --stage rope muon --lr 1e-3 3e-3 9e-3 --workers 2 --halving 3
        speclens train lm --data shards --tier d12 --stage baseline rope muon untied --measure
        speclens train lm --data shards --tier d12 --batch-tokens 131072 524288 --lr-rule sqrt --seeds 0 1 --dry-run
        speclens train lm --data shards --tier d48 --stage muon --recompute --profile 3
        torchrun --nproc-per-node 8 -m sims.cli train lm --data shards --tier d24 --stage muon --compile
    """

    data: Path
    """Folder of token shards, of training and of validation (`speclens data`)."""
    tier: TierName = "tiny"
    """Size: tiny (4 blocks of width 64), narrow8 to narrow32 (other widths), tiny6 to tiny12 (more blocks) for a
    processor; d8, d12, d24, d24x960, d36, d48 for GPUs."""
    stage: tuple[str, ...] = ("muon",)
    """Stages (baseline, rope, muon, untied, value_mix, unet, …)."""
    batch_tokens: tuple[int, ...] = ()
    """Target tokens a step; by default the tier's."""
    lr: tuple[float, ...] = ()
    """Base learning rates; Muon matrices use 50 times it. By default the tier's."""
    lr_rule: Rule | None = None
    """Scale --lr, which is then that of the tier's own batch, with batch tokens: sqrt or linear."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the initialisation and of the order of the data."""
    settings: Annotated[Settings, tyro.conf.arg(name="")] = field(default_factory=Settings)
    out: Path = Path("lm-runs")
    """Folder of runs."""
    measure: bool = False
    """Measure every checkpoint while training, on the validation shards."""
    measuring: LmOptions = field(default_factory=lambda: _MEASURING)
    halving: float | None = None
    """Prune learning rates: one in this many continues at each rung; the others enter no analysis."""
    workers: int | None = None
    """Processes that train runs at the same time, of one thread or GPU each; by default one per core (one on a GPU)."""
    scheduler: str | None = None
    """A dask scheduler (tcp://HOST:PORT) whose workers do the work; they must see --out and --data by the same path."""
    device: str | None = None
    """cpu or cuda; by default the GPU if there is one."""
    micro_batch: int | None = None
    """Sequences that a device takes at once; by default the tier's, or the most below it that divide a step."""
    recompute: bool = False
    """Keep only the inputs of every block for the backward pass: less memory, a third more work."""
    compile: bool = False
    """Compile the model (torch.compile)."""
    store_every: float = STORE_SECONDS
    """Seconds between stored states: what a kill loses."""
    track: tuple[str, ...] = ()
    """Trackers of every run: tensorboard, wandb (offline unless WANDB_MODE is set), trackio."""
    peak_tflops: float | None = None
    """Rate of one device for MFU, in 1e12 operations a second; by default measured by matrix products."""
    profile: int | None = None
    """Time so many steps of each run instead: tokens a second, MFU, memory. Nothing is stored."""
    dry_run: bool = False
    """Show the runs and the memory that a step takes, and stop."""
    json: bool = False
    """One JSON object on stdout in place of the table; notes go to stderr."""
    config: ConfigFileOrRun = None

    def __post_init__(self) -> None:
        check_workers(self.workers)
        check_scheduler(self.scheduler)
        check_store_every(self.store_every)
        check_seeds(self.seeds)
        if self.micro_batch is not None and self.micro_batch < 1:
            raise ConfigError(f"--micro-batch is {self.micro_batch}; it must be at least 1, or left out")
        if self.peak_tflops is not None and not 0 < self.peak_tflops < math.inf:
            raise ConfigError(f"--peak-tflops is {self.peak_tflops}; it must be a positive number")
        if not self.measure:
            unmeasured = given(self.measuring, prefix="measuring.", default=_MEASURING)
            refuse(unmeasured, "only for runs that are measured; add --measure")
        elif self.measuring.loss_tokens:
            raise ConfigError(
                f"--measuring.loss-tokens is {self.measuring.loss_tokens}, and the evaluation of each checkpoint gives "
                "the loss of a run in training, which would have two; leave it out, or choose --eval-tokens"
            )
        if self.profile is not None and self.profile < 1:
            raise ConfigError(f"--profile is {self.profile}; time at least 1 step")
        if self.profile is not None and self.dry_run:
            raise ConfigError("--profile times steps, and --dry-run takes none; leave one of them out")
        if self.track:
            from sims.training.trackers.registry import check

            check(self.track)

    def execute(self) -> int:
        """Train; return 0 when every run is complete, 1 when one failed, 128 plus its number after a signal."""
        import torch

        from sims.pages.answer import answering
        from sims.sweep.halving import Halving
        from sims.sweep.show_lm import announce, say, show_plan, show_profile
        from sims.sweep.unread import notes
        from sims.system.process_group import torchrun_group
        from sims.training.toy_runner import chosen_device

        device = chosen_device(self.device, elsewhere=self.scheduler is not None)
        with torchrun_group(device) as ranks, answering(self.json and ranks.first) as answer:
            self._check_ranks(ranks)
            # A scheduler's workers have cards of which this machine knows nothing.
            half = device != "cpu" and (not torch.cuda.is_available() or torch.cuda.is_bf16_supported())
            configs = self.grid("bfloat16" if half else "float32")
            halving = None if self.halving is None else Halving(self.halving)
            if halving:
                halving.rungs(configs)
            work, lowered = self.work(configs[0], device)

            def tell() -> None:
                # The tier does not matter for what is read.
                for note in (*notes(configs, replace(configs[0], newton_schulz="bfloat16")), *lowered):
                    say(note)

            def announced() -> None:
                tell()
                announce(configs, work, ranks)

            if self.profile is None and not self.dry_run:
                return self._train(configs, work, halving, ranks, announced, answer)
            work.ready(configs, ranks)
            if ranks.first:
                tell()
            if self.profile is not None:
                show_profile(configs, work, ranks, self.profile, answer)
            elif ranks.first:
                show_plan(configs, work, ranks, answer)
            return 0

    def _check_ranks(self, ranks: ProcessGroup) -> None:
        """Raise ConfigError for options that torchrun or --profile exclude."""
        several = [
            name
            for name, given in (
                ("--halving", self.halving is not None),
                ("--scheduler", self.scheduler is not None),
                ("--workers", self.workers not in (None, 1)),
            )
            if given
        ]
        if several and ranks.size > 1:
            raise ConfigError(
                f"torchrun shares every step among its ranks, one run after the other; leave out {', '.join(several)}, "
                "or start without torchrun"
            )
        if several and self.profile is not None:
            raise ConfigError(f"--profile times steps in this process; leave out {', '.join(several)}")

    def grid(self, precision: Precision) -> list[LmConfig]:
        """Return the runs in the order in which they train.

        Raises:
            ConfigError: an axis that is empty or names a value twice, or a combination that no run can have.
        """
        from sims.sweep.grid import Grid
        from sims.text.corpus import vocabulary_of

        given = {name: getattr(self.settings, name) for name in self.settings.__dataclass_fields__}
        given["precision"] = given["precision"] or precision
        vocabulary = vocabulary_of(self.data)
        first = self.stage[0] if self.stage else "muon"
        sized = [
            LmConfig.of_tier(self.tier, first, vocabulary, batch_tokens=batch, **given)
            for batch in self.batch_tokens or (None,)
        ]
        base = sized[0]
        rates = self.lr or (base.lr,)
        found = Grid(
            base=base,
            stages=self.stage,
            batch_sizes=[c.batch_size for c in sized],
            seeds=self.seeds,
            base_lrs=dict.fromkeys(self.stage, 1.0),
            lrs=rates if self.lr_rule is None else None,
            rules=(self.lr_rule or "sqrt",),
            factors=rates,
            steps_at={c.batch_size: c.steps for c in sized},
            base_batch=base.shape.batch_tokens / base.length,
        ).configs()
        # Steps at equal distances in ln step are other shares of runs of other lengths.
        shares = {c.batch_size: c.checkpoints for c in sized}
        return [replace(config, checkpoints=shares[config.batch_size]) for config in found]

    def work(self, config: LmConfig, device: str) -> tuple[LmWork, list[str]]:
        """Return how the runs are trained, and a line for each default that was lowered; `config` is any of them."""
        from sims.measure.lm_prepare import Text, settle
        from sims.sweep.lm_work import LmWork
        from sims.training.lm_runner import LmSetup

        measuring, lowered = None, list[str]()
        if self.measure:
            text = Text.of(self.data, "val", self.measuring.families != ())
            measuring, lowered = settle(self.measuring, text, config.length, config.sizes.vocab)
        peak = None if self.peak_tflops is None else 1e12 * self.peak_tflops
        ways = (self.recompute, self.compile)
        setup = LmSetup(self.data.resolve(), device, self.micro_batch or 0, *ways, measuring, peak)
        return LmWork(setup, self.store_every, self.track), lowered

    def _train(
        self,
        configs: list[LmConfig],
        work: LmWork,
        halving: Halving | None,
        ranks: ProcessGroup,
        tell: Callable[[], None],
        answer: Answer | None,
    ) -> int:
        """Train all runs and print what came out; return the exit status."""
        from rich.console import Console

        from sims.runs.store import RunFolder
        from sims.sweep.lm_work import train_together
        from sims.sweep.show import show_failures
        from sims.sweep.show_lm import summarise
        from sims.sweep.sweep_run import SweepRun, run_all

        work.ready(configs, ranks)
        # What failed is tried again: the remedy for want of memory is another option of the same command.
        sweep = SweepRun(
            work.with_data(configs, ranks), work, self.out, LABEL, self.workers, self.scheduler, halving, True
        )
        console, failed = Console(stderr=True), {}
        if ranks.size > 1:
            train_together(sweep, work, ranks, console, tell)
        else:
            failed = run_all(sweep, console, tell)
        if ranks.first:
            summarise([RunFolder(self.out / config.run_id) for config in sweep.configs], answer)
            if answer is not None:
                answer["failed"] = dict(failed)
            show_failures(failed, console)
        return 1 if failed else 0
