"""Gains and divergences at matched losses as the published tables took them, against loops over plain numbers."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from constructed import POINTS, build, power_law
from hypothesis import given
from hypothesis import strategies as st

from sims.analysis.at_steps import transition_divergence
from sims.analysis.cells import keep
from sims.studies.paper.matching import LEVELS, matched_batches, matched_losses, matched_transitions, nearest
from spectra import js_divergence

LOSSES = st.lists(st.floats(0, 8), min_size=1, max_size=12).map(np.array)
PAIR = [("rope", "muon")]


def slow_levels(tables):
    low, high = max(min(t) for t in tables), min(max(t) for t in tables)
    inside = sorted(x for t in tables for x in t if low <= x <= high)
    found = []
    for k in range(LEVELS) if inside else ():
        at = k / (LEVELS - 1) * (len(inside) - 1)
        below = inside[int(at)]
        found.append(below + (at - int(at)) * (inside[min(int(at) + 1, len(inside) - 1)] - below))
    return found


@given(st.lists(LOSSES, min_size=2, max_size=4))
def test_levels_are_quartiles_of_what_was_measured_within_the_common_range(tables):
    levels = matched_losses(tables)
    assert levels == pytest.approx(np.unique(slow_levels([t.tolist() for t in tables])), abs=1e-12)
    assert np.array_equal(levels, matched_losses(tables[::-1]))
    for own in tables if len(levels) else ():
        chosen = own[nearest(own, levels)]
        assert (np.abs(chosen - levels)[:, None] <= np.abs(own - levels[:, None])).all()


def rows_of(runs, stage, size, seed, every):
    """Loss, tokens and spectrum at the multiples of a number of steps and at the end."""
    spectra = runs.spectra[runs.spectra["run_id"] == f"{stage}-{size}-{seed}"]
    losses = runs.rows[
        (runs.rows["run_id"] == f"{stage}-{size}-{seed}") & (runs.rows["quantity"] == "val_loss")
    ]
    loss = dict(zip(losses["step"], losses["value"], strict=True))
    return [
        (loss[r["step"]], r["tokens"], r["values"])
        for r in spectra.to_dict("records")
        if r["step"] % every == 0 or r["step"] == POINTS - 1
    ]


def at(rows, level):
    return min(rows, key=lambda row: abs(row[0] - level))


def runs_of(seeds=(0, 1, 2)):
    return build(
        seeds=seeds,
        rate=lambda stage, size, seed: (1.0, 1.3, 2.9)[stage] + 0.1 * seed + size / 500,
        alpha=lambda stage, size, seed, loss: 1 + 0.2 * stage + 0.05 * loss * seed + size / 300,
    )


@pytest.mark.parametrize("every", [1, 3])
def test_transitions_are_those_of_plain_loops(every):
    runs = runs_of()
    gains, divergences = (table.iloc[0] for table in matched_transitions(runs, PAIR, every))
    by_seed = []
    for seed in (0, 1, 2):
        gain, js = [], []
        for size in (32, 128):
            one, other = (rows_of(runs, stage, size, seed, every) for stage in ("rope", "muon"))
            levels = sorted(set(slow_levels([[r[0] for r in one], [r[0] for r in other]])))
            found = [(at(one, level), at(other, level)) for level in levels]
            js.append(np.mean([js_divergence(a[2], b[2]) for a, b in found]))
            gain.append(np.mean([a[1] / b[1] - 1 for a, b in found if a[1] and b[1]]))
        by_seed.append((np.mean(gain), np.mean(js)))
    assert (gains["n"], divergences["n"]) == (3, 3)
    assert (gains["mean"], divergences["mean"]) == pytest.approx(np.mean(by_seed, axis=0), rel=1e-9)
    assert gains["low"] <= gains["mean"] <= gains["high"]
    assert 0 <= divergences["low"] < divergences["mean"] < divergences["high"] <= math.log(2)


def test_batches_are_those_of_plain_loops():
    runs = runs_of()
    table = matched_batches(runs, 3).set_index(["stage", "small", "large"])
    assert len(table) == 3
    for stage in ("baseline", "rope", "muon"):
        found = []
        for seed in (0, 1, 2):
            one, other = (rows_of(runs, stage, size, seed, 3) for size in (32, 128))
            levels = sorted(set(slow_levels([[r[0] for r in one], [r[0] for r in other]])))
            found.append(np.mean([js_divergence(at(one, x)[2], at(other, x)[2]) for x in levels]))
        assert table.loc[(stage, 32, 128), "mean"] == pytest.approx(np.mean(found), rel=1e-9)


def test_seeds_that_lack_a_batch_size_are_not_read_at_other_losses():
    runs = build(
        ("rope",),
        (32, 64, 128),
        rate=lambda stage, size, seed: 1 + size / 99 + 0.1 * seed,
        alpha=lambda stage, size, seed, loss: 1 + 0.1 * loss + size / 300,
    )
    whole = [run for run in runs.runs["run_id"] if not run.endswith("-2")]
    some = matched_batches(keep(runs, [*whole, "rope-32-2", "rope-64-2"]), 1)
    pd.testing.assert_frame_equal(some, matched_batches(keep(runs, whole), 1))
    assert (some["n"] == 2).all()


def test_a_run_without_spectra_is_named():
    runs = runs_of()
    thinned = replace(runs, spectra=runs.spectra[runs.spectra["run_id"] != "muon-128-1"])
    for table in matched_transitions(thinned, PAIR, 1):
        assert table["reason"].item() == "B = 128: no spectrum of muon-128-1 is stored"


def test_the_untrained_model_is_one_of_five_and_our_own_comparison_leaves_it_out():
    """Stages that differ before training alone: a fifth of that divergence, and none."""
    runs = build(
        ("rope", "muon"), alpha=lambda stage, size, seed, loss: 1.0 + stage * (loss == 4), sizes=(32,)
    )
    (divergence,) = matched_transitions(runs, PAIR, 1)[1].to_dict("records")
    apart = js_divergence(power_law(1.0), power_law(2.0))
    assert divergence["mean"] == pytest.approx(apart / LEVELS)
    (own,) = transition_divergence(runs).to_dict("records")
    assert own["js"] == pytest.approx(0, abs=1e-12)


def test_equal_runs_gain_nothing_and_runs_without_losses_in_common_say_so():
    gains, divergences = matched_transitions(build(("rope", "muon")), PAIR, 1)
    assert (gains["mean"].item(), divergences["mean"].item()) == (0, 0)
    runs = build(("rope", "muon"))
    later = (runs.rows["stage"] == "muon") & (runs.rows["quantity"] == "val_loss")
    runs.rows.loc[later, "value"] -= 2.0
    for table in matched_transitions(runs, PAIR, 1):
        assert table["mean"].isna().all()
        assert table["reason"].item().startswith("B = 32: no losses in common")
