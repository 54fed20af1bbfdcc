"""A campaign that is watched, stopped, resumed and refused, and halving."""

import errno
import json
import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from sims.runs.columns import WHICH
from sims.runs.measure_config import MeasureConfig
from sims.runs.store import RunFolder, run_folders
from sims.sweep import engine as engines
from sims.sweep import halving as halvings
from sims.sweep.halving import Halving, cells, prune, score
from sims.sweep.lease import driving
from sims.sweep.plan import cost
from sims.sweep.progress import Progress, duration, line, live_table
from sims.sweep.sweep_run import SweepRun, run_all
from sims.sweep.work import ToyWork
from sims.system.errors import EngineError, StoreError
from sims.system.files import read_json, write_json
from sims.system.signals import Stopped
from sims.training.recorder import Recorder, write_progress
from toymodel.errors import ConfigError

QUIET = Console(quiet=True)


@pytest.fixture
def campaign(tmp_path, tiny_run, tiny_measure):
    """campaign(configs, …): into tmp_path, in this process."""

    def make(configs, **changes):
        settings = {"out": tmp_path, "label": {"campaign": "test"}, "workers": 1}
        return SweepRun(configs, ToyWork(tiny_measure()), **{**settings, **changes})

    return make


# --- campaigns -------------------------------------------------------------------------------------------


def test_a_campaign_is_run_once_and_told_in_tables(tmp_path, tiny_run, campaign):
    configs = [tiny_run(seed=s, stage=stage) for s in (0, 1) for stage in ("rope", "untied")]
    progress = Progress(configs, tmp_path, ToyWork(MeasureConfig()))
    assert progress.count() == {"waiting": 4}
    assert progress.rates() == (None, None)
    assert run_all(campaign(configs), QUIET) == {}
    progress.read()
    assert progress.count() == {"done": 4}
    assert progress.work == progress.total
    assert [c[:2] for c in progress.cells()] == [("rope", "8"), ("untied", "8")]
    assert "4/4 runs, 100%" in line(progress)
    wide = Console(width=120, record=True, quiet=True)
    wide.print(live_table(progress))
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.parquet")}
    assert run_all(campaign(configs), QUIET) == {}
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.parquet")} == before
    assert not (tmp_path / ".session").exists()


def test_a_failing_run_is_recorded_and_tried_again_only_when_asked(tmp_path, tiny_run, campaign, monkeypatch):
    configs = [tiny_run(seed=s) for s in (0, 1, 2)]
    real = Recorder.see

    def see(self, snapshot):
        if self.config.seed == 1 and snapshot.step == 6:
            raise RuntimeError("the sky fell")
        return real(self, snapshot)

    monkeypatch.setattr(Recorder, "see", see)
    failed = run_all(campaign(configs), QUIET)
    bad = RunFolder(tmp_path / configs[1].run_id)
    # Its ensemble was split, and only the culprit was lost.
    assert list(failed) == [configs[1].run_id]
    assert "RuntimeError: the sky fell" in failed[configs[1].run_id]
    assert "Traceback" in read_json(bad.path / "failed.json")["traceback"]
    assert [RunFolder(tmp_path / c.run_id).done for c in configs] == [True, False, True]
    monkeypatch.setattr(Recorder, "see", real)
    assert "--retry-failed" in run_all(campaign(configs), QUIET)[configs[1].run_id]
    assert not bad.done
    assert run_all(campaign(configs, retry_failed=True), QUIET) == {}
    assert bad.done
    assert not bad.failed


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_campaign_keeps_its_state_and_goes_on(by, tmp_path, tiny_run, campaign, monkeypatch):
    config = tiny_run(steps=30)
    whole = tmp_path / "whole"
    run_all(campaign([config], out=whole), QUIET)
    real = Recorder.see

    def see(self, snapshot):
        if snapshot.step == 9:
            os.kill(os.getpid(), by)
        return real(self, snapshot)

    monkeypatch.setattr(Recorder, "see", see)
    with pytest.raises(Stopped) as stopped:
        run_all(campaign([config], out=tmp_path / "cut"), QUIET)
    assert stopped.value.status == 128 + by
    folder = RunFolder(tmp_path / "cut" / config.run_id)
    state = folder.resume(config)
    assert state is not None
    assert state.step == 9
    assert state.seconds["training"] > 0
    monkeypatch.setattr(Recorder, "see", real)
    run_all(campaign([config], out=tmp_path / "cut"), QUIET)
    key = ["step", "object", "quantity", "site", *WHICH]
    tables = [
        RunFolder(tmp_path / out / config.run_id).rows().sort_values(key, ignore_index=True)
        for out in ("whole", "cut")
    ]
    assert tables[0].equals(tables[1])
    assert folder.outcome["seconds"]["training"] > state.seconds["training"]


