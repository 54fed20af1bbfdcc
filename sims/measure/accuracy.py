"""Accuracy, exact match and loss on both splits, and the plain signals that a cleverer one must beat."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from sims.measure.measurement import Measurement
from sims.measure.rows import MeasurementRows, RecordingObserver
from sims.measure.training_batches import TrainingSequences, batch_loss, drawn_batches
from spectra import Estimate
from toymodel.ensemble import SplitName
from toymodel.observe import Schedule, View
from toymodel.precision import full_precision
from toymodel.predictions import Scores

SPLITS: tuple[tuple[SplitName, str], ...] = (("val", "validation"), ("train", "training"))

OVERFLOW = "the loss is not finite"


class ScoredView(View, Protocol):
    """Show also how well the model predicts (`toymodel.ensemble.MemberView`)."""

    def scores(self, split: SplitName = "val") -> Scores:
        """Return loss, accuracy and exact match on a split."""
        ...


class AccuracyObserver(RecordingObserver):
    """Measure what one run predicts, and the norms of its gradient, last update and weights.

    Memory is P numbers between a look and the step before it.

    Args:
        schedule: after which steps.
        run: a `RunConfig`.
        training: its training sequences.
    """

    name = "accuracy"

    def __init__(self, schedule: Schedule, run: Any, training: TrainingSequences) -> None:
        self.schedule, self.run, self.training = schedule, run, training
        super().__init__()
        # The weights one step before a look.
        self.step = -1
        self.before: dict[str, Tensor] = {}

    def due(self, step: int) -> bool:
        """Return whether the schedule names this step, or the one after it, whose update needs these weights."""
        return self.schedule.due(step + 1, last=step - 1)

    def look(self, view: View) -> None:
        """Measure the model where that is due; keep its weights where the next step is measured."""
        if self.schedule.due(view.step, last=view.step - 1):
            self._measure(cast(ScoredView, view))
        self.step, self.before = -1, {}
        if self.schedule.due(view.step + 1, last=view.step):
            self.step = view.step
            self.before = {name: weight.clone() for name, weight in view.weights().items()}

    def _measure(self, view: ScoredView) -> None:
        weights = view.weights()
        # One question to the device, not one for each parameter.
        if not bool(torch.stack([weight.isfinite().all() for weight in weights.values()]).all()):
            # The run has diverged, and ends at its next evaluation.
            return
        sheet = MeasurementRows(view.step, view.tokens)
        for split, site in SPLITS:
            scores = view.scores(split)
            numbers = {"loss": scores.loss, "accuracy": scores.accuracy, "exact_match": scores.exact}
            # The largest of logits that are no numbers is no prediction.
            known = math.isfinite(scores.loss)
            for quantity, value in numbers.items():
                sheet.row(quantity, "prediction", site, value if known else Estimate.not_fitted(OVERFLOW))
        self._signals(sheet, weights)
        self.found.append(sheet)

    @full_precision()
    def _signals(self, sheet: MeasurementRows, weights: Mapping[str, Tensor]) -> None:
        sheet.row("weight_norm", "signal", "all", _norm(weights))
        sheet.row("gradient_norm", "signal", "all", self._gradient_norm(sheet.step, weights))
        if self.step != sheet.step - 1 or not self.before:
            first = Estimate.not_fitted("there is no update before this step")
            sheet.row("update_norm", "signal", "all", first)
            sheet.row("cosine_weights", "signal", "all", first)
            return
        # After a restart they are on the host.
        old = {name: self.before[name].to(weight.device) for name, weight in weights.items()}
        update = {name: weight - old[name] for name, weight in weights.items()}
        size, before = _norm(update), _norm(old)
        along = sum(float((update[n].double() * old[n].double()).sum()) for n in update)
        still = Estimate.not_fitted("the parameters did not move, or are all zero")
        sheet.row("update_norm", "signal", "all", size)
        sheet.row("cosine_weights", "signal", "all", along / size / before if size and before else still)

    def _gradient_norm(self, step: int, weights: Mapping[str, Tensor]) -> float:
        """Return the norm of the gradient of one drawn batch of the size of a training step."""
        (which,) = drawn_batches(self.run, step, 1, self.run.batch_size, self.training)
        values = [weight.detach().clone().requires_grad_() for weight in weights.values()]
        loss = batch_loss(self.run, step, list(weights), self.training.take(which), values[0].device)
        with torch.enable_grad():
            gradients = torch.autograd.grad(loss(values), values, materialize_grads=True)
        return _norm(dict(zip(weights, gradients, strict=True)))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the weights before a look."""
        state = {f"before.{name}": weight.clone() for name, weight in self.before.items()}
        return {"step": torch.tensor(self.step), **state}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.step = int(state["step"])
        self.before = {
            name.removeprefix("before."): weight.clone()
            for name, weight in state.items()
            if name.startswith("before.")
        }


def _norm(tensors: Mapping[str, Tensor]) -> float:
    """Return the norm of all entries together, added up in float64."""
    return math.hypot(*(float(torch.linalg.vector_norm(t.double())) for t in tensors.values()))


def _schedule(config: Any) -> Schedule:
    return Schedule(every=config.accuracy)


def _observer(config: Any, run: Any, training: TrainingSequences | None) -> AccuracyObserver:
    assert training is not None, "the training accuracy needs training sequences"
    return AccuracyObserver(_schedule(config), run, training)


ACCURACY = Measurement(
    "accuracy",
    version=1,
    meaning="accuracy, exact match and loss on both splits, norms of gradient, update and weights "
    "(`--measure.accuracy`)",
    needs=frozenset({"accuracy", "training"}),
    wanted=lambda config: config.accuracy > 0,
    schedule=_schedule,
    observer=_observer,
)
