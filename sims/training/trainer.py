"""Train a language model on one or several devices, yielding snapshots."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sims.models.transformer import TransformerSubject
from sims.runs.lm_config import LmConfig
from sims.system.process_group import ProcessGroup
from sims.text.corpus import Corpus
from sims.training.compiled import check_compiled
from sims.training.divergence import DivergenceMonitor
from sims.training.execution import Execution
from sims.training.language_model import LanguageModel, gradient_vectors, shared_by
from sims.training.rates import layerwise, seconds_a_step
from sims.training.snapshot import Ended, Snapshot
from sims.training.throughput import Throughput
from toymodel.controllers import make_controllers
from toymodel.errors import CheckpointError
from toymodel.observe import Observer
from toymodel.trainable import State, Trainable
from toymodel.transformer import matrix_sizes

# Names of stored tensors other than parameters and optimiser state.
_MONITOR, _LOSSES = "run/watch", "run/since"


class Trainer:
    """Hold the parameters, optimiser state and position of one run.

    Training draws no random numbers: the initial parameters depend on the seed, and the data of a step on the step.
    Weights, moments, recent losses and the step are therefore enough to continue a run exactly.

    Args:
        config: the run.
        execution: how it is computed.
        corpus: the text that it is trained on.
        group: processes that share every step.

    Raises:
        ConfigError: a step cannot be divided among the processes.
    """

    def __init__(self, config: LmConfig, execution: Execution, corpus: Corpus, group: ProcessGroup) -> None:
        self.config, self.execution, self.corpus, self.group = config, execution, corpus, group
        self.rounds = execution.rounds(config, group.size)
        self.transformer = config.transformer(execution.recompute)
        self.trainable = Trainable(
            self.transformer,
            torch.tensor([config.lr]),
            [config.weight_decay],
            config.newton_schulz,
            execution.device,
            shared_by(group),
            make_controllers(
                config.rates,
                1,
                matrix_sizes(self.transformer.specs()),
                config.steps,
                partial(layerwise, group=group),
            ),
            interventions=[(config.intervention, config.seed)],
        )
        self.trainable.initialise([config.seed])
        self.step = 0
        self.monitor = DivergenceMonitor()
        # Training losses since the last evaluation.
        self.losses: list[float] = []
        self.model = LanguageModel(self.transformer, self.trainable.params)
        self.grads = gradient_vectors(self.trainable, self.model)
        if execution.compile:
            self.model.compile()
        # `evaluate` calls `model` directly: its forward pass waits for no other process, so shares may differ in size.
        self.module: nn.Module = self.model
        if group.size > 1:
            ids = [execution.device] if execution.device.type == "cuda" else None
            self.module = DistributedDataParallel(self.model, device_ids=ids)

    @property
    def tokens(self) -> int:
        """Return the target tokens so far."""
        return self.step * self.config.tokens_per_step

    def _autocast(self) -> AbstractContextManager[object]:
        kind = self.execution.device.type
        return torch.autocast(kind, torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def _set_window(self) -> None:
        """Set the attention window of the present step."""
        if self.transformer.stage.window is not None:
            self.model.transformer = self.transformer.at(self.step, self.config.steps)

    def gradients(self, rounds: int | None = None) -> float:
        """Compute the gradients of this step; return its mean loss in nats.

        The gradients are averaged over all sequences of the step, on all processes, and stored in `grads`.

        Args:
            rounds: take so many micro-batches of the step; None takes all.
        """
        size, whole = self.execution.micro_batch, self.execution.micro_batch * self.group.size
        for vector in self.grads:
            vector.zero_()
        self._set_window()
        total = torch.zeros((), device=self.execution.device)
        rounds = self.rounds if rounds is None else rounds
        for i in range(rounds):
            # Sequences of this process: (micro_batch, T+1) tokens.
            first = i * whole + self.group.rank * size
            batch = self.corpus.batch(self.step, self.config.batch_size, slice(first, first + size))
            with self._exchanging(i == rounds - 1):
                with self._autocast():
                    loss = self.module(batch.to(self.execution.device))
                (loss / rounds).backward()
            total += loss.detach() / rounds
        return float(self.group.sum(total)) / self.group.size

    def _exchanging(self, last: bool) -> AbstractContextManager[object]:
        """Exchange gradients between processes only in the last round."""
        if last or not isinstance(self.module, DistributedDataParallel):
            return nullcontext()
        return self.module.no_sync()

    def update(self) -> None:
        """Update the parameters with the gradients that `gradients` has computed."""
        if self.trainable.controllers:
            self.trainable.control(self.step, lambda _: TrainerView(self))
        scale, intervention = self.config.lr_scale(self.step), self.trainable.interventions
        if intervention is not None:
            intervention.before_update(self.step)
        self.trainable.step(self.grads, self.step + 1, scale)
        if intervention is not None:
            intervention.after_update(self.step, scale)
        self.step += 1

    @torch.no_grad()
    def evaluate(self) -> float:
        """Return the mean validation loss in nats.

        It is taken over the first `eval_tokens` validation tokens, in whole sequences.
        """
        config, corpus = self.config, self.corpus
        count = min(len(corpus.val), -(-config.eval_tokens // config.length))
        size = self.execution.micro_batch
        starts = range(0, count, size)
        self._set_window()
        total = torch.zeros((), dtype=torch.float64, device=self.execution.device)
        for i in self.group.share(len(starts)):
            batch = corpus.val.take(range(starts[i], min(starts[i] + size, count)))
            with self._autocast():
                loss = self.model(batch.to(self.execution.device))
            total += loss.double() * len(batch)
        return float(self.group.sum(total)) / count

    def subject(self) -> TransformerSubject:
        """Return the present model for measuring; it shares the parameters."""
        return TransformerSubject(
            self.config, {n: p.detach() for n, p in self.trainable.params.items()}, self.step
        )

    def weights(self) -> State:
        """Return copies of all parameters by name, on the CPU."""
        return self.trainable.weights([0])[0]

    def state(self) -> State:
        """Return copies of parameters, optimiser state and recent losses.

        They are on the CPU, and the same on every process.
        """
        losses = torch.tensor(self.losses, dtype=torch.float64)
        return {**self.trainable.states([0])[0], _MONITOR: self.monitor.state(), _LOSSES: losses}

    def restore(self, state: Mapping[str, Tensor], step: int) -> None:
        """Continue from a stored state.

        Raises:
            CheckpointError: a tensor is missing, unknown or of another shape.
        """
        tensors = dict(state)
        monitor, losses = tensors.pop(_MONITOR, None), tensors.pop(_LOSSES, None)
        self.trainable.check(tensors, self.config.run_id)
        if monitor is None or losses is None:
            raise CheckpointError(
                f"the state of {self.config.run_id} lacks its recent losses; delete the run folder to train it again"
            )
        self.trainable.restore([tensors])
        self.monitor.restore(monitor)
        self.losses, self.step = losses.tolist(), step

    def evaluates(self, step: int) -> bool:
        """Return whether the run is evaluated after this step.

        It is evaluated at regular steps, where weights are stored, and at its end.
        """
        config = self.config
        return step >= config.steps or step in config.checkpoint_steps or step % config.eval_every == 0


@dataclass(frozen=True)
class TrainerView:
    """Show a run to its observers (see `toymodel.observe.View`)."""

    trainer: Trainer

    @property
    def step(self) -> int:
        """Return the number of updates so far."""
        return self.trainer.step

    @property
    def tokens(self) -> int:
        """Return the number of target tokens so far."""
        return self.trainer.tokens

    def weights(self) -> Mapping[str, Tensor]:
        """Return the parameters (*shape) by name.

        They are views, which the next step overwrites.
        """
        return {name: p.detach()[0] for name, p in self.trainer.trainable.params.items()}

    def decay(self) -> Mapping[str, Tensor]:
        """Return by name the share of each decayed parameter that the last update took away (see `Trainable`)."""
        trainer = self.trainer
        return trainer.trainable.decay_of(0, trainer.config.lr_scale(max(0, trainer.step - 1)))

    def rates(self) -> Mapping[str, tuple[float, float | None]]:
        """Return multiplier and score of each matrix, as last chosen; nothing where all have one rate."""
        return self.trainer.trainable.rates_of(0)


def train(
    trainer: Trainer, throughput: Throughput, observers: Sequence[Observer] = (), again: bool = False
) -> Iterator[Snapshot]:
    """Train to the end, yielding a snapshot before and after every step.

    Args:
        trainer: at step 0, or restored at a later one.
        throughput: receives the duration of every step.
        observers: look at the model before the first step, and after each update (see `toymodel.observe`).
        again: evaluate the present step again, because its snapshot was not recorded completely.

    Raises:
        EngineError: torch.compile computes the model wrongly here (see `check_compiled`).
    """
    if trainer.execution.compile:
        check_compiled(trainer)
    if again or trainer.step == 0:
        looking = 0.0 if again else _look(trainer, observers)
        snapshot = _evaluated(trainer, throughput, {"training": 0.0}, looking)
        yield snapshot
        if snapshot.ended:
            return
    while trainer.step < trainer.config.steps:
        if trainer.evaluates(trainer.step):
            trainer.losses = []
        began = time.perf_counter()
        loss = trainer.gradients()
        wrong = trainer.monitor.see(loss)
        if wrong is not None:
            yield _snapshot(trainer, throughput, {}, train_loss=loss, ended="diverged", reason=wrong)
            return
        trainer.update()
        trainer.losses.append(loss)
        took = time.perf_counter() - began
        throughput.see(took)
        looking = _look(trainer, observers)
        if trainer.evaluates(trainer.step):
            snapshot = _evaluated(trainer, throughput, {"training": took}, looking)
        else:
            snapshot = _snapshot(trainer, throughput, {"training": took}, looking, train_loss=loss)
        yield snapshot
        if snapshot.ended:
            return


def _look(trainer: Trainer, observers: Sequence[Observer]) -> float:
    """Offer the present step to the observers; return their seconds."""
    began = time.perf_counter()
    for observer in observers:
        if observer.due(trainer.step):
            observer.look(TrainerView(trainer))
    return time.perf_counter() - began if observers else 0.0


def _evaluated(
    trainer: Trainer, throughput: Throughput, seconds: Mapping[str, float], looking: float
) -> Snapshot:
    """Evaluate the model, and decide whether the run ends."""
    config = trainer.config
    trainer.corpus.check()
    began = time.perf_counter()
    val_loss = trainer.evaluate()
    seconds = {**seconds, "evaluation": time.perf_counter() - began}
    if not math.isfinite(val_loss):
        # A number that is none is not recorded; the weights of the last stored state are kept.
        reason = f"the validation loss is {val_loss}"
        return _snapshot(
            trainer, throughput, seconds, looking, train_loss=None, ended="diverged", reason=reason
        )
    train_loss = sum(trainer.losses) / len(trainer.losses) if trainer.losses else None
    reached = config.target_loss is not None and val_loss <= config.target_loss
    ended: Ended | None = "target" if reached else "finished" if trainer.step >= config.steps else None
    return _snapshot(
        trainer, throughput, seconds, looking, train_loss=train_loss, val_loss=val_loss, ended=ended
    )


def _snapshot(
    trainer: Trainer,
    throughput: Throughput,
    seconds: Mapping[str, float],
    looking: float = 0.0,
    *,
    train_loss: float | None,
    val_loss: float | None = None,
    ended: Ended | None = None,
    reason: str = "",
) -> Snapshot:
    spent = {**seconds, "observation": looking} if looking else seconds
    speed = throughput.numbers()
    return Snapshot(trainer.step, trainer.tokens, trainer, train_loss, val_loss, ended, reason, spent, speed)


def profile(trainer: Trainer, steps: int) -> list[float]:
    """Return the seconds of each of several steps; store nothing.

    One step before them is not counted. The time of a step includes its update, and its share of the time in which
    learning rates are chosen.

    Raises:
        EngineError: torch.compile computes the model wrongly here (see `check_compiled`).
    """
    if trainer.execution.compile:
        check_compiled(trainer)
    device, trainable = trainer.execution.device, trainer.trainable
    controllers, times = trainable.controllers, []
    for _ in range(steps + 1):
        began = time.perf_counter()
        trainer.gradients()
        trainer.update()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
        # Choices after the first are timed by themselves: few of the timed steps have one.
        trainable.controllers = []
    trainable.controllers = controllers
    choosing = seconds_a_step(controllers, lambda _: TrainerView(trainer))
    return [seconds + choosing for seconds in times[1:]]
