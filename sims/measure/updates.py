"""Spectra of windows of the last W parameter updates, taken between training steps.

The updates of successive snapshots of the weights, s training steps apart, form a W×P matrix for each group of
parameters. One Gram matrix serves every W, and every group that a parameter belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from sims.measure.decay_share import DecayShare, DecayView, Steps
from sims.measure.measurement import Measurement
from sims.measure.rows import MeasurementRows, RecordingObserver
from sims.measure.training_batches import TrainingSequences
from sims.measure.update_groups import UpdateGroup, groups_of, parameter_count, with_matrices
from sims.measure.update_rows import window_rows
from sims.runs.step_settings import check_steps, update_windows
from sims.system.errors import MeasureError
from spectra import Estimate, SketchedWindow, UpdateWindow, WindowGram
from spectra.errors import InputError
from toymodel.observe import Schedule, View

GB = 1e9
# Of the signs of sketches; each part of the model has the next one.
SKETCH_SEED = 0


@dataclass(frozen=True)
class UpdateSettings:
    """Set which windows are held, and how.

    Args:
        windows: numbers of updates W, each measured.
        stride: training steps of an update.
        sketch: numbers kept of an update; 0 keeps all.
        draws: simulated windows of each null.
        nulls: nulls are simulated of windows that end at a multiple of this many updates.
        decay: whether measured updates are split into weight decay and the rest.
    """

    windows: tuple[int, ...]
    stride: int = 1
    sketch: int = 0
    draws: int = 999
    nulls: int = 1
    decay: bool = False

    @property
    def held(self) -> int:
        """Return the number of updates held: one more than the longest window, for its change of direction."""
        return max(self.windows) + 1

    def numbers(self, size: int) -> int:
        """Return how many numbers an observer holds of P parameters."""
        previous = size * (4 if self.decay else 1)
        return previous + self.held * (self.sketch or size)


class UpdateObserver(RecordingObserver):
    """Measure windows of updates of one run.

    Memory is (max W + 2)·P numbers, whatever the groups, or P + (max W + 1)·(sketch). Steps at which no window has a
    snapshot are not looked at, but for those of an update that is split.

    Args:
        schedule: the steps at which windows end, multiples of the stride.
        settings: which windows.
        groups: which parameters.
    """

    name = "updates"

    def __init__(self, schedule: Steps, settings: UpdateSettings, groups: Sequence[UpdateGroup]) -> None:
        self.schedule, self.settings, self.groups = schedule, settings, tuple(groups)
        self.members = {group.name: list(group.names) for group in groups}
        # The parameters that belong to the same groups are held together: inner products of groups are sums.
        self.parts: dict[str, list[str]] = {}
        for name in dict.fromkeys(name for group in groups for name in group.names):
            key = "+".join(group.name for group in groups if name in group.names)
            self.parts.setdefault(key, []).append(name)
        self.parts_of = {g.name: [key for key in self.parts if g.name in key.split("+")] for g in groups}
        self.decay = DecayShare(schedule, settings.stride, self.parts) if settings.decay else None
        super().__init__()
        self._restart()

    @property
    def momenta(self) -> dict[str, float | None]:
        """Return the momentum of each group, None where it is not known."""
        return {group.name: group.momentum for group in self.groups}

    def due(self, step: int) -> bool:
        """Return whether a window that ends at a scheduled step needs the weights of this step."""
        stride = self.settings.stride
        reach = step + self.settings.held * stride
        snapshot = step % stride == 0 and self.schedule.due(reach, last=step - 1)
        return snapshot or (self.decay is not None and self.decay.due(step))

    def look(self, view: View) -> None:
        """Add the update since the last snapshot, and measure the windows that end here."""
        if self.decay is not None:
            self.decay.add(cast(DecayView, view))
        if view.step % self.settings.stride == 0:
            self._snapshot(view)
        if self.decay is not None:
            self.decay.begin(view)

    def _snapshot(self, view: View) -> None:
        weights = with_matrices(view.weights())
        # (P,) copies: the next step overwrites the weights.
        flat = {key: torch.cat([weights[n].flatten() for n in names]) for key, names in self.parts.items()}
        if self.step != view.step - self.settings.stride:
            self._restart()
        # After a restart they are on the host.
        self.previous = {key: old.to(flat[key].device) for key, old in self.previous.items()}
        updates = {key: flat[key] - old for key, old in self.previous.items()}
        if updates:
            self._push(updates)
        if self.schedule.due(view.step, last=view.step - 1) and self.count >= min(self.settings.windows):
            self._measure(view, updates)
        self.previous, self.step = flat, view.step

    def _push(self, updates: Mapping[str, Tensor]) -> None:
        try:
            for key, update in updates.items():
                self.windows[key].push(update)
            self.count = min(self.count + 1, self.settings.held)
        except InputError:
            # The run has diverged: no window that holds this update means anything.
            self._empty()

    def _measure(self, view: View, updates: Mapping[str, Tensor]) -> None:
        sheet = MeasurementRows(view.step, view.tokens)
        simulated = view.step // self.settings.stride % self.settings.nulls == 0
        for group in self.groups:
            keys = self.parts_of[group.name]
            _last_rows(sheet, group.name, [(updates[key], self.previous[key]) for key in keys])
            for window in self.settings.windows:
                if window <= self.count:
                    window_rows(
                        sheet,
                        group.name,
                        self._gram(keys, window),
                        self._gram(keys, min(window + 1, self.count)),
                        momentum=group.momentum,
                        stride=self.settings.stride,
                        draws=self.settings.draws if simulated else 0,
                    )
            if self.decay is not None:
                held = [w for w in self.settings.windows if w <= self.count]
                grams = {w: self._gram(keys, w).gram for w in held}
                self.decay.rows(sheet, group.name, updates, {k: self.windows[k] for k in keys}, grams)
        self.found.append(sheet)

    def _gram(self, keys: Sequence[str], count: int) -> WindowGram:
        return WindowGram.joined([self.windows[key].last(count) for key in keys])

    def _restart(self) -> None:
        self.step: int | None = None
        self.previous: dict[str, Tensor] = {}
        self._empty()

    def _empty(self) -> None:
        held, sketch = self.settings.held, self.settings.sketch
        self.count = 0
        self.windows: dict[str, UpdateWindow | SketchedWindow] = {
            key: SketchedWindow(sketch, SKETCH_SEED + i, held) if sketch else UpdateWindow(held)
            for i, key in enumerate(self.parts)
        }

    def state_dict(self) -> dict[str, Tensor]:
        """Return the last weights and the windows; not the rows that `flush` returns."""
        state = {
            "step": torch.tensor(-1 if self.step is None else self.step),
            "count": torch.tensor(self.count),
        }
        for key, previous in self.previous.items():
            state[f"previous.{key}"] = previous.clone()
        for key, window in self.windows.items():
            for name, value in window.state_dict().items():
                if value is not None:
                    state[f"window.{key}.{name}"] = torch.as_tensor(value)
        if self.decay is not None:
            state |= {f"decay.{name}": value for name, value in self.decay.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            InputError: a state of another window length or sketch.
            KeyError: a state of other groups.
        """
        self._restart()
        self.step = None if int(state["step"]) < 0 else int(state["step"])
        for key, window in self.windows.items():
            if f"previous.{key}" in state:
                self.previous[key] = state[f"previous.{key}"].clone()
            elif self.step is not None:
                raise KeyError(f"previous.{key}")
            window.load_state_dict(_window_state(state, f"window.{key}."))
        self.count = int(state["count"])
        if self.decay is not None:
            self.decay.load_state_dict(_under(state, "decay."))


