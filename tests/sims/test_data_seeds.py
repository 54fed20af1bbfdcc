"""The spread of outcomes over data seeds beside that over model seeds."""

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from constructed import build
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sims.analysis.data_seeds import (
    CANNOT_TELL,
    LOSS,
    MORE,
    PEAK,
    RANK,
    TOKENS,
    grouped,
    outcomes,
    spreads,
)
from sims.analysis.summaries import range_of
from sims.runs.measure_config import MeasureConfig
from sims.studies.paper.cells import Cell, by_worth, chosen
from sims.studies.paper.data_seeds import further_data
from sims.studies.paper.figure_data import gather
from sims.studies.paper.page import TITLE, write
from sims.studies.paper.profiles import DATA_SEEDS, profile
from sims.studies.paper.sections import every, sections
from sims.studies.paper.verdicts import AGREES, DISAGREES, Ours, check
from sims.system.errors import MeasureError
from sims.training.toy_runner import run_group
from toymodel import ModularWalks, RunConfig
from toymodel.config import ModelConfig

SEEDS = range(5)
VALUES = st.floats(-3, 3, allow_nan=False, width=32)


def runs_of(tables, ended="target"):
    """Join constructed runs, each of its own data seed, as if they had been read from one folder."""

    def named(runs, seed):
        def of(table):
            return table.assign(run_id=table["run_id"] + f"-d{seed}")

        return replace(runs, runs=of(runs.runs), rows=of(runs.rows), spectra=of(runs.spectra))

    found = {seed: named(runs, seed) for seed, runs in tables.items()}

    def joined(name):
        return pd.concat([getattr(runs, name) for runs in found.values()], ignore_index=True)

    configs = {run: {"task": {"seed": seed}} for seed, runs in found.items() for run in runs.runs["run_id"]}
    first = next(iter(found.values()))
    return replace(
        first,
        runs=joined("runs").assign(ended=ended),
        rows=joined("rows"),
        spectra=joined("spectra"),
        configs=configs,
    )


def table_of(seeds, data, quantity=TOKENS):
    """One cell: model seeds 0 … on data 0, and model seed 0 on data 1 …"""
    rows = [(seed, 0, value) for seed, value in enumerate(seeds)]
    rows += [(0, seed, value) for seed, value in enumerate(data, 1)]
    table = pd.DataFrame(rows, columns=["seed", "data_seed", "value"])
    return table.assign(stage="untied", batch_size=32, quantity=quantity)


def ratio_of(seeds, data):
    return spreads(grouped(table_of(seeds, data))).iloc[0]


@pytest.mark.slow
def test_the_interval_holds_the_ratio_of_the_populations_as_often_as_it_says():
    """600 draws: a share within three standard errors (0.027) of 95 %, at three ratios; p is uniform at ratio 1."""
    draws = np.random.default_rng(0).normal(size=(600, 10))
    cells = np.repeat(np.arange(600), 10)
    groups = np.tile(np.repeat(["model", "data"], 5), 600)
    for true in (0.3, 1.0, 4.0):
        values = np.where(groups == "data", true, 1.0) * draws.ravel()
        table = pd.DataFrame({"batch_size": cells, "group": groups, "value": values})
        found = spreads(table.assign(stage="untied", quantity=TOKENS))
        held = ((found["low"] <= true) & (true <= found["high"])).mean()
        assert held == pytest.approx(0.95, abs=0.027), true
        if true == 1:
            assert (found["p"] <= 0.2).mean() == pytest.approx(0.2, abs=0.049)


