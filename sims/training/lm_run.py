"""One run, from where it stands to its end: trained, evaluated, measured, and kept so that a kill loses minutes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from sims.models.transformer import TransformerSubject
from sims.runs.lm_config import LmConfig
from sims.runs.store import RunFolder, load_tensors
from sims.system.errors import StoreError
from sims.system.files import read_json, write_json
from sims.system.process_group import ProcessGroup
from sims.system.signals import Interrupted
from sims.text.corpus import Corpus, changed
from sims.training.divergence import DivergenceMonitor
from sims.training.throughput import Throughput
from sims.training.trainer import Execution, Trainer

Ended = Literal["finished", "target", "diverged", "stopped"]
Records = Sequence[Mapping[str, Any]]
Tell = Callable[[str, int, int], None]

STORE_SECONDS = 600.0
# Whoever watches the folder of a run learns this often where it stands.
PROGRESS_SECONDS = 5.0
_WATCH, _SINCE, _VAL, _LOOKING = "run/watch", "run/since", "run/val", "run/looking"


class Instrument(Protocol):
    """What is recorded of a run. Rows and spectra are records as `sims.runs.layout` names their columns."""

    def losses(self, step: int, tokens: int, val_loss: float, train_loss: float | None) -> Records:
        """Rows of an evaluation."""
        ...

    @property
    def measures(self) -> bool:
        """Whether anything but losses is."""
        ...

    def measure(
        self, subject: TransformerSubject, keep: bool, tell: Tell, stopped: Callable[[], bool]
    ) -> tuple[Records, Records]:
        """Rows and spectra of the model at a checkpoint, on the first rank; every rank calls it.

        Args:
            subject: the model.
            keep: keep what is gathered so far, since a killed run would come back to this very model.
            tell: told of every piece of work: part, pieces done, of how many.
            stopped: whether to leave, where everything can be kept.

        Raises:
            Left: it was told to stop.
        """
        ...


@dataclass(frozen=True)
class Standing:
    """Where a run stands after a step.

    Attributes:
        step, steps, tokens: done, of how many, and target tokens seen.
        train_loss: of this step, in nats; None before the first.
        val_loss: of the last evaluation.
        pace: of the last steps.
        doing: what comes next, where it takes long.
    """

    step: int
    steps: int
    tokens: int
    train_loss: float | None
    val_loss: float
    pace: Throughput
    doing: str = ""


class Run:
    """A run in its folder.

    Args:
        learner: at step 0.
        folder: of this run; the first rank alone writes to it.
        instrument: what is recorded.
        pace: empty.
        show: told after every step, on every rank.
        stopped: asked after every step; True on any rank stores the state and ends all of them.
        store_every: seconds between stored states.
        until: leave in the same way at the first evaluation at or after this step; None for the end.
    """

    def __init__(
        self,
        learner: Trainer,
        folder: RunFolder,
        instrument: Instrument,
        pace: Throughput,
        show: Callable[[Standing], None],
        stopped: Callable[[], bool],
        store_every: float = STORE_SECONDS,
        until: int | None = None,
    ) -> None:
        self.learner, self.folder, self.instrument, self.pace = learner, folder, instrument, pace
        self.show, self.stopped, self.store_every, self.until = show, stopped, store_every, until
        self.config, self.ranks = learner.config, learner.ranks
        self.watch = DivergenceMonitor()
        self.since: list[float] = []
        self.val_loss = float("nan")
        self.stored = 0
        self.stored_at = self.told_at = time.monotonic()
        self.rows: list[Mapping[str, Any]] = []
        self.spectra: list[Mapping[str, Any]] = []
        self.seconds: dict[str, float] = defaultdict(float)

    def go(self) -> Ended:
        """Bring it to its end, or to where it is told to stop.

        Raises:
            StoreError: the folder cannot be written, or the shards have changed.
            CheckpointError: the stored state is damaged.
        """
        try:
            return self._go(self._resume())
        except Interrupted:
            # The state of this step is stored, and the look at it comes first when the run goes on.
            return "stopped"

    def _go(self, looking: bool) -> Ended:
        if looking or self.learner.step == 0:
            ended = self._look(None)
            if ended:
                return self._finish(ended)
        if self._paused():
            return self._leave()
        while True:
            began = time.perf_counter()
            loss = self.learner.gradients()
            wrong = self.watch.see(loss)
            if wrong is not None:
                return self._diverge(wrong)
            self.learner.update()
            self.since.append(loss)
            took = time.perf_counter() - began
            self.seconds["training"] += took
            self.pace.see(took)
            self._say(loss)
            ended = self._look(loss)
            if ended:
                return self._finish(ended)
            if self.ranks.agree(self.stopped()) or self._paused():
                return self._leave()
            if time.monotonic() - self.stored_at > self.store_every:
                self._store()
            if time.monotonic() - self.told_at > PROGRESS_SECONDS:
                self._progress(None)

    def _paused(self) -> bool:
        """Whether this is the evaluation at which to leave."""
        step = self.learner.step
        return self.until is not None and step >= self.until and step % self.config.eval_every == 0

    def _leave(self) -> Ended:
        self._store()
        return "stopped"

    def _resume(self) -> bool:
        """Take up the stored state; parts of later steps are dropped by the rank that writes.

        Returns:
            Whether the run was killed while it looked at the model of this step.
        """
        found = self.folder.resume(self.config) if self.ranks.first else None
        file = self.folder.path / "state.safetensors"
        if not file.exists():
            return False
        step, tensors = (found.step, found.tensors) if found else load_tensors(file, self.config)
        self.watch.restore(tensors.pop(_WATCH))
        self.since = tensors.pop(_SINCE).tolist()
        self.val_loss = float(tensors.pop(_VAL))
        looking = bool(tensors.pop(_LOOKING, False))
        self.learner.restore(tensors, step)
        self.stored = step
        if found:
            self.seconds.update(found.seconds)
        return looking

    def _say(self, loss: float | None, doing: str = "") -> None:
        learner, steps = self.learner, self.config.steps
        self.show(Standing(learner.step, steps, learner.tokens, loss, self.val_loss, self.pace, doing))

    def _look(self, loss: float | None) -> Ended | None:
        """Evaluate, keep weights and measure where it is time; returns why the run ends here, or None."""
        step, config = self.learner.step, self.config
        last, kept = step >= config.steps, step in config.checkpoint_steps
        if not (last or kept or step % config.eval_every == 0):
            return None
        self.learner.corpus.check()
        if self.instrument.measures and (kept or last) and self.stored < step:
            # To measure may take longer than to train: a kill shall lose neither.
            self._store(looking=True)
        began = time.perf_counter()
        self._say(loss, "evaluating")
        self.val_loss = self.learner.evaluate()
        self.seconds["evaluation"] += time.perf_counter() - began
        train_loss = sum(self.since) / len(self.since) if self.since else None
        self.since = []
        self._say(loss)
        self.rows += self.instrument.losses(step, self.learner.tokens, self.val_loss, train_loss)
        reached = config.target_loss is not None and self.val_loss <= config.target_loss
        ended: Ended | None = "target" if reached else "finished" if last else None
        if kept or ended:
            self._measure(loss)
        self._progress(ended)
        return ended

    def _measure(self, loss: float | None) -> None:
        began = time.perf_counter()
        if self.ranks.first:
            self.folder.keep_checkpoint(self.config, self.learner.step, self.learner.weights())
        self.seconds["writing"] += time.perf_counter() - began
        began = time.perf_counter()
        keep = self.stored == self.learner.step

        def tell(part: str, done: int, total: int) -> None:
            self._say(loss, f"measuring: {part} {done}/{total}")

        rows, spectra = self.instrument.measure(self.learner.subject(), keep, tell, self.stopped)
        self.rows += rows
        self.spectra += spectra
        self.seconds["measurement"] += time.perf_counter() - began

    def _progress(self, ended: Ended | None) -> None:
        if self.ranks.first:
            record = {"step": self.learner.step, "steps": self.config.steps, "val_loss": self.val_loss}
            write_json(self.folder.path / "progress.json", {**record, "ended": ended, "mfu": self.pace.mfu})
        self.told_at = time.monotonic()

    def _flush(self, upto: int) -> None:
        """Parts first: a state without its parts would lose rows, parts without a state are redone."""
        if self.ranks.first:
            self.folder.keep_part(upto, self.rows, self.spectra)
        self.rows, self.spectra = [], []

    def _store(self, looking: bool = False) -> None:
        """Keep all that is needed to go on: after this step, or with the look at it still to come."""
        began = time.perf_counter()
        # What is found at this step follows, in a part of its own.
        upto = self.learner.step - looking
        self._flush(upto)
        if self.ranks.first:
            own = {
                _LOOKING: torch.tensor(looking),
                _WATCH: self.watch.state(),
                _SINCE: torch.tensor(self.since, dtype=torch.float64),
                _VAL: torch.tensor(self.val_loss, dtype=torch.float64),
            }
            state = {**self.learner.state(), **own}
            self.folder.keep_state(self.config, self.learner.step, state, self.seconds, upto)
        self.seconds["writing"] += time.perf_counter() - began
        self.stored, self.stored_at = self.learner.step, time.monotonic()

    def _diverge(self, wrong: str) -> Ended:
        """End the run with the weights of the last stored state, from before whatever went wrong."""
        file = self.folder.path / "state.safetensors"
        if self.ranks.first and file.exists():
            step, tensors = load_tensors(file, self.config)
            prefix = "param/"
            weights = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
            self.folder.keep_checkpoint(self.config, step, weights)
        return self._finish("diverged", reason=wrong)

    def _finish(self, ended: Ended, **more: str) -> Ended:
        self._flush(self.learner.step)
        if self.ranks.first:
            outcome = {
                "ended": ended,
                "step": self.learner.step,
                "tokens": self.learner.tokens,
                "val_loss": self.val_loss,
                # Whether texts of both splits share sentences is not looked for.
                "validation_overlap": None,
                "seconds": dict(self.seconds),
                **more,
            }
            self.folder.finish(outcome)
        return ended


def check_shards(folder: RunFolder, corpus: Corpus) -> None:
    """Refuse to go on with a run whose shards are not what they were.

    Raises:
        StoreError: naming the shard that has changed.
    """
    known = folder.path / "provenance.json"
    if known.exists() and (folder.path / "run.json").exists():
        difference = changed(read_json(known).get("shards", []), corpus.facts)
        if difference:
            raise StoreError(
                f"the shards that {folder.path} was trained on have changed: {difference}; put the old ones back, or "
                "begin a new run with another --out"
            )


def profile(
    config: LmConfig, execution: Execution, corpus: Corpus, ranks: ProcessGroup, steps: int
) -> list[float]:
    """Seconds of each of so many steps, after one that is not counted; nothing is stored.

    The update is timed with the gradients: a step ends when its loss and its parameters are there.
    """
    learner = Trainer(config, execution, corpus, ranks)
    times = []
    for _ in range(steps + 1):
        began = time.perf_counter()
        learner.gradients()
        learner.update()
        if execution.device.type == "cuda":
            torch.cuda.synchronize(execution.device)
        times.append(time.perf_counter() - began)
    return times[1:]
