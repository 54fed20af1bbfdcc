"""Describe what a monitor watches: the run, and the windows of updates."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from sims.measure.update_groups import UpdateGroup
from sims.measure.updates import UpdateObserver, UpdateSettings
from sims.models.watched import WatchedSubject
from sims.monitor.momenta import momenta_of, present_momentum
from sims.monitor.plan import LookPlan
from sims.runs.lm_measure_config import LmRun, RunMetadata
from sims.runs.watched_config import WatchedConfig
from sims.system.errors import MeasureError
from sims.system.plain import some

GB = 1e9
# Keys of `Monitor.state_dict`.
STATE = {"run", "step", "looked", "plan", "updates"}
# The same of a model that was trained before without a monitor.
TRAINED = {"step"}


def check_settings(
    every: int,
    budget: float | None,
    tokens_per_step: int | None,
    state: Mapping[str, Any] | None,
    stride: int = 1,
    steps: int = 0,
) -> None:
    """Refuse settings of a monitor that are out of range.

    Raises:
        MeasureError: such a setting; the message names it.
    """
    _check_count("every", every, 1, "it must be an integer of at least 1")
    if every % stride:
        raise MeasureError(
            f"every is {every} and update_stride {stride}: windows of updates end where the model is looked at, so "
            "every must be a multiple of the stride"
        )
    _check_count("steps", steps, 0, "it is the length of the training, a whole number from 0")
    if budget is not None and not (isinstance(budget, Real) and 0 < budget < 1):
        raise MeasureError(f"budget is {budget!r}; it is a share of the time, such as 0.05")
    if tokens_per_step is not None:
        _check_count("tokens_per_step", tokens_per_step, 1, "it must be an integer of at least 1")
    if state is not None and not (
        isinstance(state, Mapping) and (state.keys() >= STATE or state.keys() == TRAINED)
    ):
        raise MeasureError(
            f"state is a {type(state).__name__} without {', '.join(sorted(STATE))}; pass what state_dict() returned"
        )


def _check_count(name: str, value: Any, least: int, rule: str) -> None:
    """Refuse what is no whole number, of Python, numpy or torch, or a smaller one."""
    try:
        refused = isinstance(value, bool) or operator.index(value) < least
    except TypeError:
        refused = True
    if refused:
        raise MeasureError(f"{name} is {value!r}; {rule}")


def not_told(labels: RunMetadata, tokens_per_step: int | None) -> str:
    """Return a sentence about what the caller did not say of the run, and what stands for it; "" if nothing."""
    known = {
        "tokens_per_step": (tokens_per_step, "tokens count steps"),
        "batch size": (labels.batch_size, "1"),
        "seed": (labels.seed, "0"),
    }
    missing = [f"{name} ({instead})" for name, (value, instead) in known.items() if value is None]
    return f"not given, and what is taken instead: {', '.join(missing)}" if missing else ""


def run_of(
    subject: WatchedSubject,
    labels: RunMetadata,
    optimizers: Sequence[torch.optim.Optimizer],
    steps: int,
    tokens_per_step: int,
    own_id: str,
) -> LmRun:
    """Return the run of a watched model.

    Args:
        subject: the model and its probe.
        labels: what the caller says of the run.
        optimizers: the learning rate is that of the first, where the caller names none.
        steps, tokens_per_step: of the training.
        own_id: tells runs apart whose labels are the same.

    Returns:
        The run. Without a name in the labels it has that of the class and "-", to be completed by a number.
    """
    model, probe = subject.model, subject.probe
    rate = float(optimizers[0].param_groups[0]["lr"]) if optimizers else 0.0
    kind = type(model).__name__
    return LmRun(
        name=labels.name or re.sub(r"[^\w.+-]+", "-", kind.lower()) + "-",
        stage=labels.stage or kind,
        batch_size=labels.batch_size or 1,
        lr=labels.lr or rate or None,
        seed=labels.seed or 0,
        steps=steps,
        tokens_per_step=tokens_per_step,
        model={
            "kind": "watched",
            "class": kind,
            "parameters": sum(p.numel() for p in model.parameters()),
            "samples": 0 if probe is None else probe.samples,
            "id": own_id,
        },
    )


def update_observer(
    model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], config: WatchedConfig, plan: LookPlan
) -> tuple[UpdateObserver | None, str]:
    """Return the observer of update windows that end where the plan looks, and what is left out, with the reason."""
    windows = tuple(sorted(set(config.update_windows))) or (config.update_window,)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not all(windows) or not trained:
        return None, ""
    settings = UpdateSettings(windows, config.update_stride)
    size = sum(p.numel() * p.element_size() for p in trained.values()) * (settings.held + 1)
    if size > config.memory * GB:
        return None, (
            f"updates left out: a window of {max(windows)} takes {size / GB:.3g} GB, and memory is {config.memory:g}; "
            "raise it (measure=WatchedConfig(memory=…))"
        )
    momenta, group_of = momenta_of(trained, optimizers)
    groups = [
        UpdateGroup(group, tuple(name for name, own in group_of.items() if own == group), momentum)
        for group, momentum in momenta.items()
    ]
    if not groups:
        return None, (
            "updates left out: the optimizer holds no weight of this model that is trained; pass the one that trains it"
        )
    left = [name for name in trained if name not in group_of]
    note = f"updates of {some(left)} left out: no optimizer that was given holds them" if left else ""
    return UpdateObserver(plan, settings, groups), note


def follow_momenta(
    observer: UpdateObserver, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> None:
    """Take the momenta of an observer's groups from the optimisers as they are now."""
    trained = dict(model.named_parameters())
    observer.groups = tuple(
        replace(group, momentum=present_momentum(group.names, trained, optimizers))
        for group in observer.groups
    )


