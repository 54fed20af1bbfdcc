"""Spectrum of the last W parameter updates, taken between training steps.

The updates of W successive steps form a W×P matrix for each optimiser of the run: momentum differs between AdamW and
Muon, and the null of the edge depends on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from sims.measure.measurement import Measurement
from sims.measure.rows import MeasurementRows
from spectra import Estimate, UpdateWindow, spectral_edge
from spectra.errors import InputError
from toymodel.observe import Schedule, View
from toymodel.stages import stage
from toymodel.transformer import Transformer


class Steps(Protocol):
    """Choose steps, as a `Schedule` does."""

    def due(self, step: int, last: int | None) -> bool:
        """Return whether a chosen step lies in (last, step]."""
        ...


class UpdateObserver:
    """Measure windows of successive updates of one run.

    Memory is (W + 1)·P numbers. Steps that no window covers are not looked at.

    Args:
        schedule: the steps at which windows end.
        window: W, the number of updates.
        momenta: momentum by group of parameters, None where it is not known, and the group of each parameter by its
            name.
    """

    name = "updates"

    def __init__(
        self, schedule: Steps, window: int, momenta: Mapping[str, float | None], group_of: Mapping[str, str]
    ) -> None:
        self.schedule, self.window, self.momenta = schedule, window, dict(momenta)
        self.members = {g: [n for n, own in group_of.items() if own == g] for g in momenta}
        self.found: list[MeasurementRows] = []
        self._restart()

    def due(self, step: int) -> bool:
        """Return whether a window that ends at a scheduled step needs the weights of this step."""
        return self.schedule.due(step + self.window, last=step - 1)

    def look(self, view: View) -> None:
        """Add the update since the last look, and measure the windows that end here."""
        weights = view.weights()
        # (P,) copies: the next step overwrites the weights.
        flat = {g: torch.cat([weights[n].flatten() for n in names]) for g, names in self.members.items()}
        if self.step != view.step - 1:
            self._restart()
        for group, previous in self.previous.items():
            self._push(group, flat[group] - previous.to(flat[group].device))
        self.previous, self.step = flat, view.step
        ends = self.schedule.due(view.step, last=view.step - 1)
        if ends and any(window.full for window in self.windows.values()):
            self._measure(view)

    def _push(self, group: str, update: Tensor) -> None:
        try:
            self.windows[group].push(update)
        except InputError:
            # The run has diverged: no window that holds this update means anything.
            self.windows[group] = UpdateWindow(self.window)

    def _measure(self, view: View) -> None:
        sheet = MeasurementRows(view.step, view.tokens)
        for group, window in self.windows.items():
            if window.full:
                _edge_rows(sheet, group, window, self.momenta[group])
        self.found.append(sheet)

    def _restart(self) -> None:
        self.step = -2
        self.previous: dict[str, Tensor] = {}
        self.windows = {group: UpdateWindow(self.window) for group in self.momenta}

    def flush(self) -> list[MeasurementRows]:
        """Return the rows since the last call."""
        found, self.found = self.found, []
        return found

    def state_dict(self) -> dict[str, Tensor]:
        """Return the last weights and the windows; not the rows that `flush` returns."""
        state = {"step": torch.tensor(self.step)}
        for group, previous in self.previous.items():
            state[f"previous.{group}"] = previous.clone()
        for group, window in self.windows.items():
            for name, value in window.state_dict().items():
                if value is not None:
                    state[f"window.{group}.{name}"] = torch.as_tensor(value)
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            InputError: a state of another window length.
        """
        self._restart()
        self.step = int(state["step"])
        for group, window in self.windows.items():
            if f"previous.{group}" in state:
                self.previous[group] = state[f"previous.{group}"].clone()
            saved = {name: state.get(f"window.{group}.{name}") for name in ("rows", "gram", "rounding")}
            numbers = {name: int(state[f"window.{group}.{name}"]) for name in ("window", "count")}
            window.load_state_dict({**saved, **numbers})


def _edge_rows(sheet: MeasurementRows, group: str, window: UpdateWindow, momentum: float | None) -> None:
    """Add the spectrum of one window, its edge k*, the gap there, and its p-value where the momentum is known."""
    try:
        edge = spectral_edge(window, momentum=momentum or 0.0, stride=1)
    except InputError:
        sheet.row("edge_k", "update", group, Estimate.not_fitted("the parameters did not move"))
        return
    sheet.spectrum("update", group, edge.spectrum)

    def judged(value: float) -> Estimate:
        return Estimate(value, status=edge.status, reason=edge.reason)

    known = momentum is not None
    null_k, null_gap = (edge.null_k, edge.null_gap) if known else (math.nan, math.nan)
    sheet.row("edge_k", "update", group, judged(edge.k), null=null_k)
    if edge.gap == float("inf"):
        reason = f"the updates have rank {edge.k}: no value follows the edge"
        sheet.row("edge_gap", "update", group, Estimate.not_fitted(reason), null=null_gap)
    else:
        sheet.row("edge_gap", "update", group, judged(edge.gap), null=null_gap)
    unknown = "the momentum of the optimiser is not known, and the null depends on it"
    sheet.row("edge_p", "update", group, judged(edge.p_value) if known else Estimate.not_fitted(unknown))


def _schedule(config: Any) -> Schedule:
    return Schedule(every=config.updates)


def _observer(config: Any, run: Any) -> UpdateObserver:
    """Return the observer of a run of the stages (`RunConfig` or `LmConfig`)."""
    routing = stage(run.stage).routing
    specs = Transformer(stage(run.stage), run.sizes).specs()
    group_of = {spec.name: "muon" if spec.role in routing.muon else "adamw" for spec in specs}
    momenta = {"adamw": routing.betas[0], "muon": routing.momentum}
    used = {group: momenta[group] for group in momenta if group in group_of.values()}
    return UpdateObserver(_schedule(config), config.update_window, used, group_of)


UPDATES = Measurement(
    "updates",
    version=1,
    meaning="spectrum and edge of a window of parameter updates",
    needs=frozenset({"updates"}),
    wanted=lambda config: config.updates > 0,
    writes=("rows", "spectra"),
    null=True,
    schedule=_schedule,
    observer=_observer,
)
