"""Define what a measurement is, what it is fed, and what it reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor

from sims.measure.band_states import Band, BandStates, Probe
from sims.measure.rows import MeasurementRows
from sims.measure.token_families import Family
from sims.measure.training_batches import TrainingSequences
from sims.models.stack import Stack
from sims.models.subject import Subject
from sims.runs.rank_windows import Window
from sims.system.process_group import ProcessGroup
from toymodel.observe import Observer, Schedule

# What a measurement may ask for:
#   activations   states (b, T, width) at sites, batch by batch
#   losses        the same pass, where a validation loss is taken on it
#   gradients     per-sample gradients of weight matrices
#   matrices      the weight matrices of the model
#   bands         final states and tables of cyclic bands of a toy task
#   families      cyclic families of tokens of a language model
#   law           exact entropies of the next tokens of a toy task
#   updates       the weights after each of several successive training steps
#   training      sequences of the training split, between steps
#   accuracy      predictions on sequences of both splits, between steps
#   text          held-out positions, and laws of n-grams of the training text of a language model
Need = Literal[
    "activations",
    "losses",
    "gradients",
    "matrices",
    "bands",
    "families",
    "law",
    "updates",
    "training",
    "accuracy",
    "text",
]


class Data(Protocol):
    """Hold the fixed inputs of a run, and turn its settings into what one model is measured at."""

    @property
    def config(self) -> Any:
        """Settings, a `MeasureConfig` or `LmMeasureConfig`."""
        ...

    @property
    def offers(self) -> frozenset[Need]:
        """What can be measured with these inputs."""
        ...

    @property
    def device(self) -> str:
        """Where tokens are put."""
        ...

    @property
    def probes(self) -> tuple[Probe, ...]:
        """Probe bands; empty for language models."""
        ...

    @property
    def families(self) -> tuple[Family, ...]:
        """Cyclic families of tokens; empty for the toy."""
        ...

    @property
    def last_apart(self) -> bool:
        """Whether measurements of only the last position of the final state have a faster pass of their own."""
        ...

    def batches(self, last: bool) -> Sequence[slice]:
        """Return the sequences of each batch of a pass; last: of the pass of only the last position."""
        ...

    def tokens(self, batch: slice) -> Tensor:
        """Return the (b, T+1) tokens of a batch."""
        ...

    def gradient_sequences(self) -> Tensor:
        """Return the (M, T+1) tokens behind the per-sample gradients."""
        ...

    @property
    def memory(self) -> float | None:
        """Memory in GB for per-sample gradients; None keeps those of all sequences at once."""
        ...

    def check(self, subject: Subject) -> None:
        """Raise a MeasureError for what cannot be measured of this model."""
        ...

    def sites(self, subject: Subject) -> tuple[str, ...]:
        """Return the sites of the activation spectra."""
        ...

    def windows(self, subject: Subject, width: int) -> tuple[Window, ...]:
        """Return the rank windows of the exponents of activations of this width."""
        ...

    def gradient_matrices(self, subject: Subject) -> list[str]:
        """Return the names of the matrices whose per-sample gradients are measured."""
        ...


@dataclass(frozen=True, eq=False)
class Job:
    """Models of one architecture, what they are measured with, and this process among those that share the work.

    Language models are measured one at a time: their stack has one member.
    """

    models: Stack
    data: Data
    ranks: ProcessGroup

    @property
    def subject(self) -> Subject:
        """The first model; names and shapes are those of all."""
        return self.models.members[0]


@dataclass(frozen=True, eq=False)
class Batch:
    """States of a few sequences.

    Args:
        first: index of the first of them among all sequences of the pass.
        sequences: (b, T+1) tokens.
        states: (K, b, T, width) by site, K the number of models.
    """

    first: int
    sequences: Tensor
    states: Mapping[str, Tensor]


# What rows are made of, on the host: the part of one model, by the names of `Gatherer.found`.
Found = Mapping[str, Tensor]


class Gatherer:
    """Gather what one measurement needs of K models, and report each of them.

    A measurement overrides the methods of what it needs; the others do nothing. The engine calls `batch` for every
    batch of this rank, then `pieces`, then `merge` on every rank. On the first rank it takes what is on the device
    (`found`, `found_of_band`) to the host, all of it at once, and then what depends on that (`tested`). The rows of
    each model are made on the host from its part alone (`rows`, `band_rows`); another process may do that, to which
    the attributes of `stays` do not go.
    """

    sites: tuple[str, ...] = ()
    """Sites whose states `batch` is given."""

    last: bool = False
    """Whether it reads only the last position of the final state, and `batch` may be given (K, b, 1, width)."""

    stays: tuple[str, ...] = ("job",)
    """Attributes that are not needed where `rows` and `band_rows` are called, and do not go to another process."""

    job: Job
    """What the gatherer was begun with; not there where `rows` and `band_rows` are called."""

    def batch(self, batch: Batch) -> None:
        """Add the states of one batch of sequences."""

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Do further work piece by piece; yield the pieces done and their number after each."""
        return iter(())

    def merge(self) -> None:
        """Combine what all ranks have gathered; every rank calls it."""

    def found(self) -> Mapping[str, Tensor]:
        """Return tensors (K, …) on the device from which `rows` is made, independent of the number of samples."""
        return {}

    def found_of_band(self, band: BandStates) -> Mapping[str, Tensor]:
        """Return tensors (K, …) of one probe band from which `band_rows` is made."""
        return {}

    def tested(self, band: BandStates, found: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return further tensors (K, …) of a band that depend on `found_of_band`, which is given on the host.

        This is a second transfer. It is for what a device would wait for anyway: decompositions in float64.
        """
        return {}

    def rows(self, sheet: MeasurementRows, found: Found) -> None:
        """Add rows and spectra of one whole model."""

    def band_rows(self, sheet: MeasurementRows, band: Band, found: Found) -> None:
        """Add the rows of one model on one probe band; `found` holds also what `rows` is given."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return what has been gathered so far."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` returned."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave the models and their data behind."""
        return {name: value for name, value in vars(self).items() if name not in self.stays}


class StepObserver(Observer, Protocol):
    """Measure one run between its training steps.

    Attributes:
        name: of the measurement; no two observers of a run have the same.
    """

    name: str

    def flush(self) -> list[MeasurementRows]:
        """Return what was found since the last call, and forget it.

        `state_dict` does not hold these rows: store them before, or together with, the state.
        """
        ...


@dataclass(frozen=True)
class Measurement:
    """Describe one measurement.

    Args:
        name: unique name.
        version: raise it by one when the numbers change; the runs record it, and cached results of others are ignored.
        meaning: in a few words, for the documentation.
        needs: what it is fed.
        begin: makes the gatherer of a job; None for a measurement between steps only.
        wanted: whether a configuration asks for it.
        null: whether each value has the level that chance alone gives.
        schedule: after which steps it is taken; None where the run as a whole is measured.
        observer: makes the observer of one run, from the configuration, the run's own, and its training sequences;
            needs a schedule.
    """

    name: str
    version: int
    meaning: str
    needs: frozenset[Need]
    begin: Callable[[Job], Gatherer] | None = None
    wanted: Callable[[Any], bool] = lambda config: True
    null: bool = False
    schedule: Callable[[Any], Schedule] | None = None
    observer: Callable[[Any, Any, TrainingSequences | None], StepObserver] | None = None

    def __post_init__(self) -> None:
        if (self.begin is None) == (self.observer is None):
            raise ValueError(f"measurement {self.name!r} needs either begin or observer")
        if (self.schedule is None) != (self.observer is None):
            raise ValueError(f"measurement {self.name!r}: schedule and observer belong together")
