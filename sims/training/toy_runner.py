"""Train, measure and store toy runs of one shape."""

from __future__ import annotations

import re
from collections import ChainMap, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sims.analysis.task_floor import run_floor
from sims.measure.observers import observers
from sims.measure.registry import measured_versions, schedules
from sims.measure.toy import MeasurementData, prepare
from sims.measure.updates import check_updates
from sims.runs.measure_config import MeasureConfig
from sims.runs.store import RunFolder
from sims.system.errors import StoreError
from sims.system.provenance import provenance
from sims.training.defaults import SECONDS_BETWEEN_STATES
from sims.training.drive import Point, Terms, drive
from sims.training.measuring import ToyMeasurement, measure_together
from sims.training.rates import layerwise
from sims.training.recorder import Recorder, record_failure
from sims.training.snapshot import Snapshot, of_members
from sims.training.summary_workers import SummaryWorkers, summarising
from sims.training.trackers.registry import Trackers, track
from toymodel.captured import check_graphs
from toymodel.config import Graphs, RunConfig, as_dict
from toymodel.data import dataset
from toymodel.ensemble import Ensemble
from toymodel.errors import CheckpointError, CompileError, ConfigError
from toymodel.network import check_targets
from toymodel.precision import check_precision
from toymodel.stages import stage
from toymodel.training import train


@dataclass(frozen=True)
class _Member:
    """Hold a run with its folder, stored state and wall time by part."""

    config: RunConfig
    folder: RunFolder
    state: Mapping[str, Tensor] | None
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class _Where:
    """Hold the device of an ensemble, whether its steps are captured there, and who makes the rows."""

    device: str
    graphs: Graphs
    workers: SummaryWorkers | None


def run_group(
    configs: Sequence[RunConfig],
    measuring: MeasureConfig,
    out: Path,
    device: str = "cpu",
    *,
    until: int | None = None,
    stopped: Callable[[], bool] = lambda: False,
    store_every: float = SECONDS_BETWEEN_STATES,
    trackers: Sequence[str] = (),
    graphs: Graphs = "auto",
    summary_workers: int = 0,
) -> dict[str, str]:
    """Train runs of one shape to their end, each in a folder below `out`.

    Complete runs are not changed; interrupted ones continue from their last stored state. Runs at the same step train
    as one ensemble: the numbers of a run do not depend on the other members. A run that fails is recorded in its
    folder (failed.json) and does not stop the others.

    Args:
        configs: the runs.
        measuring: how each of them is measured.
        out: folder of the run folders.
        device: "cpu" or "cuda…".
        until: pause, with the state stored, at the first evaluation at or after this step; None trains to the end.
        stopped: called at every evaluation; True stores the states and returns.
        store_every: seconds between stored states: a killed process loses at most this much training.
        trackers: names of trackers to report to (see `sims.training.trackers.registry`).
        graphs: whether training steps are captured as CUDA graphs (see `toymodel.captured`). On CUDA done.json says
            under "graphs" whether they were, and why not.
        summary_workers: processes that make the rows of measurements while training goes on; 0 makes them here.

    Returns:
        {run id: error} of the failed runs.

    Raises:
        MeasureError: a measurement is not possible; before any training.
        ConfigError: the device does not have the graphs or the precision, or a stage does not predict all targets
            of its task; before any training.
    """
    check_graphs(graphs, device)
    for config in configs:
        measuring.check(config)
        check_precision(config.precision, device)
        check_updates(measuring, config)
        check_targets(stage(config.stage), config.task)
    schedules(measuring)
    origin = provenance(device)
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        terms = Terms(until, stopped, store_every)
        active = stack.enter_context(track(trackers, out))
        where = _Where(device, graphs, stack.enter_context(summarising(summary_workers)))
        waiting: dict[int, list[_Member]] = defaultdict(list)
        for config in configs:
            folder = RunFolder(out / config.run_id)
            try:
                folder.start(config, measuring, origin, measured_versions(measuring))
                stack.enter_context(folder.locked())
                step, member = _open(config, folder)
            except (StoreError, CheckpointError) as error:
                # An unusable folder does not stop the other members.
                failed[config.run_id] = record_failure(folder, error)
                continue
            if not folder.done and (until is None or step < until):
                waiting[step].append(member)
        for step, members in sorted(waiting.items()):
            failed |= _train_or_split(step, members, measuring, where, terms, active)
    return failed


