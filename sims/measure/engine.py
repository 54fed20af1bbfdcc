"""Measure one model: feed the registered measurements, batch by batch, on one rank or several.

The work is one pass over the sequences (every measurement that needs states sees each batch once), further pieces of
single measurements (pairs of blocks of gradients), and the rows, which the first rank makes from what all of them have
gathered. All that is gathered is a dictionary of tensors: a `Keeper` stores it, so that a measurement that was stopped
continues to the same bits on a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sims.measure.band_states import BandStates
from sims.measure.measurement import Batch, Data, Gatherer, Job, Measurement
from sims.measure.registry import regular
from sims.measure.rows import MeasurementRows
from sims.models.subject import Subject
from sims.system.process_group import ProcessGroup
from sims.system.signals import Interrupted
from toymodel.transformer import FINAL

# Seconds between two stored states: a kill loses at most this much, and what one piece of work takes.
KEEP_SECONDS = 60.0
PASS = "activations"


class Progress(Protocol):
    """Show how far a measurement is."""

    def __call__(self, part: str, done: int, total: int, /) -> None:
        """Take the pieces that are done of this rank's work on one part."""
        ...


class Keeper(Protocol):
    """Store what a measurement has gathered, so that it can continue after a stop."""

    def load(self) -> dict[str, Tensor]:
        """Return what was stored last; empty where nothing was."""
        ...

    def keep(self, state: Mapping[str, Tensor]) -> None:
        """Replace what was stored, atomically."""
        ...


def measure(
    subject: Subject,
    data: Data,
    *,
    measurements: Iterable[Measurement] | None = None,
    progress: Progress | None = None,
    ranks: ProcessGroup | None = None,
    keeper: Keeper | None = None,
    keep_seconds: float = KEEP_SECONDS,
    stopped: Callable[[], bool] | None = None,
) -> MeasurementRows:
    """Return the rows and spectra of one model.

    Args:
        subject: the model; every rank has its own copy.
        data: what it is measured with.
        measurements: by default all that the configuration asks for; those on a schedule of their own are left out.
        progress: called after every batch and piece of work.
        ranks: this process among those that share the work; every rank calls this function.
        keeper: of this rank.
        keep_seconds: time between two calls of the keeper.
        stopped: asked after every piece of work where a single rank has a keeper; True stores everything and stops.

    Returns:
        All rows on the first rank; none on the others.

    Raises:
        MeasureError: something cannot be measured of this model; raised before any work starts.
        Interrupted: `stopped` returned True; all that was gathered is stored.
    """
    ranks = ranks or ProcessGroup()
    data.check(subject)
    chosen = regular(data.config) if measurements is None else measurements
    work = _Work(Job(subject, data, ranks), chosen, progress, keeper, keep_seconds)
    if ranks.size == 1:
        # One of several ranks that left would leave the others waiting.
        work.stopped = stopped
    work.do()
    return work.report()


@dataclass
class _Pass:
    """One pass over the sequences.

    Attributes:
        name: unique.
        gatherers: that are fed.
        last: whether they need only the last position of the final state.
        done: batches of this rank that were fed.
    """

    name: str
    gatherers: list[Gatherer]
    last: bool
    done: int = 0

    def states(self, subject: Subject, sequences: Tensor) -> Iterator[Mapping[str, Tensor]]:
        """Yield the states (b, T, width) of as many sequences at once as suit the model; T = 1 for the last ones."""
        if self.last:
            yield {FINAL: subject.last_states(sequences)[:, None]}
        else:
            sites = tuple(dict.fromkeys(site for gatherer in self.gatherers for site in gatherer.sites))
            yield from subject.activations(sequences, sites)


class _Work:
    """The gatherers of one rank for one model."""

    def __init__(
        self,
        job: Job,
        measurements: Iterable[Measurement],
        progress: Progress | None,
        keeper: Keeper | None,
        keep_seconds: float,
    ) -> None:
        self.job, self.progress, self.keeper, self.keep_seconds = job, progress, keeper, keep_seconds
        self.kept_at = time.monotonic()
        self.stopped: Callable[[], bool] | None = None
        self.measurements = [
            (m, m.begin) for m in measurements if m.begin is not None and m.needs <= job.data.offers
        ]
        self.gatherers: dict[str, Gatherer] = {m.name: begin(job) for m, begin in self.measurements}
        self.passes = self._plan_passes()
        if keeper is not None:
            self._restore(keeper.load())

    def do(self) -> None:
        """Do all the work of this rank."""
        for each in self.passes:
            self._pass(each)
        for name, gatherer in self.gatherers.items():
            for done, total in gatherer.pieces():
                self._done(name, done, total)

    def report(self) -> MeasurementRows:
        """Merge what the ranks have gathered; return the rows on the first one."""
        subject = self.job.subject
        sheet = MeasurementRows(subject.step, subject.tokens)
        for gatherer in self.gatherers.values():
            gatherer.merge()
        if self.job.ranks.first:
            for gatherer in self.gatherers.values():
                gatherer.rows(sheet)
            for probe in self.job.data.probes:
                band = BandStates(subject, probe)
                for gatherer in self.gatherers.values():
                    gatherer.band(sheet, band)
        return sheet

    def _plan_passes(self) -> list[_Pass]:
        """Divide the gatherers that take states into one pass, or into two where one of them is faster alone."""
        fed = [gatherer for gatherer in self.gatherers.values() if gatherer.sites]
        last = [gatherer for gatherer in fed if gatherer.last and self.job.data.last_apart]
        others = [gatherer for gatherer in fed if gatherer not in last]
        return [each for each in (_Pass("last", last, True), _Pass("all", others, False)) if each.gatherers]

    def _pass(self, each: _Pass) -> None:
        """Feed this rank's batches to the gatherers of a pass."""
        job, batches = self.job, self.job.data.batches(each.last)
        own = job.ranks.share(len(batches))
        for k in range(each.done, len(own)):
            batch = batches[own[k]]
            sequences, offset = job.data.tokens(batch), 0
            for states in each.states(job.subject, sequences):
                size = len(next(iter(states.values())))
                part = Batch(batch.start + offset, sequences[offset : offset + size], states)
                for gatherer in each.gatherers:
                    gatherer.batch(part)
                offset += size
            each.done = k + 1
            self._done(PASS, k + 1, len(own))

    def _done(self, part: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(part, done, total)
        if self.keeper is None:
            return
        due = time.monotonic() - self.kept_at >= self.keep_seconds
        leave = self.stopped is not None and self.stopped()
        if due or leave or done == total:
            self.keeper.keep(self._state())
            self.kept_at = time.monotonic()
        if leave:
            raise Interrupted

    def _state(self) -> dict[str, Tensor]:
        state = {f"pass.{each.name}": torch.tensor(each.done) for each in self.passes}
        for measurement, _ in self.measurements:
            name = measurement.name
            state[f"version.{name}"] = torch.tensor(measurement.version)
            own = self.gatherers[name].state_dict()
            state |= {f"{name}.{key}": value for key, value in own.items()}
        return state

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        versions = {n.removeprefix("version."): int(v) for n, v in state.items() if n.startswith("version.")}
        if versions != {m.name: m.version for m, _ in self.measurements}:
            # Nothing, or what other measurements gathered.
            return
        for each in self.passes:
            each.done = int(state[f"pass.{each.name}"])
        for name, gatherer in self.gatherers.items():
            prefix = f"{name}."
            gatherer.load_state_dict(
                {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            )