def test_worker_processes_and_a_scheduler_give_the_same_runs(tmp_path, tiny_run, campaign):
    from distributed import LocalCluster

    configs = [tiny_run(seed=s, stage=stage) for s in (0, 1) for stage in ("rope", "muon")]
    run_all(campaign(configs, out=tmp_path / "here"), QUIET)
    assert run_all(campaign(configs, out=tmp_path / "processes", workers=2), QUIET) == {}
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None, memory_limit=None
    ) as cluster:
        remote = campaign(configs, out=tmp_path / "scheduler", scheduler=cluster.scheduler_address)
        assert run_all(remote, QUIET) == {}
    for config in configs:
        here, *others = (
            RunFolder(tmp_path / out / config.run_id).rows() for out in ("here", "processes", "scheduler")
        )
        for other in others:
            assert here.equals(other)


def test_a_scheduler_that_is_not_there_is_named(tmp_path, tiny_run, campaign, monkeypatch):
    monkeypatch.setattr(engines, "CONNECT_SECONDS", 0.5)
    with pytest.raises(EngineError, match=r"no dask scheduler answers at 'tcp://127\.0\.0\.1:9'"):
        run_all(campaign([tiny_run()], scheduler="tcp://127.0.0.1:9"), QUIET)
    with pytest.raises(EngineError, match="is no address of a dask scheduler"):
        run_all(campaign([tiny_run()], scheduler="nonsense"), QUIET)
    assert not run_folders(tmp_path)


def test_folders_that_are_not_ours_are_left_alone(tmp_path, tiny_run, campaign):
    config = tiny_run()
    run_all(campaign([config]), QUIET)
    file = tmp_path / config.run_id / "run.json"
    mine = json.loads(file.read_text())
    write_json(file, {**mine, "format": 99})
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.name[0] != "."}
    with pytest.raises(StoreError, match="format 99, this version reads 1 and 2"):
        run_all(campaign([config, tiny_run(seed=5)]), QUIET)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.name[0] != "."} == before
    with pytest.raises(StoreError, match="another campaign"):
        run_all(campaign([config], label={"campaign": "other"}), QUIET)
    with pytest.raises(StoreError, match="is, or lies below, a file"):
        run_all(campaign([config], out=file), QUIET)


def test_a_session_tells_workers_when_to_stop(tmp_path):
    with driving(tmp_path) as first:
        assert not first.over()
        with pytest.raises(StoreError, match=f"another process .{os.getpid()} on "), driving(tmp_path):
            pass
        assert not first.over()
    assert first.over()
    with driving(tmp_path) as second:
        assert first.over()
        assert not second.over()


def test_two_workers_do_not_share_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr("sims.runs.store.LOCK_SECONDS", 0.3)
    folder = RunFolder(tmp_path)
    with folder.locked(), pytest.raises(StoreError, match="still working"), RunFolder(tmp_path).locked():
        pass
    with folder.locked():
        assert True


# --- halving ---------------------------------------------------------------------------------------------


def test_rungs_and_survivors(tiny_run):
    configs = [tiny_run(lr=lr, seed=s, steps=48) for lr in (1, 2, 3, 4, 5) for s in (0, 1)]
    halving = Halving(2)
    assert [set(r.values()) for r in halving.rungs(configs)] == [{6}, {12}, {24}]
    assert [halving.survivors(k, 5) for k in range(3)] == [3, 2, 1]
    assert {lr: len(runs) for lr, runs in next(iter(cells(configs).values())).items()} == dict.fromkeys(
        (1, 2, 3, 4, 5), 2
    )


