"""What sections about stored checkpoints need, whatever page shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from sims.analysis.runs import Runs

# Why language models have no such section.
CHECKPOINTS = "checkpoints are measured again on probe bands, which text does not have"


class Stored(Protocol):
    """Runs with their folder.

    Attributes:
        a: the runs, one learning rate a cell.
        folder: where they lie, with their checkpoints.
        vocab: of their task.
    """

    @property
    def a(self) -> Runs:
        """Return the runs."""
        ...

    @property
    def folder(self) -> Path:
        """Return where they lie."""
        ...

    @property
    def vocab(self) -> int:
        """Return the vocabulary of their task."""
        ...

    def __hash__(self) -> int: ...


def smallest_batch(data: Stored) -> str:
    """Return a sentence about which checkpoints are measured."""
    return f"Checkpoints of the runs at the smallest batch size, {data.a.runs['batch_size'].min()}."


def seeds_at_smallest_batch(data: Stored) -> int:
    """Count the seeds of the runs at the smallest batch size."""
    runs = data.a.runs
    return int(runs.loc[runs["batch_size"] == runs["batch_size"].min(), "seed"].nunique())
