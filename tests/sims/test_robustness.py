"""Which conclusions move: the verdicts on constructed cases, and the variations on a hand-made and a trained model."""

import math
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from sims.studies.robustness.measured import RobustnessPlan, occurs_in_training, robustness_report, variations
from sims.studies.robustness.page import write_robustness
from sims.studies.robustness.tables import conclusions, decided, tally, verdict, verdicts
from sims.system.errors import MeasureError
from sims.training.toy_runner import run_group
from spectra import covariance_spectrum, rankme, window_exponent
from toymodel import TaskConfig
from toymodel.data import make_dataset

STAGES = ("baseline", "rope", "muon", "untied")


def records(values, group="reference", variation="reference", quantity="RankMe"):
    """Records of (unit, stage) values."""
    return pd.DataFrame(
        [
            {
                "group": group,
                "variation": variation,
                "unit": u,
                "stage": STAGES[s],
                "quantity": quantity,
                "value": v,
            }
            for (u, s), v in np.ndenumerate(np.asarray(values, dtype=float))
        ]
    )


# --- verdicts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("effect", "low", "high", "p", "sign"),
    [
        (1.0, 0.5, 1.5, math.nan, 1),
        (-1.0, -1.5, -0.5, math.nan, -1),
        (1.0, -0.1, 2.1, math.nan, 0),
        (1.0, 0.0, 2.0, math.nan, 0),
        (1.0, math.nan, math.nan, math.nan, 0),
        (-0.8, math.nan, math.nan, 0.01, -1),
        (0.8, 0.8, 0.8, 0.2, 0),
        (0.0, 0.0, 0.0, 0.01, 0),
        (math.nan, math.nan, math.nan, 0.01, 0),
    ],
)
def test_a_sign_is_decided_by_its_interval_or_its_test(effect, low, high, p, sign):
    assert decided(effect, low, high, p) == sign


@pytest.mark.parametrize(
    ("reference", "varied", "expected"),
    [
        (1, 1, "stays"),
        (-1, -1, "stays"),
        (1, -1, "moves"),
        (-1, 1, "moves"),
        (0, 1, "cannot tell"),
        (1, 0, "cannot tell"),
        (0, 0, "cannot tell"),
    ],
)
def test_a_verdict_needs_both_signs(reference, varied, expected):
    assert verdict(reference, varied) == expected


def test_a_conclusion_stays_moves_or_cannot_be_told_on_constructed_units():
    base = np.array([[1.0, 2.0], [1.1, 2.2], [0.9, 1.8]])
    parts = [
        records(base),
        records(base * 3, "samples", "tripled"),
        records(-base, "samples", "turned"),
        records(base + np.array([[0, -2], [0, 2], [0, -2]]), "samples", "scattered"),
        records(-base[:1], "data seed", "one unit"),
    ]
    judged = verdicts(conclusions(pd.concat(parts)), paired=("samples",)).set_index("variation")
    assert judged["verdict"].to_dict() == {
        "tripled": "stays",
        "turned": "moves",
        "scattered": "cannot tell",
        "one unit": "cannot tell",
    }
    assert judged.loc["tripled", "effect"] == pytest.approx(3 * judged.loc["tripled", "reference"])
    # Same sign, another size: the shift says so, unit by unit.
    assert judged.loc["tripled", "shift"] == pytest.approx(2.0)
    assert judged.loc["tripled", "shift_low"] > 0
    assert math.isnan(judged.loc["one unit", "shift"])
    counted = tally(judged.reset_index()).set_index("variation")
    assert counted.loc["turned", "moves"] == 1
    assert counted.loc["turned", "moved"] == "rope − baseline: RankMe"
    assert (counted["decided"] == 1).all()


