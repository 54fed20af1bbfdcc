"""K networks of one shape that train together, each as if no other were there.

Members share stage, shapes, batch size and number of steps; they differ in seed, learning rate, weight decay,
intervention and data seed. Nothing a member computes depends on who else is in the ensemble: on one CPU thread its
trajectory is bitwise the same for every K. Products in bfloat16 and compiled code round differently for some K; with
them it is the same to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from toymodel.captured import Captured
from toymodel.compiled import compiled, fault, gradient_errors
from toymodel.config import Graphs, RunConfig, ensemble_key
from toymodel.controllers import MakeController, make_controllers
from toymodel.data import dataset
from toymodel.errors import CompileError, ConfigError
from toymodel.feed import Feed
from toymodel.network import Network, check_targets, network_of
from toymodel.placed import Batch, Placed
from toymodel.precision import autocast, check_precision, full_precision, tf32
from toymodel.predictions import Predictions, Scores, predictions
from toymodel.stages import stage
from toymodel.task import Task
from toymodel.trainable import State, Trainable
from toymodel.transformer import matrix_sizes

# Tokens that go through a network at once where no gradient is needed. On a CPU activations then stay in its cache
# (1.5 times as fast as with four times as many); a GPU wants large launches.
TOKENS_AT_ONCE = {"cpu": 4_096}
TOKENS_AT_ONCE_ELSEWHERE = 65_536
# Training sequences, the first ones, whose accuracy is measured.
TRAINING_SEQUENCES = 2_048

SplitName = Literal["val", "train"]


def sequences_at_once(length: int, device: torch.device) -> int:
    """Return how many sequences of this length to evaluate at once, without gradients; at least one."""
    return max(1, TOKENS_AT_ONCE.get(device.type, TOKENS_AT_ONCE_ELSEWHERE) // length)


class Ensemble:
    """Train K members of one shape together: parameters, optimiser state and data on one device, one step counter.

    Args:
        configs: one for each member; they must agree on `ensemble_key`.
        device: of all tensors.
        graphs: whether training steps and evaluations are captured as CUDA graphs (see `Captured`).
        controller: makes the controllers of rates that are not uniform; `sims.training.rates.layerwise` is one.

    Attributes:
        repeated: the training step, with the reason why it is not captured.
        evaluated: the same of an evaluation.

    Raises:
        ConfigError: no member, members that differ in more than an ensemble allows, rates without a controller, or
            graphs "on" or precision tf32 without CUDA.

    >>> from toymodel import ModelConfig, RunConfig, TaskConfig
    >>> task = TaskConfig(vocab=11, length=8, train=64, val=16, test=16)
    >>> config = RunConfig("untied", task=task, model=ModelConfig(8, 2, 1), batch_size=4, eval_size=16)
    >>> ensemble = Ensemble([config, config])
    >>> losses = ensemble.advance(2)
    >>> ensemble.step, losses.shape, ensemble.params["head"].shape
    (2, torch.Size([2]), torch.Size([2, 11, 8]))
    """

    def __init__(
        self,
        configs: Sequence[RunConfig],
        device: torch.device | str = "cpu",
        graphs: Graphs = "auto",
        controller: MakeController | None = None,
    ) -> None:
        if not configs:
            raise ConfigError("an ensemble needs at least one member")
        keys = {ensemble_key(c) for c in configs}
        if len(keys) > 1:
            raise ConfigError(
                f"the {len(configs)} members have {len(keys)} different shapes; an ensemble shares everything but "
                "lr, weight_decay, intervention, seed and task.seed"
            )
        self.device = torch.device(device)
        self.shared = next(iter(keys))
        check_precision(self.shared.precision, str(self.device))
        self.transformer = network_of(stage(self.shared.stage), self.shared.sizes)
        self._compiled = compiled(self.transformer.losses) if self.shared.compile else None
        self._make_controller, self._sizes = controller, matrix_sizes(self.transformer.specs())
        self.step = 0
        self.repeated = Captured(self._update, self.device, graphs)
        self.evaluated = Captured(self._evaluate, self.device, graphs, "evaluation")
        self._assemble(list(configs))
        self.trainable.initialise([c.seed for c in self.configs])

    def _assemble(self, configs: list[RunConfig]) -> None:
        """Make empty parameters, optimisers and data for the given members."""
        self.repeated.forget()
        self.evaluated.forget()
        self.configs = configs
        self.trainable = Trainable(
            self.transformer,
            torch.tensor([c.lr for c in configs]),
            [c.weight_decay for c in configs],
            self.shared.newton_schulz,
            self.device,
            controllers=make_controllers(
                self.shared.rates, len(configs), self._sizes, self.shared.steps, self._make_controller
            ),
            beta2=self.shared.beta2,
            clip=self.shared.clip,
            interventions=[(c.intervention, c.seed) for c in configs],
        )
        if self.shared.compile:
            self.trainable.compile()
        self.params = self.trainable.params
        self._place_data()

    def _place_data(self) -> None:
        tasks = list(dict.fromkeys(c.task for c in self.configs))
        for task in tasks:
            check_targets(self.transformer.stage, task)
        sets = [dataset(t) for t in tasks]
        # (stacked training sequences, T+1)
        self._train = Placed.of([s.train for s in sets], torch.cat, self.device)
        # Rows are addressed across all stacked datasets, so one gather serves every member.
        first = [tasks.index(c.task) * self.shared.task.train for c in self.configs]
        self._feed = Feed(self.configs, first, self.trainable.adamw.corrections, self.trainable.adamw.theta)
        self._val = Placed.of([s.val for s in sets], torch.stack, self.device, self.shared.eval_size)
        self._val_of = torch.tensor([tasks.index(c.task) for c in self.configs], device=self.device)
        # (K,) sum of training losses, and losses of the last evaluation.
        self._total = torch.zeros(len(self.configs), device=self.device)
        self._val_losses = torch.zeros_like(self._total)

    @property
    def tokens(self) -> int:
        """Return the number of target tokens that each member has seen."""
        return self.step * self.shared.tokens_per_step

    def _present(self) -> Network:
        """Return the architecture at the present step."""
        return self.transformer.at(self.step, self.shared.steps)

    def advance(self, steps: int, after: Callable[[], None] | None = None) -> Tensor:
        """Train by that many steps and return the (K,) mean training losses over them.

        Args:
            steps: number of updates, at least 1.
            after: called after every update; None for nothing, at no cost.

        Raises:
            ConfigError: less than one update, which has no mean.
        """
        if steps < 1:
            raise ConfigError(f"steps is {steps}; advance by at least 1")
        self._total.zero_()
        for _ in range(steps):
            if self.trainable.controllers:
                self.trainable.control(self.step, self.view)
            self._feed.prepare(self.step)
            intervention = self.trainable.interventions
            if intervention is not None:
                intervention.before_update(self.step)
            self.repeated(key=self._present().windows)
            if intervention is not None:
                intervention.after_update(self.step)
            self.step += 1
            if after is not None:
                after()
        return self._total / steps

    def _update(self) -> None:
        """Apply one update and add its training losses to the total; nothing here depends on the step but windows."""
        rows, root, factor = self._feed.next()
        losses, grads = self._gradients(rows)
        self.trainable.update(grads, root, factor)
        self._total += losses

    def _gradients(self, rows: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the (K,) losses of (K, B) training sequences, and the vectors of their gradients."""
        batch = self._train[rows]
        precision = self.shared.precision
        # A window that moves is not compiled.
        losses_of = self._compiled or self._present().losses
        with tf32(precision == "tf32"):
            with autocast(precision, self.device):
                losses = losses_of(self.params, batch.sequences, mask=batch.mask, labels=batch.labels)
            # A derivative that compiled code has lost is zero, which `check_compiled` finds.
            lost = self._compiled is not None
            grads = torch.autograd.grad(losses.sum(), list(self.params.values()), materialize_grads=lost)
        named = dict(zip(self.params, grads, strict=True))
        return losses.detach(), self.trainable.flatten(named)

    def check_compiled(self) -> None:
        """Compare compiled and eager code on the next batch; the ensemble stays as it is.

        Raises:
            CompileError: losses, gradients or the update of AdamW differ by more than rounding (√ε of the precision),
                or cannot be compiled.
        """
        if self._compiled is None:
            return
        self._feed.prepare(self.step)
        rows, root, factor = self._feed.next()

        def errors() -> dict[str, float]:
            found = gradient_errors(self.trainable.banks, lambda: self._gradients(rows))
            return found | self.trainable.adamw_errors(root, factor)

        # TF32 has 3 bits more than bfloat16.
        reason = fault(errors, self.shared.precision != "float32", str(self.device))
        if reason:
            raise CompileError(reason)

    def view(self, k: int) -> MemberView:
        """Show member k to an observer; valid until the next step."""
        return MemberView(self, k)

    def evaluate(self) -> Tensor:
        """Return the (K,) mean validation losses in nats over the first `eval_size` validation sequences."""
        self.evaluated(key=self._present().windows)
        return self._val_losses.clone()

    @torch.no_grad()
    @full_precision()
    def _evaluate(self) -> None:
        """Compute the validation losses; nothing here depends on the step but windows."""
        params = {name: p.detach() for name, p in self.params.items()}
        total = torch.zeros(len(self.configs), device=self.device)
        transformer, counted = self._present(), 0
        for batch in self._parts(self._val_of, "val"):
            # Targets are counted by sequences where all of a sequence count.
            count = batch.sequences.shape[1] if batch.mask is None else batch.mask.sum(dim=(1, 2))
            losses = transformer.losses(params, batch.sequences, mask=batch.mask, labels=batch.labels)
            total += losses * count
            counted = counted + count
        torch.div(total, counted, out=self._val_losses)

    def accuracy(self, members: Sequence[int] | None = None, split: SplitName = "val") -> list[float]:
        """Return the accuracies of members (None: all) over a split, as their task defines it (`Task.accuracy`).

        Of a member that has diverged no target is predicted.

        Args:
            members: their indices.
            split: "val" for the validation sequences of `evaluate`, "train" for the first 2,048 of training.

        Raises:
            ConfigError: another split.
        """
        tasks, found = self._predictions(members, split)
        return [task.accuracy(*own) for task, own in zip(tasks, found, strict=True)]

    def exact(self, members: Sequence[int] | None = None, split: SplitName = "val") -> list[float]:
        """Return the shares of sequences with all counted targets predicted (`Task.exact`); arguments as `accuracy`."""
        tasks, found = self._predictions(members, split)
        return [task.exact(*own) for task, own in zip(tasks, found, strict=True)]

    def scores(self, members: Sequence[int] | None = None, split: SplitName = "val") -> list[Scores]:
        """Return loss, accuracy and exact match together, from one pass; arguments as `accuracy`."""
        tasks, found = self._predictions(members, split, losses=True)
        return [
            Scores(loss, task.accuracy(*own), task.exact(*own))
            for loss, task, own in zip(found.losses.tolist(), tasks, found, strict=True)
        ]

    def _predictions(
        self, members: Sequence[int] | None, split: SplitName, losses: bool = False
    ) -> tuple[list[Task], Predictions]:
        """Return the tasks of members, and what they predict of a split; arguments as `accuracy` and `predictions`."""
        members = range(len(self.configs)) if members is None else members
        chosen = torch.tensor(list(members), device=self.device)
        params = {name: p.detach().index_select(0, chosen) for name, p in self.params.items()}
        parts = self._parts(self._val_of[chosen], split)
        return [self.configs[k].task for k in members], predictions(self._present(), params, parts, losses)

    def _parts(self, sets: Tensor, split: SplitName) -> Iterator[Batch]:
        """Yield the evaluated sequences of a split of the data sets (K,), in parts (K, chunk, …)."""
        if split not in ("val", "train"):
            raise ConfigError(f"split is {split!r}; choose 'val' or 'train'")
        chunk = sequences_at_once(self.shared.task.length, self.device)
        if split == "val":
            return self._val.chunks(sets, self._val.sequences.shape[1], chunk)
        size = self.shared.task.train
        return self._train.by_set(size).chunks(sets, min(size, TRAINING_SEQUENCES), chunk)

    def keep(self, members: Sequence[int]) -> None:
        """Continue with the given members only, in smaller buffers; the others are dropped.

        Raises:
            CompileError: as `check_compiled`: code is compiled anew for their number.
        """
        states = self.trainable.states(members)
        self._assemble([self.configs[k] for k in members])
        self.trainable.restore(states)
        self.check_compiled()

    def weights(self, k: int) -> State:
        """Return copies of member k's parameters (*shape) by name, on the CPU."""
        return self.trainable.weights([k])[0]

    def state(self, k: int) -> State:
        """Return copies of all that member k needs to continue (see `Trainable.states`, which is for several)."""
        return self.trainable.states([k])[0]

    @classmethod
    def from_states(
        cls,
        configs: Sequence[RunConfig],
        states: Sequence[Mapping[str, Tensor]],
        step: int,
        device: torch.device | str = "cpu",
        graphs: Graphs = "auto",
        controller: MakeController | None = None,
    ) -> Ensemble:
        """Return an ensemble that continues from states saved at one common step.

        Raises:
            CheckpointError: a state lacks a tensor or has one of another shape.
        """
        ensemble = cls(configs, device, graphs, controller)
        for config, state in zip(configs, states, strict=True):
            ensemble.trainable.check(state, config.run_id)
        ensemble.trainable.restore(states)
        ensemble.step = step
        return ensemble


