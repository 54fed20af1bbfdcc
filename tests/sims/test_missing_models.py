"""Models, sequences, matrices and labels that are missing favour no score and vanish from no table."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from constructed import build
from hypothesis import given, settings
from hypothesis import strategies as st

from sims.analysis.alarms import outcomes
from sims.analysis.arms import arm_ratio
from sims.analysis.cells import keep
from sims.analysis.concentration import trajectories
from sims.analysis.edge_runs import edge_mode, edge_runs
from sims.analysis.gap_decline import gap_decline
from sims.analysis.lags import lag_couplings
from sims.analysis.layers import depth_differences, layer_ends
from sims.analysis.pass_at_k import pass_at_k
from sims.analysis.pruning import differences, shuffle_ranks
from sims.analysis.ranges import SHARE
from sims.analysis.rates import spread_changes, spreads
from sims.analysis.slots import slot_table
from sims.analysis.taxonomy import taxonomy
from sims.studies.paper.concentration import _over_bands, _rise_and_fall
from sims.studies.pruning.answers import _rank
from sims.system.errors import MeasureError
from tests.sims.grokking_looks import run

CELL = {"method": "wanda", "sparsity": 0.5, "unit": "block"}
LEVEL = {"a": 2.0, "b": 4.0}


def losses(by, draw, deltas, models=("a", "b"), sequences=3):
    """Losses of one allocation: those of its models and sequences, and what it adds to them."""
    return [
        {**CELL, "model": m, "by": by, "draw": draw, "sequence": s, "loss": LEVEL[m] + 0.1 * s + deltas}
        for m in models
        for s in range(sequences)
    ]


# --- shuffles -----------------------------------------------------------------------------------------------------


def test_shuffles_on_the_harder_model_alone_do_not_credit_a_score():
    drawn = [row for d in range(19) for row in losses("shuffled-farms", d, -0.01, models=("b",))]
    (row,) = shuffle_ranks(pd.DataFrame([*losses("farms", 0, 0.0), *drawn]), "shuffled-").to_dict("records")
    # All of them are cheaper on the model that they were tried on.
    assert (row["p"], row["shuffles"], row["models"], row["loss"]) == (1.0, 19, 1, pytest.approx(4.1))
    assert row["shuffled"] == pytest.approx(4.09)
    (row,) = shuffle_ranks(
        pd.DataFrame([*losses("farms", 0, 0.0, models=("a",)), *drawn]), "shuffled-"
    ).to_dict("records")
    assert (row["models"], math.isnan(row["p"])) == (0, True)
    assert _rank({**row, "distinct": 19}) == "its 19 shuffles have no model and sequence in common with it"


@settings(max_examples=8, deadline=None)
@given(st.lists(st.sampled_from([-0.1, 0.0, 0.1]), min_size=1, max_size=6), st.data())
def test_the_rank_of_a_score_does_not_depend_on_what_is_missing(deltas, data):
    """Differences are equal on every model and sequence, so that any common part gives the same rank."""
    rows = losses("farms", 0, 0.0) + [
        r for d, delta in enumerate(deltas) for r in losses("shuffled-farms", d, delta)
    ]
    lost = data.draw(st.sets(st.integers(0, len(rows) - 1), max_size=3))
    table = pd.DataFrame(rows)
    table["loss"] = table["loss"].mask(table.index.isin(lost))
    (row,) = shuffle_ranks(table, "shuffled-").to_dict("records")
    if row["models"]:
        assert row["p"] == (1 + sum(d <= 0 for d in deltas)) / (1 + len(deltas))
    else:
        assert math.isnan(row["p"])


def test_draws_are_averaged_over_the_sequences_that_all_have():
    drawn = losses("shuffled-farms", 0, 0.0, models=("a",)) + losses("shuffled-farms", 1, 1.0, ("a",), 2)
    (row,) = differences(pd.DataFrame([*losses("uniform", 0, 0.0, models=("a",)), *drawn])).to_dict("records")
    assert (row["delta"], row["sequences"]) == (pytest.approx(0.5), 2)


# --- matrices, layers and batch sizes -----------------------------------------------------------------------------


def test_slots_and_noise_are_of_the_same_models_and_matrices():
    def scores(values, **own):
        names = [f"blocks.{b}.attn.{s}" for b in range(2) for s in "qo"]
        return [{"by": "farms", "name": n, "score": v, **own} for n, v in zip(names, values, strict=True)]

    # Between slots alone in model a, between blocks alone in model b, which has no noise in draw 1.
    own = pd.DataFrame([*scores([1, 2, 1, 2], model="a"), *scores([1, 1, 2, 2], model="b")])
    noise = [*scores([1, 2, 1, 2], model="a", draw=0), *scores([1, 2, 1, 2], model="a", draw=1)]
    found = slot_table(own, pd.DataFrame([*noise, *scores([1, 1, 2, 2], model="b", draw=0)]))
    assert found[["models", "share", "noise", "noise_low"]].to_numpy().tolist() == [
        [1, 1.0, 1.0, 1.0], [1, 0.0, 0.0, 0.0]
    ]  # fmt: skip
    # A matrix without a score is left out of its noise too.
    own = pd.DataFrame(scores([1, 2, 1, np.nan], model="a"))
    found = slot_table(own, pd.DataFrame(scores([1, 2, 1, 9], model="a", draw=0)))
    assert found["noise"].to_numpy() == pytest.approx(found["share"].to_numpy())
    assert slot_table(own, pd.DataFrame(scores([1, 2, 1, 2], model="c", draw=0))).empty
    # Nor has a model whose scores are all equal a share, so that its noise counts no more.
    own = pd.DataFrame([*scores([1, 2, 1, 2], model="a"), *scores([3, 3, 3, 3], model="b")])
    noise = pd.DataFrame([*scores([1, 2, 1, 2], model="a", draw=0), *scores([1, 1, 2, 2], model="b", draw=0)])
    found = slot_table(own, noise)
    assert found[["models", "share", "noise"]].to_numpy().tolist() == [[1, 1.0, 1.0], [1, 0.0, 0.0]]
    assert slot_table(own[own["model"] == "b"], noise).empty


def test_spreads_of_exponents_are_over_the_matrices_of_all_arms():
    def exponents(arm, values):
        head = {"cell": "c", "arm": arm, "seed": 0, "when": "end", "quantity": "hill"}
        return [{**head, "matrix": f"m{i}", "block": i, "value": v} for i, v in enumerate(values)]

    table = spreads(
        pd.DataFrame([*exponents("uniform", [1, 2, 3, 9]), *exponents("farms", [1, 2, 3, np.nan])])
    )
    assert (table["matrices"].tolist(), spread_changes(table)["mean"].tolist()) == ([3, 3], [0.0])


def test_ends_of_layers_are_means_over_equal_batch_sizes():
    rows = [
        {"stage": "a", "site": "final", "depth": 1.0, "seed": s, "batch_size": b, "share": share, "value": b}
        for s, b in ((0, 32), (0, 128), (1, 32), (1, 128), (2, 128))
        for share in (0.1, 1.0)
    ]
    found = layer_ends(pd.DataFrame(rows))
    assert (found["seed"].tolist(), found["last"].tolist()) == ([0, 1], [80.0, 80.0])


def test_the_deepest_site_is_compared_at_a_moment_at_which_the_shallowest_has_a_value_too():
    """Two sites stand at one depth; the shallowest was not fitted at the end, and one seed lacks a batch size."""
    rows = [
        {
            "stage": "a",
            "site": site,
            "depth": depth,
            "seed": s,
            "batch_size": b,
            "share": share,
            "value": v * share,
        }
        for s, b in ((0, 32), (0, 128), (1, 32), (1, 128), (2, 128))
        for site, depth, v in (("embed", 0.0, 1), ("middle", 1.0, 7), ("final", 1.0, 2 + s + b))
        for share in (0.5, 1.0)
        if (site, share) != ("embed", 1.0)
    ]
    found = depth_differences(pd.DataFrame(rows))
    assert found.to_dict("list") == {
        "stage": ["a", "a"], "seed": [0, 1], "share": [0.5, 0.5], "value": [40.5, 41.0],
    }  # fmt: skip
    one = [row for row in rows if row["site"] == "final"]
    assert depth_differences(pd.DataFrame(one)).empty


def test_rise_and_fall_are_means_over_equal_batch_sizes():
    """H_peak stands higher at B = 512, which two of three seeds lack."""
    runs = build(("untied",), (32, 512), peak=lambda stage, size, seed, loss: size / 1000 + 0.01 * (4 - loss))
    some = keep(runs, [run for run in runs.runs["run_id"] if run not in ("untied-512-1", "untied-512-2")])
    names = ["start", "top", "end", "excess"]
    whole, part = (
        _rise_and_fall(_over_bands(trajectories(own)), lambda name: SHARE.change) for own in (runs, some)
    )
    assert part[names].to_numpy() == pytest.approx(whole[names].to_numpy())
    assert (part["n"].tolist(), whole["n"].tolist()) == ([1, 1], [3, 3])


def test_the_lead_of_one_kind_of_spectrum_is_read_at_the_batch_sizes_of_both():
    """At B = 128 activations move more; gradients were measured at B = 32 alone."""

    def alike(stage, size, seed, loss):
        return 1.0 + (0.1 + 0.4 * (size == 128)) * stage + 0.02 * (seed**2)

    runs = build(("rope", "muon"), alpha=alike, gradient=alike, points=4)
    rare = runs.spectra[(runs.spectra["object"] != "gradient") | (runs.spectra["batch_size"] == 32)]
    (row,) = taxonomy(replace(runs, spectra=rare)).to_dict("records")
    (one,) = taxonomy(build(("rope", "muon"), (32,), alpha=alike, gradient=alike, points=4)).to_dict(
        "records"
    )
    assert row["lead"] == pytest.approx(one["lead"])
    assert row["gradient"] == pytest.approx(one["gradient"])
    assert row["activation"] > one["activation"] + 0.5


# --- labels and counts --------------------------------------------------------------------------------------------

WINDOWS = pd.DataFrame({"run": "r", "seed": 0.0, "step": 10.0 * np.arange(20), "p": 0.5, "k": 2})
TIMES = pd.DataFrame({"seed": [0.0, 1, 0, 1], "arm": ["a", "a", "b", "b"], "time": 9.0, "reached": True})


@pytest.mark.parametrize(
    ("call", "table", "column"),
    [
        (outcomes, run("late", t_90=1_500.0), "run"),
        (outcomes, run("late", t_90=1_500.0), "step"),
        (lambda t: edge_runs(t, span=30), WINDOWS, "run"),
        (lambda t: edge_mode(t, span=30), WINDOWS, "seed"),
        (lambda t: gap_decline(t), WINDOWS.assign(kind="groks", t_90=90.0, g23=1.0), "run"),
        (lag_couplings, WINDOWS.assign(window=4, value=1.0, loss=1.0), "seed"),
        (lambda t: arm_ratio(t, "a", "b"), TIMES, "seed"),
    ],
)
def test_rows_without_a_label_are_refused_and_not_lost(call, table, column):
    lost = table.reset_index(drop=True).astype({column: object})
    lost.loc[0, column] = None
    with pytest.raises(
        MeasureError, match=f"1 of {len(table)} rows have no {column}; give each row its {column}"
    ):
        call(lost)


@pytest.mark.parametrize(
    ("right", "samples", "ks", "told"),
    [
        ([0.5, 0.75, 1.9], 4, [1], r"right has 0\.5; give a whole number of right samples, not shares"),
        ([1.0, math.nan], 4, [1], "right has nan; .* multiply shares by the number of samples"),
        ([math.inf], 4, [1], "right has inf"),
        ([1], 4, [1.7], r"k has 1\.7; give a whole number of samples, from 1 to 4"),
        ([1], 4.5, [1], r"samples has 4\.5"),
    ],
)
def test_counts_that_are_not_whole_are_refused(right, samples, ks, told):
    with pytest.raises(MeasureError, match=told):
        pass_at_k(right, samples, ks)
    assert pass_at_k([1.0, 2.0], 4, [1]).tolist() == [[0.25], [0.5]]
