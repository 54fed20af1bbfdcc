"""Define the fields that all kinds of runs share."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol


class RunSpec(Protocol):
    """Describe a run: a frozen dataclass of plain values.

    It is a toy run, a language model trained here, or a run of which only checkpoints are measured. Sweeps plan runs by
    these fields, folders are named by them, and analyses group by them.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def run_id(self) -> str:
        """Return the name of its folder."""
        ...

    @property
    def stage(self) -> str:
        """Return the stage of architecture and optimiser."""
        ...

    @property
    def batch_size(self) -> int:
        """Return the sequences of a step."""
        ...

    @property
    def tokens_per_step(self) -> int:
        """Return the target tokens of a step."""
        ...

    @property
    def lr(self) -> float | None:
        """Return the base learning rate; None where nothing records it."""
        ...

    @property
    def seed(self) -> int:
        """Return the seed of initialisation and data."""
        ...

    @property
    def steps(self) -> int:
        """Return the optimiser steps of the whole run."""
        ...


class TrainableSpec(RunSpec, Protocol):
    """Describe a run that is trained here."""

    @property
    def lr(self) -> float:
        """Return the base learning rate."""
        ...

    @property
    def eval_every(self) -> int:
        """Return the steps between regular evaluations."""
        ...
