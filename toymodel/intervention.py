"""What is changed during a run on purpose, to see whether it matters: settings, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from toymodel.errors import ConfigError
from toymodel.limits import plain_numbers

Kind = Literal["none", "decay", "edge", "random", "even", "drift"]
SUBSPACE: tuple[Kind, ...] = ("edge", "random", "even", "drift")


@dataclass(frozen=True)
class Intervention:
    """Describe a change of the updates of one run, from one step to another.

    Let g be an update without its weight decay, and V the first k right singular vectors of the window of the last
    updates, as they were made: the directions above the spectral edge. With e = ‖Vᵀg‖²/‖g‖² and f the factor, the first
    three kinds below change the energy ‖g‖² to ‖g‖²·(1 − (1−f²)·e):

    - "edge" scales the part of g in these directions: g − (1−f)·V Vᵀg;
    - "random" scales the part in a direction of the window that is random but for carrying the same energy:
      g − (1−f)·⟨u, g⟩u with ⟨u, g⟩² = ‖Vᵀg‖². Of k directions only the part of g in them matters, which is one;
    - "even" scales g as a whole;
    - "drift" scales the part along the mean update of the window, one direction, whatever energy it holds.

    Equal energy in one step is not equal movement: updates add up along the directions above the edge, and cancel in
    others. A direction drawn among all of the parameters would carry nothing of g. The random one keeps its coordinates
    in the singular vectors of the window, each with the sign of the window's mean update, so that it turns as slowly.

    Up to its first step a run with an intervention is the run without it, bitwise. To intervene at an alarm, take its
    step from the run without.

    Args:
        kind: "decay" multiplies the weight decay by the factor; "edge", "random", "even" and "drift" change the rest of
            the update; "none" nothing.
        start: the first update that is changed, counted from 0; none is before the window is full.
        stop: the first one that is not changed any more; None changes all to the end.
        factor: f, at least 0; 0 removes.
        directions: k; 0 takes the edge k* = argmax σ_k/σ_{k+1} among the first half of each window.
        window: updates W of the window.
        stride: training steps of each of them.

    Raises:
        ConfigError: a value outside its range, or a setting that the kind does not read.

    >>> Intervention("decay", start=700, stop=900).changes(800)
    True
    """

    kind: Kind = "none"
    start: int = 0
    stop: int | None = None
    factor: float = 0.0
    directions: int = 0
    window: int = 10
    stride: int = 5

    def __post_init__(self) -> None:
        plain_numbers(self)
        if self.kind not in get_args(Kind):
            raise ConfigError(
                f"intervention.kind is {self.kind!r}; the kinds are {', '.join(get_args(Kind))}"
            )
        self._check_unread()
        if self.start < 0:
            raise ConfigError(f"intervention.start is {self.start}; updates are counted from 0")
        if self.stop is not None and self.stop <= self.start:
            raise ConfigError(
                f"intervention.stop is {self.stop}; it must be after intervention.start, {self.start}"
            )
        if not 0 <= self.factor < float("inf"):
            raise ConfigError(
                f"intervention.factor is {self.factor}; it must be a finite number of at least 0"
            )
        if self.window < 2 or self.stride < 1:
            raise ConfigError(
                f"intervention.window is {self.window} and intervention.stride {self.stride}; a window has at least 2 "
                "updates, of at least 1 step"
            )
        if not 0 <= self.directions < self.window:
            raise ConfigError(
                f"intervention.directions is {self.directions}; it must be below the {self.window} updates of the "
                "window, 0 for those above its edge"
            )

    def _check_unread(self) -> None:
        """Refuse settings that would change nothing but the identity of the run."""
        read = {"none": (), "decay": ("start", "stop", "factor")}.get(self.kind)
        for name, spec in self.__dataclass_fields__.items():
            if read is not None and name not in ("kind", *read) and getattr(self, name) != spec.default:
                raise ConfigError(
                    f"intervention.{name} is {getattr(self, name)}, which the kind {self.kind} does not read; leave it "
                    "out, or choose another intervention.kind"
                )

    @property
    def scales_updates(self) -> bool:
        """Return whether it changes updates beyond their weight decay."""
        return self.kind in SUBSPACE

    def changes(self, update: int) -> bool:
        """Return whether an update, counted from 0, lies in the changed steps."""
        return self.start <= update and (self.stop is None or update < self.stop)

    def memory(self, parameters: int) -> tuple[int, int]:
        """Return the bytes that it keeps in a run between updates, and at most during one.

        Kept are the W updates of the window and the weights after them (float32), and W directions (float64). The
        window in float64, and copies of the weights, are added while an update is changed.

        Args:
            parameters: P of the run.

        >>> Intervention("edge", window=10).memory(1_000), Intervention("decay").memory(1_000)
        ((124000, 228000), (0, 0))
        """
        if not self.scales_updates:
            return 0, 0
        kept = 4 * (self.window + 1) + 8 * self.window
        return kept * parameters, (kept + 8 * self.window + 24) * parameters

    def check(self, steps: int, weight_decay: float) -> None:
        """Refuse an intervention that would do nothing in a run.

        Args:
            steps: of the run.
            weight_decay: of the run.

        Raises:
            ConfigError: it starts after the end, or lowers a weight decay of 0.
        """
        if self.kind == "none":
            return
        if self.start >= steps:
            raise ConfigError(f"intervention.start is {self.start}, and the run ends after {steps} updates")
        if self.kind == "decay" and weight_decay == 0:
            raise ConfigError(
                "intervention.kind is decay, and the run has no weight decay; give it one with weight_decay"
            )
        full = self.window * self.stride
        if self.scales_updates and (steps if self.stop is None else self.stop) <= full:
            raise ConfigError(
                f"intervention.window of {self.window} updates of {self.stride} steps is full after {full} updates, "
                "when the intervention is over; choose a later intervention.stop or a shorter window"
            )


NONE = Intervention()
