"""The part of a parameter update that weight decay alone made: δ_decay = −Σ lr·wd·θ over its training steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sims.measure.rows import MeasurementRows
from sims.measure.update_groups import with_matrices
from spectra import Estimate, SketchedWindow, UpdateWindow
from spectra.arrays import TIED
from spectra.window_edges import rounding
from toymodel.observe import View

# Directions of a window along which the energy of both parts is reported.
DIRECTIONS = 3


class DecayView(View, Protocol):
    """Show also what weight decay does (`toymodel.ensemble.MemberView`)."""

    def decay(self) -> Mapping[str, Tensor]:
        """Return by name the share of each decayed parameter that the last update took away."""
        ...


class Steps(Protocol):
    """Choose steps, as a `Schedule` does."""

    def due(self, step: int, last: int | None) -> bool:
        """Return whether a chosen step lies in (last, step]."""
        ...


class DecayShare:
    """Add up weight decay over the steps of each update that is measured.

    Memory is three numbers of a parameter: its weights before the present step, and the sum in float64.

    Args:
        schedule: the steps at which a measured update ends.
        stride: training steps of an update.
        parts: names of parameters by part, which the updates that `rows` gets are made of.
    """

    def __init__(self, schedule: Steps, stride: int, parts: Mapping[str, Sequence[str]]) -> None:
        self.schedule, self.stride, self.parts = schedule, stride, parts
        self.began = self.at = -1
        self.before: dict[str, Tensor] = {}
        self.decayed: dict[str, Tensor] = {}

    def due(self, step: int) -> bool:
        """Return whether the step belongs to an update that is measured, its first and last weights included."""
        return self.schedule.due(step + self.stride, last=step - 1)

    def add(self, view: DecayView) -> None:
        """Add the decay of the last step."""
        if self.began < 0:
            return
        if view.step != self.at + 1:
            self._forget()
            return
        for name, share in view.decay().items():
            # After a restart the sums are on the host.
            taken = self.before[name].to(share.device).double() * share.double()
            before = self.decayed.get(name, torch.zeros_like(taken))
            self.decayed[name] = before.to(taken.device) - taken

    def begin(self, view: View) -> None:
        """Begin with a new update where one begins, and keep the weights for the next step."""
        if view.step % self.stride == 0:
            self._forget()
            if self.schedule.due(view.step + self.stride, last=view.step):
                self.began = view.step
        if self.began >= 0:
            self.before = {name: weight.clone() for name, weight in view.weights().items()}
            self.at = view.step

    def _forget(self) -> None:
        self.began, self.before, self.decayed = -1, {}, {}

    def rows(
        self,
        sheet: MeasurementRows,
        site: str,
        updates: Mapping[str, Tensor],
        windows: Mapping[str, UpdateWindow | SketchedWindow],
        grams: Mapping[int, np.ndarray],
    ) -> None:
        """Add norms and cosine of both parts of the last update, and their energy along directions of its windows.

        Args:
            sheet: gets them.
            site: the group of parameters.
            updates: the last update by part.
            windows: of the parts of this group; the last of their updates is that one.
            grams: inner products of the last W updates of the group, by W.
        """
        if self.began != sheet.step - self.stride:
            sheet.row(
                "decay_norm", "update", site, Estimate.not_fitted("not every step of the update was seen")
            )
            return
        decays = {key: self._flat(key, updates[key]) for key in windows}
        rests = {key: updates[key].double() - decays[key] for key in windows}
        squares = [sum(float(v @ v) for v in part.values()) for part in (decays, rests)]
        along = sum(float(decays[key] @ rests[key]) for key in windows)
        sheet.row("decay_norm", "update", site, squares[0] ** 0.5)
        sheet.row("gradient_part_norm", "update", site, squares[1] ** 0.5)
        cosine = (
            Estimate(along / (squares[0] * squares[1]) ** 0.5)
            if all(squares)
            else Estimate.not_fitted("one of the parts is zero: no weight decay, or nothing else")
        )
        sheet.row("decay_cosine", "update", site, cosine)
        products = sum(window.products(decays[key]) for key, window in windows.items())
        assert isinstance(products, np.ndarray)
        for window, gram in grams.items():
            _energy_rows(sheet, site, gram, products[-window:])

    def _flat(self, key: str, update: Tensor) -> Tensor:
        """Return δ_decay of a part, (P,) float64 in the order of its updates."""
        before, decayed = with_matrices(self.before), with_matrices(self.decayed)
        zeros = {n: torch.zeros_like(before[n], dtype=torch.float64) for n in self.parts[key]}
        parts = [decayed.get(n, zeros[n]).flatten().to(update.device) for n in self.parts[key]]
        return torch.cat(parts)

    def state_dict(self) -> dict[str, Tensor]:
        """Return all that a later process needs to continue exactly."""
        state = {"began": torch.tensor(self.began), "at": torch.tensor(self.at)}
        state |= {f"before.{name}": value.clone() for name, value in self.before.items()}
        return state | {f"decayed.{name}": value.clone() for name, value in self.decayed.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.began, self.at = int(state["began"]), int(state["at"])
        self.before, self.decayed = (
            {n.removeprefix(prefix): v.clone() for n, v in state.items() if n.startswith(prefix)}
            for prefix in ("before.", "decayed.")
        )


def _energy_rows(sheet: MeasurementRows, site: str, gram: np.ndarray, products: np.ndarray) -> None:
    """Add ⟨δ_decay, v_k⟩² and ⟨δ − δ_decay, v_k⟩² of the first right singular vectors v_k of a window.

    v_k = Xᵀu_k/σ_k, so that inner products with the updates are enough.
    """
    energies, vectors = np.linalg.eigh(gram)
    window = len(gram)
    least = rounding(window, False) * energies[-1]
    for k in range(1, min(DIRECTIONS, window) + 1):
        which: dict[str, Any] = {"window": str(window), "detail": f"v{k}"}
        energy, vector = energies[-k], vectors[:, -k]
        beside = [energies[i] for i in (-k - 1, 1 - k) if -window <= i < 0]
        if energy <= least:
            none = Estimate.not_fitted("the updates have fewer directions")
        elif any(abs(energy - other) <= TIED * energies[-1] for other in beside):
            none = Estimate.not_fitted("two energies are equal: their directions are up to rounding")
        else:
            none = None
        if none is not None:
            sheet.row("decay_energy", "update", site, none, **which)
            continue
        decay = float(vector @ products) / energy**0.5
        whole = float(vector[-1]) * energy**0.5
        sheet.row("decay_energy", "update", site, decay**2, **which)
        sheet.row("gradient_part_energy", "update", site, (whole - decay) ** 2, **which)