@settings(max_examples=40)
@given(
    st.lists(VALUES, min_size=2, max_size=6, unique=True),
    st.lists(VALUES, min_size=2, max_size=6, unique=True),
    st.floats(0.1, 10),
    st.floats(-5, 5),
)
def test_units_and_offsets_change_nothing_and_exchanged_groups_invert_the_ratio(seeds, data, unit, offset):
    seeds, data = (np.array(values) for values in (seeds, data))
    if min(np.ptp(seeds), np.ptp(data)) < 1e-3:
        return
    found = ratio_of(seeds, data)
    assert found["low"] < found["ratio"] < found["high"]
    assert (found["p"] <= 0.05) == (not found["low"] <= 1 <= found["high"])
    moved, other = ratio_of(unit * seeds + offset, unit * data + offset), ratio_of(data, seeds)
    for name in ("ratio", "low", "high", "p"):
        assert moved[name] == pytest.approx(found[name], rel=1e-6)
    assert other["ratio"] == pytest.approx(1 / found["ratio"])
    assert (other["low"], other["high"]) == pytest.approx((1 / found["high"], 1 / found["low"]))


@pytest.mark.parametrize(
    ("seeds", "data", "reason"),
    [
        ([1.0], [1.0, 2.0], "1 model seed, and"),
        ([1.0, 2.0], [1.0], "1 further data seed, and"),
        ([1.0, 1.0], [1.0, 2.0], "the 2 model seeds agree exactly"),
        ([1.0, 2.0], [3.0, 3.0], "the 2 further data seeds agree exactly"),
    ],
)
def test_without_a_spread_there_is_no_ratio_and_no_verdict(seeds, data, reason):
    found = ratio_of(seeds, data)
    assert found["reason"].startswith(reason)
    assert found[["ratio", "low", "high", "p"]].isna().all()
    assert found["data_spread"] == CANNOT_TELL


def test_verdicts_are_corrected_for_the_number_of_cells():
    """One ratio with p = 0.03 is told alone, and not among four."""
    seeds, data = np.array([0.0, 1.0, 2.0, 3.0, 4.0]), 3.4 * np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    one = table_of(seeds, data)
    assert spreads(grouped(one))["data_spread"].tolist() == [MORE]
    assert 0.0125 < spreads(grouped(one))["p"].iloc[0] < 0.05
    four = pd.concat([one, *(table_of(seeds, seeds, name) for name in (LOSS, PEAK, RANK))])
    assert spreads(grouped(four))["data_spread"].tolist() == [CANNOT_TELL] * 4


def test_the_groups_share_no_run_and_differ_in_one_seed():
    rows = [(seed, 0) for seed in SEEDS] + [(2, data) for data in (1, 2, 3)] + [(4, 1), (0, 7)]
    table = pd.DataFrame(rows, columns=["seed", "data_seed"]).assign(
        stage="muon", batch_size=8, quantity=RANK, value=0.0
    )
    found = grouped(table)
    of = {name: own[["seed", "data_seed"]].to_numpy().tolist() for name, own in found.groupby("group")}
    assert of == {"model": [[seed, 0] for seed in SEEDS], "data": [[2, 1], [2, 2], [2, 3]]}
    with pytest.raises(MeasureError, match=r"all runs have the same data; train some cell with other data"):
        spreads(grouped(table[table["data_seed"] == 0]))


