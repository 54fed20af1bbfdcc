"""Rows made in worker processes: those that the training process makes, whatever happens to the workers."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from dataclasses import replace

import pandas as pd
import pytest
import torch
from simulated import simulated_device
from tiny_runs import MEASURE, RUN

from sims.measure import registry
from sims.measure.engine import gather
from sims.measure.measurement import Gatherer, Measurement
from sims.measure.toy import prepare
from sims.runs.layout import read_table
from sims.runs.store import RunFolder
from sims.sweep.options import LocalOptions, SweepOptions, summary_processes
from sims.training import summary_workers as module
from sims.training.snapshot import Copies, Member
from sims.training.summary_workers import LaterRows, SummaryWorkers, summarising
from sims.training.toy_runner import run_group
from spectra.errors import NotFiniteError
from toymodel.data import dataset
from toymodel.ensemble import Ensemble
from toymodel.errors import ConfigError

CONFIGS = [replace(RUN, newton_schulz="float32", seed=seed) for seed in range(3)]


def tables(out, configs=CONFIGS):
    return [
        (out / c.run_id / name).read_bytes() for c in configs for name in ("rows.parquet", "spectra.parquet")
    ]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    out = tmp_path_factory.mktemp("plain")
    assert not run_group(CONFIGS, MEASURE, out)
    return tables(out)


@pytest.fixture
def ensemble():
    found = Ensemble([RUN])
    found.advance(2)
    return found


def gathered_of(ensemble):
    subject = Member(ensemble, 0, RUN, Copies(ensemble)).subject()
    return gather(subject.stack, prepare(MEASURE, RUN, dataset(RUN.task)))[0]


def test_the_tables_are_the_same_bytes(tmp_path, expected):
    # Paused with rows under way, and gone on with.
    assert not run_group(CONFIGS, MEASURE, tmp_path, until=6, summary_workers=1)
    assert not run_group(CONFIGS, MEASURE, tmp_path, summary_workers=2, store_every=0.0)
    assert tables(tmp_path) == expected


@pytest.mark.slow
def test_what_was_gathered_on_a_device_goes_to_workers(tmp_path):
    with simulated_device():
        for name, count in (("plain", 0), ("workers", 1)):
            assert not run_group(CONFIGS, MEASURE, tmp_path / name, "cuda", summary_workers=count)
    for config in CONFIGS:
        found, expected = (RunFolder(tmp_path / name / config.run_id).rows() for name in ("workers", "plain"))
        # Operations of the simulating process are taken apart, which shows in the last bits.
        pd.testing.assert_frame_equal(found, expected, rtol=1e-9, atol=1e-12)


def test_the_weights_of_the_step_are_measured_though_training_goes_on(ensemble):
    before = gathered_of(ensemble).sheet()
    with summarising(1) as workers:
        later = workers.rows(gathered_of(ensemble))
        ensemble.advance(5)
        assert isinstance(later, LaterRows)
        assert repr(later.sheet()) == repr(before)
    assert repr(gathered_of(ensemble).sheet()) != repr(before)


def test_what_is_under_way_is_bounded(ensemble):
    class Asleep:
        """A pool whose worker is never done."""

        def submit(self, *_):
            return Future()

    gathered, workers = gathered_of(ensemble), module.SummaryWorkers(Asleep(), 2)
    found = [workers.rows(gathered) for _ in range(4)]
    assert [isinstance(rows, LaterRows) for rows in found] == [True, True, False, False]


def test_a_measurement_that_cannot_leave_its_process_is_made_here(ensemble, monkeypatch):
    class Own(Gatherer):
        def __init__(self, job):
            pass

        def rows(self, sheet, found):
            sheet.row("process", "weight", "all", os.getpid())

    own = Measurement("own", 1, "of this process", frozenset({"matrices"}), begin=Own)
    monkeypatch.setattr(registry, "REGISTRY", (own,))
    with summarising(1) as workers:
        rows = module.made(workers.rows(gathered_of(ensemble)))
    assert [row["value"] for row in rows.rows] == [os.getpid()]


def test_workers_that_are_killed_cost_no_rows(tmp_path, expected, monkeypatch):
    rows, later = SummaryWorkers.rows, []

    def killing(workers, gathered):
        found = rows(workers, gathered)
        if isinstance(found, LaterRows):
            later.append(found)
        if len(later) == 2:
            for process in list(workers.pool._processes.values()):
                process.kill()
                process.join()
        return found

    monkeypatch.setattr(SummaryWorkers, "rows", killing)
    with pytest.warns(UserWarning, match="rows are made in this process from here on"):
        assert not run_group(CONFIGS, MEASURE, tmp_path, summary_workers=1)
    assert len(later) == 2
    assert tables(tmp_path) == expected


def test_rows_that_fail_fail_their_run_only(tmp_path, expected, monkeypatch):
    broken = CONFIGS[1].run_id
    asked = module.SummaryWorkers.rows

    def rows(workers, gathered):
        if gathered.step == 6 and gathered.gatherers["weights"].job.subject.config.run_id == broken:
            future = Future()
            future.set_exception(ValueError("no such spectrum"))
            return LaterRows(b"", future)
        return asked(workers, gathered)

    monkeypatch.setattr(SummaryWorkers, "rows", rows)
    failed = run_group(CONFIGS, MEASURE, tmp_path, summary_workers=1, store_every=0.0)
    assert failed == {broken: "ValueError: no such spectrum"}
    others = [CONFIGS[0], CONFIGS[2]]
    assert tables(tmp_path, others) == [*expected[:2], *expected[4:]]
    # No state is ahead of the rows that are missing.
    found = RunFolder(tmp_path / broken).resume(CONFIGS[1])
    assert found is None or found.step < 6


SCRIPT = """
import sys, time
from pathlib import Path
from tiny_runs import MEASURE, RUN
from dataclasses import replace
from rich.console import Console
from sims.sweep.options import LocalOptions
from sims.sweep.sweep_run import SweepRun, run_all
from sims.training import summary_workers as module

