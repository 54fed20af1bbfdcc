"""Learning rates by layer: tables of arms at their best base rates, and of shuffles."""

import numpy as np
import pandas as pd
import pytest
from planted_rates import CURVE, OWN, RATES, answers_of, base, farms_row, losses, verdicts
from scipy import stats

from sims.analysis.pruning import COSTS, OPEN, SAVES
from sims.analysis.rates import (
    against_controls,
    against_uniform,
    best_rate,
    by_rate,
    missing_runs,
    shuffle_ranks,
)
from sims.studies import claims as words
from sims.studies.rates.published import _credit


@pytest.mark.slow
def test_without_an_effect_at_most_one_set_of_arms_in_twenty_has_one_that_saves():
    # Curved and flat grids: in a flat one each arm has the luckiest of three rates.
    for curve, size in ((CURVE, 60), ((0.0, 0.0, 0.0), 60)):
        saving = sum(
            SAVES in set(against_uniform(losses(seed=i, curve=curve))["verdict"]) for i in range(size)
        )
        assert saving <= stats.binom.ppf(0.99, size, 0.05)


@pytest.mark.slow
def test_an_effect_of_three_deviations_of_a_pair_saves_with_five_seeds():
    effect = 3 * OWN * 2**0.5
    found = [verdicts(against_uniform(losses({"farms": -effect}, seed=i)))["farms"] for i in range(10)]
    # Its power is 0.92 with four arms: fewer than 6 of 10 have a chance of 0.1 %.
    assert found.count(SAVES) >= 6
    turned = [verdicts(against_uniform(losses({"farms": effect}, seed=i)))["farms"] for i in range(10)]
    assert turned.count(COSTS) >= 6
    assert SAVES not in turned


def test_every_arm_has_its_own_best_rate_and_pairs_are_of_one_seed():
    table = losses({"farms": -0.05}, own=0.0)
    at = (table["arm"] == "farms") & (table["lr"] == 2.0)
    table.loc[at, "loss"] -= 0.2
    row = farms_row(table)
    assert (row["lr"], row["base_lr"], row["edge"], row["base_edge"]) == (2.0, 1.0, "highest", "")
    # Seeds differ by 0.015, and pairs by rounding alone: an interval without width decides nothing.
    assert row["delta"] == pytest.approx(0.03 - 0.25)
    assert row["high"] - row["low"] < 1e-12
    assert row["verdict"] == OPEN
    shifted = table.assign(loss=table["loss"] + 0.01 * table["seed"] * (table["arm"] == "farms"))
    assert verdicts(against_uniform(shifted))["farms"] == SAVES
    assert best_rate(by_rate(table, "uniform", RATES)) == (1.0, "")
    assert best_rate(by_rate(table, "uniform", [2.0])) == (2.0, "only")


def test_arms_lack_a_verdict_with_four_seeds_with_a_rate_missing_and_where_all_runs_diverge():
    effects = {"farms": -1.0}
    assert verdicts(against_uniform(losses(effects)))["farms"] == SAVES
    four = against_uniform(losses(effects, seeds=4)).set_index("arm").loc["farms"]
    assert (four["verdict"], four["reason"][:9]) == (OPEN, "4 of 5 se")
    table = losses(effects)
    lacking = table[~((table["arm"] == "farms") & (table["lr"] == 0.5) & (table["seed"] == 2))]
    own = against_uniform(lacking).set_index("arm").loc["farms"]
    assert (own["seeds"], own["verdict"]) == (4, OPEN)
    table.loc[table["arm"] == "farms", "loss"] = np.inf
    found = against_uniform(table).set_index("arm").loc["farms"]
    assert (found["verdict"], found["reason"]) == (OPEN, "runs of farms diverged at every rate")
    assert (found["edge"], np.isnan(found["lr"]), found["base_lr"]) == ("", True, 1.0)
    table.loc[table["arm"] == "uniform", "loss"] = np.inf
    found = against_uniform(table).set_index("arm")["reason"]
    assert found["farms"] == "runs of farms and of uniform diverged at every rate"
    assert found["alpha"] == "runs of uniform diverged at every rate"
    # One rate that diverges is not the best one.
    table = losses(effects)
    table.loc[(table["arm"] == "farms") & (table["lr"] == 1.0), "loss"] = np.inf
    assert against_uniform(table).set_index("arm").loc["farms", "lr"] != 1.0


def test_p_is_corrected_for_the_number_of_arms():
    table = against_uniform(losses())
    ordered = table.sort_values("p")
    assert (ordered["p_holm"] >= ordered["p"]).all()
    assert ordered["p_holm"].iloc[0] == pytest.approx(min(1.0, 4 * ordered["p"].iloc[0]))


