"""Analyses on tables with known answers."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sims.analysis.caveats import caveats, uneven_sizes
from sims.analysis.cells import crossing
from sims.analysis.intervals import seed_intervals
from sims.analysis.matched import batch_divergence, matched_spectra
from sims.analysis.runs import Runs
from sims.analysis.stages import concentration_summary, link_to_activations, outcome_table, stage_differences
from sims.pages.outcomes import outcomes_table
from sims.runs.columns import WHICH
from sims.studies.overview.findings import findings
from sims.system.errors import MeasureError
from spectra import js_divergence

BAND = {"band": "31:20", "regime": "clean", "seen": False}


def synthetic(stages=("baseline", "rope"), sizes=(32, 128), seeds=(0, 1, 2), shift=0.1, spread=0.0):
    """Runs whose loss falls linearly and whose H_peak is a tent with its top at the middle measurement.

    Seed s adds 0.01·s; each later stage adds `shift` (and `spread`·s) to the top and lowers every loss by 0.5.
    """
    runs, rows, spectra = [], [], []
    for i, stage in enumerate(stages):
        for size in sizes:
            for seed in seeds:
                label = {
                    "run_id": f"{stage}-{size}-{seed}",
                    "stage": stage,
                    "batch_size": size,
                    "lr": 1e-3,
                    "seed": seed,
                }
                for step in range(5):
                    tokens = step * size * 1000
                    loss = 4.0 - 0.5 * i - 0.5 * step + 0.01 * seed
                    tent = 0.1 + (0.2 + (shift + spread * seed) * i) * (1 - abs(step - 2) / 2) + 0.01 * seed
                    base = {**label, "step": step, "tokens": tokens, "low": math.nan, "high": math.nan}
                    base |= {"status": "ok", "reason": "", "null": 0.05, "null_high": 0.15}
                    rows += [
                        {**base, "quantity": q, "object": o, "site": s, **WHICH, **which, "value": v}
                        for q, o, s, which, v in (
                            ("val_loss", "loss", "validation", {}, loss),
                            ("h_peak", "probe", "final", BAND, tent),
                            ("h_s", "probe", "final", {**BAND, "set": "task"}, 2 * tent),
                            ("h_s", "probe", "final", {**BAND, "set": "peak"}, 9.0),
                            ("top_share", "activation", "final", {"detail": "10"}, 0.5 + 0.01 * step),
                            ("alpha", "activation", "final", {"window": "10-40"}, 1.0 + step),
                        )
                    ]
                    exponent = 1.0 + 0.5 * (size == 128) + 0.001 * seed
                    values = np.arange(1, 21) ** -exponent
                    spectra.append(
                        {**label, "step": step, "tokens": tokens, "object": "activation", "site": "final"}
                        | {"kind": "eigenvalue", "n": 100, "d": 20, "centred": True, "values": values}
                    )
                runs.append(
                    {**label, "ended": "finished", "step": 4, "tokens": 4 * size * 1000, "val_loss": loss}
                    | {"validation_overlap": 0.2, "seconds_training": 1.0}
                )
    return Runs(pd.DataFrame(runs), pd.DataFrame(rows), pd.DataFrame(spectra), ())


def test_seed_intervals_are_student_t():
    table = pd.DataFrame({"g": ["a"] * 4 + ["b"], "value": [1.0, 2.0, 4.0, 5.0, 7.0]})
    result = seed_intervals(table, ["g"]).set_index("g")
    low, high = stats.t.interval(0.95, 3, 3.0, stats.sem([1.0, 2.0, 4.0, 5.0]))
    assert (result.loc["a", "low"], result.loc["a", "high"]) == pytest.approx((low, high))
    assert result.loc["b", "n"] == 1
    assert math.isnan(result.loc["b", "low"])


def test_intervals_cover_at_their_level():
    # 2,000 groups of 3 seeds from one normal law: a binomial(2000, .95) count of covering intervals.
    values = np.random.default_rng(0).normal(1.0, 0.3, (2000, 3))
    table = pd.DataFrame({"g": np.repeat(np.arange(2000), 3), "value": values.ravel()})
    result = seed_intervals(table, ["g"])
    covering = int(((result["low"] <= 1.0) & (result["high"] >= 1.0)).sum())
    assert stats.binomtest(covering, 2000, 0.95).pvalue > 1e-3


def test_crossing_is_interpolated():
    curve = pd.DataFrame({"tokens": [0, 10, 20, 30], "value": [4.0, 3.4, 3.5, 1.0]})
    assert crossing(curve, 3.4) == pytest.approx(10.0)
    assert crossing(curve, 2.0) == pytest.approx(26.0)
    assert crossing(curve, 4.0) == 0.0
    # Before its first evaluation after the start a run is not known.
    assert math.isnan(crossing(curve, 3.7))
    assert math.isnan(crossing(curve, 0.5))
    assert crossing(curve.sample(frac=1, random_state=0), 2.0) == pytest.approx(26.0)


def test_outcomes():
    table = outcome_table(synthetic()).set_index(["stage", "batch_size"])
    row = table.loc[("baseline", 32)]
    assert row["loss"] == pytest.approx(2.01)
    assert row["seeds"] == 3
    assert row["common_loss"] == pytest.approx(2.02)
    # Loss falls by .5 a step of 32,000 tokens from 4.00, 4.01, 4.02 to 2.02.
    assert row["to_common"] == pytest.approx(np.mean([3.96, 3.98, 4.0]) * 0.032)
    assert table.loc[("rope", 32), "to_common"] < row["to_common"]
    assert row["diverged"] == 0


def test_diverged_runs_are_counted_and_set_no_common_loss():
    runs = synthetic()
    runs.runs.loc[0, ["ended", "val_loss"]] = ["diverged", math.nan]
    runs.rows.loc[(runs.rows["run_id"] == runs.runs.loc[0, "run_id"]), "value"] = math.nan
    table = outcome_table(runs).set_index(["stage", "batch_size"])
    assert table.loc[("baseline", 32), "diverged"] == 1
    assert table.loc[("baseline", 32), "seeds"] == 2
    assert any("diverged" in w for w in caveats(runs))


def test_a_cell_of_diverged_runs_alone_stays_in_the_table_of_losses():
    runs = synthetic()
    lost = runs.runs["stage"].eq("rope") & runs.runs["batch_size"].eq(128)
    runs.runs.loc[lost, "ended"] = "diverged"
    table = outcome_table(runs).set_index(["stage", "batch_size"])
    assert (table.loc[("rope", 128), ["seeds", "diverged"]] == [0, lost.sum()]).all()
    assert math.isnan(table.loc[("rope", 128), "loss"])
    assert list(table.index) == list(runs.runs.groupby(["stage", "batch_size"], sort=False).groups)
    assert ("rope", "128", "–", "0", "–", "–", "–", str(lost.sum())) in {
        tuple("–" if c == "lr" else v for c, v in zip(written.columns, row, strict=True))
        for written in [outcomes_table(table.reset_index())]
        for row in written.rows
    }


def test_concentration_keeps_the_transient():
    table = concentration_summary(synthetic()).set_index(["quantity", "stage", "batch_size"])
    row = table.loc[("H_peak", "rope", 128)]
    assert (row["start"], row["top"], row["end"]) == pytest.approx((0.11, 0.41, 0.11))
    assert row["tokens_at_top"] == 2 * 128 * 1000
    assert row["top_low"] < 0.41 < row["top_high"]
    # H_S is that of the task band, not of the peak set.
    assert table.loc[("H_S task", "rope", 128), "top"] == pytest.approx(0.82)


def test_runs_that_diverged_have_no_part_in_the_summary_of_concentration():
    """A page says that they have no part in means and intervals."""
    runs = synthetic()
    lost = runs.runs["run_id"] == "rope-128-2"
    runs = replace(runs, runs=runs.runs.assign(ended=runs.runs["ended"].mask(lost, "diverged")))
    table = concentration_summary(runs).set_index(["quantity", "stage", "batch_size"])
    assert table.loc[("H_peak", "rope", 128), ["n", "top"]].tolist() == pytest.approx([2, 0.405])
    assert (table["n"].drop([("H_peak", "rope", 128), ("H_S task", "rope", 128)]) == 3).all()


@pytest.mark.parametrize("shift", [0.1, -0.1])
def test_stage_differences_are_paired_by_seed(shift):
    (row,) = stage_differences(synthetic(shift=shift)).to_dict("records")
    assert (row["before"], row["after"], row["n"]) == ("baseline", "rope", 3)
    # Pairing removes the seeds' own offsets entirely.
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((shift,) * 3)


def test_matched_spectra_and_divergence():
    runs = synthetic()
    matched = matched_spectra(runs)
    assert len(matched) == 12
    assert (matched["own_loss"] <= matched["loss"] + 1e-12).all()
    assert matched["gap"].max() <= 0.5
    table = batch_divergence(matched).set_index("stage")
    steep, flat = np.arange(1, 21) ** -1.5, np.arange(1, 21) ** -1.0
    assert table.loc["baseline", "js"] == pytest.approx(js_divergence(flat, steep), rel=0.02)
    assert table.loc["baseline", "floor"] < 1e-4 * table.loc["baseline", "js"] * 100
    assert (table["pairs"] == 3).all()


def test_link_has_one_row_a_moment_and_band():
    table = link_to_activations(synthetic())
    assert len(table) == 12 * 5
    row = table[(table["run_id"] == "rope-32-1") & (table["step"] == 2)].iloc[0]
    assert row["h_s"] == pytest.approx(2 * row["h_peak"])
    assert row["alpha 10-40"] == 3.0
    assert row["top_share"] == pytest.approx(0.52)


def test_a_summary_of_runs_without_probes_is_refused():
    runs = synthetic()
    with pytest.raises(MeasureError, match="no probe band was measured"):
        concentration_summary(replace(runs, rows=runs.rows[runs.rows["object"] != "probe"]))


def test_stages_without_the_batch_sizes_of_others_are_named():
    runs = synthetic()
    assert uneven_sizes(runs) == []
    stages, sizes = list(runs.runs["stage"].unique()), sorted(runs.runs["batch_size"].unique())
    assert len(sizes) > 1
    lacks = runs.runs["stage"].eq(stages[0]) & runs.runs["batch_size"].ne(sizes[0])
    (note,) = uneven_sizes(replace(runs, runs=runs.runs[~lacks]))
    others = ", ".join(stages[1:])
    assert f"({stages[0]}: B = {sizes[0]}; {others}: B = {', '.join(map(str, sizes))})" in note
    # Watched models have no batch size.
    assert uneven_sizes(replace(runs, runs=runs.runs.assign(batch_size=np.nan))) == []


def test_findings_say_when_they_cannot_tell():
    clear = findings(synthetic(spread=0.001))
    assert any("→ rope" in said.text for said in clear if said.decided)
    # Changes on which seeds agree to the last digit show no spread, and decide nothing.
    assert not any("→" in said.text for said in findings(synthetic()) if said.decided)
    single = synthetic(seeds=(0,))
    assert not any(said.decided for said in findings(single))
    assert any("single seed" in w for w in caveats(single))
    assert any("20%" in w for w in caveats(single))


def test_seeds_that_diverged_or_stand_at_another_rate_are_no_seeds_of_a_cell():
    runs = synthetic(seeds=(0, 1))

    def warns(**columns):
        return any("single seed" in w for w in caveats(replace(runs, runs=runs.runs.assign(**columns))))

    one = runs.runs["run_id"] == "rope-32-1"
    assert not warns()
    assert warns(ended=runs.runs["ended"].mask(one, "diverged"))
    assert warns(lr=runs.runs["lr"].mask(one, 2e-3))


def test_a_small_overlap_is_not_shown_as_none():
    runs = synthetic()
    found = caveats(replace(runs, runs=runs.runs.assign(validation_overlap=0.003)))
    assert any("Up to 0.3% of the validation sequences" in w for w in found)