def _under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _window_state(state: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    """Return the state of one window: numbers and the layout of a sketch as plain values, tensors as they are."""
    own: dict[str, Any] = {"rows": None, **_under(state, prefix)}
    for name, value in own.items():
        if isinstance(value, Tensor) and (value.ndim == 0 or name == "layout"):
            own[name] = value.tolist()
    return own


def _last_rows(sheet: MeasurementRows, site: str, parts: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Add the norm of the last update, and its cosine with the weights before it."""
    along = sum(float(update.double() @ weights.double()) for update, weights in parts)
    squares = [sum(float(v.double() @ v.double()) for v in vectors) for vectors in zip(*parts, strict=True)]
    if all(squares):
        cosine = Estimate(along / (squares[0] * squares[1]) ** 0.5)
    else:
        cosine = Estimate.not_fitted("the parameters did not move, or are all zero")
    sheet.row("last_norm", "update", site, squares[0] ** 0.5)
    sheet.row("cosine_weights", "update", site, cosine)


def _schedule(config: Any) -> Schedule:
    return Schedule(every=config.updates)


def _settings(config: Any) -> UpdateSettings:
    return UpdateSettings(
        update_windows(config),
        config.update_stride,
        config.update_sketch,
        config.update_draws,
        config.update_nulls,
        config.update_decay,
    )


def window_bytes(config: Any, run: Any) -> int:
    """Return the bytes that windows of updates of a run take; 0 where none are measured.

    Args:
        config: a `MeasureConfig` or `LmOptions`.
        run: a `RunConfig` or `LmConfig`.
    """
    size = parameter_count(run, groups_of(run, config.update_groups)) if config.updates else 0
    return 4 * _settings(config).numbers(size) if size else 0


def check_updates(config: Any, run: Any) -> None:
    """Refuse measurements between steps that this run cannot have, before any work starts.

    Args:
        config: a `MeasureConfig` or `LmMeasureConfig`; of any other class, nothing is checked.
        run: a `RunConfig` or `LmConfig`.

    Raises:
        MeasureError: the run is too short, or windows of updates take more memory than `update_memory`.
    """
    if not hasattr(config, "updates"):
        return
    check_steps(config, run.steps)
    if not config.updates:
        return
    settings, size = _settings(config), parameter_count(run, groups_of(run, config.update_groups))
    memory = window_bytes(config, run) / GB
    if memory > config.update_memory:
        raise MeasureError(
            f"windows of {max(settings.windows)} updates of {size:,} parameters take {memory:.3g} GB for each run, and "
            f"update_memory is {config.update_memory:g}; raise it, keep a sketch (update_sketch, for example 10000 "
            "numbers of each update), or choose fewer parameters (update_groups) or shorter windows"
        )


def _observer(config: Any, run: Any, training: TrainingSequences | None) -> UpdateObserver:
    """Return the observer of a run of the stages (`RunConfig` or `LmConfig`)."""
    return UpdateObserver(_schedule(config), _settings(config), groups_of(run, config.update_groups))


UPDATES = Measurement(
    "updates",
    version=3,
    meaning="spectra and edges of windows of parameter updates",
    needs=frozenset({"updates"}),
    wanted=lambda config: config.updates > 0,
    null=True,
    schedule=_schedule,
    observer=_observer,
)