rows = module.SummaryWorkers.rows
def spoken(workers, gathered):
    found = rows(workers, gathered)
    if isinstance(found, module.LaterRows):
        print(*workers.pool._processes, flush=True)
        time.sleep(0.3)
    return found
module.SummaryWorkers.rows = spoken

if __name__ == "__main__":
    work = LocalOptions(workers=1, summary_workers=1).work(replace(MEASURE, every=3), "cpu")
    run = replace(RUN, steps=300)
    run_all(SweepRun([run], work, Path(sys.argv[1]), {"campaign": "train"}, 1), Console(stderr=True))
"""


def begun(tmp_path):
    """A process that trains with a worker, and the number of the worker's process."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, script, tmp_path / "runs"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
    worker = int(process.stdout.readline().split()[0])
    return process, worker


def gone(pid):
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


# The next test ends the same process more gently.
@pytest.mark.slow
def test_workers_end_with_a_training_process_that_is_killed(tmp_path):
    process, worker = begun(tmp_path)
    process.kill()
    process.communicate()
    assert gone(worker)


@pytest.mark.slow
def test_ctrl_c_stores_the_state_with_its_rows_and_says_nothing_of_workers(tmp_path):
    process, worker = begun(tmp_path)
    for _ in range(3):
        process.stdout.readline()
    # As a terminal does: to all processes.
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert "Process" not in errors, errors
    assert "KeyboardInterrupt" not in errors.replace("Stopped(KeyboardInterrupt)", ""), errors
    assert gone(worker)
    run = replace(RUN, steps=300)
    found = RunFolder(tmp_path / "runs" / run.run_id).resume(run)
    assert found.step > 0
    parts = (tmp_path / "runs" / run.run_id / "parts").glob("rows-*.parquet")
    measured = pd.concat(read_table(part).to_pandas() for part in parts).query("quantity == 'h_peak'")["step"]
    assert set(measured) == set(range(0, found.step + 1, 3))


def test_a_model_without_numbers_is_known_before_it_trains_on(ensemble):
    with summarising(1) as workers:
        gathered = gathered_of(ensemble)
        place = ("weights", -1, "head")
        gathered.found[place] = gathered.found[place].clone()
        gathered.found[place][0, 0] = torch.inf
        with pytest.raises(NotFiniteError, match="Inf"):
            workers.rows(gathered)


def test_how_many_processes_make_rows():
    assert summary_processes("cuda") == min(8, len(os.sched_getaffinity(0)) - 1)
    assert LocalOptions().summary_processes("cuda") == summary_processes("cuda")
    assert LocalOptions(workers=2).summary_processes("cuda") == 0
    assert LocalOptions().summary_processes("cpu") == 0
    assert LocalOptions(workers=1, summary_workers=3).work(MEASURE, "cpu").summary_workers == 3
    with pytest.raises(ConfigError, match=r"--summary-workers is 2.*add --workers 1"):
        LocalOptions(workers=2, summary_workers=2).work(MEASURE, "cpu")
    with pytest.raises(ConfigError, match="without --scheduler"):
        SweepOptions(workers=1, summary_workers=2, scheduler="tcp://a:1").work(MEASURE, "cpu")
    with pytest.raises(ConfigError, match="--summary-workers is -1; it must be 0 … 4,096"):
        LocalOptions(summary_workers=-1)