def _open(config: RunConfig, folder: RunFolder) -> tuple[int, _Member]:
    """Return the step of a run, and the run with its stored state."""
    found = None if folder.done else folder.resume(config)
    if found is None:
        return 0, _Member(config, folder, None, {})
    return found.step, _Member(config, folder, found.tensors, found.seconds)


def _train_or_split(
    step: int,
    members: Sequence[_Member],
    measuring: MeasureConfig,
    where: _Where,
    terms: Terms,
    trackers: Trackers,
) -> dict[str, str]:
    """Train the members together, or one by one if that fails.

    Then only the member that causes the failure is lost.
    """
    try:
        _train_and_record(step, members, measuring, where, terms, trackers)
    except CompileError as error:
        # The same code would train each of them that has not ended.
        return {m.config.run_id: record_failure(m.folder, error) for m in members if not m.folder.done}
    except Exception as error:
        if len(members) == 1:
            return {members[0].config.run_id: record_failure(members[0].folder, error)}
    else:
        return {}
    failed: dict[str, str] = {}
    for member in members:
        if not member.folder.done:
            # The failed attempt may have stored a later state.
            now, again = _open(member.config, member.folder)
            failed |= _train_or_split(now, [again], measuring, where, terms, trackers)
    return failed


def _train_and_record(
    step: int,
    members: Sequence[_Member],
    measuring: MeasureConfig,
    where: _Where,
    terms: Terms,
    trackers: Trackers,
) -> None:
    """Train the members as one ensemble, recording every snapshot."""
    configs = [m.config for m in members]
    recorders, measurements = {}, {}
    states = []
    # How steps were launched on a GPU; known in the end.
    launching: dict[str, str] = {}
    for member, data in zip(members, _measurement_data(configs, measuring, where.device), strict=True):
        config = member.config
        measurements[config] = ToyMeasurement(config, data, where.workers)
        recorders[config] = Recorder(
            member.folder,
            config,
            measurements[config],
            trackers.started(config.run_id, as_dict(config)),
            member.seconds,
            stopped=terms.stopped,
            observers=observers(measuring, config, data),
            facts=ChainMap(launching, {"validation_overlap": dataset(config.task).overlap}),
            floor=run_floor(config),
        )
        if member.state is not None:
            tensors = dict(member.state)
            recorders[config].restore(tensors, step)
            states.append(tensors)
    if states:
        ensemble = Ensemble.from_states(configs, states, step, where.device, where.graphs, layerwise)
    else:
        ensemble = Ensemble(configs, where.device, where.graphs, layerwise)
    snapshots = train(ensemble, [recorders[c].observers for c in configs])

    def points() -> Iterator[Point]:
        for snapshot in snapshots:
            if where.device != "cpu":
                launching["graphs"] = ensemble.repeated.described
            yield _measured(list(of_members(snapshot)), measurements, recorders)

    drive(points(), terms, ensemble.shared.eval_every)


def _measured(
    members: Sequence[tuple[RunConfig, Snapshot]],
    measurements: Mapping[RunConfig, ToyMeasurement],
    recorders: Mapping[RunConfig, Recorder],
) -> Point:
    """Return the recorder and the snapshot of each member, measured together where that pays."""
    snapshots = measure_together([(measurements[config], snapshot) for config, snapshot in members])
    return [(recorders[config], own) for (config, _), own in zip(members, snapshots, strict=True)]


def _measurement_data(
    configs: Iterable[RunConfig], measuring: MeasureConfig, device: str
) -> list[MeasurementData]:
    """Prepare the data of measurements, once for each dataset."""
    made: dict[Any, MeasurementData] = {}
    for config in configs:
        if config.task not in made:
            made[config.task] = prepare(measuring, config, dataset(config.task), device)
    return [made[config.task] for config in configs]


def chosen_device(name: str | None, elsewhere: bool = False) -> str:
    """Return the requested device, or the default one.

    Args:
        name: "cpu", "cuda" or "cuda:N"; None takes the GPU where there is one, and the CPU otherwise.
        elsewhere: whether other machines do the work, so that the device is not needed here.

    Raises:
        ConfigError: not a device name, or this machine has no such device.
    """
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ConfigError(f"--device is {name!r}; choose cpu, cuda or cuda:N")
    number = int(name.partition(":")[2] or 0)
    if name != "cpu" and not elsewhere and number >= torch.cuda.device_count():
        raise ConfigError(
            f"--device {name}: torch {torch.__version__} sees {torch.cuda.device_count()} GPUs here; take --device "
            "cpu, or install a build of torch for this machine's GPUs"
        )
    return name