def test_rungs_lie_before_the_end(tiny_run):
    """A run whose rung lay at its end was not trained up to it, and its progress was asked for."""
    configs = [tiny_run(lr=lr, steps=10, eval_every=4) for lr in (1, 2)]
    assert [set(r.values()) for r in Halving(1.2).rungs(configs)] == [{8}] * 4
    for every in (10, 11):
        late = [tiny_run(lr=lr, steps=10, eval_every=every) for lr in (1, 2)]
        with pytest.raises(ConfigError, match=f"eval_every is {every} and steps 10.* lower eval_every"):
            Halving(2).rungs(late)


def test_the_work_of_halving_is_known_beforehand(tmp_path, tiny_run):
    configs = [tiny_run(lr=lr, seed=s, steps=48) for lr in (1, 2, 3, 4, 5) for s in (0, 1)]
    # 5, 3, 2 and 1 of five rates train the steps between 0, 6, 12, 24 and 48.
    expected = (5 * 6 + 3 * 6 + 2 * 12 + 1 * 24) / (5 * 48)
    shares = Halving(2).shares(configs)
    assert set(shares.values()) == {expected}
    progress = Progress(configs, tmp_path, ToyWork(MeasureConfig()), shares.__getitem__)
    a_step = cost(configs[0]) / 48
    assert progress.total == pytest.approx(10 * 48 * expected * a_step)
    for k, run in enumerate(progress.runs.values()):
        run.state, run.ended, run.step = "done", ("pruned", "finished")[k < 2], (48 if k < 2 else 6)
    assert progress.work == pytest.approx((2 * 48 + 8 * 6) * a_step)


def test_a_paused_run_is_begun_and_not_running(tmp_path, tiny_run, tiny_measure):
    configs = [tiny_run(seed=s, steps=24) for s in (0, 1)]
    work = ToyWork(tiny_measure())
    assert work.run(configs[:1], tmp_path, 8, lambda: False) == {}
    progress = Progress(configs, tmp_path, ToyWork(MeasureConfig()))
    assert progress.count() == {"begun": 1, "waiting": 1}
    assert line(progress).startswith("0/2 runs, 1 begun, 19%, (untied")


def test_the_time_left_is_that_of_the_present_pace_where_a_run_goes_on_from_an_older_state(
    tmp_path, tiny_run, monkeypatch
):
    """progress.json may tell of steps that a killed process had not stored: they are trained again."""
    config, now = tiny_run(steps=1_000), [0.0]
    monkeypatch.setattr("sims.sweep.progress.time.monotonic", lambda: now[0])
    folder = RunFolder(tmp_path / config.run_id)
    folder.path.mkdir()
    write_progress(folder, 900, 1_000, 2.0, None)
    progress = Progress([config], tmp_path, ToyWork(MeasureConfig()))
    for step in (0, 100, 200):
        now[0] += 10.0
        write_progress(folder, step, 1_000, 2.0, None)
        progress.read()
    left, speed = progress.rates()
    # 200 steps in 30 seconds, 800 to go.
    assert left == pytest.approx(120.0)
    assert speed == pytest.approx(200 * config.tokens_per_step / 30)


def test_the_whole_is_done_when_every_run_is(tmp_path, tiny_run):
    config = tiny_run()
    folder = RunFolder(tmp_path / config.run_id)
    folder.path.mkdir()
    write_progress(folder, config.steps, config.steps, 2.0, "finished")
    progress = Progress([config], tmp_path, ToyWork(MeasureConfig()))
    assert line(progress).startswith("0/1 run, 1 begun, 99%")
    write_json(folder.path / "done.json", {})
    progress.read()
    assert line(progress) == "1/1 run, 100%"


def test_a_pruned_run_has_the_loss_of_its_last_step(tmp_path, tiny_run, campaign):
    """The process that trained it on beyond the rung was killed before it stored that."""
    configs = [tiny_run(lr=lr, steps=24) for lr in (1e-9, 3e-3)]
    assert campaign(configs).work.run(configs, tmp_path, 12, lambda: False) == {}
    worse = RunFolder(tmp_path / configs[0].run_id)
    before = read_json(worse.path / "progress.json")["val_loss"]
    write_progress(worse, 15, 24, before + 1.0, None)
    prune(Halving(2), 0, configs, tmp_path)
    assert [worse.outcome[name] for name in ("ended", "step", "val_loss")] == ["pruned", 12, before]