def test_a_score_is_ranked_among_its_own_shuffles():
    (best,) = shuffle_ranks(losses({"farms": -1.0}, draws=10)).to_dict("records")
    assert (best["as_good"], best["draws"], best["p"]) == (0, 10, pytest.approx(1 / 11))
    (alike,) = shuffle_ranks(losses({"farms": 1.0}, draws=10)).to_dict("records")
    assert (alike["as_good"], alike["p"]) == (10, 1.0)


@pytest.mark.slow
def test_without_an_effect_every_rank_is_as_probable_as_another():
    ranks = [
        shuffle_ranks(losses(draws=3, seed=i, arms=("uniform", "farms")))["as_good"].iloc[0]
        for i in range(60)
    ]
    assert stats.chisquare(np.bincount(ranks, minlength=4)).pvalue > 0.001


def test_controls_are_compared_with_the_score_itself():
    found = against_controls(losses({"farms": -0.5, "depth": -0.5, "reversed-farms": 0.5}))
    rows = found.set_index(["arm", "base"])["delta"]
    assert abs(rows["farms", "depth"]) < 0.1
    assert rows["farms", "reversed-farms"] == pytest.approx(-1, abs=0.1)
    assert ("alpha", "reversed-alpha") not in rows


def test_missing_runs_are_named():
    table = losses(draws=10, arms=("uniform", "farms"))
    assert missing_runs(table).empty
    gone = table[~((table["draw"] == 3) & (table["lr"] == 2.0) & (table["seed"] == 4))]
    assert missing_runs(gone).to_dict("records") == [
        {"cell": "rope", "arm": "shuffled-farms", "draw": 3, "lr": 2.0, "seed": 4}
    ]
    few = missing_runs(losses(seeds=3, draws=10, arms=("uniform", "farms")))
    assert set(few["seed"]) == {3, 4}
    assert len(few) == 12 * 3 * 2
    without = missing_runs(losses(arms=("farms",), draws=10))
    assert set(without["arm"]) == {"uniform"}


def test_missing_shuffles_are_counted_by_what_is_there():
    assert missing_runs(losses(draws=range(1, 11), arms=("uniform", "farms"))).empty
    assert missing_runs(losses(draws=range(12), arms=("uniform", "farms"))).empty
    few = missing_runs(losses(draws=range(2, 9), arms=("uniform", "farms")))
    assert set(zip(few["arm"], few["draw"], strict=True)) == {("shuffled-farms", k) for k in (0, 1, 9)}
    # Of a shuffle alone the score is missing too.
    alone = missing_runs(losses(draws=range(3, 4), arms=("uniform",)))
    assert set(alone.loc[alone["arm"] == "farms", "lr"]) == set(RATES)
    assert sorted(set(alone.loc[alone["arm"] == "shuffled-farms", "draw"])) == [0, 1, 2, *range(4, 10)]
    # What shuffles have at other rates the others need too.
    table = losses(draws=10, arms=("uniform", "farms"))
    table.loc[(table["arm"] == "shuffled-farms") & (table["lr"] == 2.0), "lr"] = 4.0
    assert {(r["arm"][:8], r["lr"]) for r in missing_runs(table).to_dict("records")} == {
        ("uniform", 4.0), ("farms", 4.0), ("shuffled", 2.0)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("moved", "counts", "told"),
    [
        ({}, (3, 0), ""),
        (dict(zip(RATES, (50.0, 100.0, 200.0), strict=True)), (0, 3), "at none of its base rates"),
        ({0.5: 50.0}, (2, 1), "shuffles have 2 of 3 rates and 1 rate that the score lacks, so that"),
        ("more", (3, 1), "shuffles have 1 rate that the score lacks, so that"),
    ],
)
def test_a_score_is_credited_only_by_shuffles_at_its_own_base_rates(moved, counts, told, tmp_path):
    table = losses({"farms": -0.5}, draws=10, arms=("uniform", "farms"))
    drawn = table["arm"] == "shuffled-farms"
    if moved == "more":
        # Better than the score where the score has not been.
        more = table[drawn & (table["lr"] == 2.0)].assign(lr=4.0, loss=0.1)
        table = pd.concat([table, more.assign(run=more["run"] + "-more")], ignore_index=True)
    else:
        table.loc[drawn, "lr"] = table.loc[drawn, "lr"].replace(moved)
    (row,) = shuffle_ranks(table).to_dict("records")
    assert (row["rates"], row["other"]) == counts
    assert np.isnan(row["p"]) == (counts[0] == 0)
    answers = answers_of(table, base(), tmp_path)
    credit = _credit(answers, "rope", "farms")
    assert credit.outcome == (words.OPEN if told else words.SHOWN)
    assert answers.credited("rope", "farms") == (not told)
    assert told in credit.reason
    assert "nan" not in f"{credit.here} {credit.reason} {credit.published}"
