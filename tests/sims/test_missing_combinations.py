"""Runs, seeds, bands and looks that are missing change no mean: what is compared is what all sides have."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from constructed import build
from hypothesis import given, settings
from hypothesis import strategies as st

from sims.analysis.at_steps import concentration_at_steps
from sims.analysis.cells import best_rates, crossing, keep, tokens_to
from sims.analysis.compare import compare
from sims.analysis.concentration import concentration_changes
from sims.analysis.layers import early_by_layer
from sims.analysis.paired import compare_stages
from sims.analysis.prediction import token_inefficiency
from sims.analysis.resampling import seed_bootstrap
from sims.analysis.runs import Runs
from sims.analysis.stages import outcome_table
from sims.analysis.taxonomy import taxonomy
from sims.system.errors import MeasureError

STAGES, SIZES, SEEDS = ("baseline", "rope"), (32, 128), (0, 1, 2)
PROBED = ("h_peak", "h_s")
# Of an even modulus, whose H_peak can be any share.
BANDS = A, B, C = "30:1", "30:2", "30:4"
LEVELS = {A: 0.1, B: 0.5, C: 0.9}
CELLS = list(itertools.product(STAGES, SIZES, SEEDS, BANDS))


def banded(level, **options):
    """Runs with three bands, whose concentration is a function of band and batch size alone."""
    runs = build(STAGES, SIZES, SEEDS, **options)
    probed = runs.rows["quantity"].isin(PROBED)
    parts = [
        runs.rows[probed].assign(
            band=band, value=[level(band, size) for size in runs.rows.loc[probed, "batch_size"]]
        )
        for band in BANDS
    ]
    return replace(runs, rows=pd.concat([runs.rows[~probed], *parts], ignore_index=True))


RUNS = banded(
    lambda band, size: LEVELS[band] - 0.0005 * size,
    points=4,
    alpha=lambda stage, size, seed, loss: 1.0 + 0.1 * stage + 0.03 * seed,
)


def without(runs, missing, nan):
    """Leave out the values of (stage, size, seed, band), or store NaN for them."""
    key = pd.MultiIndex.from_frame(runs.rows[["stage", "batch_size", "seed", "band"]])
    hit = key.isin(list(missing)) & runs.rows["quantity"].isin(PROBED).to_numpy()
    if nan:
        return replace(runs, rows=runs.rows.assign(value=runs.rows["value"].mask(hit)))
    return replace(runs, rows=runs.rows[~hit].reset_index(drop=True))


def lost(seed, share):
    """Return so large a share of all combinations, at random."""
    return {cell for cell in CELLS if np.random.default_rng([seed, CELLS.index(cell)]).random() < share}


PATTERNS = [(lost(1, 0.4), False, None), (lost(2, 0.4), True, None), (lost(3, 0.4), True, 2)]


# --- bands and batch sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("missing", "nan", "step"), PATTERNS)
def test_bands_that_do_not_change_show_no_change_whatever_is_missing(missing, nan, step):
    found = concentration_changes(without(RUNS, missing, nan), [STAGES], "H_peak", step)
    for row in found.to_dict("records"):
        there = [
            {band for band in BANDS if (stage, row["batch_size"], row["seed"], band) not in missing}
            for stage in STAGES
        ]
        if there[0] & there[1]:
            assert (row["change"], row["reason"]) == (pytest.approx(0.0, abs=1e-12), "")
        else:
            assert math.isnan(row["change"])
            assert row["reason"] == f"B = {row['batch_size']}: seed {row['seed']} has no band in common"


def test_a_missing_band_is_no_change_of_the_h_s_of_a_transition():
    missing = [("rope", size, seed, C) for size in SIZES for seed in SEEDS]
    # A seed without a band in common leaves the mean to the others, and is named.
    missing += [("rope", 32, 0, band) for band in (A, B)]
    (row,) = taxonomy(without(RUNS, missing, nan=True)).to_dict("records")
    assert (row["h_s"], row["h_s_low"]) == pytest.approx((0.0, 0.0), abs=1e-12)
    assert row["reason"] == "B = 32: seed 0 has no band in common"


@pytest.mark.parametrize(("missing", "nan"), [(lost(1, 0.2), False), (lost(7, 0.2), True)])
def test_concentration_at_a_step_is_a_mean_over_equal_batch_sizes_and_bands(missing, nan):
    table = concentration_at_steps(without(RUNS, missing, nan), [2])
    for row in table.to_dict("records"):
        there = {
            seed: {(size, band) for stage, size, own, band in CELLS if (stage, own) == (row["stage"], seed)}
            - {(size, band) for stage, size, own, band in missing if (stage, own) == (row["stage"], seed)}
            for seed in SEEDS
        }
        every = set.union(*there.values())
        assert row["n"] == sum(own == every for own in there.values())
        wanted = np.mean([LEVELS[band] - 0.0005 * size for size, band in every])
        assert row["mean"] == pytest.approx(wanted)


def test_bands_of_one_name_that_were_seen_and_unseen_are_two():
    rows = RUNS.rows[RUNS.rows["band"] != C]
    seen = RUNS.rows[RUNS.rows["band"] == C].assign(band=A, seen=True)
    both = replace(RUNS, rows=pd.concat([rows, seen], ignore_index=True))
    found = concentration_at_steps(both, [2])["mean"]
    assert found.to_numpy() == pytest.approx(concentration_at_steps(RUNS, [2])["mean"].to_numpy())


@pytest.mark.parametrize(
    ("missing", "nan"),
    [
        (set(), False),
        ({("rope", 32, 1, B)}, False),
        ({("rope", 32, 1, B), ("baseline", 128, 0, C)}, True),
        ({("rope", 32, 1, band) for band in BANDS}, False),
        ({("rope", 32, seed, band) for seed, band in enumerate(BANDS)}, False),
    ],
)
def test_compared_concentration_is_a_mean_over_the_bands_that_all_runs_have(missing, nan):
    found = compare(without(RUNS, missing, nan), RUNS.runs[["run_id", "stage", "batch_size", "seed"]]).numbers
    runs = {cell[:3]: {band for band in BANDS if (*cell[:3], band) not in missing} for cell in CELLS}
    # Runs without any band take none from the others.
    held = set.intersection(*(own for own in runs.values() if own))
    for name in ("h_peak_top", "h_peak_end"):
        own = found[found["quantity"] == name]
        assert own["n"].sum() == (sum(bool(bands) for bands in runs.values()) if held else 0)
        if held:
            wanted = np.mean([LEVELS[band] for band in held])
            sizes = np.array([128 if cell % 2 else 32 for cell in own["cell"]])
            assert own["mean"].to_numpy() == pytest.approx(wanted - 0.0005 * sizes)


# --- losses that were passed before the first record --------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(0.01, 1.0), min_size=4, max_size=12),
    st.floats(0.0, 1.2),
    st.integers(0, 11),
    st.data(),
)
def test_a_curve_that_begins_later_gives_the_same_tokens_or_none(falls, share, first, data):
    losses = 5.0 - np.cumsum(falls)
    curve = pd.DataFrame({"tokens": 10.0 * np.arange(1, len(falls) + 1), "value": losses})
    at = data.draw(st.sampled_from([share * (losses[0] - losses[-1]), *(losses[0] - losses)]))
    level = losses[0] - at
    later = curve[min(first, len(falls) - 1) :]
    known, whole = crossing(later, level), crossing(curve, level)
    assert math.isnan(known) or known == pytest.approx(whole)
    assert math.isnan(known) == (later["value"].iloc[0] < level - 1e-12 or losses[-1] > level + 1e-12)


def test_tokens_are_not_known_where_the_first_record_is_below_the_loss():
    assert math.isnan(crossing(pd.DataFrame({"tokens": [1000, 2000], "value": [2.0, 1.0]}), 2.5))
    assert crossing(pd.DataFrame({"tokens": [1000, 2000], "value": [2.0, 1.0]}), 2.0) == 1000
    runs = build(("rope",), (32,), rate=lambda stage, size, seed: 1.0 + seed)
    # Of seed 2 only the second half of training was recorded: it is below 3, the loss of the slowest, throughout.
    late = runs.rows[(runs.rows["seed"] != 2) | (runs.rows["step"] >= 4)]
    late = replace(runs, rows=late.reset_index(drop=True))
    with pytest.raises(MeasureError, match="rope-32-2 passes a loss of 3 before its first evaluation"):
        tokens_to(late)
    assert outcome_table(runs)["to_common"].iloc[0] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert math.isnan(outcome_table(late)["to_common"].iloc[0])
    configurations = runs.runs[["run_id", "stage", "seed"]]
    numbers = [compare(own, configurations).numbers.set_index("quantity") for own in (runs, late)]
    assert numbers[0].loc["tokens_to_common", "n"] == 3
    # A mean over the two others would be of slower runs.
    assert "tokens_to_common" not in numbers[1].index
    assert numbers[1].loc["val_loss", "n"] == 3


def test_what_no_run_and_no_seed_has_is_refused():
    runs = build(("rope", "muon"), (32, 128), (0, 1), points=4)
    unfitted = replace(runs, rows=runs.rows[runs.rows["quantity"] != "alpha"])
    with pytest.raises(MeasureError, match="no exponent of activation spectra was fitted"):
        early_by_layer(unfitted)
    apart = keep(runs, [run for run in runs.runs["run_id"] if run[-4:] in ("32-0", "28-1")])
    with pytest.raises(MeasureError, match="no seed has a summary of both rope and muon at every batch size"):
        compare_stages(apart, "rope", "muon")
    with pytest.raises(MeasureError, match="no seed of stage rope has all of its 2 batch sizes"):
        token_inefficiency(tokens_to(apart))
    diverged = outcome_table(replace(runs, runs=runs.runs.assign(ended="diverged")))
    assert diverged["diverged"].tolist() == [2, 2, 2, 2]
    assert diverged["loss"].isna().all()


@pytest.mark.filterwarnings("error")
def test_resamples_that_rank_nothing_have_no_interval_and_no_warning():
    values = np.array([1.0, 2.0, 4.0])
    for both in (lambda k: values[k].mean(axis=1), lambda k: np.full(len(k), np.nan)):
        alone = np.array(seed_bootstrap(both, 3))
        beside = np.array(seed_bootstrap(lambda k, f=both: np.stack([f(k), 0.0 * f(k) + 1], axis=1), 3))
        assert np.array_equal(beside[:, 0], alone, equal_nan=True)


# --- learning rates -----------------------------------------------------------------------------------------------


def tried(*outcomes, stage="rope"):
    """Runs of one cell: (lr, seed, ended, loss)."""
    table = pd.DataFrame(outcomes, columns=["lr", "seed", "ended", "val_loss"])
    table = table.assign(stage=stage, batch_size=32, tokens=1e6, run_id=[f"{r[0]}-{r[1]}" for r in outcomes])
    rows = table[["run_id"]].assign(quantity="val_loss")
    return Runs(table, rows, rows, ())


def chosen(*outcomes):
    (rate,) = best_rates(tried(*outcomes)).runs["lr"].unique()
    return rate


def test_a_rate_with_one_seed_does_not_displace_one_with_three():
    three = [(0.1, seed, "finished", 2.0 + seed) for seed in range(3)]
    assert chosen(*three, (0.2, 0, "finished", 1.0)) == 0.1
    # Of equally many seeds those that both have are compared: 0.2 is better on each of them.
    assert chosen(*three, *[(0.2, s, "finished", 1.9 + s) for s in (1, 2, 3)]) == 0.2
    assert chosen(*three, *[(0.2, s, "finished", 9.0) for s in (3, 4, 5)]) == 0.1
    # A diverged seed is no seed of its rate, and counts against it among equals.
    two = [*three[:2], (0.1, 2, "diverged", math.nan)]
    assert chosen(*two, (0.2, 0, "finished", 5.0), (0.2, 1, "finished", 5.0)) == 0.2
    assert chosen(*two, (0.2, 0, "finished", 1.0)) == 0.1
    assert chosen(*[(r, s, "diverged", math.nan) for r in (0.2, 0.1) for s in (0, 1)]) == 0.1


@settings(max_examples=5, deadline=None)
@given(st.permutations(range(6)), st.lists(st.floats(1, 9), min_size=6, max_size=6, unique=True))
def test_complete_rates_are_chosen_by_their_mean_in_any_order(order, losses):
    outcomes = [(0.1 * (1 + i // 2), i % 2, "finished", losses[i]) for i in range(6)]
    means = {rate: np.mean([r[3] for r in outcomes if r[0] == rate]) for rate in {r[0] for r in outcomes}}
    assert means[chosen(*(outcomes[i] for i in order))] == pytest.approx(min(means.values()))
