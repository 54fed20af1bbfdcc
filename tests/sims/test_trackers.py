"""Trackers see what a run finds, in order; whatever they do, the run does not notice."""

import importlib.util
import json
import sqlite3
import struct
import warnings

import numpy as np
import pytest

from sims.measure.rows import MeasurementRows
from sims.runs.store import RunFolder
from sims.system.errors import MissingExtraError, QueryError
from sims.training.toy_runner import run_group
from sims.training.trackers import registry as trackers
from sims.training.trackers.registry import Trackers, check, named, track
from toymodel.config import as_dict

CONFIG = {"stage": "rope", "lr": 2e38, "task": {"length": 8}}
RUN = "rope-b8-lr2e+38-s0-0123456789"
NUMBERS = {"loss/validation/val_loss": 3.0, "probe/final/h_peak/31:20 clean unseen": 0.25}


class Fake:
    """Keeps what it is told; fails at the call it is asked to fail at."""

    def __init__(self, told, fails=()):
        self.told = told
        self.fails = fails

    def _tell(self, *what):
        self.told.append(what)
        if what[0] in self.fails:
            raise OSError("no route to host")

    def started(self, run_id, config):
        self._tell("started", run_id, dict(config))

    def logged(self, step, numbers):
        self._tell("logged", step, dict(numbers))

    def ended(self, outcome):
        self._tell("ended", outcome["ended"])


def follow(observer, names=(RUN, "other"), steps=(0, 50)):
    """Two runs side by side, as the members of an ensemble go."""
    observed = [observer.started(name, CONFIG) for name in names]
    for step in steps:
        for one in observed:
            one.logged(step, NUMBERS)
    for one in observed:
        one.ended({"ended": "finished", "step": steps[-1], "val_loss": 3.0})


def test_what_a_tracker_is_told():
    told = []
    observer = Trackers({"fake": lambda: Fake(told)})
    observed = observer.started(RUN, CONFIG)
    observed.logged(0, {"a": 1, "diverged": float("inf"), "not fitted": float("nan")})
    observed.ended({"ended": "finished"})
    assert told == [("started", RUN, CONFIG), ("logged", 0, {"a": 1.0}), ("ended", "finished")]
    observed.logged(50, NUMBERS)
    observer.close()
    assert len(told) == 3


def test_what_is_still_open_is_ended_as_paused_even_when_the_work_fails(tmp_path, monkeypatch):
    told = []
    monkeypatch.setitem(trackers.TRACKERS, "fake", lambda folder, project: Fake(told))

    def fail():
        with track(["fake"], tmp_path) as observer:
            observer.started("a", CONFIG)
            observer.started("b", CONFIG).ended({"ended": "target"})
            # Started again without an end, as after an ensemble that was split.
            observer.started("a", CONFIG)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [what[1] for what in told if what[0] == "ended"] == ["target", "interrupted", "paused"]


@pytest.mark.parametrize("call", ["started", "logged", "ended"])
def test_a_tracker_that_fails_is_named_once_and_the_others_go_on(call):
    bad, good = [], []
    observer = Trackers({"bad": lambda: Fake(bad, (call,)), "good": lambda: Fake(good)})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        follow(observer)
        follow(observer, ("later",))
    (warning,) = caught
    assert "tracker bad is switched off: OSError: no route to host" in str(warning.message)
    assert sum(what[0] == call for what in bad) == 1
    assert [what[0] for what in good].count("ended") == 3
    assert [what[0] for what in good].count("logged") == 6


def test_a_tracker_that_cannot_be_made_stops_nothing(tmp_path):
    (tmp_path / "trackers").write_text("a file where its folder should be")
    with (
        pytest.warns(RuntimeWarning, match="tracker tensorboard is switched off"),
        track(["tensorboard"], tmp_path) as observer,
    ):
        follow(observer)


def test_without_trackers_nothing_is_written(tmp_path):
    with track([], tmp_path) as observer:
        follow(observer)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_is_not_swallowed():
    class Interrupted(Fake):
        def logged(self, step, numbers):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(Trackers({"fake": lambda: Interrupted([])}))


def test_rows_by_name():
    sheet = MeasurementRows(0, 0)
    band = {"band": "31:20", "regime": "clean", "seen": False}
    sheet.row("val_loss", "loss", "validation", 3.0)
    sheet.row("h_peak", "probe", "final", 0.25, **band)
    sheet.row("h_s", "probe", "final", 0.5, **band, set="task")
    sheet.row("component_share", "probe", "final", 0.75, **band, detail="pc1")
    sheet.row("alpha", "activation", "final", 1.0, window="10-40")
    assert named(sheet.rows) == {
        "loss/validation/val_loss": 3.0,
        "probe/final/h_peak/31:20 clean unseen": 0.25,
        "probe/final/h_s/31:20 clean unseen task": 0.5,
        "probe/final/component_share/31:20 clean unseen pc1": 0.75,
        "activation/final/alpha/10-40": 1.0,
    }