@dataclass(frozen=True)
class MemberView:
    """Show one member of an ensemble between two steps (see `toymodel.observe.View`)."""

    ensemble: Ensemble
    k: int

    @property
    def config(self) -> RunConfig:
        """Return the configuration of the member."""
        return self.ensemble.configs[self.k]

    @property
    def step(self) -> int:
        """Return the number of updates so far."""
        return self.ensemble.step

    @property
    def tokens(self) -> int:
        """Return the number of target tokens so far."""
        return self.ensemble.tokens

    def accuracy(self, split: SplitName = "val") -> float:
        """Return the member's accuracy on its validation or training sequences (see `Ensemble.accuracy`)."""
        return self.ensemble.accuracy([self.k], split)[0]

    def exact(self, split: SplitName = "val") -> float:
        """Return the share of its sequences with all counted targets predicted (see `Ensemble.exact`)."""
        return self.ensemble.exact([self.k], split)[0]

    def scores(self, split: SplitName = "val") -> Scores:
        """Return its loss, accuracy and exact match from one pass (see `Ensemble.scores`)."""
        return self.ensemble.scores([self.k], split)[0]

    def weights(self) -> Mapping[str, Tensor]:
        """Return the member's parameters (*shape) by name: views that the next step overwrites."""
        return {name: p.detach()[self.k] for name, p in self.ensemble.params.items()}

    def decay(self) -> Mapping[str, Tensor]:
        """Return by name the share of each decayed parameter that the last update took away (see `Trainable`)."""
        return self.ensemble.trainable.decay_of(self.k)

    def rates(self) -> Mapping[str, tuple[float, float | None]]:
        """Return multiplier and score of each matrix, as last chosen by this ensemble; nothing where all have one rate.

        A run that continues has none before its next choice; its multipliers are those of its stored state.
        """
        return self.ensemble.trainable.rates_of(self.k)