def test_what_reached_the_target_first_is_best():
    target = score([(True, 100.0, 1.9), (True, 300.0, 1.9)])
    later = score([(True, 300.0, 1.7), (True, 300.0, 1.7)])
    half = score([(True, 10.0, 1.9), (False, 500.0, 2.2)])
    worse = score([(False, 500.0, 2.5), (False, 500.0, 2.5)])
    diverged = score([(False, 500.0, 2.0), (False, 20.0, float("inf"))])
    assert target < later < half < worse < diverged


@pytest.mark.slow
def test_survivors_go_on_and_are_those_of_a_full_training(tmp_path, tiny_run, campaign):
    rates = (1e-5, 3e-4, 3e-3, 1e-2)
    configs = [tiny_run(lr=lr, seed=s, steps=24) for lr in rates for s in (0, 1)]
    assert run_all(campaign(configs, out=tmp_path / "full"), QUIET) == {}
    halved = campaign(configs, out=tmp_path / "halved", halving=Halving(2))
    progress = Progress(
        configs, tmp_path / "halved", ToyWork(MeasureConfig()), Halving(2).shares(configs).__getitem__
    )
    assert run_all(halved, QUIET) == {}
    progress.read()
    assert progress.work == pytest.approx(progress.total)
    ended = {c: RunFolder(tmp_path / "halved" / c.run_id).outcome for c in configs}
    kept = [c for c in configs if ended[c]["ended"] == "finished"]
    assert len({c.lr for c in kept}) == 1
    assert len(kept) == 2
    assert sorted(o["step"] for o in ended.values()) == [6] * 4 + [12] * 2 + [24] * 2
    for config in kept:
        full, own = (RunFolder(tmp_path / o / config.run_id).rows() for o in ("full", "halved"))
        key = ["step", "object", "quantity", "site", *WHICH]
        assert full.sort_values(key, ignore_index=True).equals(own.sort_values(key, ignore_index=True))
    # The first rung kept the two rates that were best then.
    at_rung = read_json(tmp_path / "halved" / "halving-0.json")
    means = {lr: sum(at_rung["val_loss"][c.run_id] for c in configs if c.lr == lr) for lr in rates}
    best = sorted(rates, key=means.__getitem__)[:2]
    assert set(at_rung["kept"]) == {c.run_id for c in configs if c.lr in best}
    # Once more does nothing, and other runs do not mix.
    assert run_all(halved, QUIET) == {}
    with pytest.raises(StoreError, match="decided among other runs"):
        run_all(
            campaign([*configs, tiny_run(lr=2e-3, steps=24)], out=tmp_path / "halved", halving=Halving(2)),
            QUIET,
        )


def test_durations_read_well():
    assert [duration(s) for s in (12.3, 600, 9000)] == ["12 s", "10 min", "2.5 h"]


def test_a_full_or_read_only_folder_is_named_before_any_work(tmp_path, tiny_run, campaign, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="no space left while writing"):
            run_all(campaign([tiny_run()], out=tmp_path / "full"), QUIET)
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda path, mode: False)
        with pytest.raises(StoreError, match="is not writable"):
            run_all(campaign([tiny_run()], out=tmp_path / "closed"), QUIET)
    assert not list(tmp_path.rglob("run.json"))
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_disk_that_fills_up_stops_runs_but_not_for_good(tmp_path, tiny_run, campaign, monkeypatch):
    config, real, left = tiny_run(), os.fsync, [12]

    def filling(descriptor):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", filling)
        failed = run_all(campaign([config]), QUIET)
    assert "free some space, run the same command again" in failed[config.run_id]
    # It is the disk's failure and not the run's: no --retry-failed is needed.
    assert run_all(campaign([config]), QUIET) == {}
    assert RunFolder(tmp_path / config.run_id).done


class _Future:
    """A future whose worker dies after it has finished: it is ready, then lost, then ready again."""

    def __init__(self, states, result):
        self.states, self._result = list(states), result

    @property
    def status(self):
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def result(self):
        return self._result

    def exception(self):
        return None


