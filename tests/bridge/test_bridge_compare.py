"""Toy and language models side by side: what made-up runs of known behaviour are said to have in common."""

import math

import pandas as pd
import pytest
from made_up import STAGES, text_runs, toy_runs

from sims import cli
from sims.analysis.layers import depths, early_by_layer, exponents_by_layer
from sims.analysis.runs import load
from sims.studies.carry_over.carry_over import (
    AGREES,
    CANNOT_TELL,
    DISAGREES,
    alone,
    carry_over,
    judge,
    labels,
    seed_stability,
)
from sims.studies.carry_over.questions import Reading, _by_seed, training_changes
from sims.system.errors import MeasureError


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_runs(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return text_runs(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    return text_runs(
        tmp_path_factory.mktemp("single"), stages=("muon",), seeds=(0,), sites=("blocks.0", "final")
    )


@pytest.fixture(scope="module")
def table(toy, text):
    return carry_over(load(toy), load(text))


def row(table, question, what):
    (found,) = table[(table["question"] == question) & (table["what"] == what)].to_dict("records")
    return found


def test_what_both_sides_do_agrees(table):
    gain = row(table, "gain", "rope → muon")
    assert gain["verdict"] == AGREES
    # Half as many tokens again to every loss.
    for side in ("toy", "text"):
        assert gain[f"{side}_value"] == pytest.approx(0.5, abs=0.05)
        assert 0 < gain[f"{side}_low"] < gain[f"{side}_value"] < gain[f"{side}_high"]
    assert row(table, "α at equal loss", "rope → muon")["verdict"] == AGREES
    assert row(table, "α at equal loss", "rope → muon")["text_value"] == pytest.approx(-0.3, abs=0.05)
    # The exponent falls with the loss.
    assert row(table, "α over training", "rope")["verdict"] == AGREES
    assert row(table, "α over training", "rope")["text_value"] > 0


def test_what_they_do_not_do_cannot_be_told(table):
    # Gradients are the same but for noise, in both.
    assert row(table, "gradients", "rope → muon")["verdict"] == CANNOT_TELL
    assert "the interval holds 0" in row(table, "gradients", "rope → muon")["reason"]
    tail = row(table, "tail", "rope")
    assert (tail["verdict"], "language model: the trend of stage" in tail["reason"]) == (CANNOT_TELL, True)


@pytest.mark.slow
def test_the_opposite_disagrees(toy, tmp_path):
    slow = carry_over(load(toy), load(text_runs(tmp_path, gain=0.6)))
    gain = row(slow, "gain", "rope → muon")
    assert gain["verdict"] == DISAGREES
    assert gain["reason"] == "toy: yes; language model: no, below 0"
    assert gain["text_high"] < 0


def test_families_stand_against_their_null(table):
    week, digits = (row(table, "concentration", f"embed: {name}") for name in ("weekdays", "digits"))
    assert (week["verdict"], digits["verdict"]) == (AGREES, DISAGREES)
    assert week["text_value"] == pytest.approx(0.15, abs=0.01)
    # The toy's bands stand beside every family.
    assert week["toy_value"] == digits["toy_value"] == pytest.approx(0.15, abs=0.01)


def test_a_single_run_says_what_it_can_and_no_more(toy, single):
    assert alone(load(single))
    found = carry_over(load(toy), load(single))
    told = found[found["verdict"] != CANNOT_TELL]
    assert list(told["what"]) == ["embed: weekdays"]
    week = told.iloc[0]
    assert (week["verdict"], math.isinf(week["text_high"]), week["text_seeds"]) == (AGREES, True, 1)
    # Its own level of chance is no proof of the contrary.
    assert "within the null law of this run" in row(found, "concentration", "embed: digits")["reason"]
    gain = row(found, "gain", "rope → muon")
    assert "a transition needs two stages; these runs have muon only" in gain["reason"]
    alpha = row(found, "α over training", "muon")
    assert "it falls in this run; other seeds are not known" in alpha["reason"]
    assert math.isnan(alpha["text_low"])
    assert row(found, "α over training", "rope")["reason"] == "language model: no such run"


def test_a_stage_of_another_name_stands_beside_the_mean_of_the_toy(toy, tmp_path):
    folder = text_runs(tmp_path, stages=("muon",), seeds=(0, 1, 2))
    runs = load(folder)
    for name in ("runs", "rows", "spectra"):
        getattr(runs, name)["stage"] = "other"
    found = carry_over(load(toy), runs)
    other = row(found, "α over training", "other")
    assert other["verdict"] == AGREES
    changes = training_changes(load(toy), "alpha", "10-40").groupby("seed")["change"].mean()
    assert other["toy_value"] == pytest.approx(-changes.mean())


def test_a_mean_over_stages_counts_the_seeds_that_have_all_of_them():
    """Changes of 1 in one stage and 9 in the other: seed 2, which has the first alone, would have a mean of 1."""
    rows = [("a", s, 1.0 + 0.1 * s) for s in (0, 1, 2)] + [("b", s, 9.0) for s in (0, 1)]
    table = pd.DataFrame(rows, columns=["stage", "seed", "change"]).assign(batch_size=8)
    found = _by_seed(table, "change").set_index("seed")["change"]
    assert found.to_dict() == pytest.approx({0: 5.0, 1: 5.05})
    assert _by_seed(table[(table["stage"] == "b") | (table["seed"] == 2)], "change").empty


def test_labels_and_seed_stability(toy, text):
    (label,) = labels(load(toy), load(text)).to_dict("records")
    assert label["transition"] == "rope → muon"
    assert label["toy_outcome"] == label["text_outcome"] == "learning"
    stability = seed_stability(load(text))
    assert list(stability["seeds"]) == [3, 3]
    assert (stability["js"] > 0).all()
    # What seeds differ by here is less than what sampling alone would give.
    assert (stability["sampling_floor"] > 0).all()


@pytest.mark.parametrize(
    ("toy_bounds", "text_bounds", "verdict"),
    [
        ((1, 2), (3, 4), AGREES),
        ((-2, -1), (-4, -3), AGREES),
        ((1, 2), (-4, -3), DISAGREES),
        ((-1, 2), (3, 4), CANNOT_TELL),
        ((1, 2), (-3, 4), CANNOT_TELL),
        ((1, 2), (math.nan, math.nan), CANNOT_TELL),
    ],
)
def test_verdicts(toy_bounds, text_bounds, verdict):
    said, reason = judge(Reading(1.0, *toy_bounds, 3), Reading(1.0, *text_bounds, 1))
    assert said == verdict
    assert reason
    if math.isnan(text_bounds[0]):
        assert reason == "language model: 1 run of a cell, so no interval over seeds"


def test_layers(single, tmp_path):
    layers = exponents_by_layer(load(single))
    assert set(layers["site"]) == {"blocks.0", "final"}
    deeper = layers.groupby("site")["value"].mean()
    assert deeper["final"] - deeper["blocks.0"] == pytest.approx(0.05, abs=0.02)
    own = depths(["embed", "blocks.0", "blocks.6", "blocks.11", "final"]).set_index("site")["depth"]
    assert own.is_monotonic_increasing
    assert (own["embed"], own["final"]) == (0.0, 1.0)
    with pytest.raises(MeasureError, match="needs ≥ 3 batch sizes"):
        early_by_layer(load(single))
    folder = text_runs(tmp_path, sizes=(4, 8, 16, 32), seeds=(0,), sites=("blocks.0", "final"), lr=1e-3)
    early = early_by_layer(load(folder))
    assert set(early["site"]) == {"blocks.0", "final"}
    assert set(early["stage"]) == set(STAGES)
    # More tokens a step, more tokens to the loss: the batch size itself predicts perfectly.
    assert (early["rho_size"] == 1).all()


@pytest.mark.slow
def test_the_page(toy, single, tmp_path, capsys):
    page = tmp_path / "carry-over.html"
    assert cli.main(["bridge", "compare", str(toy), str(single), "--out", str(page)]) == 0
    said = capsys.readouterr()
    assert "gain\trope → muon\tcannot tell\t" in said.out
    html = page.read_text()
    assert html.count("<figure") == 5
    # Self-contained: nothing is fetched.
    assert not any(
        fetched in html for fetched in ("<script", "<link", "<img", "<iframe", "@import", "url(http")
    )
    assert "The language model has one run of each cell." in html
    assert "Seen in this run" in html
    written = {p.name for p in (tmp_path / "carry-over").iterdir()}
    assert {
        "answers.csv",
        "answers.svg",
        "answers.png",
        "layers.csv",
        "families.csv",
        "taxonomy.csv",
    } <= written
    answers = pd.read_csv(tmp_path / "carry-over" / "answers.csv")
    assert set(answers["verdict"]) <= {AGREES, DISAGREES, CANNOT_TELL}
    assert cli.main(["bridge", "compare", str(toy), str(tmp_path / "none")]) == 2
    assert cli.main(["bridge", "compare", str(toy), str(single), "--out", "page.txt"]) == 2
    assert "name an .html file" in capsys.readouterr().err
