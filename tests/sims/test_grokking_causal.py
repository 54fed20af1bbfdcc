"""Causal tests of grokking: which runs, that they equal their twins up to the change, and the command on tiny runs."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from grokking_looks import run

from sims import cli
from sims.runs.store import RunFolder
from sims.studies.grokking import causal_runs
from sims.studies.grokking.causal_page import CausalAnswers, write_causal
from sims.studies.grokking.causal_runs import (
    ARMS,
    AT_ALARM,
    DRIFT,
    EDGE,
    ELSEWHERE,
    EVEN,
    FOR_GOOD,
    OTHERS,
    PULSE,
    RANDOM,
    STEPS,
    UNCHANGED,
    Moments,
    changed,
    changed_measurements,
    moments_of,
    other_times,
    times_of,
    twin_measurements,
    twins,
)
from sims.studies.grokking.measured import looks_of_run
from sims.system.errors import MeasureError
from sims.training.toy_runner import run_group
from toymodel import ModularArithmetic

MOMENTS = Moments(memorised=225, alarm=700, grokked=1_600)


def test_every_seed_has_all_arms():
    (twin,) = twins([3])
    arms = list(changed(twin, MOMENTS))
    assert twin.task == ModularArithmetic(p=47, op="add", seed=3)
    assert (twin.seed, twin.steps, twin.weight_decay) == (3, STEPS, 1.0)
    assert [arm for arm, _ in arms] == [AT_ALARM, *[ELSEWHERE] * OTHERS, FOR_GOOD, EDGE, RANDOM, EVEN, DRIFT]
    assert {UNCHANGED, *dict(arms)} == set(ARMS)
    assert len({config.run_id for _, config in arms} | {twin.run_id}) == 10
    for arm, config in arms:
        assert replace(config, intervention=twin.intervention) == twin
        stop = {AT_ALARM: 700 + PULSE, FOR_GOOD: None}.get(arm, config.intervention.stop)
        assert config.intervention.stop == stop
    assert {c.intervention.start for arm, c in arms if arm in (EDGE, RANDOM, EVEN, DRIFT)} == {325}


def test_other_times_lie_before_grokking_and_belong_to_the_seed():
    drawn = [other_times(seed, MOMENTS) for seed in range(40)]
    assert drawn[0] == other_times(0, MOMENTS)
    steps = [step for own in drawn for step in own]
    assert min(steps) >= MOMENTS.memorised
    assert max(steps) + PULSE <= MOMENTS.grokked
    assert all(len(set(own)) == OTHERS for own in drawn)
    assert len(set(steps)) > 15


def tables():
    """Times of six seeds; the edge and the drift delay by a half, the decay by a tenth."""
    factors = {UNCHANGED: 1.0, EDGE: 1.5, AT_ALARM: 1.1, ELSEWHERE: 1.1, RANDOM: 1.02, EVEN: 1.0, DRIFT: 1.5}
    generator = np.random.default_rng(0)
    rows = [
        {"seed": seed, "arm": arm, "start": 0, "t_mem": 200, "alarm": 700, "reached": True}
        | {"time": (1_000 + 100 * seed) * factor * float(generator.uniform(0.98, 1.02))}
        for seed in range(6)
        for arm, factor in factors.items()
    ]
    never = [dict(rows[0], seed=seed, arm=FOR_GOOD, time=4_000.0, reached=False) for seed in range(6)]
    return pd.DataFrame(rows + never)


def test_the_page_tells_both_verdicts(tmp_path):
    answers = CausalAnswers(tables())
    assert [v.outcome for v in answers.verdicts] == ["not shown", "shown", "not shown"]
    page = write_causal(answers, tmp_path, tmp_path / "page", ["seed 9, unchanged: does not grok"])
    text = page.read_text()
    assert "seed 9, unchanged: does not grok" in text
    assert "0 of 6" in text
    table = pd.read_csv(tmp_path / "page" / "comparisons.csv")
    assert table["ratio"].iloc[1] == pytest.approx(answers.pairs[1].ratio)


@pytest.fixture
def tiny(monkeypatch):
    """Runs of 60 steps, each of which is said to have memorised, raised its alarm and grokked."""
    monkeypatch.setattr(causal_runs, "STEPS", 60)
    monkeypatch.setattr(causal_runs, "PULSE", 10)
    monkeypatch.setattr(causal_runs, "DECIDED_AT", 10)
    small = {"sequences": 100, "accuracy": 5, "defect": 20, "defect_pairs": 2}
    usual = twin_measurements()
    monkeypatch.setattr(causal_runs, "twin_measurements", lambda: replace(usual, every=60, **small))
    monkeypatch.setattr(
        causal_runs, "changed_measurements", lambda: replace(usual, every=60, **{**small, "defect": 0})
    )
    monkeypatch.setattr(causal_runs, "moments_of", lambda twin, out: Moments(5, 20, 60))
    monkeypatch.setattr(causal_runs, "other_times", lambda seed, moments: [30, 35, 40])


@pytest.mark.slow
def test_the_command_trains_twins_and_arms(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = ["grokking", "--causal", "--seeds", "1", "--workers", "1", "--json"]
    assert cli.main(line) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {row["arm"] for row in answer["times"]} == set(ARMS)
    assert [v["outcome"] for v in answer["verdicts"]] == ["not resolved"] * 3
    assert (tmp_path / "grokking-causal" / "page" / "index.html").exists()
    (twin,) = causal_runs.twins([0])
    own = looks_of_run(RunFolder(tmp_path / "grokking-causal" / twin.run_id), twin)
    for arm, config in changed(twin, Moments(5, 20, 60)):
        looks = looks_of_run(RunFolder(tmp_path / "grokking-causal" / config.run_id), config)
        first = config.intervention.start
        same = own["train_loss"] == looks["train_loss"]
        assert same[own["step"] <= first].all(), arm
        late = own["step"] > max(first, causal_runs.STEPS - 10)
        assert not same[late].any(), arm
    # The runs that are there give the same times.
    assert cli.main(["grokking", "--causal", "--runs", "grokking-causal", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["times"] == answer["times"]


def test_a_seed_without_an_alarm_is_left_out(tmp_path):
    (twin,) = [replace(t, steps=60) for t in twins([0])]
    measuring = replace(twin_measurements(), every=60, sequences=100, accuracy=20, defect=20, defect_pairs=2)
    assert run_group([twin], measuring, tmp_path) == {}
    assert moments_of(twin, tmp_path) == "seed 0, unchanged: does not grok"
    with pytest.raises(MeasureError, match=r"unchanged run\); train them with `speclens grokking --causal`"):
        times_of(tmp_path, [0])


def test_a_changed_run_that_diverged_has_no_time(monkeypatch, tmp_path):
    """It would count as one that does not grok within all steps."""
    (twin,) = twins([0])
    broken = dict(changed(twin, MOMENTS))[FOR_GOOD]

    def looks(_, config):
        table = run("one", t_90=None if config == broken else 1_600.0)
        table.loc[table.index[-1], ["train", "test"]] = np.nan if config == broken else 1.0
        return table

    monkeypatch.setattr(causal_runs, "RunFolder", lambda path: SimpleNamespace(path=path, done=True))
    monkeypatch.setattr(causal_runs, "moments_of", lambda *_: MOMENTS)
    monkeypatch.setattr(causal_runs, "looks_of_run", looks)
    times, notes = times_of(tmp_path, [0])
    assert set(times["arm"]) == set(ARMS) - {FOR_GOOD}
    assert times["reached"].all()
    assert notes == [f"seed 0, {FOR_GOOD}: diverged"]


def test_a_copy_of_an_unchanged_run_is_no_other_seed(monkeypatch, tmp_path):
    folders = [SimpleNamespace(spec=own) for own in twins([1, 0, 1])]
    monkeypatch.setattr(causal_runs, "run_folders", lambda out: folders)
    assert causal_runs.seeds_in(tmp_path) == [0, 1]


def test_changed_runs_measure_accuracies_alone():
    measuring = changed_measurements()
    assert (measuring.accuracy, measuring.updates, measuring.defect) == (25, 0, 0)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--causal --network rope", "--causal changes runs of the small network; leave out --network"),
        ("--causal --runs . --seeds 3", "--runs names existing runs"),
        ("--causal --seeds 0", "--seeds is 0"),
    ],
)
def test_impossible_combinations_are_refused(line, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["grokking", *line.split()]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
