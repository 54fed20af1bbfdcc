"""Runs with and without a bias of the logits: the mean state, RankMe and what T15 says of them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sims.analysis.intercept import intercepts
from sims.analysis.runs import Runs
from sims.runs.columns import WHICH
from sims.system.errors import MeasureError

LOOKS = 12
UP = np.linspace(2.0, 8.0, 8)


def curves(bias, seed, falls):
    """RankMe, that of the second moment, and the share of the mean state at looks."""
    noise = 0.02 * np.random.default_rng([seed, bias]).standard_normal((3, LOOKS))
    end = np.linspace(8.0, 8.0 * (1 - falls), 5)[1:]
    level = np.linspace(8.0, 8.4, 5)[1:]
    return {
        "rankme": np.concatenate([UP, end]) + noise[0],
        "rankme_uncentred": np.concatenate([UP, level]) + 0.1 * noise[1],
        "mean_share": (0.1 if bias else 0.5) + noise[2],
    }


def made(bias, seeds=3, falls=0.2, leave_out=(), more=None):
    """Runs of one stage with or without a bias; the look at the start is far from all others."""
    runs, rows, configs = [], [], {}
    for seed in range(seeds):
        label = {"run_id": f"rope-{bias}-{seed}", "stage": "rope", "batch_size": 32, "lr": 1e-3, "seed": seed}
        runs.append({**label, "ended": "finished", "step": LOOKS, "tokens": 1e6, "val_loss": 3.0})
        configs[label["run_id"]] = {"stage": "rope", "seed": seed, **(more or {})}
        if bias:
            configs[label["run_id"]]["logit_bias"] = True
        for quantity, path in curves(bias, seed, falls).items():
            if quantity in leave_out:
                continue
            for step, value in enumerate([60.0, *path]):
                where = {**label, "step": step, "tokens": step * 1e4, "object": "activation", "site": "final"}
                which = dict.fromkeys(WHICH, "")
                rows.append({**where, **which, "quantity": quantity, "value": value, "status": "ok"})
    return Runs(pd.DataFrame(runs), pd.DataFrame(rows), pd.DataFrame({"run_id": []}), (), configs=configs)


def test_a_planted_intercept_is_found_and_the_table_has_every_number():
    found = intercepts(made(False), made(True, falls=0.0))
    cells = {(own["logit_bias"], own["quantity"]): own for own in found.cells.to_dict("records")}
    assert cells[False, "mean_share"]["mean"] == pytest.approx(0.5, abs=0.05)
    assert cells[False, "fall of rankme"]["mean"] == pytest.approx(0.2, abs=0.02)
    assert cells[True, "fall of rankme"]["mean"] < 0.02
    assert [own["seeds"] for own in cells.values()] == [3] * 10
    pairs = {own["quantity"]: own for own in found.pairs.to_dict("records")}
    assert pairs["mean_share"]["low"] > 0.3
    assert pairs["fall of rankme"]["low"] > 0.1
    by_hand = [
        a - b
        for a, b in zip(
            *(
                found.runs.query(f"quantity == 'mean_share' and logit_bias == {b}")["value"]
                for b in (False, True)
            ),
            strict=True,
        )
    ]
    assert pairs["mean_share"]["mean"] == pytest.approx(np.mean(by_hand))
    assert [v.outcome for v in found.verdicts["rope", 32]] == ["shown"] * 4


def test_equal_arms_a_reversed_one_and_few_seeds_are_told_apart():
    equal = intercepts(made(False, falls=0.0), made(True, falls=0.0)).verdicts["rope", 32]
    assert equal[1].outcome == "not resolved"
    turned = intercepts(made(False, falls=0.0), made(True, falls=0.2)).verdicts["rope", 32]
    assert turned[1].outcome == "not shown"
    few = intercepts(made(False, seeds=2), made(True, seeds=2)).verdicts["rope", 32]
    assert {v.outcome for v in few} == {"not resolved"}
    assert "2 pairs, of 3" in few[0].reason


def test_a_path_that_falls_to_its_end_has_no_maximum_to_fall_from():
    def falling(own):
        there = own.rows["quantity"].str.startswith("rankme") & (own.rows["step"] > 0)
        return replace(
            own, rows=own.rows.assign(value=own.rows["value"].where(~there, 20.0 - own.rows["step"]))
        )

    found = intercepts(falling(made(False)), falling(made(True)))
    assert not found.runs["quantity"].str.startswith("fall").any()
    assert [v.outcome for v in found.verdicts["rope", 32]] == ["shown", *["not resolved"] * 3]
    assert "0 seeds, of 3" in found.verdicts["rope", 32][2].reason
    # One that rises to its end has its maximum there, and does not fall.
    assert intercepts(made(False, falls=0.0), made(True)).verdicts["rope", 32][2].outcome == "shown"


def test_what_was_not_measured_is_not_resolved():
    without = ("rankme_uncentred",)
    found = intercepts(made(False, leave_out=without), made(True, leave_out=without))
    assert "rankme_uncentred" not in set(found.cells["quantity"])
    assert [v.outcome for v in found.verdicts["rope", 32]][2:] == ["not resolved"] * 2


def test_runs_that_cannot_be_compared_are_refused():
    with pytest.raises(MeasureError, match="no run with a bias"):
        intercepts(made(False))
    with pytest.raises(MeasureError, match="no run without a bias"):
        intercepts(made(True))
    with pytest.raises(MeasureError, match="differ in tier beside the bias"):
        intercepts(made(False, more={"tier": "tiny"}), made(True, more={"tier": "narrow8"}))
    with pytest.raises(MeasureError, match="was not measured after the start"):
        intercepts(made(False, leave_out=("mean_share",)), made(True, leave_out=("mean_share",)))
    other = made(True)
    shifted = replace(
        other,
        runs=other.runs.assign(seed=other.runs["seed"] + 7),
        rows=other.rows.assign(seed=other.rows["seed"] + 7),
    )
    with pytest.raises(MeasureError, match="stage, batch size and seed of one without"):
        intercepts(made(False), shifted)
    with pytest.raises(MeasureError, match="several runs have one stage"):
        intercepts(made(False), made(True), made(True, seeds=1))


def test_intervals_stay_within_what_a_share_can_be():
    """Shares of three seeds near 1 and near 0 have their intervals there, and so has their difference."""
    sets, near = [], {False: (0.99, 0.95, 0.9999), True: (0.001, 0.02, 0.0005)}
    for bias, shares in near.items():
        own = made(bias)
        is_share = own.rows["quantity"] == "mean_share"
        value = own.rows["seed"].map(dict(enumerate(shares)))
        sets.append(replace(own, rows=own.rows.assign(value=own.rows["value"].where(~is_share, value))))
    found = intercepts(*sets)
    cells = found.cells.assign(top=np.where(found.cells["quantity"].str.startswith("rankme"), np.inf, 1.0))
    assert ((cells["low"] >= 0) & (cells["low"] <= cells["high"]) & (cells["high"] <= cells["top"])).all()
    pair = found.pairs.set_index("quantity").loc["mean_share"]
    assert 0.8 < pair["low"] < pair["high"] <= 1.0
