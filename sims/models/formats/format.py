"""What every format of checkpoints offers, and the model that it loads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from sims.models.checkpoint_info import CheckpointInfo, CheckpointOptions
from sims.models.layout import Layout
from sims.models.module import ModuleSubject
from sims.models.reading import CheckpointSource
from sims.models.subject import Subject


class LoadedModel(Protocol):
    """A model read from a checkpoint: its description, and the subject to be measured."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What was recognised, for a listing: heads, positions, …"""
        ...

    @property
    def shapes(self) -> Mapping[str, tuple[int, int]]:
        """Matrix → (rows, cols)."""
        ...

    @property
    def gradients(self) -> list[str]:
        """Names of the matrices with per-sample gradients."""
        ...

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites of the subject."""
        ...

    @property
    def parameters(self) -> int:
        """Number of parameters; tied ones count once."""
        ...

    @property
    def longest(self) -> int | None:
        """Longest input; None where the model has no limit."""
        ...

    def subject(self, info: CheckpointInfo, device: torch.device | str | None) -> Subject:
        """Return the subject in float32 on the device; `info.step` is known."""
        ...


class Format(Protocol):
    """One format of checkpoints; every module of this package with such a `FORMAT` has one."""

    @property
    def looks_like(self) -> str:
        """What its checkpoints look like, in a few words for error messages."""
        ...

    def recognises(self, source: CheckpointSource) -> bool:
        """Return whether a file or folder is a checkpoint of this format; no tensor is read."""
        ...

    def inspect(self, source: CheckpointSource, options: CheckpointOptions) -> CheckpointInfo:
        """Return the format's name, step and tokens of a recognised checkpoint.

        Raises:
            CheckpointError: damaged, or of a version that cannot be read.
        """
        ...

    def load(self, source: CheckpointSource, options: CheckpointOptions) -> LoadedModel:
        """Load the model of a recognised checkpoint.

        Raises:
            CheckpointError: damaged, tensors that do not fit the sizes, or something unknown that no option gives.
            MissingExtraError: a package that it needs is not installed.
        """
        ...

    def checkpoints(self, folder: Path) -> list[Path]:
        """List what looks like checkpoints of this format in a folder, by names alone."""
        ...


@dataclass(frozen=True, eq=False)
class LoadedModule:
    """A `LoadedModel` that is a `torch.nn.Module`.

    Args:
        model, layout: as for `ModuleSubject`.
        facts: what was recognised.
    """

    model: nn.Module
    layout: Layout
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shapes(self) -> Mapping[str, tuple[int, int]]:
        """Matrix → (rows, cols)."""
        found = {}
        for name, projection in self.layout.matrices.items():
            rows, columns = projection.of(self.model).shape
            found[name] = (rows, columns)
        return found

    @property
    def gradients(self) -> list[str]:
        """Names of the matrices with per-sample gradients: not tables, routers and experts."""
        return [name for name, place in self.layout.matrices.items() if place.has_factors(name, self.model)]

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites, in the order of the forward pass."""
        return tuple(self.layout.sites)

    @property
    def parameters(self) -> int:
        """Number of parameters; tied ones count once."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def longest(self) -> int | None:
        """Longest input; None where the layout has no limit."""
        return self.layout.length

    def subject(self, info: CheckpointInfo, device: torch.device | str | None) -> ModuleSubject:
        """Return the subject in float32 on the device."""
        assert info.step is not None  # checkpoints.load
        about = {"kind": info.kind, "path": str(info.path), **self.facts}
        return ModuleSubject.of(self.model, self.layout, info.step, info.tokens, device, about)