def test_the_order_of_losses_against_a_quantity_is_tested_exactly():
    losses = np.array([[4.0, 3, 2, 1], [4.1, 3.1, 2.2, 1.1], [3.9, 3.2, 2.1, 0.9]])
    rising = np.array([[1.0, 2, 3, 4]] * 3)
    mixed_up = np.array([[2.0, 1, 4, 3], [3, 4, 1, 2], [1, 4, 2, 3]])
    parts = [
        records(losses, quantity="loss"),
        records(rising),
        records(-rising, "pooling", "turned"),
        records(mixed_up, "pooling", "shuffled"),
    ]
    judged = verdicts(conclusions(pd.concat(parts)), paired=("pooling",))
    judged = judged[judged["conclusion"] == "RankMe with final loss"].set_index("variation")
    # All three seeds perfectly ordered: 2 of 24³ orders are as extreme.
    assert judged["reference"].to_numpy() == pytest.approx(-1)
    assert judged["reference_p"].to_numpy() == pytest.approx(2 / 24**3)
    assert judged["verdict"].to_dict() == {"turned": "moves", "shuffled": "cannot tell"}
    assert judged.loc["turned", "shift"] == pytest.approx(2)


def test_a_unit_that_does_not_vary_counts_and_one_without_a_loss_does_not():
    losses = np.array([[4.0, 3, 2, 1]] * 4)
    values = np.array([[1.0, 2, 3, 4]] * 3 + [[1.0, 1, 1, 1]])
    found = conclusions(pd.concat([records(losses, quantity="loss"), records(values)]))
    found = found[found["conclusion"] == "RankMe with final loss"]
    assert (found["value"].tolist(), found["p"].max() < 0.01) == ([-1.0, -1.0, -1.0, 0.0], True)
    # Without a loss in one stage there is no order of the stages.
    lost = records(losses, quantity="loss").query("not (unit == 0 and stage == 'untied')")
    found = conclusions(pd.concat([lost, records(values)]))
    assert found.loc[found["conclusion"] == "RankMe with final loss", "unit"].tolist() == [1, 2, 3]


def test_equal_correlations_of_three_seeds_are_no_proof():
    losses = np.array([[4.0, 3, 2, 1]] * 3)
    weak = np.array([[2.0, 1, 4, 3]] * 3)
    parts = [records(losses, quantity="loss"), records(weak), records(weak, "pooling", "same")]
    judged = verdicts(conclusions(pd.concat(parts)), paired=("pooling",))
    row = judged[judged["conclusion"] == "RankMe with final loss"].iloc[0]
    assert row["effect"] != 0
    assert row["p"] > 0.05
    assert row["verdict"] == "cannot tell"


def test_a_variation_with_losses_of_its_own_is_correlated_with_those():
    losses = np.array([[4.0, 3, 2, 1], [4.0, 3.1, 2, 1], [4.0, 3.2, 2, 1]])
    rising = np.array([[1.0, 2, 3, 4]] * 3)
    parts = [
        records(losses, quantity="loss"),
        records(rising),
        records(rising, "validation", "cleaned"),
        records(-losses, "validation", "cleaned", quantity="loss"),
    ]
    judged = verdicts(conclusions(pd.concat(parts)), paired=()).set_index("conclusion")
    assert judged.loc["RankMe with final loss", "verdict"] == "moves"
    assert judged.loc["rope − baseline: loss", "verdict"] == "moves"


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(MeasureError, match="1 stage"):
        conclusions(records(np.ones((3, 1))))
    with pytest.raises(MeasureError, match="measure the reference"):
        verdicts(conclusions(records(np.ones((3, 2)), group="samples")), paired=())


# --- variations --------------------------------------------------------------------------------------------------

TASK = TaskConfig(vocab=24, length=8, train=400, val=128, test=16)
PLAN = RobustnessPlan(
    sequences=128, fewer=(64, 12), window=(2, 6), windows=((1, 4), (2, 20)), poolings=("mean",)
)