def test_a_run_tells_its_trackers_what_its_rows_say(tmp_path, monkeypatch, tiny_run, tiny_measure):
    told = []
    monkeypatch.setitem(trackers.TRACKERS, "good", lambda folder, project: Fake(told))
    monkeypatch.setitem(trackers.TRACKERS, "bad", lambda folder, project: Fake([], ("logged",)))
    config = tiny_run(steps=6)
    with pytest.warns(RuntimeWarning, match="tracker bad is switched off"):
        failed = run_group([config], tiny_measure(), tmp_path, trackers=("bad", "good"))
    assert failed == {}
    rows = RunFolder(tmp_path / config.run_id).rows()
    finite = rows[np.isfinite(rows["value"])]
    stored = {step: named(own.to_dict("records")) for step, own in finite.groupby("step")}
    assert told[0] == ("started", config.run_id, as_dict(config))
    assert {what[1]: what[2] for what in told if what[0] == "logged"} == stored
    assert set(stored) == {0, 3, 6}
    assert len(stored[6]) > 50
    assert told[-1] == ("ended", "finished")


def test_unknown_and_missing_trackers_are_refused_before_work(monkeypatch):
    with pytest.raises(QueryError, match="'mlflow'; the trackers are tensorboard, wandb, trackio"):
        check(["mlflow"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in trackers.TRACKERS:
        with pytest.raises(MissingExtraError, match=rf"pip install 'spectral-lens\[{name}\]'"):
            check([name])


def needs(package):
    found = importlib.util.find_spec(package) is not None
    return pytest.mark.skipif(not found, reason=f"{package} is not installed: pip install {package}")


@pytest.fixture
def follow_and_go_on(tmp_path):
    """Two runs to step 50; one of them goes on, from its state of step 50, to step 100. No tracker may fail."""

    def go(name):
        check([name])
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "tracker")
            for steps in ((0, 50), (50, 100)):
                with track([name], tmp_path / "sweep") as observer:
                    follow(observer, (RUN, "other") if steps[0] == 0 else (RUN,), steps)
        return tmp_path / "sweep" / "trackers" / name

    return go


@needs("tensorboard")
def test_tensorboard(follow_and_go_on):
    folder = follow_and_go_on("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert {p.name for p in folder.iterdir()} == {RUN, "other"}
    events = EventAccumulator(str(folder / RUN)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss/validation/val_loss")] == [
        (s, 3.0) for s in (0, 50, 100)
    ]
    (configuration,) = {e.tensor_proto.string_val[0] for e in events.Tensors("configuration/text_summary")}
    assert json.loads(configuration.decode().strip("`\n")) == CONFIG


def wandb_records(path):
    """The records of an offline file: a LevelDB log of protobuf messages after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, message = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while len(data) - position >= 7:
        _, length, kind = struct.unpack_from("<IHB", data, position)
        if kind:  # 1 whole, 2 first, 3 middle, 4 last; 0 fills up a block
            message += data[position + 7 : position + 7 + length]
            position += 7 + length
        left = -position % 32768
        if kind == 0 or left < 7:
            position += left
        if kind in (1, 4):
            yield Record.FromString(message)
            message = b""


@needs("wandb")
def test_wandb_is_offline_unless_told_otherwise(follow_and_go_on, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    folder = follow_and_go_on("wandb") / "wandb"
    steps, finished = [], 0
    for record in (
        r for file in sorted(folder.glob(f"offline-run-*-{RUN}/*.wandb")) for r in wandb_records(file)
    ):
        if record.HasField("history"):
            row = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
            steps.append(row["_step"])
            assert {name: row[name] for name in NUMBERS} == NUMBERS
        finished += record.HasField("exit") and record.exit.exit_code == 0
    assert sorted(steps) == [0, 50, 50, 100]
    assert finished == 2
    assert len(list(folder.glob("offline-run-*-other"))) == 1


@needs("trackio")
def test_trackio(follow_and_go_on, monkeypatch):
    # It reads the variable once, when it is imported; what the tracker sets shall not outlive the test.
    monkeypatch.setenv("TRACKIO_DIR", "")
    monkeypatch.delenv("TRACKIO_DIR")
    folder = follow_and_go_on("trackio")
    with sqlite3.connect(folder / "sweep.db") as database:
        rows = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
    assert [step for name, step, _ in rows if name == RUN] == [0, 50, 50, 100]
    assert [step for name, step, _ in rows if name == "other"] == [0, 50]
    assert all(json.loads(metrics) == NUMBERS for _, _, metrics in rows)
