"""What is read at the end of runs: at the last step that all of those compared have."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from constructed import build
from hypothesis import given, settings
from hypothesis import strategies as st

from sims.analysis.cells import CELL
from sims.analysis.comparisons import comparisons, tops
from sims.analysis.spectra import last_spectra
from sims.analysis.stages import concentration_summary
from sims.analysis.summaries import last_rows, last_summaries

SEEDS = (0, 1, 2, 3)


def made():
    """RankMe and concentration that rise with every look, and differ by stage and seed."""
    generator = np.random.default_rng(3)
    return build(
        ("baseline", "rope"),
        (32, 128),
        SEEDS,
        rankme=lambda i, s, d, loss: 10 + i + 0.01 * generator.normal() + 5 * (4 - loss),
        peak=lambda i, s, d, loss: 0.1 + 0.05 * i + 0.01 * generator.normal() + 0.1 * (4 - loss),
        points=8,
    )


def without(runs, run_id, steps):
    """The same without these looks of a run, but for its losses."""

    def kept(table):
        return table[~((table["run_id"] == run_id) & table["step"].isin(steps))]

    losses = runs.rows[runs.rows["object"] == "loss"]
    rows = pd.concat([losses, kept(runs.rows[runs.rows["object"] != "loss"])])
    return type(runs)(runs.runs, rows, kept(runs.spectra), ())


def test_a_run_without_its_last_look_is_not_compared_at_another_moment():
    """RankMe grows by .7 a look: read at each run's own last one, the missing look would be a difference of stages."""
    runs = made()
    fewer = without(runs, "rope-128-2", [7])
    for table, at in ((runs, 7), (fewer, 6)):
        read = last_rows(table, table.values("rankme", "activation"))
        assert set(read.loc[read["batch_size"] == 128, "step"]) == {at}
        assert set(read.loc[read["batch_size"] == 32, "step"]) == {7}
        assert len(read) == len(runs.runs)
    same, changed = (comparisons(r).set_index(["question", "quantity"]) for r in (runs, fewer))
    place = ("rankme", "")
    assert changed["n"][place] == same["n"][place] == 4
    # Two batch sizes: a mutant would move one of eight differences by .7, their mean by .09.
    own = [r.values("rankme", "activation").query("batch_size == 128") for r in (runs, fewer)]
    assert abs(changed["value"][place] - same["value"][place]) < 0.03
    mutant = own[1][own[1]["step"] == own[1].groupby("run_id")["step"].transform("max")]
    assert mutant["step"].nunique() == 2
    ends = tops(fewer).query("batch_size == 128 and stage == 'rope'")
    assert len(ends) == 3
    assert set(last_spectra(fewer, "activation", "final").query("batch_size == 128")["step"]) == {6}
    assert len(last_summaries(fewer)) == len(last_summaries(runs))


@settings(deadline=None, max_examples=15)
@given(st.sets(st.tuples(st.sampled_from(SEEDS), st.integers(0, 7)), max_size=12))
def test_the_end_is_the_last_common_step_after_the_start(missing):
    runs = made()
    for seed in SEEDS:
        runs = without(runs, f"baseline-32-{seed}", [step for s, step in missing if s == seed])
    values = runs.values("rankme", "activation")
    own = values[values["batch_size"] == 32]
    common = set(range(1, 8)).intersection(*(set(r["step"]) for _, r in own.groupby("run_id")))
    read = last_rows(runs, own)
    if common:
        assert set(read["step"]) == {max(common)}
    else:
        assert (read["step"] == read["run_id"].map(own.groupby("run_id")["step"].max())).all()


def test_a_band_that_one_run_lacks_at_the_end_is_read_where_all_have_it():
    """H_peak of states that are all the same is not fitted, and H_S of the same look is."""
    runs = made()
    lost = (
        (runs.rows["run_id"] == "rope-32-2") & (runs.rows["quantity"] == "h_peak") & (runs.rows["step"] == 7)
    )
    table = concentration_summary(replace(runs, rows=runs.rows[~lost])).set_index(["quantity", *CELL])
    whole = concentration_summary(runs).set_index(["quantity", *CELL])
    own = runs.values("h_peak", "probe").query("stage == 'rope' and batch_size == 32 and step == 6")
    assert table.loc[("H_peak", "rope", 32), "end"] == pytest.approx(own["value"].mean())
    rest = table.index != ("H_peak", "rope", 32)
    # Both stages are compared, at one step.
    rest &= table.index != ("H_peak", "baseline", 32)
    assert table.loc[rest, "end"].equals(whole.loc[rest, "end"])


def test_a_run_that_ended_or_diverged_elsewhere_is_at_its_own_end():
    runs = made()
    short = without(runs, "rope-32-1", [5, 6, 7])
    short.runs.loc[short.runs["run_id"] == "rope-32-1", "step"] = 4
    lost = without(short, "rope-32-2", [7])
    lost.runs.loc[lost.runs["run_id"] == "rope-32-2", "ended"] = "diverged"
    read = last_rows(lost, lost.values("rankme", "activation")).set_index("run_id")["step"]
    assert (read["rope-32-1"], read["rope-32-2"]) == (4, 6)
    assert set(read.drop(["rope-32-1", "rope-32-2"])) == {7}