class HandMade:
    """Final states of 8 columns that depend on token and position; a sequence's loss is its first token."""

    def activations(self, sequences, sites):
        table = torch.randn(24, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        for batch in sequences.split(50):
            yield {"final": table[batch.long()[:, :-1]] * torch.arange(1, 9).view(1, -1, 1)}

    def losses(self, sequences):
        return sequences[:, :1].double().expand(-1, sequences.shape[1] - 1)


def test_each_variation_is_the_measurement_it_names():
    data = make_dataset(TASK)
    found = pd.DataFrame(variations(HandMade(), data, PLAN)).set_index(["variation", "quantity"])["value"]
    states = torch.cat([a["final"] for a in HandMade().activations(torch.tensor(data.val.tokens), ())])
    seen = {tuple(row) for row in data.train.tokens.tolist()}
    inside = np.array([tuple(row) in seen for row in data.val.tokens.tolist()])
    assert 0 < inside.sum() < 128
    cases = {
        "reference": states[:, -1],
        "n/d = 8": states[:64, -1],
        "n/d = 1.5": states[:12, -1],
        "mean": states.mean(dim=1),
        "in training": states[inside, -1],
        "not in training": states[~inside, -1],
    }
    for name, samples in cases.items():
        spectrum = covariance_spectrum(samples)
        assert found[name, "RankMe"] == pytest.approx(rankme(spectrum))
        assert found[name, "α"] == pytest.approx(window_exponent(spectrum, 2, 6).value)
    first = data.val.tokens[:, 0].astype(float)
    assert found["reference", "loss"] == pytest.approx(first.mean())
    assert found["in training", "loss"] == pytest.approx(first[inside].mean())
    assert found["not in training", "loss"] == pytest.approx(first[~inside].mean())
    # A window says nothing of RankMe, one that does not fit nothing at all, and fewer samples nothing of the loss.
    assert ("ranks 1–4", "α") in found.index
    assert {("ranks 1–4", "RankMe"), ("ranks 2–20", "α"), ("n/d = 8", "loss")}.isdisjoint(found.index)


def test_validation_sequences_of_training_are_those_of_the_stored_overlap():
    data = make_dataset(TASK)
    assert occurs_in_training(data).mean() == pytest.approx(data.overlap)
    clean = make_dataset(replace(TASK, unique_val=True))
    assert not occurs_in_training(clean).any()
    names = {r["variation"] for r in variations(HandMade(), clean, PLAN)}
    assert "not in training" in names
    assert "in training" not in names


def test_more_sequences_than_there_are_is_an_error():
    with pytest.raises(MeasureError, match=r"129 sequences .* 128"):
        list(variations(HandMade(), make_dataset(TASK), replace(PLAN, sequences=129)))


@pytest.mark.slow
def test_folders_of_small_runs_with_other_data(tmp_path, tiny_run, tiny_measure):
    measure = tiny_measure(gradient_sequences=0, causal_sequences=0, training_bands=0)
    plan = replace(PLAN, sequences=64, fewer=(32,))

    def trained(folder, stage, seed, data_seed):
        task = replace(TASK, val=64, seed=data_seed)
        assert not run_group([tiny_run(stage=stage, seed=seed, task=task)], measure, tmp_path / folder)

    for stage in ("rope", "untied"):
        for seed in (0, 1):
            trained("runs", stage, seed, 0)
        trained("other", stage, 0, 1)
        trained("foreign", stage, 7, 1)
    report = robustness_report(tmp_path / "runs", plan, Console(quiet=True), tmp_path / "other")
    values = report.tables["values"]
    other = values[values["group"] == "data seed"]
    assert set(other["variation"]) == {"model seed 0, data seeds 0, 1"}
    # The run with the data of the main folder is the same measurement there and here.
    same = other[other["unit"] == 0].set_index("conclusion")["value"]
    main = values[(values["group"] == "reference") & (values["unit"] == 0)].set_index("conclusion")["value"]
    pd.testing.assert_series_equal(same.sort_index(), main.sort_index())
    assert set(report.figures) == {"robustness"}
    page = write_robustness(report, tmp_path / "runs", tmp_path / "page", [])
    assert page.read_text().count("<figure") == 2
    assert set(report.tables) <= {p.stem for p in page.parent.glob("*.csv")}
    with pytest.raises(MeasureError, match=r"model seeds \[7\]"):
        robustness_report(tmp_path / "runs", plan, Console(quiet=True), tmp_path / "foreign")
    for folder in (tmp_path / "runs").glob("*-s0-*"):
        shutil.copytree(folder, tmp_path / "same" / folder.name)
    with pytest.raises(MeasureError, match=r"another --task\.seed"):
        robustness_report(tmp_path / "runs", plan, Console(quiet=True), tmp_path / "same")
