"""Measure models of one architecture: feed the registered measurements, batch by batch, on one rank or several.

The work is one pass over the sequences (every measurement that needs states sees each batch once), further pieces of
single measurements (pairs of blocks of gradients), and the rows, which the first rank makes from what all of them have
gathered. A single model is a stack of one; members of an ensemble go through the passes together, and what is found of
all of them leaves the device in one transfer, or two where something is tested that depends on it. All that is gathered
is a dictionary of tensors: a `Keeper` stores it, so that a measurement that was stopped continues to the same bits on
a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from sims.measure.band_states import Band, BandStates
from sims.measure.measurement import Batch, Data, Gatherer, Job, Measurement
from sims.measure.registry import regular
from sims.measure.rows import MeasurementRows
from sims.measure.transfer import to_host
from sims.models.stack import Stack, SubjectStack
from sims.models.subject import Subject
from sims.models.transformer import TransformerSubject
from sims.system.process_group import ProcessGroup
from sims.system.signals import Interrupted
from toymodel.precision import full_precision
from toymodel.transformer import FINAL

# Seconds between two stored states: a kill loses at most this much, and what one piece of work takes.
KEEP_SECONDS = 60.0
PASS = "activations"
# Gatherer, probe band (or the whole model) and name of a tensor that is found.
Place = tuple[str, int, str]
WHOLE = -1


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


@full_precision()
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
    agree: bool = False,
) -> MeasurementRows:
    """Return the rows and spectra of one model; all products are in the precision of their tensors.

    Args:
        subject: the model; every rank has its own copy.
        data: what it is measured with.
        measurements: by default all that the configuration asks for; those on a schedule of their own are left out.
        progress: called after every batch and piece of work.
        ranks: this process among those that share the work; every rank calls this function.
        keeper: of this rank.
        keep_seconds: time between two calls of the keeper.
        stopped: asked after every piece of work where a single rank has a keeper; True stores everything and stops.
        agree: an error on one rank is raised on all of them, once each has done its part of the work; otherwise the
            rank that fails leaves at once, and the others are left for whoever started them to end.

    Returns:
        All rows on the first rank; none on the others.

    Raises:
        MeasureError: something cannot be measured of this model; raised before any work starts.
        Interrupted: `stopped` returned True; all that was gathered is stored.
    """
    ranks = ranks or ProcessGroup()
    data.check(subject)
    chosen = regular(data.config) if measurements is None else measurements

    def worked() -> _Work:
        work = _Work(Job(stack_with(subject), data, ranks), chosen, progress, keeper, keep_seconds)
        if ranks.size == 1:
            # One of several ranks that left would leave the others waiting.
            work.stopped = stopped
        work.do()
        return work

    work = ranks.together(worked) if agree else worked()
    return next(iter(work.gathered())).sheet()


def stack_with(subject: Subject) -> Stack:
    """Return a stack of one model."""
    return subject.stack if isinstance(subject, TransformerSubject) else SubjectStack([subject])


@full_precision()
def gather(models: Stack, data: Data, measurements: Iterable[Measurement] | None = None) -> list[Gathered]:
    """Measure models of one architecture together as far as their device is needed.

    Args:
        models: K of them.
        data: what all of them are measured with.
        measurements: as in `measure`.

    Returns:
        K results, each of which makes its rows on the host (`Gathered.sheet`).

    Raises:
        MeasureError: something cannot be measured of these models.
    """
    data.check(models.members[0])
    chosen = regular(data.config) if measurements is None else measurements
    work = _Work(Job(models, data, ProcessGroup()), chosen, None, None, KEEP_SECONDS)
    work.do()
    return work.gathered()


@dataclass(frozen=True, eq=False)
class Gathered:
    """All that the rows of one model are made of, on the host; another process can make them.

    Args:
        step, tokens: of the model.
        gatherers: by name of the measurement.
        bands: probe bands.
        found: tensors by gatherer and name, and of each band by its index, gatherer and name.
    """

    step: int
    tokens: int | None
    gatherers: Mapping[str, Gatherer]
    bands: Sequence[Band]
    found: Mapping[Place, Tensor]

    def __getstate__(self) -> dict[str, Any]:
        """Copy the tensors of this model alone, not the memory that they share with others."""
        return {**vars(self), "found": {place: x.numpy() for place, x in self.found.items()}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Continue from what `__getstate__` returned."""
        vars(self).update(state, found={place: torch.tensor(x) for place, x in state["found"].items()})

    def sheet(self) -> MeasurementRows:
        """Return the rows and spectra of the model."""
        sheet = MeasurementRows(self.step, self.tokens)
        for name, gatherer in self.gatherers.items():
            gatherer.rows(sheet, self._of(name, WHOLE))
        for index, band in enumerate(self.bands):
            for name, gatherer in self.gatherers.items():
                gatherer.band_rows(sheet, band, {**self._of(name, WHOLE), **self._of(name, index)})
        return sheet

    def _of(self, name: str, band: int) -> dict[str, Tensor]:
        return {
            key: value for (owner, place, key), value in self.found.items() if (owner, place) == (name, band)
        }


