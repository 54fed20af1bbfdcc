"""An alarm of a monitor with thresholds from control runs: when it sounds, what it says, and over an interruption."""

import math
import warnings

import pytest
import torch
from torch import nn

from sims.measure.rows import MeasurementRows
from sims.monitor import ControlAlarm, Monitor, RunMetadata, Watched, WatchedConfig
from sims.monitor.alarm import CAUTION
from sims.system.errors import MeasureError

LOSS = Watched("train_loss", "loss", "training")
SETTINGS = WatchedConfig(update_window=0)


def train(out, losses, seed, alarm=None, state=None, stop=None, every=1):
    """A run whose training losses are given."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    run = RunMetadata(name=f"run-{seed}", seed=seed)
    monitor = Monitor(model, every=every, to=out, run=run, measure=SETTINGS, alarm=alarm, state=state)
    for step, loss in enumerate(losses, start=1):
        if state is None or step > state["step"]:
            monitor.step(step, loss=loss)
        if step == stop:
            return monitor
    monitor.close()
    return monitor


@pytest.fixture(scope="module")
def controls(tmp_path_factory):
    """Ten runs of four steps, whose losses hold 1.0, 1.1, … 1.9 at two steps in a row."""
    out = tmp_path_factory.mktemp("controls")
    for seed in range(10):
        train(out, [0.5, 1 + seed / 10, 3.0, 0.5], seed)
    return out


def test_it_sounds_once_and_says_the_rate_and_what_was_not_shown(controls, tmp_path):
    alarm = ControlAlarm.from_runs(controls, LOSS, alpha=0.1)
    assert alarm.threshold.value == pytest.approx(1.9)
    assert alarm.steps == (1, 2, 3, 4)
    with pytest.warns(RuntimeWarning, match="alarm: train_loss of loss training was above 1.9"):
        monitor = train(tmp_path, [5.0, 0.0, 2.0, 2.5], 0, alarm)
    assert alarm.alarm == 4
    (note,) = [note for note in monitor.notes if "alarm" in note]
    assert "at most 10% of runs like the controls" in note
    assert "of one such set it is 0.00 to 0.31 (95 %)" in note
    assert CAUTION in note
    assert monitor.folder is not None
    assert "alarm" in monitor.folder.outcome["notes"]


@pytest.mark.parametrize("losses", [[5.0, 0.0, 2.5, 0.0], [1.9, 1.9, 1.9, 1.9], [0.0, 0.0, 0.0, 2.0, 2.0]])
def test_it_is_silent_within_the_controls_and_beyond_their_length(controls, tmp_path, losses):
    alarm = ControlAlarm.from_runs(controls, LOSS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(tmp_path, losses, 0, alarm)
    assert alarm.alarm is None


def test_small_values_may_sound_it(controls):
    alarm = ControlAlarm.from_runs(controls, LOSS, below=True)
    # Every control holds at most its second value somewhere: the smallest of ten is 1.0.
    assert -alarm.threshold.value == pytest.approx(1.0)
    for step, value in ((1, 0.9), (2, 0.8)):
        sheet = MeasurementRows(step, 0)
        sheet.row("train_loss", "loss", "training", value)
        told = alarm.look(sheet)
    assert "was below 1 at two looks in a row" in told


@pytest.mark.parametrize("values", [(9.0, math.nan), (math.nan, 9.0)])
def test_a_look_without_a_value_is_beyond_nothing(controls, values):
    alarm = ControlAlarm.from_runs(controls, LOSS)
    for step, value in enumerate(values, start=1):
        sheet = MeasurementRows(step, 0)
        sheet.row("train_loss", "loss", "training", value)
        assert alarm.look(sheet) == ""


def test_several_values_at_one_step_are_refused(controls):
    """Of H_S on several bands the last band was taken without a word."""
    alarm = ControlAlarm.from_runs(controls, LOSS)
    sheet = MeasurementRows(1, 0)
    for band in ("31:20", "47:10"):
        sheet.row("train_loss", "loss", "training", 1.0, band=band)
    with pytest.raises(MeasureError, match="train_loss of loss training has several values at step 1"):
        alarm.look(sheet)


def test_a_look_that_was_left_out_breaks_a_row(controls):
    alarm = ControlAlarm.from_runs(controls, LOSS)
    for step in (1, 3):
        sheet = MeasurementRows(step, 0)
        sheet.row("train_loss", "loss", "training", 9.0)
        assert alarm.look(sheet) == ""


def test_an_interrupted_run_sounds_the_same_alarm(controls, tmp_path):
    losses = [0.0, 2.0, 2.0, 0.0]
    first = train(tmp_path, losses, 0, ControlAlarm.from_runs(controls, LOSS), stop=2)
    state = first.state_dict()
    assert state["alarm"] == {"alarm": None, "last": (2, 2.0)}
    first.close()
    alarm = ControlAlarm.from_runs(controls, LOSS)
    with pytest.warns(RuntimeWarning, match="step 3: alarm"):
        train(tmp_path, losses, 0, alarm, state=state)
    assert alarm.alarm == 3


def test_controls_that_cannot_serve_are_refused(controls, tmp_path):
    with pytest.raises(MeasureError, match=r"no complete run of .* has edge_gap of update all, W = 10"):
        ControlAlarm.from_runs(controls, Watched("edge_gap", "update", "all", "10"))
    with pytest.raises(MeasureError, match=r"a rate of false alarms of 0\.05 needs 19"):
        ControlAlarm.from_runs(controls, LOSS, alpha=0.05)
    for seed, length in enumerate((3, 4)):
        train(tmp_path, [1.0] * length, seed)
    with pytest.raises(
        MeasureError, match="after other steps; an alarm needs controls that are equally long"
    ):
        ControlAlarm.from_runs(tmp_path, LOSS)
