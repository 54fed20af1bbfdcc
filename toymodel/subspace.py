"""Scale a part of the updates of a run: directions of the window of its last updates, or the same energy elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from toymodel.errors import CheckpointError
from toymodel.intervention import Intervention

# Energies below this share of the first one are those of rounding, and their directions belong to no window.
LEAST = 1e-10


class SubspaceScaling:
    """Change the updates of one run (see `Intervention` for what its kinds do).

    It belongs to one run (one member of an ensemble), and keeps (W + 1)·P numbers of its P parameters, and W·P of twice
    the size once an update is changed (see `Intervention.memory`). The window holds updates as they were made, weight
    decay and earlier changes included. It asks the device for the spectrum of each window.

    Args:
        settings: of the intervention.
        seed: of the run, to which the random direction belongs.

    >>> scaling = SubspaceScaling(Intervention("edge", window=2, stride=1, directions=1), seed=0)
    >>> weights = torch.zeros(2)
    >>> for step, update in enumerate([[2.0, 0.0], [2.0, 0.1], [1.0, 1.0]]):
    ...     weights = scaling.change(step, weights, weights, weights + torch.tensor(update))
    >>> weights.round(decimals=2)  # of the last update, nothing is left along the first two
    tensor([3.9800, 1.0700])
    """

    def __init__(self, settings: Intervention, seed: int) -> None:
        self.settings = settings
        drawn = torch.Generator().manual_seed(seed)
        # Coordinates in the singular vectors of the window.
        self.random = torch.randn(settings.window, generator=drawn, dtype=torch.float64)
        self.updates: list[Tensor] = []  # (P,) each, oldest first
        self.snapshot: Tensor | None = None  # (P,) weights after the last of them
        # Right singular vectors (r, P) of the window, and the number of those above the edge; None until it is needed.
        self._directions: tuple[Tensor, int] | None = None

    def due(self, step: int) -> bool:
        """Return whether an update, counted from 0, is changed, or belongs to the window of a change."""
        first = self.settings.start // self.settings.stride - self.settings.window
        return first * self.settings.stride <= step and (
            self.settings.stop is None or step < self.settings.stop
        )

    @torch.no_grad()
    def change(self, step: int, before: Tensor, decayed: Tensor, after: Tensor) -> Tensor:
        """Return the weights (P,) that an update leads to, and add it to the window.

        Args:
            step: the number of the update, counted from 0.
            before: weights before it.
            decayed: weights after its weight decay alone.
            after: weights after it, if nothing is changed.
        """
        settings = self.settings
        if self.snapshot is None and step % settings.stride == 0:
            self.snapshot = before.clone()
        if settings.changes(step) and len(self.updates) == settings.window and bool(after.isfinite().all()):
            after = after - self._removed((after - decayed).double()).to(after.dtype)
        if self.snapshot is not None and (step + 1) % settings.stride == 0:
            self.updates = [*self.updates, after - self.snapshot][-settings.window :]
            self.snapshot, self._directions = after.clone(), None
        return after

    def _removed(self, g: Tensor) -> Tensor:
        """Return what is taken from an update g (P,), weight decay aside."""
        if self._directions is None:
            self._directions = self._found()
        basis, edge = self._directions
        if self.settings.kind == "drift":
            mean = torch.stack(self.updates).double().mean(dim=0)
            norm = float(mean.norm())
            return g * 0.0 if norm == 0.0 else (1.0 - self.settings.factor) * float(mean @ g) / norm**2 * mean
        held = basis @ g  # (r,)
        total, inside = float(g.square().sum()), float(held[:edge].square().sum())
        missing = 1.0 - self.settings.factor
        if inside == 0.0:
            return torch.zeros_like(g)
        if self.settings.kind == "edge":
            return missing * (held[:edge] @ basis[:edge])
        if self.settings.kind == "even":
            share = inside / total
            return (1.0 - math.sqrt(max(0.0, 1.0 - (1.0 - self.settings.factor**2) * share))) * g
        along = self._carrier(held, inside)
        return missing * float(along @ held) * (along @ basis)

    def _carrier(self, held: Tensor, inside: float) -> Tensor:
        """Return the coordinates (r,) of a unit vector along which g has the energy `inside`, random but for that."""
        whole = held / held.norm()
        cosine = min(1.0, math.sqrt(inside) / float(held.norm()))
        random = self.random[: len(held)].to(held.device)
        rest = random - (random @ whole) * whole
        # Of a window with one direction, or with an edge at its end, nothing is left to choose.
        sine = math.sqrt(1.0 - cosine**2)
        return cosine * whole + (sine / float(rest.norm()) * rest if sine > 0 else 0.0)

    def _found(self) -> tuple[Tensor, int]:
        """Return the right singular vectors (r, P) of the window, largest first, and how many are above the edge."""
        rows = torch.stack(self.updates).double()
        energies, vectors = torch.linalg.eigh((rows @ rows.T).cpu())
        energies, vectors = energies.flip(0), vectors.flip(1)
        rank = max(1, int((energies > LEAST * energies[0]).sum()))
        left = vectors[:, :rank] / energies[:rank].clamp(min=torch.finfo(torch.float64).tiny).sqrt()
        # An eigenvector has no sign: each gets that of the mean update.
        left = left * torch.where(left.sum(dim=0) < 0, -1.0, 1.0)
        edge = self.settings.directions or _edge(energies, self.settings.window // 2)
        return left.T.to(rows.device) @ rows, min(rank, edge)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the window and the weights at its end."""
        state = {"held": torch.tensor(len(self.updates))}
        state |= {f"update.{i}": update for i, update in enumerate(self.updates)}
        return state if self.snapshot is None else {**state, "snapshot": self.snapshot}

    def load_state_dict(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: a state without a window.
        """
        try:
            self.updates = [state[f"update.{i}"].to(device) for i in range(int(state["held"]))]
        except KeyError as error:
            raise CheckpointError(
                f"the state lacks {error} of the window of updates; delete the run folder to train it again"
            ) from error
        self.snapshot = state["snapshot"].to(device) if "snapshot" in state else None
        self._directions = None


def _edge(energies: Tensor, most: int) -> int:
    """Return k* = argmax σ_k/σ_{k+1} among k ≤ `most`, from the energies σ², largest first."""
    least = LEAST * energies[0]
    return 1 + int((energies[:most] / energies[1 : most + 1].clamp(min=least)).argmax())
