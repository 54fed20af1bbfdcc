"""The runs of one `speclens bridge train`: announced, trained one after the other, and summed up."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sims.bridge.shards import shard_files
from sims.bridge.toy import ToySubject
from sims.bridge.training.config import LmConfig
from sims.bridge.training.corpus import Corpus
from sims.bridge.training.failures import Stop, explained
from sims.bridge.training.learner import Execution, Learner
from sims.bridge.training.memory import Memory, step_memory
from sims.bridge.training.run import Ended, Records, Run, open_folder, profile
from sims.bridge.training.speed import flops_per_token, measured_rate
from sims.commands.bridge.train_live import LiveLine, clock
from sims.commands.looking import show_table
from sims.errors import StoreError
from sims.measure.rows import Sheet
from sims.measure.text import TextInstruments, check_text, measure_text, prepare_text
from sims.provenance import provenance
from sims.ranks import Ranks
from sims.store import RunFolder
from sims.text_config import TextMeasureConfig
from toymodel.sizes import Sizes

_GB = 1e9
# Share of a card that a step may take by the estimate, which leaves out what allocators lose.
_FITS = 0.9
_REMEDY = "Its last stored weights are kept; take a lower --lr or a longer --warmup, or --precision float32"


@dataclass(frozen=True)
class Unmeasured:
    """Nothing is measured while training; the checkpoints can be, afterwards."""


@dataclass(frozen=True)
class Wishes:
    """How the runs are to be carried out.

    Args:
        data, out: folders of the shards and of the runs.
        execution: a micro-batch of 0 takes the tier's, as far as a step has it.
        measuring: what is measured at the checkpoints; None for nothing.
        store_every: seconds between stored states.
        peak: operations a second of one device; None has it measured.
    """

    data: Path
    out: Path
    execution: Execution
    measuring: TextMeasureConfig | None
    store_every: float
    peak: float | None


class Instrument:
    """Losses as rows, and the measurement of checkpoints by the pipeline of `speclens bridge measure`.

    Args:
        instruments: None measures nothing.
        ranks: this process among those that share the work.
    """

    def __init__(self, instruments: TextInstruments | None, ranks: Ranks) -> None:
        self.instruments, self.ranks = instruments, ranks

    def losses(self, step: int, tokens: int, val_loss: float, train_loss: float | None) -> Records:
        """Rows of an evaluation."""
        sheet = Sheet(step, tokens)
        sheet.row("val_loss", "loss", "validation", val_loss)
        if train_loss is not None:
            sheet.row("train_loss", "loss", "training", train_loss)
        return sheet.rows

    def measure(self, subject: ToySubject) -> tuple[Records, Records]:
        """Rows and spectra of the model at a checkpoint."""
        if self.instruments is None:
            return (), ()
        sheet = measure_text(subject, self.instruments, ranks=self.ranks)
        return sheet.rows, sheet.spectra


class Session:
    """The runs of one command on the devices of this process.

    Args:
        configs: in the order in which they train.
        wishes: how.
        ranks: this process among the others.
        stop: whether a signal asks to stop.
    """

    def __init__(self, configs: Sequence[LmConfig], wishes: Wishes, ranks: Ranks, stop: Stop) -> None:
        self.configs, self.wishes, self.ranks, self.stop = list(configs), wishes, ranks, stop
        self.device = wishes.execution.device
        self.digest: str | None = None
        self.rate: float | None = wishes.peak
        self.takes: dict[tuple[str, Sizes, int], Memory] = {}

    def train(self) -> int:
        """Train all runs; 0 when they are complete, 128 and the signal's number when one has stopped them."""
        folders = []
        for config in self.configs:
            self._execution(config)  # what cannot be is said before the first of them trains
        for i, config in enumerate(self.configs):
            corpus = Corpus(self.wishes.data, config.length, config.seed)
            config = replace(config, data=self._agreed_digest(corpus))
            folders.append(folder := RunFolder(self.wishes.out / config.run_id))
            if self._agreed(folder.done):
                self._say(f"{config.run_id} is complete")
                continue
            # A signal during the last step of a run finds that run complete, and this one not begun.
            ended = "stopped" if self._asked_to_stop() else self._train(config, corpus, folder)
            if ended == "stopped":
                self._say(
                    f"speclens: stopped with {len(self.configs) - i} of {len(self.configs)} runs to go; everything is "
                    "stored, and the same command goes on from here"
                )
                return 128 + (self.stop.by or signal.SIGTERM)
            if ended == "diverged" and self.ranks.first:
                self._say(f"{config.run_id} diverged: {folder.outcome['reason']}. {_REMEDY}")
        if self.ranks.first:
            _summarise(folders)
        return 0

    def profile(self, steps: int) -> int:
        """Time so many steps of every run, and show what they took; nothing is stored."""
        rows = []
        for config in self.configs:
            execution = self._execution(config)
            corpus = Corpus(self.wishes.data, config.length, config.seed)
            self._announce(config, execution)
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
            with explained(execution, self.ranks, lambda: 0):
                seconds = sorted(profile(config, execution, corpus, self.ranks, steps))[steps // 2]
            rate = config.tokens_per_step / seconds
            used = flops_per_token(config.transformer()) * rate / self._peak(config)
            peak = "" if self.device.type != "cuda" else f"{torch.cuda.max_memory_allocated() / _GB:.2f}"
            rows.append(
                [
                    config.run_id,
                    str(execution.micro_batch),
                    f"{seconds:.4g}",
                    f"{rate:.0f}",
                    f"{100 * used:.1f}",
                    peak,
                ]
            )
        if self.ranks.first:
            columns = ("run", "micro-batch", "s a step", "tokens/s", "MFU %", "peak GB")
            show_table(columns, rows)
        return 0

    def _execution(self, config: LmConfig) -> Execution:
        """As wished, in rounds that a step can be cut into.

        Raises:
            ConfigError: it cannot.
        """
        wished = self.wishes.execution
        most = max(1, config.batch_size // self.ranks.size)
        micro = wished.micro_batch or min(config.shape.micro_batch, most)
        execution = replace(wished, micro_batch=micro)
        execution.rounds(config, self.ranks.size)
        return execution

    def _say(self, text: str) -> None:
        if self.ranks.first:
            print(text, file=sys.stderr, flush=True)

    def _agreed(self, first_says: bool) -> bool:
        """What the first rank says, on all; none goes on before the others are here."""
        return bool(self.ranks.sum(torch.tensor(float(first_says and self.ranks.first))) > 0)

    def _asked_to_stop(self) -> bool:
        """Whether any rank is."""
        return bool(self.ranks.sum(torch.tensor(float(self.stop()))) > 0)

    def _agreed_digest(self, corpus: Corpus) -> str:
        """Of the shards; the first rank alone reads them all, once."""
        if self.digest is None:
            own = list(bytes.fromhex(corpus.digest)) if self.ranks.first else [0] * 32
            self.digest = bytes(self.ranks.sum(torch.tensor(own)).tolist()).hex()
        return self.digest

    def _peak(self, config: LmConfig) -> float:
        """Operations a second of all devices together."""
        if self.rate is None:
            half = config.precision == "bfloat16"
            self.rate = measured_rate(self.device, torch.bfloat16 if half else torch.float32)
        return self.ranks.size * self.rate

    def _announce(self, config: LmConfig, execution: Execution) -> None:
        """Say what the run is, and what it takes."""
        if not self.ranks.first:
            return
        self._say(
            f"{config.run_id}: {config.transformer().parameter_count():,} parameters, {config.steps:,} steps of "
            f"{config.tokens_per_step:,} tokens, {config.steps * config.tokens_per_step:,} in all"
        )
        key = (config.stage, config.sizes, execution.micro_batch)
        if key not in self.takes:
            self.takes[key] = step_memory(config, execution.micro_batch, execution.recompute)
        memory = self.takes[key]
        again = ", blocks run a second time" if execution.recompute else ""
        self._say(
            f"memory of a step: about {_size(memory.peak)}, {_size(memory.resident)} of them parameters, "
            f"gradients and moments ({execution.micro_batch} sequences at once{again})"
        )
        if self.device.type == "cuda":
            whole = torch.cuda.get_device_properties(self.device).total_memory
            if memory.peak > _FITS * whole:
                self._say(
                    f"that is more than is safe on {whole / _GB:.0f} GB: lower --micro-batch, or pass --recompute"
                )

    def _train(self, config: LmConfig, corpus: Corpus, folder: RunFolder) -> Ended:
        execution = self._execution(config)
        measuring = self.wishes.measuring
        if measuring is not None:
            # The loss of a checkpoint is the evaluation's.
            measuring = replace(measuring, length=min(measuring.length, config.length), loss_tokens=0)
        with ExitStack() as stack:
            if self.ranks.first:
                origin = {**provenance(str(self.device)), "ranks": self.ranks.size}
                open_folder(folder, config, measuring or Unmeasured(), origin, corpus)
                stack.enter_context(folder.locked())
                folder.retry()
            self.ranks.wait()
            stack.enter_context(self._recorded(folder))
            self._announce(config, execution)
            run: list[Run] = []
            stack.enter_context(explained(execution, self.ranks, lambda: run[0].stored if run else 0))
            learner = Learner(config, execution, corpus, self.ranks)
            instrument = Instrument(self._instruments(measuring, corpus, learner), self.ranks)
            flops, peak = flops_per_token(config.transformer()), self._peak(config)
            line = LiveLine(self.ranks.first, flops, peak, config.tokens_per_step, self.device)
            stack.enter_context(line)
            run.append(Run(learner, folder, instrument, line, self.stop, self.wishes.store_every))
            return run[0].go()

    def _instruments(
        self, measuring: TextMeasureConfig | None, corpus: Corpus, learner: Learner
    ) -> TextInstruments | None:
        if measuring is None:
            return None
        shards = shard_files(self.wishes.data, "val")
        instruments = prepare_text(measuring, shards, None, str(self.device), corpus.vocabulary)
        check_text(measuring, learner.subject(), instruments.families)
        return instruments

    @contextmanager
    def _recorded(self, folder: RunFolder) -> Iterator[None]:
        """Leave the reason of a failure in the folder, unless it is the disk or the shards that failed."""
        try:
            yield
        except StoreError:
            raise
        except Exception as error:
            if self.ranks.first:
                folder.fail(" ".join(str(error).split()), "".join(traceback.format_exception(error)))
            raise


def _size(count: int) -> str:
    return f"{count / _GB:.1f} GB" if count >= _GB else f"{count / 1e6:.0f} MB"


def _summarise(folders: Sequence[RunFolder]) -> None:
    """All runs in one table."""
    rows = []
    for folder in folders:
        train, outcome = folder.identity()["train"], folder.outcome
        training = outcome["seconds"].get("training", 0.0)
        rate = f"{outcome['tokens'] / training:.0f}" if training else ""
        loss = "" if outcome["val_loss"] is None else f"{outcome['val_loss']:.4f}"
        cells = [train["stage"], str(train["tokens_per_step"]), f"{train['lr']:.3g}", str(train["seed"])]
        counts = [str(outcome["step"]), f"{outcome['tokens']:.4g}", loss, rate, clock(training)]
        rows.append([*cells, outcome["ended"], *counts, folder.path.name])
    columns = (
        "stage",
        "batch tokens",
        "lr",
        "seed",
        "ended",
        "steps",
        "tokens",
        "val loss",
        "tokens/s",
        "training",
    )
    show_table((*columns, "folder"), rows)
