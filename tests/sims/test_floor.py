"""The exact floor of the toy's loss: its value, who has none, and where it is shown."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from constructed import build
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_runs import RUN

from sims.analysis.floor import floors, mean_floor
from sims.analysis.intervals import student
from sims.analysis.runs import Runs, load
from sims.analysis.stages import outcome_table
from sims.analysis.task_floor import loss_floor, run_floor
from sims.measure.toy import prepare
from sims.pages.outcomes import outcomes_table
from sims.runs.store import RunFolder
from sims.studies.overview import sections, tables
from sims.studies.overview.figures import loss_figure, positions_figure
from sims.system.errors import MeasureError
from sims.training.toy_runner import run_group
from theory.formulas.law import WalkLaw
from toymodel.config import as_dict
from toymodel.data import dataset
from toymodel.task import Task
from toymodel.tasks import ModularWalks


def test_the_floor_is_the_mean_entropy_of_the_sequences_of_the_loss():
    found = loss_floor(RUN.task, RUN.eval_size)
    inputs = dataset(RUN.task).val.inputs[: RUN.eval_size]
    assert found.by_position.shape == (RUN.task.length,)
    np.testing.assert_array_equal(found.by_position, WalkLaw(24).entropies(inputs).mean(axis=0))
    assert found.mean == found.by_position.mean() == run_floor(RUN)
    # Other sequences have another floor; None takes all of them.
    assert loss_floor(RUN.task).mean != found.mean
    assert loss_floor(replace(RUN.task, seed=1), RUN.eval_size).mean != found.mean


def test_every_setting_of_the_task_reaches_the_law():
    base = ModularWalks(vocab=24, length=6, train=2, val=50, test=2)
    changed = {
        "modulus_min": 6,
        "modulus_power": 2.0,
        "offset_power": 0.3,
        "step_fraction": 0.4,
        "noncoprime": 0.9,
    }
    for name, value in changed.items():
        task = replace(base, **{name: value})
        law = WalkLaw(24, **{name: value})
        expected = law.entropies(dataset(task).val.inputs).mean()
        assert loss_floor(task).mean == pytest.approx(expected, rel=1e-12), name
    # The weight of one walk cancels.
    assert loss_floor(replace(base, pareto=2.0)).mean == loss_floor(base).mean


@dataclass(frozen=True)
class _OtherTask(Task):
    kind = "other"
    vocab: int = 8

    def splits(self):
        raise AssertionError


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (replace(RUN.task, noise=0.5), "noise is 0.5"),
        (replace(RUN.task, components_max=2), "components is 2"),
        (replace(RUN.task, unique_val=True), "unique_val is True: .* their law depends on the training set"),
        (_OtherTask(), "the task is other; the exact law is that of modular_walks only"),
        (
            replace(RUN.task, vocab=4096),
            "vocab is 4096; .* is computed for at most 2048 tokens: lower task.vocab",
        ),
        (replace(RUN.task, modulus_power=1e3), "modulus_power is 1000.0, .* lower the powers"),
        (replace(RUN.task, offset_power=1e3), "offset_power 1000.0 .* lower the powers"),
        (replace(RUN.task, noncoprime=1e-300), "noncoprime 1e-300; .* lower the powers"),
    ],
)
def test_a_task_without_an_exact_law_has_no_floor(task, reason):
    with pytest.raises(MeasureError, match=reason):
        loss_floor(task)


@pytest.mark.parametrize(
    "change", [{"noise": 0.5}, {"vocab": 4096}, {"modulus_power": 1e3}, {"offset_power": 1e5}]
)
def test_a_run_of_such_a_task_has_no_floor(change):
    assert np.isnan(run_floor(replace(RUN, task=replace(RUN.task, **change))))


# Numbers that float32 holds, as a run takes no others.
FLOAT32 = {"width": 32, "allow_subnormal": False}


@settings(deadline=None, max_examples=40)
@given(
    st.integers(5, 12),
    st.floats(0, 2e3, **FLOAT32),
    st.floats(0, 2e3, **FLOAT32),
    st.floats(0, 1, exclude_max=True, **FLOAT32),
    st.floats(0, 1, **FLOAT32),
)
def test_any_law_has_a_floor_or_none_and_nothing_else(
    vocab, modulus_power, offset_power, fraction, noncoprime
):
    laws = {"modulus_power": modulus_power, "offset_power": offset_power}
    task = ModularWalks(vocab, 4, 8, 8, 2, **laws, step_fraction=fraction, noncoprime=noncoprime)
    floor = run_floor(replace(RUN, task=task, eval_size=8))
    assert np.isnan(floor) or -1e-12 <= floor <= np.log(vocab)


def test_runs_have_the_floor_of_their_own_validation_sequences():
    other = replace(RUN, task=replace(RUN.task, seed=5))
    noisy = replace(RUN, task=replace(RUN.task, noise=1.0))
    runs = Runs(
        pd.DataFrame({"run_id": ["a", "b"]}),
        pd.DataFrame(),
        pd.DataFrame(),
        (),
        configs={"a": as_dict(RUN), "b": as_dict(other), "c": as_dict(noisy)},
    )
    assert floors(runs).to_dict() == {"a": run_floor(RUN), "b": run_floor(other)}
    assert mean_floor(runs) == (run_floor(RUN) + run_floor(other)) / 2
    # One run without a floor: a mean of the others would stand beside losses that it is no bound of.
    both = replace(runs, runs=pd.DataFrame({"run_id": ["a", "c"]}))
    assert np.isnan(floors(both)["c"])
    assert mean_floor(both) is None


def test_a_page_says_which_vocabulary_is_too_large_for_a_floor():
    runs = build()
    large = replace(RUN, task=replace(RUN.task, vocab=4096))
    for config, note in ((large, "not computed: the vocabulary has 4096 tokens"), (RUN, "Dashed: the floor")):
        known = replace(runs, configs={run: as_dict(config) for run in runs.runs["run_id"]})
        assert note in sections.losses(known).caption


def test_tables_of_losses_say_how_far_they_are_above_the_floor():
    runs = build()
    assert "above the floor" not in outcomes_table(outcome_table(runs)).columns
    known = replace(runs, configs={run: as_dict(RUN) for run in runs.runs["run_id"]})
    table = outcome_table(known)
    np.testing.assert_allclose(table["above_floor"], table["loss"] - run_floor(RUN), rtol=1e-12)
    assert "above the floor" in outcomes_table(table).columns


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(("floor", "lines"), [(2.0, 1), (1e-9, 0), (0.0, 0), (None, 0)])
def test_the_floor_is_a_dashed_line_where_it_leaves_room_for_the_curves(floor, lines):
    runs = build()
    axes = loss_figure(runs.values("val_loss"), floor=floor).axes[0]
    drawn = [line for line in axes.lines if list(line.get_ydata()) == [floor, floor]]
    assert len(drawn) == lines
    assert all(line.get_linestyle() == "--" for line in drawn)
    named = [text.get_text() for text in axes.texts if "floor" in text.get_text()]
    assert named == {2.0: ["floor"], 1e-9: ["floor 1e-09 ↓"], 0.0: ["floor 0 ↓"], None: []}[floor]


def test_training_records_the_loss_above_the_floor(tmp_path, tiny_run, tiny_measure):
    noisy = tiny_run(task=replace(RUN.task, noise=0.5))
    for config, expected in ((tiny_run(), True), (noisy, False)):
        run_group([config], tiny_measure(), tmp_path)
        rows = RunFolder(tmp_path / config.run_id).rows().set_index("step")
        loss, excess = (rows[rows["quantity"] == name]["value"] for name in ("val_loss", "excess"))
        assert len(excess) == (len(loss) if expected else 0)
        if expected:
            pd.testing.assert_series_equal(excess, loss - run_floor(config))


def test_the_loss_above_the_floor_is_measured_at_every_position(tmp_path, tiny_run, tiny_measure):
    # As many sequences as an evaluation takes: the mean over positions is then the excess of the evaluation.
    config, measuring = tiny_run(eval_size=64), tiny_measure(positions=True)
    run_group([config, tiny_run(eval_size=64, seed=1)], measuring, tmp_path)
    rows = RunFolder(tmp_path / config.run_id).rows()
    by_position = rows[rows["quantity"] == "excess_by_position"]
    assert by_position["detail"].unique().tolist() == [f"position {k}" for k in range(1, 9)]
    means = by_position.groupby("step")["value"].mean()
    evaluated = rows[rows["quantity"] == "excess"].set_index("step")["value"]
    assert means.index.tolist() == [0, 6, 12]
    np.testing.assert_allclose(means, evaluated[means.index], atol=1e-6)
    assert ((by_position["low"] < by_position["value"]) & (by_position["value"] < by_position["high"])).all()
    # A zero head says ln V everywhere: what is above the floor is known.
    start = by_position[by_position["step"] == 0]["value"]
    floor = loss_floor(config.task, 64).by_position
    np.testing.assert_allclose(start, np.log(24) - floor, atol=1e-6)
    ends = by_position[by_position["step"] == 0][["low", "high"]].to_numpy()
    entropies = WalkLaw(24).entropies(dataset(config.task).val.tokens[:64, :-1])
    half = student(63) * entropies.std(axis=0, ddof=1) / 8
    np.testing.assert_allclose(ends.T, (np.log(24) - floor) + np.outer([-1, 1], half), atol=1e-6)
    figure = positions_figure(tables.positions(load(tmp_path)))
    assert [ax.get_title(loc="left") for ax in figure.axes] == [f"position {k}" for k in (1, 2, 3, 4, 8)]


def test_positions_of_a_task_without_an_exact_law_are_refused(tiny_run, tiny_measure):
    config = tiny_run(task=replace(RUN.task, noise=0.5))
    with pytest.raises(MeasureError, match="the exact law is that of walks without noise"):
        prepare(tiny_measure(positions=True), config, dataset(config.task))