def test_outcomes_of_runs_are_read_where_they_are_measured():
    def rate(k):
        return lambda stage, size, seed: 1 + 0.1 * seed + 0.2 * k

    made = {
        k: build(
            ("untied",),
            (32,),
            (0, 1, 2) if k == 0 else (1,),
            rate=rate(k),
            peak=lambda stage, size, seed, loss, k=k: 0.1 + 0.01 * k + 0.02 * seed,
            rankme=lambda stage, size, seed, loss, k=k: 5.0 + k + loss,
        )
        for k in (0, 3, 5)
    }
    found = outcomes(runs_of(made)).set_index(["quantity", "data_seed", "seed"])["value"]
    # All reached their target: their tokens are the outcome, and the loss is the target.
    assert set(found.index.get_level_values("quantity")) == {TOKENS, PEAK, RANK}
    assert found[PEAK, 0, 2] == pytest.approx(0.14)
    assert found[PEAK, 3, 1] == pytest.approx(0.15)
    assert found[RANK, 5, 1] == pytest.approx(5 + 5 + 4 - 2.1)
    # A run that diverged is left out, also where it is the only one on its data.
    lost = runs_of(made)
    ended = lost.runs["ended"].where(~lost.runs["run_id"].str.endswith("-d3"), "diverged")
    left = outcomes(replace(lost, runs=lost.runs.assign(ended=ended)))
    assert set(left["data_seed"]) == {0, 5}
    with pytest.raises(MeasureError, match="all runs diverged"):
        outcomes(replace(lost, runs=lost.runs.assign(ended="diverged")))
    missed = outcomes(runs_of(made, ended="finished"))
    assert set(missed["quantity"]) == {LOSS, PEAK, RANK}
    assert len(missed) == 3 * 5


