"""Edges of runs: binomial over disjoint windows, mode with its interval, comparison of scales."""

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sims.analysis.edge_runs import _exchanged_seeds, _same_shares, edge_mode, edge_runs, edge_scales
from sims.system.errors import MeasureError

W = 5


def windows(n=100, **columns: Any):
    return pd.DataFrame({"run": "one", "seed": 0, "step": 10 * np.arange(n), **columns})


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.001, 0.5]), min_size=30, max_size=90))
def test_a_run_has_an_edge_if_more_than_a_fifth_of_its_disjoint_windows_do(p):
    found = edge_runs(windows(len(p), p=p), span=10 * W).iloc[0]
    own = p[::W]
    edges = sum(v < 0.01 for v in own)
    tail = sum(math.comb(len(own), k) * 0.01**k * 0.99 ** (len(own) - k) for k in range(edges, len(own) + 1))
    assert found["p_binomial"] == pytest.approx(tail)
    assert found["edge"] == (edges > 0.2 * len(own) and tail < 0.01)
    assert (found["windows"], found["edges"]) == (len(own), edges)


def test_noise_has_no_edge():
    """Uniform p-values: at most 1 % of 500 runs."""
    generator = np.random.default_rng(0)
    hits = sum(edge_runs(windows(p=generator.random(100)), span=10 * W)["edge"].iloc[0] for _ in range(500))
    assert stats.binomtest(int(hits), 500, 0.01, "greater").pvalue > 1e-2


def test_windows_may_be_measured_less_often_than_at_every_update():
    table = windows(p=0.5)
    assert edge_runs(table[::2], span=50).loc[0, "windows"] == 17
    assert edge_runs(table[::10], span=50).loc[0, "windows"] == 10


def test_several_p_values_must_all_be_small():
    table = windows(low=0.001, high=np.where(np.arange(100) % 2, 0.001, 0.5))
    assert edge_runs(table, span=10 * W, p="low")["edge"].iloc[0]
    # Every other of the disjoint windows has both.
    assert edge_runs(table, span=10 * W, p=["low", "high"])["edges"].iloc[0] == 10
    table["high"] = 0.5
    found = edge_runs(table, span=10 * W, p=["low", "high"]).iloc[0]
    assert not found["edge"]
    assert found["sentence"] == "Run one has no edge: 0 of 20 disjoint windows have p < 0.01."


def test_few_or_missing_p_values_are_not_resolved():
    few = edge_runs(windows(20, p=0.001), span=10 * W).iloc[0]
    assert (few["status"], few["edge"]) == ("not resolved", False)
    assert "4 disjoint windows of 50 steps" in few["sentence"]
    missing = edge_runs(windows(p=np.where(np.arange(100) == 10, np.nan, 0.5)), span=10 * W).iloc[0]
    assert "1 of 20 windows have no p-value" in missing["reason"]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 4), min_size=10, max_size=60))
def test_the_mode_is_that_of_disjoint_windows(ks):
    found = edge_mode(windows(len(ks), k=ks), span=10 * W, resamples=99)
    own = ks[::W]
    assert found["k"] == min(set(own), key=lambda k: (-own.count(k), k))
    assert found["share"] == pytest.approx(own.count(found["k"]) / len(own))
    assert found["low"] <= found["k"] <= found["high"]


def test_an_interval_of_a_clear_mode_is_one_number_and_of_a_tie_two():
    generator = np.random.default_rng(1)
    clear = pd.concat([windows(200, k=1 + (generator.random(200) < 0.9)).assign(seed=s) for s in range(4)])
    assert "of 160 disjoint windows of 4 seeds" in edge_mode(clear, span=10 * W)["sentence"]
    assert [edge_mode(clear, span=10 * W)[name] for name in ("k", "low", "high")] == [2, 2, 2]
    tied = pd.concat([windows(100, k=2 + s % 2).assign(seed=s) for s in range(4)])
    found = edge_mode(tied, span=10 * W)
    assert (found["low"], found["high"]) == (2, 3)
    assert (found["windows"], found["seeds"]) == (80, 4)


def scales(modes, **columns: Any):
    conditions = {"most": 4, "travel": 0.04, "row_normalised": True, **columns}
    return pd.concat(
        windows(50, k=k, scale=scale, **conditions).assign(seed=s)
        for scale, ks in modes.items()
        for s, k in enumerate(ks)
    )


