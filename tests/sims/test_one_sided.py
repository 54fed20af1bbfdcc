"""H_peak counts one side of a pair of frequencies: intervals stay within 1/2 where all bands have odd moduli."""

from dataclasses import replace

import pandas as pd
import pytest
from constructed import build
from hypothesis import given, settings
from hypothesis import strategies as st

from sims.analysis.at_steps import concentration_at_steps
from sims.analysis.compare import compare
from sims.analysis.ranges import ONE_SIDED
from sims.analysis.stages import concentration_summary, stage_differences
from sims.analysis.summaries import range_in
from sims.studies.bands.tables import decomposition, summary

SEEDS = (0, 1, 2)


def with_bands(runs, *bands):
    """The same runs, probed on several bands."""
    probed = runs.rows["band"] != ""
    parts = [runs.rows[probed].assign(band=band) for band in bands]
    return replace(runs, rows=pd.concat([runs.rows[~probed], *parts], ignore_index=True))


def planted(peaks, *bands):
    """Two stages with an H_peak for each seed."""
    return with_bands(
        build(("rope", "muon"), (32,), SEEDS, peak=lambda stage, size, seed, loss: peaks[stage][seed]), *bands
    )


def intervals(runs):
    """Every table of H_peak: low and high of its rows."""
    fields = runs.runs[["run_id", "stage", "batch_size", "seed"]]
    compared = compare(runs, fields).numbers
    summary = concentration_summary(runs)
    return [
        *concentration_at_steps(runs, [2]).query("quantity == 'H_peak'")[["low", "high"]].to_numpy(),
        *summary[summary["quantity"] == "H_peak"][["top_low", "top_high"]].to_numpy(),
        *compared[compared["quantity"].isin(["h_peak_top", "h_peak_end"])][["low", "high"]].to_numpy(),
    ]


shares = st.floats(0.015625, 0.484375, width=32)


@settings(max_examples=15)
@given(st.lists(st.lists(shares, min_size=3, max_size=3), min_size=2, max_size=2))
def test_intervals_of_odd_moduli_end_below_one_half(peaks):
    runs = planted(peaks, "31:4", "7:2")
    found = intervals(runs)
    assert len(found) >= 2 + 4 + 4
    assert all(0 <= low <= high <= 0.5 for low, high in found)
    change = stage_differences(runs).iloc[0]
    assert -0.5 <= change["low"] <= change["difference"] <= change["high"] <= 0.5


def test_an_even_modulus_lets_them_go_further():
    peaks = [(0.30, 0.45, 0.49)] * 2
    assert max(high for _, high in intervals(planted(peaks, "31:4"))) <= 0.5
    for bands in (("30:4",), ("31:4", "30:4")):
        assert 0.5 < max(high for _, high in intervals(planted(peaks, *bands))) <= 1


@pytest.mark.parametrize("quantity", ONE_SIDED)
def test_every_name_of_it_has_the_range(quantity):
    odd, even = (range_in(planted([(0.1,) * 3] * 2, band), quantity).high for band in ("31:4", "30:4"))
    assert (odd, even) == (0.5, 1.0)


def test_what_counts_directions_ends_at_their_number():
    assert range_in(build(), "rankme").high == 30


@pytest.mark.parametrize(("moduli", "most"), [((23, 29), 0.5), ((23, 28), 1.0)])
def test_excesses_of_the_study_of_bands_have_the_same_range(moduli, most):
    """Two seeds far apart: their interval goes beyond every share."""
    one = {"stage": "rope", "fraction": 1.0, "position": 7, "step": 10, "batch_size": 8, "loss": 1.0}
    one |= {"regime": "clean", "kind": "inside", "known": 1, "signal": 1.0, "noise_share": 0.1}
    one |= {"h_s_null": 0.5, "h_peak_null": 0.1, "h_peak_high": 0.2}
    measured = pd.DataFrame(
        [
            {
                **one,
                "seed": seed,
                "band": f"{c}:0",
                "c": c,
                "sample": n,
                "h_s_excess": value,
                "h_peak_excess": value,
            }
            for seed, value in enumerate((0.1, 0.4))
            for c in moduli
            for n in (0, 1)
        ]
    )
    means, parts = summary(measured), decomposition(measured)
    for quantity, bound in (("H_peak", most), ("H_S", 1.0)):
        assert means[means["quantity"] == quantity]["high"].tolist() == [bound]
        own = parts[parts["quantity"] == quantity]
        assert set(own["high"]) | set(own["high_here"]) == {bound}