def jumped(step: int, last: int) -> str:
    """Return a sentence about updates that cannot be measured, as the number of steps jumped.

    >>> jumped(4, 2).split(";")[0]
    'step 4: updates left out: the number of steps jumped by 2, and a window of updates needs every step'
    """
    return (
        f"step {step}: updates left out: the number of steps jumped by {step - last}, and a window of updates needs "
        "every step; call step after each step of the optimiser, or measure updates over several "
        "(measure=WatchedConfig(update_stride=…))"
    )


class Now:
    """Show the weights between two steps (a `toymodel.observe.View`)."""

    def __init__(self, model: nn.Module, step: int, tokens: int) -> None:
        self.model, self.step, self.tokens = model, step, tokens

    def weights(self) -> Mapping[str, Tensor]:
        """Return the parameters by name, detached."""
        return {name: parameter.detach() for name, parameter in self.model.named_parameters()}


def several(
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None,
) -> Sequence[torch.optim.Optimizer]:
    """Return optimisers, of which one may be given alone.

    Raises:
        MeasureError: something else, such as parameters or a schedule.
    """
    given = [] if optimizer is None else optimizer if isinstance(optimizer, Sequence) else [optimizer]
    if wrong := [one for one in given if not hasattr(one, "param_groups")]:
        raise MeasureError(
            f"optimizer holds a {type(wrong[0]).__name__}; pass the torch.optim.Optimizer that trains the model, or "
            "a list of these"
        )
    return given


def step_number(step: Any) -> int:
    """Return a number of steps as a plain integer.

    Raises:
        MeasureError: no whole number, such as a loss.

    >>> step_number(torch.tensor(3))
    3
    """
    try:
        if not isinstance(step, bool):
            return operator.index(step)
    except TypeError:
        pass
    raise MeasureError(
        f"step is {step!r}; pass the number of optimiser steps so far, or none (a loss has its name: "
        "monitor.step(loss=loss))"
    )


def plain_number(loss: Any) -> float:
    """Return a loss as a number.

    Raises:
        MeasureError: several numbers, or none.
    """
    try:
        return float(loss)
    except (TypeError, ValueError, RuntimeError) as error:
        shape = f" of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else ""
        raise MeasureError(
            f"the training loss is a {type(loss).__name__}{shape} and was left out; pass one number, such as "
            "loss=loss.mean()"
        ) from error
