"""Trains a language model: one step on one device or on several, and the snapshots of a whole run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sims.models.transformer import TransformerSubject
from sims.runs.lm_config import LmConfig
from sims.system.process_group import ProcessGroup
from sims.text.corpus import Corpus
from sims.training.divergence import DivergenceMonitor
from sims.training.snapshot import Ended, Snapshot
from sims.training.throughput import Throughput
from toymodel.errors import CheckpointError, ConfigError
from toymodel.observe import Observer
from toymodel.optim import Orthogonalise, Share, alone
from toymodel.stages.base import Params
from toymodel.trainable import State, Trainable
from toymodel.transformer import Transformer

# Tensors of a stored state beside parameters and optimiser state.
_MONITOR, _LOSSES = "run/watch", "run/since"


@dataclass(frozen=True)
class Execution:
    """How a run is carried out; none of it belongs to what the run is.

    Args:
        device: where this process computes.
        micro_batch: sequences that a device takes at once; what is left of a step follows and is added up.
        recompute: keep the inputs of every block alone for the backward pass, and run the blocks a second time.
        compile: by torch.compile.
    """

    device: torch.device
    micro_batch: int
    recompute: bool = False
    compile: bool = False

    def rounds(self, config: LmConfig, ranks: int) -> int:
        """Micro-batches of every rank in a step.

        Raises:
            ConfigError: the step cannot be cut so, or a window that opens during training would be compiled anew at
                every step.
        """
        whole = self.micro_batch * ranks
        if self.micro_batch < 1 or config.batch_size % whole:
            fits = [
                m for m in range(1, config.batch_size // ranks + 1) if config.batch_size % (m * ranks) == 0
            ]
            remedy = (
                f"take --micro-batch {max(m for m in fits if m <= max(1, self.micro_batch))}"
                if fits
                else f"take a number of ranks that divides {config.batch_size}"
            )
            raise ConfigError(
                f"a step of {config.batch_size} sequences is no whole number of rounds of {ranks} × "
                f"{self.micro_batch}; {remedy}"
            )
        if self.compile and config.transformer().stage.window is not None:
            raise ConfigError(
                f"stage {config.stage} has an attention window, which would be compiled anew whenever it moves; leave "
                "out --compile"
            )
        return config.batch_size // whole


class LanguageModel(nn.Module):
    """A transformer with parameters of its own: the form that DistributedDataParallel and torch.compile take.

    Args:
        transformer: the architecture; may be replaced by that of another step.
        params: (1, *shape) tensors by name, whose memory is shared.
    """

    def __init__(self, transformer: Transformer, params: Params) -> None:
        super().__init__()
        self.transformer = transformer
        self.names = tuple(params)
        self.values = nn.ParameterList(nn.Parameter(p.detach()) for p in params.values())

    def forward(self, sequences: Tensor) -> Tensor:
        """() mean cross-entropy in nats of (b, T+1) sequences."""
        params = dict(zip(self.names, self.values, strict=True))
        return self.transformer.losses(params, sequences[None])[0]


def gradient_vectors(trainable: Trainable, model: LanguageModel) -> tuple[Tensor, Tensor]:
    """The two vectors that the optimisers take; the gradient of every parameter of the model becomes a view of them."""
    adamw, muon = (torch.zeros_like(bank.vector) for bank in trainable.banks)
    place = {
        spec.name: bank.block(vector, spec.name)
        for bank, vector in zip(trainable.banks, (adamw, muon), strict=True)
        for spec in bank.specs
    }
    for name, value in zip(model.names, model.values, strict=True):
        value.grad = place[name]
    return adamw, muon


def shared_by(ranks: ProcessGroup) -> Share:
    """Every rank orthogonalises its part of the matrices of one shape; all get all of them."""
    if ranks.size == 1:
        return alone

    def share(orthogonalise: Orthogonalise, matrices: Tensor) -> Tensor:
        each = -(-len(matrices) // ranks.size)
        own = matrices[ranks.rank * each : (ranks.rank + 1) * each]
        done = torch.zeros(each, *matrices.shape[1:], dtype=matrices.dtype, device=matrices.device)
        if len(own):
            done[: len(own)] = orthogonalise(own)
        parts = [torch.empty_like(done) for _ in range(ranks.size)]
        dist.all_gather(parts, done)
        return torch.cat(parts)[: len(matrices)]

    return share


class Trainer:
    """Parameters, optimiser state and position of one run.

    Nothing in it is drawn at random while it trains: parameters follow from the seed, and the data of a step from the
    step. Weights, moments, the recent losses and the step are therefore all that a run needs to continue exactly.

    Args:
        config: the run.
        execution: how it is carried out.
        corpus: its text.
        ranks: this process among those that share every step.

    Raises:
        ConfigError: a step that cannot be divided among the ranks.
    """

    def __init__(self, config: LmConfig, execution: Execution, corpus: Corpus, ranks: ProcessGroup) -> None:
        self.config, self.execution, self.corpus, self.ranks = config, execution, corpus, ranks
        self.rounds = execution.rounds(config, ranks.size)
        self.transformer = config.transformer(execution.recompute)
        self.trainable = Trainable(
            self.transformer,
            torch.tensor([config.lr]),
            [config.weight_decay],
            config.newton_schulz,
            execution.device,
            shared_by(ranks),
        )
        self.trainable.initialise(0, config.seed)
        self.step = 0
        self.monitor = DivergenceMonitor()
        # Training losses since the last evaluation.
        self.losses: list[float] = []
        self.model = LanguageModel(self.transformer, self.trainable.params)
        self.grads = gradient_vectors(self.trainable, self.model)
        if execution.compile:
            self.model.compile()
        # In eval mode no collective belongs to a forward pass: ranks may take shares of different size.
        self.module: nn.Module = self.model
        if ranks.size > 1:
            ids = [execution.device] if execution.device.type == "cuda" else None
            self.module = DistributedDataParallel(self.model, device_ids=ids)

    @property
    def tokens(self) -> int:
        """Target tokens so far."""
        return self.step * self.config.tokens_per_step

    def _precise(self) -> AbstractContextManager[object]:
        kind = self.execution.device.type
        return torch.autocast(kind, torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def _present(self) -> None:
        if self.transformer.stage.window is not None:
            self.model.transformer = self.transformer.at(self.step, self.config.steps)

    def gradients(self) -> float:
        """Form the gradients of the present step, over all ranks; returns the mean loss in nats."""
        size, whole = self.execution.micro_batch, self.execution.micro_batch * self.ranks.size
        for vector in self.grads:
            vector.zero_()
        self._present()
        total = torch.zeros((), device=self.execution.device)
        for i in range(self.rounds):
            first = i * whole + self.ranks.rank * size
            batch = self.corpus.batch(self.step, self.config.batch_size, slice(first, first + size))
            with self._alone_until(i == self.rounds - 1):
                with self._precise():
                    loss = self.module(batch.to(self.execution.device))
                (loss / self.rounds).backward()
            total += loss.detach() / self.rounds
        return float(self.ranks.sum(total)) / self.ranks.size

    def _alone_until(self, last: bool) -> AbstractContextManager[object]:
        """Ranks exchange gradients in the last round alone."""
        if last or not isinstance(self.module, DistributedDataParallel):
            return nullcontext()
        return self.module.no_sync()

    def update(self) -> None:
        """Apply the gradients that `gradients` has formed."""
        scale = self.config.lr_scale(self.step)
        self.step += 1
        self.trainable.step(self.grads, self.step, scale)

    @torch.no_grad()
    def evaluate(self) -> float:
        """Mean validation loss in nats over the first `eval_tokens` tokens."""
        config, corpus = self.config, self.corpus
        count = min(len(corpus.val), -(-config.eval_tokens // config.length))
        size = self.execution.micro_batch
        starts = range(0, count, size)
        self._present()
        total = torch.zeros((), dtype=torch.float64, device=self.execution.device)
        for i in self.ranks.share(len(starts)):
            batch = corpus.val.take(range(starts[i], min(starts[i] + size, count)))
            with self._precise():
                loss = self.model(batch.to(self.execution.device))
            total += loss.double() * len(batch)
        return float(self.ranks.sum(total)) / count

    def subject(self) -> TransformerSubject:
        """The model as it is now, for measuring; it shares the parameters."""
        return TransformerSubject(
            self.config, {n: p.detach() for n, p in self.trainable.params.items()}, self.step
        )

    def weights(self) -> State:
        """Copies of all parameters by name, on the CPU."""
        return self.trainable.weights(0)

    def state(self) -> State:
        """Return copies of parameters, optimiser state and recent losses, on the CPU; the same on every process."""
        losses = torch.tensor(self.losses, dtype=torch.float64)
        return {**self.trainable.state(0), _MONITOR: self.monitor.state(), _LOSSES: losses}

    def restore(self, state: Mapping[str, Tensor], step: int) -> None:
        """Continue from a stored state.

        Raises:
            CheckpointError: a tensor is missing, foreign or of another shape.
        """
        tensors = dict(state)
        monitor, losses = tensors.pop(_MONITOR, None), tensors.pop(_LOSSES, None)
        self.trainable.check(tensors, self.config.run_id)
        if monitor is None or losses is None:
            raise CheckpointError(
                f"the state of {self.config.run_id} lacks its recent losses; delete the run folder to train it again"
            )
        self.trainable.restore(0, tensors)
        self.monitor.restore(monitor)
        self.losses, self.step = losses.tolist(), step

    def evaluates(self, step: int) -> bool:
        """Return whether the run is evaluated after this step: regularly, where weights are kept, and at its end."""
        config = self.config
        return step >= config.steps or step in config.checkpoint_steps or step % config.eval_every == 0


@dataclass(frozen=True)
class TrainerView:
    """Show a run to its observers between two steps (see `toymodel.observe.View`)."""

    trainer: Trainer

    @property
    def step(self) -> int:
        """Number of updates so far."""
        return self.trainer.step

    @property
    def tokens(self) -> int:
        """Number of target tokens so far."""
        return self.trainer.tokens

    def weights(self) -> Mapping[str, Tensor]:
        """Return the parameters (*shape) by name: views that the next step overwrites."""
        return {name: p.detach()[0] for name, p in self.trainer.trainable.params.items()}


def train(
    trainer: Trainer, throughput: Throughput, observers: Sequence[Observer] = (), again: bool = False
) -> Iterator[Snapshot]:
    """Train to the end, yielding after every step, and once before the first.

    Args:
        trainer: at step 0, or restored at a later one.
        throughput: how fast the steps are; filled while they are made.
        observers: look at the model before the first step, and after each update (see `toymodel.observe`).
        again: evaluate the present step once more, whose snapshot was not recorded whole.
    """
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
    """Offer the present step to the observers; return the seconds that they took."""
    began = time.perf_counter()
    for observer in observers:
        if observer.due(trainer.step):
            observer.look(TrainerView(trainer))
    return time.perf_counter() - began if observers else 0.0


def _evaluated(
    trainer: Trainer, throughput: Throughput, seconds: Mapping[str, float], looking: float
) -> Snapshot:
    """Evaluate the model, and decide whether its run ends."""
    config = trainer.config
    trainer.corpus.check()
    began = time.perf_counter()
    val_loss = trainer.evaluate()
    seconds = {**seconds, "evaluation": time.perf_counter() - began}
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
    """Return the seconds of each of so many steps, after one that is not counted; nothing is stored.

    The update is timed with the gradients: a step ends when its loss and its parameters are there.
    """
    device = trainer.execution.device
    times = []
    for _ in range(steps + 1):
        began = time.perf_counter()
        trainer.gradients()
        trainer.update()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return times[1:]