@dataclass
class _Pass:
    """One pass over the sequences.

    Attributes:
        gatherers: that are fed.
        last: whether they need only the last position of the final state.
        done: batches of this rank that were fed.
    """

    gatherers: list[Gatherer]
    last: bool
    done: int = 0

    @property
    def name(self) -> str:
        """Name by which its progress is stored."""
        return "last" if self.last else "all"

    @property
    def sites(self) -> tuple[str, ...]:
        """All sites that its gatherers take."""
        return tuple(dict.fromkeys(site for gatherer in self.gatherers for site in gatherer.sites))


class _Work:
    """The gatherers of one rank for the models of one stack."""

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
        self.probes = job.data.probes if any("bands" in m.needs for m, _ in self.measurements) else ()
        self.bands: list[BandStates] = []
        if keeper is not None:
            self._restore(keeper.load())

    def do(self) -> None:
        """Do all the work of this rank."""
        last = self._last_states()
        for each in self.passes:
            self._pass(each, last)
        for name, gatherer in self.gatherers.items():
            for done, total in gatherer.pieces():
                self._done(name, done, total)

    def gathered(self) -> list[Gathered]:
        """Merge what the ranks have gathered, and take it to the host; the other ranks return nothing to report."""
        for gatherer in self.gatherers.values():
            gatherer.merge()
        members = self.job.models.members
        if not self.job.ranks.first:
            return [Gathered(m.step, m.tokens, {}, (), {}) for m in members]
        found = to_host(self._found())
        found |= to_host(self._tested(found))
        bands = [band.probe.band for band in self.bands]
        return [
            Gathered(m.step, m.tokens, self.gatherers, bands, {key: x[k] for key, x in found.items()})
            for k, m in enumerate(members)
        ]

    def _found(self) -> dict[Place, Tensor]:
        found = {}
        for name, gatherer in self.gatherers.items():
            found |= {(name, WHOLE, key): x for key, x in gatherer.found().items()}
            for index, band in enumerate(self.bands):
                found |= {(name, index, key): x for key, x in gatherer.found_of_band(band).items()}
        return found

    def _tested(self, found: Mapping[Place, Tensor]) -> dict[Place, Tensor]:
        tested = {}
        for name, gatherer in self.gatherers.items():
            for index, band in enumerate(self.bands):
                own = {key: x for (owner, place, key), x in found.items() if (owner, place) == (name, index)}
                tested |= {(name, index, key): x for key, x in gatherer.tested(band, own).items()}
        return tested

    def _last_states(self) -> Iterator[Tensor]:
        """Return the final states of all sequences of which only the last position is needed, from one pass.

        They are (K, n, width) of each batch that is still to be fed, in order; those of the probes become `bands`.
        """
        sequences = [
            self.job.data.tokens(batch)
            for each in self.passes
            if each.last
            for batch in self._batches(each)[each.done :]
        ]
        if self.job.ranks.first:
            sequences += [probe.distinct for probe in self.probes]
        if not sequences:
            return iter(())
        parts = self._states_of(sequences)
        if self.job.ranks.first and self.probes:
            own = zip(self.probes, parts[-len(self.probes) :], strict=True)
            self.bands = [BandStates(self.job.models, probe, part) for probe, part in own]
        return iter(parts)

    def _states_of(self, sequences: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the final states of the last position of several sets of sequences."""
        models = self.job.models
        if all(tokens.device.type == "cpu" for tokens in sequences):
            # Passes are small here, and how sequences are divided shows in the last bits.
            return [models.last_states(tokens) for tokens in sequences]
        # Tokens of training are narrower than those of a probe may be.
        states = models.last_states(torch.cat([tokens.long() for tokens in sequences]))
        return states.split([len(tokens) for tokens in sequences], dim=1)

    def _plan_passes(self) -> list[_Pass]:
        """Divide the gatherers that take states into one pass, or into two where one of them is faster alone."""
        fed = [gatherer for gatherer in self.gatherers.values() if gatherer.sites]
        last = [gatherer for gatherer in fed if gatherer.last and self.job.data.last_apart]
        others = [gatherer for gatherer in fed if gatherer not in last]
        return [each for each in (_Pass(last, True), _Pass(others, False)) if each.gatherers]

    def _batches(self, each: _Pass) -> list[slice]:
        """Return this rank's batches of a pass."""
        batches = self.job.data.batches(each.last)
        return [batches[k] for k in self.job.ranks.share(len(batches))]

    def _pass(self, each: _Pass, last: Iterator[Tensor]) -> None:
        """Feed this rank's batches to the gatherers of a pass."""
        job, batches = self.job, self._batches(each)
        for k in range(each.done, len(batches)):
            sequences, offset = job.data.tokens(batches[k]), 0
            # T = 1 for the last position; otherwise as many sequences at once as suit the models.
            if each.last:
                parts: Iterable[Mapping[str, Tensor]] = [{FINAL: next(last)[:, :, None]}]
            else:
                parts = job.models.activations(sequences, each.sites)
            for states in parts:
                size = next(iter(states.values())).shape[1]
                part = Batch(batches[k].start + offset, sequences[offset : offset + size], states)
                for gatherer in each.gatherers:
                    gatherer.batch(part)
                offset += size
            each.done = k + 1
            self._done(PASS, k + 1, len(batches))

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
