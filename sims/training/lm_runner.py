"""Training runs of language models, each in its folder: one process, or ranks that share every step."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sims.measure.lm import LmMeasurementData, check_text, measure_text
from sims.measure.lm_prepare import Text
from sims.measure.rows import MeasurementRows
from sims.models.transformer import TransformerSubject
from sims.runs.lm_config import LmConfig
from sims.runs.lm_measure_config import LmMeasureConfig
from sims.runs.store import MeasurementCheckpoint, RunFolder
from sims.system.errors import StoreError
from sims.system.process_group import ProcessGroup
from sims.system.provenance import provenance
from sims.system.signals import Stop, Stopped, stop_on_signals
from sims.text.corpus import Corpus
from sims.training.failures import explained
from sims.training.live_line import LiveLine
from sims.training.lm_run import STORE_SECONDS, Ended, Records, Run, Tell, check_shards
from sims.training.throughput import Throughput, flops_per_token, measured_rate
from sims.training.toy_runner import record_failure
from sims.training.trainer import Execution, Trainer

ALONE = ProcessGroup()


@dataclass(frozen=True)
class Unmeasured:
    """Nothing is measured while training; the checkpoints can be, afterwards."""


class Instrument:
    """Losses as rows, and the measurement of checkpoints by the pipeline of `speclens bridge measure`.

    Args:
        config: the run.
        folder: of the run, where a long measurement keeps what it has gathered.
        instruments: None measures nothing.
        ranks: this process among those that share the work.
    """

    def __init__(
        self,
        config: LmConfig,
        folder: RunFolder,
        instruments: LmMeasurementData | None,
        ranks: ProcessGroup = ALONE,
    ) -> None:
        self.config, self.folder, self.instruments, self.ranks = config, folder, instruments, ranks

    @property
    def measures(self) -> bool:
        """Whether anything but losses is."""
        return self.instruments is not None

    def losses(self, step: int, tokens: int, val_loss: float, train_loss: float | None) -> Records:
        """Rows of an evaluation."""
        sheet = MeasurementRows(step, tokens)
        sheet.row("val_loss", "loss", "validation", val_loss)
        if train_loss is not None:
            sheet.row("train_loss", "loss", "training", train_loss)
        return sheet.rows

    def measure(
        self, subject: TransformerSubject, keep: bool, tell: Tell, stopped: Callable[[], bool]
    ) -> tuple[Records, Records]:
        """Rows and spectra of the model at a checkpoint."""
        if self.instruments is None:
            return (), ()
        keeper = MeasurementCheckpoint(self.folder, self.config, subject.step, self.ranks) if keep else None
        sheet = measure_text(subject, self.instruments, tell, self.ranks, keeper, stopped=stopped)
        return sheet.rows, sheet.spectra


@dataclass(frozen=True)
class LmWork:
    """How language models are trained and measured (a `sims.sweep.Work`).

    Args:
        data: folder of token shards.
        device: "cpu" or "cuda"; of several cards the present one.
        micro_batch: sequences that a device takes at once; 0 takes the tier's, as far as a step has them.
        recompute, compile: as of `Execution`.
        measuring: what is measured at the checkpoints, on the validation shards; None for nothing. Its loss is left out
            (0 tokens): that of a checkpoint is the evaluation's.
        store_every: seconds between stored states.
        peak: operations a second of one device, for the utilisation; None has it measured.
        speaks: say where runs stand.
    """

    data: Path
    device: str = "cpu"
    micro_batch: int = 0
    recompute: bool = False
    compile: bool = False
    measuring: LmMeasureConfig | None = None
    store_every: float = STORE_SECONDS
    peak: float | None = None
    speaks: bool = True

    def quiet(self) -> LmWork:
        """The same without a word, for processes that are not the one that was called."""
        return replace(self, speaks=False)

    def with_data(self, configs: Sequence[LmConfig], ranks: ProcessGroup = ALONE) -> list[LmConfig]:
        """The runs with the digest of their shards, which the first rank alone reads all of."""
        own = list(bytes.fromhex(self.corpus(configs[0]).digest)) if ranks.first else [0] * 32
        digest = bytes(ranks.sum(torch.tensor(own)).tolist()).hex()
        return [replace(config, data=digest) for config in configs]

    def ready(self, configs: Sequence[LmConfig], ranks: ProcessGroup = ALONE) -> None:
        """Raise what can be known to be wrong before any work starts.

        Raises:
            ConfigError: a step that cannot be divided.
            StoreError: shards are missing, damaged, or without a sequence of this length.
            MeasureError: what cannot be measured.
        """
        for config in configs:
            self.execution(config, ranks)
        for length in dict.fromkeys(config.length for config in configs):
            self.corpus(next(c for c in configs if c.length == length))
        self._instruments(configs[0])

    def check(self, config: LmConfig, folder: RunFolder) -> bool:
        """Whether the folder holds this very run, and its shards are what they were.

        Raises:
            StoreError: it holds another one, or shards have changed: says which.
        """
        check_shards(folder, self.corpus(config))
        there = (folder.path / "run.json").exists()
        if self.measuring is not None and there and not folder.identity()["measure"]:
            raise StoreError(
                f"{folder.path} was trained without --measure; measure its checkpoints by `speclens bridge measure "
                f"{folder.path}`, or choose another --out"
            )
        return folder.check(config, self._measure)

    def plan(self, configs: Sequence[LmConfig], places: int) -> list[list[LmConfig]]:
        """Every run by itself: in the order given where they follow each other, else the most expensive first."""
        ordered = configs if places == 1 else sorted(configs, key=lambda c: -self.cost(c))
        return [[config] for config in ordered]

    def cost(self, config: LmConfig) -> float:
        """Operations of all its steps."""
        return config.steps * config.tokens_per_step * flops_per_token(config.transformer())

    def size(self, config: LmConfig) -> str:
        """Target tokens a step."""
        return f"{config.tokens_per_step:,} tokens"

    def run(
        self, configs: Sequence[LmConfig], out: Path, until: int | None, stopped: Callable[[], bool]
    ) -> dict[str, str]:
        """Bring runs to their end, or to a pause; {run id: error} of what failed."""
        failed = {}
        for config in configs:
            if stopped():
                break
            folder = RunFolder(out / config.run_id)
            try:
                self.train(config, folder, stopped, until=until)
            except Exception as error:
                failed[config.run_id] = record_failure(folder, error)
        return failed

    def train_together(self, configs: Sequence[LmConfig], out: Path, ranks: ProcessGroup) -> None:
        """Bring runs to their end one after the other, every rank sharing every step of each.

        Raises:
            Stopped: by a signal to any rank, with everything stored.
            Exception: as of `train`; the first one that fails ends all.
        """
        with stop_on_signals(ranks.first) as stop:
            for config in configs:
                folder = RunFolder(out / config.run_id)
                # The first rank knows; and none goes on before the others are here.
                if ranks.agree(ranks.first and folder.done):
                    continue
                # A signal during the last step of a run finds that run complete, and this one not begun.
                if ranks.agree(stop()) or self._train_recorded(config, folder, stop, ranks) == "stopped":
                    raise Stopped(stop.by or signal.SIGTERM)

    def _train_recorded(self, config: LmConfig, folder: RunFolder, stop: Stop, ranks: ProcessGroup) -> Ended:
        try:
            return self.train(config, folder, stop, ranks)
        except Exception as error:
            if ranks.first and folder.path.exists():
                record_failure(folder, error)
            raise

    def train(
        self,
        config: LmConfig,
        folder: RunFolder,
        stopped: Callable[[], bool],
        ranks: ProcessGroup = ALONE,
        until: int | None = None,
    ) -> Ended:
        """Bring one run to its end, or to where it is told to stop; every rank calls it.

        Args:
            config: with the digest of its shards.
            folder: of the run; the first rank alone writes to it.
            stopped: asked after every step; True on any rank stores the state and ends all of them.
            ranks: this process among those that share every step.
            until: pause at the first evaluation at or after this step.

        Raises:
            StoreError: the folder or the shards are not what they were, or the disk is full.
            CheckpointError: the stored state is damaged.
            MeasureError: something cannot be measured of this model.
            EngineError: out of memory, or a rank was lost; the message names the remedy.
        """
        device, corpus, execution = self._device(), self.corpus(config), self.execution(config, ranks)
        run: list[Run] = []
        with ExitStack() as stack:
            ranks.lead(lambda: stack.enter_context(self._opened(config, folder, corpus, ranks)))
            # Whoever held it until now may have brought it to its end.
            if ranks.agree(ranks.first and folder.done):
                return folder.outcome["ended"]
            if ranks.first:
                folder.retry()
            if self.speaks and ranks.first:
                print(f"{config.run_id}:", file=sys.stderr, flush=True)
            stack.enter_context(explained(execution, ranks, lambda: run[0].stored if run else 0))
            learner = Trainer(config, execution, corpus, ranks)
            instruments = self._instruments(config)
            if instruments is not None:
                check_text(instruments.config, learner.subject(), instruments.families)
            instrument = Instrument(config, folder, instruments, ranks)
            line = stack.enter_context(LiveLine(self.speaks and ranks.first, device))
            run.append(
                Run(
                    learner,
                    folder,
                    instrument,
                    self.pace(config, ranks),
                    line,
                    stopped,
                    self.store_every,
                    until,
                )
            )
            return run[0].go()

    @contextmanager
    def _opened(
        self, config: LmConfig, folder: RunFolder, corpus: Corpus, ranks: ProcessGroup
    ) -> Iterator[None]:
        check_shards(folder, corpus)
        origin = {**provenance(self.device), "ranks": ranks.size, "shards": corpus.facts}
        folder.start(config, self._measure, origin)
        with folder.locked():
            yield

    def execution(self, config: LmConfig, ranks: ProcessGroup = ALONE) -> Execution:
        """In rounds that a step can be cut into.

        Raises:
            ConfigError: it cannot.
        """
        most = max(1, config.batch_size // ranks.size)
        micro = self.micro_batch or min(config.shape.micro_batch, most)
        execution = Execution(self._device(), micro, self.recompute, self.compile)
        execution.rounds(config, ranks.size)
        return execution

    def corpus(self, config: LmConfig) -> Corpus:
        """The text of a run.

        Raises:
            StoreError: shards are missing or damaged, or hold no sequence of this length.
        """
        return Corpus(self.data, config.length, config.seed)

    def pace(self, config: LmConfig, ranks: ProcessGroup = ALONE) -> Throughput:
        """Of a run that has not begun."""
        half = config.precision == "bfloat16"
        rate = self.peak or measured_rate(self._device(), torch.bfloat16 if half else torch.float32)
        return Throughput(config.tokens_per_step, flops_per_token(config.transformer()), ranks.size * rate)

    def _device(self) -> torch.device:
        # Whoever hands the work to others may have no card itself.
        if self.device == "cuda" and torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device(self.device)

    @property
    def _measure(self) -> LmMeasureConfig | Unmeasured:
        return Unmeasured() if self.measuring is None else self.measuring

    def _instruments(self, config: LmConfig) -> LmMeasurementData | None:
        if self.measuring is None:
            return None
        text = Text.of(self.data, "val", families=bool(self.measuring.families))
        return text.instruments(self.measuring, self.device, config.vocabulary)