def test_scales_differ_if_three_of_four_seeds_do():
    six = edge_scales(scales({"51M": [2] * 6, "124M": [3, 3, 3, 3, 3, 3]}), "51M", "124M", span=10 * W)
    assert six.outcome == "shown"
    assert "p = 0.031 if scales are exchanged in whole seeds" in six.reason
    # Four seeds have eight exchanges: windows show a difference, and runs of one scale may have it too.
    found = edge_scales(scales({"51M": [2] * 4, "124M": [3, 3, 3, 2]}), "51M", "124M", span=10 * W)
    assert found.outcome == "not resolved"
    assert found.reason.endswith(", and 4 seeds have none below 0.12")
    found = edge_scales(scales({"51M": [2] * 4, "124M": [3, 3, 2, 1]}), "51M", "124M", span=10 * W)
    assert found.outcome == "not shown"
    assert "2 [2, 2] at 51M" in found.sentence
    few = edge_scales(scales({"51M": [2] * 3, "124M": [3] * 3}), "51M", "124M", span=10 * W)
    assert few.outcome == "not resolved"


def test_runs_that_differ_by_themselves_are_no_difference_of_scales():
    """Each run keeps a k* of its own: permuted windows say that scales differ in most sets."""
    generator = np.random.default_rng(0)
    windows_say = seeds_say = 0
    for _ in range(100):
        pairs = [[np.full(10, k) for k in generator.integers(1, 4, 2)] for _ in range(6)]
        windows_say += _same_shares(pairs, draws=19, seed=0) <= 0.05
        seeds_say += _exchanged_seeds(pairs)[0] <= 0.05
    assert windows_say > 50
    assert stats.binomtest(seeds_say, 100, 0.05, "greater").pvalue > 1e-2


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(*[st.lists(st.integers(1, 4), min_size=1, max_size=4)] * 2), min_size=2, max_size=5)
)
def test_exchanges_of_whole_seeds_are_all_counted(pairs):
    pairs = [[np.array(k) for k in pair] for pair in pairs]

    def distance(turn):
        sides = [np.concatenate([p[i ^ t] for p, t in zip(pairs, turn, strict=True)]) for i in (0, 1)]
        return sum(abs((sides[0] == k).mean() - (sides[1] == k).mean()) for k in range(1, 5))

    found = [distance(turn) for turn in itertools.product((0, 1), repeat=len(pairs))]
    p, least = _exchanged_seeds(pairs)
    assert p == pytest.approx(np.mean([d >= found[0] - 1e-9 for d in found]))
    assert least == 2 ** (1 - len(pairs)) <= p


@pytest.mark.slow
def test_scales_whose_k_is_noise_rarely_differ():
    """Uniform k* up to 5: agreement of modes alone says that they differ in a quarter of sets and more."""
    generator = np.random.default_rng(0)
    agreed = different = 0
    for _ in range(60):
        table = scales({"51M": [1] * 4, "124M": [1] * 4})
        table["k"] = generator.integers(1, 6, len(table))
        found = edge_scales(table, "51M", "124M", span=10 * W, draws=99)
        different += found.outcome == "shown"
        agreed += any(f"direction in {n} of 4" in found.reason for n in (3, 4))
    assert agreed >= 10
    assert stats.binomtest(different, 60, 0.05, "greater").pvalue > 1e-2


@pytest.mark.parametrize(
    ("columns", "why"),
    [({"row_normalised": False}, "divided by their lengths"), ({"most": None}, "most differs (2, 4)")],
)
def test_scales_that_were_measured_differently_are_not_compared(columns, why):
    table = scales({"51M": [2] * 4, "124M": [3] * 4}, **columns)
    if columns.get("most", 0) is None:
        table["most"] = np.where(table["scale"] == "51M", 2, 4)
    found = edge_scales(table, "51M", "124M", span=10 * W)
    assert found.outcome == "not resolved"
    assert why in found.reason


def test_bad_input_is_refused():
    with pytest.raises(MeasureError, match="no windows"):
        edge_runs(windows(0, p=0.5), span=50)
    with pytest.raises(MeasureError, match="no column p"):
        edge_runs(windows(), span=10 * W)
    with pytest.raises(MeasureError, match="no column of p-values"):
        edge_runs(windows(p=0.5), span=10 * W, p=[])
    with pytest.raises(MeasureError, match="two windows at a step"):
        edge_runs(pd.concat([windows(p=0.5)] * 2), span=10 * W)
    with pytest.raises(MeasureError, match="span is 0"):
        edge_runs(windows(p=0.5), span=0)
    with pytest.raises(MeasureError, match="outside"):
        edge_runs(windows(p=1.5), span=10 * W)
    for k in (0, 1.5, math.nan):
        with pytest.raises(MeasureError, match="whole number"):
            edge_mode(windows(k=k), span=10 * W)
    with pytest.raises(MeasureError, match="there is no scale 1B"):
        edge_scales(scales({"51M": [2]}), "51M", "1B", span=10 * W)