def test_cells_on_other_data_differ_from_run_a_in_their_data_alone():
    cells = profile("published").cells()
    (name,) = chosen(["untied:128:D"], cells)
    own = cells[name]
    assert [config.task.seed for config in own] == list(DATA_SEEDS)
    first = cells[Cell("untied", 128)][0]
    assert [replace(config, task=replace(config.task, seed=first.task.seed)) for config in own] == [first] * 5
    # They come when the stages that the statements are about are there, and before the long runs.
    order = [str(cell) for cell in by_worth(cells)]
    assert (
        order.index("baseline:32")
        < order.index("untied:32:D")
        < order.index("rope:128")
        < order.index("muon:32:B")
    )
    assert not any(cell.part == "D" for cell in profile("quick").cells())
    assert "data" not in profile("quick").figures


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two model seeds on one data set, and one of them on two others."""
    out = tmp_path_factory.mktemp("runs")
    task = ModularWalks(vocab=23, length=8, train=120, val=60, test=20)
    base = RunConfig(
        "untied",
        task=task,
        model=ModelConfig(16, 2, 1),
        batch_size=8,
        lr=3e-3,
        steps=8,
        eval_every=4,
        eval_size=32,
    )
    measure = MeasureConfig(
        every=4, bands=((5, 3),), training_bands=0, gradient_sequences=0, causal_sequences=0, sequences=40,
        probe_sequences=60, checkpoints=False,
    )  # fmt: skip
    for seed, data in ((0, 0), (1, 0), (0, 1), (0, 2)):
        assert not run_group([replace(base, seed=seed, task=replace(task, seed=data))], measure, out)
    return out


def test_a_page_compares_runs_on_one_data_set_and_says_what_others_do(folder, tmp_path):
    data = gather(folder)
    assert {data.everything.configs[r]["task"]["seed"] for r in data.a.runs["run_id"]} == {0}
    assert sorted(data.a.runs["seed"]) == sorted(data.b.runs["seed"]) == [0, 1]
    assert data.on_data is not None
    assert len(data.on_data.runs) == 4
    assert "data" in every(data)
    made = sections(("tables", "data"), data)
    table = made[1].tables["data-spreads"]
    assert set(table["quantity"]) == {LOSS, PEAK, RANK}
    assert (table[["n_seeds", "n_data"]] == 2).all(axis=None)
    write(made, data, tmp_path, "speclens reproduce all", "other runs", TITLE)
    text = (tmp_path / "reproduction.md").read_text()
    assert "Other data spread the outcome of a run more than other model seeds in 0 of 3 cases" in text


def test_a_folder_of_one_data_set_has_no_such_section(folder, tmp_path):
    for run in folder.iterdir():
        if '"seed": 0' in (run / "run.json").read_text().partition('"task"')[2].partition("}")[0]:
            (tmp_path / run.name).symlink_to(run)
    data = gather(tmp_path)
    assert data.on_data is None
    assert "data" not in every(data)
    (made,) = sections(("data",), data)
    assert made.text.startswith("Not made from these runs: all runs have the same data")


def test_one_data_seed_a_group_of_equal_size_is_the_main_one():
    """Of several sets of data with as many model seeds the first is the main one."""
    rows = [(seed, data) for seed, data in product(range(3), range(2))]
    table = pd.DataFrame(rows, columns=["seed", "data_seed"]).assign(
        stage="muon", batch_size=8, quantity=RANK, value=0.0
    )
    found = grouped(table)
    assert set(found.loc[found["group"] == "model", "data_seed"]) == {0}


def test_a_number_is_refuted_only_outside_what_seeds_and_data_allow():
    """Five seeds near 4.9, and other data that spread further: the published 4.424 lies outside the first alone."""
    key = "tokens untied 128"
    ours = Ours(4.915, 4.716, 5.123, 5, within=range_of(TOKENS))
    assert check(key, ours, "tables", True).verdict == DISAGREES
    assert "one further seed would fall" in check(key, ours, "tables", True).reason
    wide = replace(ours, on_data=(4.1, 5.8))
    assert wide.one_more_run() == (4.1, 5.8)
    assert check(key, wide, "tables", True).verdict == AGREES
    assert "or one on other data, would fall in [4.1, 5.8]" in check(key, wide, "tables", True).reason
    # Narrower ones, and such as do not exist, change nothing.
    for bounds in ((4.8, 5.0), (np.nan, np.nan)):
        assert replace(ours, on_data=bounds).one_more_run() == ours.one_more_seed()
        assert check(key, replace(ours, on_data=bounds), "tables", True).verdict == DISAGREES


def test_where_a_further_run_on_other_data_would_fall(folder):
    data = gather(folder)
    assert data.on_data is not None
    bounds = further_data(data)
    assert set(bounds) == {("untied", 8, name) for name in (LOSS, PEAK, RANK)}
    values = outcomes(data.on_data).query("quantity == @LOSS and data_seed > 0")["value"]
    low, high = bounds["untied", 8, LOSS]
    # Of two values: mean ± 12.7 · s · √1.5 on the scale of logarithms.
    assert low < values.min() < values.max() < high
    assert np.sqrt(low * high) == pytest.approx(values.mean())


def test_concentration_on_other_data_is_read_on_the_bands_that_all_runs_of_a_cell_have():
    """The most frequent bands of training are others on other data; the first of them has twice the concentration."""
    made = runs_of({k: build(("untied",), (32,), (0, 1) if k == 0 else (1,)) for k in (0, 3)})
    peaks = made.rows[made.rows["quantity"] == "h_peak"]
    frequent = {True: "47:10", False: "29:0"}
    on_first = peaks["run_id"].str.endswith("-d0")
    own = peaks.assign(band=on_first.map(frequent), seen=True, value=peaks["value"].where(on_first, 2.0) * 2)
    # Whether training has a band is a matter of the data, too.
    rows = made.rows.assign(seen=made.rows["seen"].mask(made.rows["run_id"].str.endswith("-d3"), True))
    found = outcomes(replace(made, rows=pd.concat([rows, own])))
    assert found.loc[found["quantity"] == PEAK, "value"].tolist() == pytest.approx([0.1] * 3)


def test_groups_of_unequal_size_have_degrees_of_freedom_of_their_own():
    """The variance of six data seeds is above, that of three model seeds below: F with 5 and 2 degrees of freedom."""
    found = ratio_of([1.0, 2.0, 4.0], [1.0, 5.0, 9.0, 2.0, 7.0, 3.0])
    law = stats.f(5, 2)
    assert found["p"] == pytest.approx(2 * law.sf(found["ratio"] ** 2))
    assert found["low"] == pytest.approx(found["ratio"] / law.ppf(0.975) ** 0.5)
    assert found["high"] == pytest.approx(found["ratio"] / law.ppf(0.025) ** 0.5)