@pytest.mark.parametrize("states", [("lost", "finished"), ("pending", "lost", "finished"), ("finished",)])
def test_a_job_whose_result_is_lost_with_its_worker_is_waited_for_again(states, monkeypatch):
    class Ready:
        def __init__(self, loop):
            self.waiting = []

        def add(self, future):
            self.waiting.append(future)

        def has_ready(self):
            return bool(self.waiting)

        def next_batch(self, block):
            found, self.waiting = self.waiting, []
            return found

    monkeypatch.setattr("distributed.as_completed", Ready)
    monkeypatch.setattr(engines, "POLL_SECONDS", 0.0)
    client = SimpleNamespace(
        loop=None, ncores=lambda: {"one": 1}, submit=lambda job, pure: _Future(states, {"run": "reason"})
    )
    assert engines.Cluster(client, remote=False).run(["job"], lambda: None) == {"run": "reason"}


@pytest.mark.parametrize("until", [18, None], ids=["interrupted", "complete"])
def test_rates_compete_at_the_rung_however_far_they_were_trained(tmp_path, tiny_run, campaign, until):
    """Two rates have one rung, at half of their steps."""
    configs = [tiny_run(lr=lr, steps=24) for lr in (3e-4, 3e-3)]
    assert campaign(configs).work.run(configs[:1], tmp_path, until, lambda: False) == {}
    assert run_all(campaign(configs, halving=Halving(2)), QUIET) == {}
    for run, loss in read_json(tmp_path / "halving-0.json")["val_loss"].items():
        rows = RunFolder(tmp_path / run).rows()
        assert loss == rows[(rows["quantity"] == "val_loss") & (rows["step"] == 12)]["value"].item()


def test_runs_whose_workers_gave_up_are_not_taken_for_complete(tmp_path, tiny_run, campaign):
    """Workers stop without an error when the file of the lease goes, as by somebody who clears hidden files."""
    config = tiny_run()

    class Clearing(ToyWork):
        def run(self, configs, out, until, stopped):
            for file in out.glob(".session"):
                file.unlink()
            lease = engines.DriverLease(out / ".session", "token")
            return super().run(configs, out, until, lease.over)

    sweep = campaign([config])
    assert run_all(replace(sweep, work=Clearing(sweep.work.measuring)), QUIET) == {
        config.run_id: "its worker stopped before its end; run the same command again"
    }
    assert run_all(sweep, QUIET) == {}


def test_a_rate_that_was_pruned_does_not_win_a_later_rung(tmp_path, tiny_run):
    """Losses of the others may rise: a cell must end with a run that trains to its end."""
    configs = [tiny_run(lr=lr, steps=24) for lr in (1e-4, 1e-3, 1e-2)]
    losses = {"pruned": 2.0, None: 3.0}
    for config, ended in zip(configs, ("pruned", None, None), strict=True):
        folder = RunFolder(tmp_path / config.run_id)
        record = {
            "step": 6 if ended else 12,
            "val_loss": losses[ended],
            "ended": ended,
            "tokens": 0,
            "seconds": {},
        }
        folder.path.mkdir()
        write_json(folder.path / ("done.json" if ended else "progress.json"), record)
    write_json(tmp_path / "halving-0.json", {"kept": [c.run_id for c in configs[1:]]})
    prune(Halving(2), 1, configs, tmp_path)
    assert read_json(tmp_path / "halving-1.json")["kept"] == [configs[1].run_id]


@pytest.mark.parametrize("until", [18, None], ids=["interrupted", "complete"])
def test_a_rate_that_an_earlier_command_trained_further_stays_pruned(
    tmp_path, tiny_run, campaign, until, monkeypatch
):
    """By a loss that falls at the rung where the rate takes no further part; rungs are at 6 and 12 steps."""
    configs = [tiny_run(lr=lr, steps=24) for lr in (1e-3, 2e-3, 3e-3)]
    worst = configs[0]
    assert campaign(configs).work.run([worst], tmp_path, until, lambda: False) == {}
    losses = {6: (3.0, 1.0, 2.0), 12: (0.5, 1.0, 2.0)}

    def progress(config, out, pause):
        return False, 0.0, losses[pause][configs.index(config)]

    monkeypatch.setattr(halvings, "_progress", progress)
    assert run_all(campaign(configs, halving=Halving(2)), QUIET) == {}
    assert read_json(tmp_path / "halving-1.json")["kept"] == [configs[1].run_id]
    assert RunFolder(tmp_path / configs[1].run_id).outcome["ended"] == "finished"
