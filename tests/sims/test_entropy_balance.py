"""The entropy balance of spectra over training: exact sums, the error of the looks, which ranks carry a phase."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sims.analysis.entropy_balance import Balance, balance_of, entropy_balance, rank_groups
from sims.analysis.entropy_phases import _carrier, carriers, mean_state, phase_balance
from sims.analysis.geometry import Phase, Phases
from sims.analysis.runs import Runs, load
from sims.runs.columns import WHICH
from sims.system.errors import MeasureError
from sims.training.toy_runner import run_group

WIDTH = 40
START = np.arange(1, WIDTH + 1) ** -1.0


def path(growth, looks=40, start=START):
    """Eigenvalues λ(t) = λ(0)·exp(∫g) at looks in 0 … 1; growth (d,) is multiplied by 1 + sin(2t)."""
    t = np.linspace(0, 1, looks)[:, None]
    return start * np.exp(growth * (t + (1 - np.cos(2 * t)) / 2))


def growing(first=0.0, head=0.0, tail=0.0):
    """Rates of rank 1, of ranks 2 to 8 and of the last ones, small enough that ranks stay in order."""
    found = np.zeros(WIDTH)
    found[0], found[1:8], found[32:] = first, head, tail
    return found


def exact(growth, groups, steps=4_000):
    """Integral of −p_i (g_i − ḡ)(ln p_i) for each group, by the middle of 4,000 steps."""
    t = (np.arange(steps)[:, None] + 0.5) / steps
    values = START * np.exp(growth * (t + (1 - np.cos(2 * t)) / 2))
    rates = growth * (1 + np.sin(2 * t))
    p = values / values.sum(1, keepdims=True)
    entropy = -(p * np.log(p)).sum(1, keepdims=True)
    each = -p * (rates - (p * rates).sum(1, keepdims=True)) * (np.log(p) + entropy)
    return np.array([each[:, own].sum() / steps for own in groups.values()])


@settings(max_examples=60, deadline=None)
@given(
    arrays(
        float,
        st.tuples(st.integers(2, 6), st.integers(1, 40)),
        elements=st.floats(0, 1e3).map(lambda x: x if x > 1e-6 else 0.0),
    ).filter(lambda x: (x.sum(axis=1) > 0).all())
)
def test_the_parts_add_up_to_the_change_exactly(values):
    energies = -np.sort(-values, axis=1)
    found = balance_of(energies)
    shares = energies / energies.sum(1, keepdims=True)
    logs = np.log(np.where(shares > 0, shares, 1))
    entropy = -(shares * logs).sum(1)
    assert found.change == pytest.approx(entropy[-1] - entropy[0], abs=1e-12)
    assert found.parts.sum() == pytest.approx(found.change, abs=1e-11)
    assert found.residual < 1e-11
    assert len(found.parts) == len(rank_groups(energies.shape[1]))


@pytest.mark.parametrize("rates", [(0.5, 0.3, 0.0), (0.2, 0.0, -1.0), (0.3, 0.6, -0.5)], ids=str)
def test_parts_are_the_integral_of_the_covariance_and_the_errors_of_looks_are_told(rates):
    growth = growing(*rates)
    groups = rank_groups(WIDTH)
    truth = exact(growth, groups)
    errors, told, rules = [], [], []
    for looks in (11, 21, 41):
        found = balance_of(path(growth, looks))
        errors.append(np.abs(found.parts - truth).max())
        told.append(found.split_error)
        rules.append(abs(found.rule_error))
        assert found.residual < 1e-12
        # What half of the looks change bounds what the looks leave open.
        assert errors[-1] < found.split_error + 1e-7
        assert found.status == "ok"
    # Both fall with the square of the distance of looks.
    assert told[1] < 0.35 * told[0]
    assert told[2] < 0.35 * told[1]
    assert rules[2] < 0.35 * rules[1] < 0.35 * 0.35 * rules[0] + 1e-12
    # An unweighted covariance is another number.
    values = path(growth)
    p = values[0] / values[0].sum()
    assert abs(
        np.cov(growth, np.log(p), bias=True)[0, 1] * WIDTH * np.mean(1 + np.sin(2 * np.linspace(0, 1, 99)))
    ) > (2 * abs(found.change))


def test_looks_that_are_too_far_apart_are_flagged():
    # A loop: the first rank grows, then the last ones, then both fall in the same order.
    values = np.repeat(START[None], 5, axis=0)
    values[1:3, 0] *= 6.0
    values[2:4, 30:] *= 10.0
    values = -np.sort(-values, axis=1)
    found = balance_of(values)
    assert found.status == "flagged"
    assert "half of the looks" in found.reason
    assert found.change == pytest.approx(0.0)
    assert balance_of(values[:2]).status == "flagged"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones((1, 3)), "at least two"),
        (np.ones(3), "at least two"),
        (np.array([[1.0, 0.0], [0.0, 0.0]]), "zero everywhere"),
        (np.array([[1.0, 0.0], [np.nan, 0.0]]), "not finite"),
    ],
)
def test_spectra_that_are_none_are_refused(values, message):
    with pytest.raises(MeasureError, match=message):
        balance_of(values)
    with pytest.raises(MeasureError, match="ascending"):
        rank_groups(8, (4, 2))


def made_runs(growths, width=WIDTH, site="final", mean=(0.2, 0.7)):
    """Runs of one stage, one for each growth; the looks are at equal distances in ln tokens, after one at the start."""
    tokens = np.concatenate([[0], np.round(1e4 * 100 ** np.linspace(0, 1, 40))])
    runs, rows, spectra = [], [], []
    for seed, growth in enumerate(growths):
        label = {"run_id": f"rope-{seed}", "stage": "rope", "batch_size": 32, "lr": 1e-3, "seed": seed}
        runs.append({**label, "ended": "finished", "step": 40, "tokens": tokens[-1], "val_loss": 3.0})
        values = np.concatenate([START[None], path(growth)])[:, :width]
        for step, (when, own) in enumerate(zip(tokens, values, strict=True)):
            where = {**label, "step": step, "tokens": int(when), "object": "activation", "site": site}
            spectra.append(
                {**where, "kind": "eigenvalue", "n": 500, "d": width, "centred": True, "values": own}
            )
            share = mean[0] + (mean[1] - mean[0]) * step / 40 + 0.01 * seed
            which = dict.fromkeys(WHICH, "")
            rows.append(
                {**where, **which, "quantity": "mean_share", "value": share, "status": "ok", "null": 0.0}
            )
    return Runs(pd.DataFrame(runs), pd.DataFrame(rows), pd.DataFrame(spectra), ())


def phases(*ends, label="C"):
    """Phases between these tokens."""
    found = tuple(Phase(label, a, b, -0.1, -0.2, -0.05, -0.3) for a, b in pairwise(ends))
    return Phases(label * len(found), "ok", "", 3, 40, found)


SEEDS = (0.45, 0.5, 0.55)


def test_the_steps_of_a_run_add_up_and_its_looks_are_ln_rankme():
    balance = entropy_balance(made_runs([growing(first=g) for g in SEEDS]))
    assert balance.groups == ("1", "2-8", "9-32", "33-40")
    for run, own in balance.steps.groupby("run_id"):
        looks = balance.looks[balance.looks["run_id"] == run]
        change = looks["entropy"].iloc[-1] - looks["entropy"].iloc[0]
        assert own["contribution"].sum() == pytest.approx(change, abs=1e-12)
        (check,) = balance.checks[balance.checks["run_id"] == run].to_dict("records")
        assert check["change"] == pytest.approx(change, abs=1e-12)
        assert (check["status"], check["looks"]) == ("ok", 41)


def test_a_planted_group_carries_its_phase_and_phases_add_up():
    runs = made_runs([growing(first=g) for g in SEEDS])
    balance = entropy_balance(runs)
    found = phases(1e4, 1.1e5, 1e6)
    table = phase_balance(balance, found, list(balance.paths))
    assert table["number"].tolist() == [1] * 5 + [2] * 5
    assert set(table["status"]) == {"ok"}
    assert table[["mean", "low", "high", "share", "split_error", "rule_error"]].notna().all().all()
    parts, whole = table[table["part"] != "all"], table[table["part"] == "all"].set_index("number")
    sums = parts.groupby("number")["mean"].sum()
    np.testing.assert_allclose(sums, whole["mean"], atol=1e-12)
    np.testing.assert_allclose(parts.groupby("number")["share"].sum(), 1.0)
    # The first rank is above the typical share and grows: it takes entropy away.
    assert (parts[parts["part"] == "1"]["high"] < 0).all()
    after_start = [own.energies[[1, -1]] for own in balance.paths.values()]
    change = np.mean([balance_of(ends).change for ends in after_start])
    assert whole["mean"].sum() == pytest.approx(change, abs=1e-12)
    verdicts = carriers(balance, found, list(balance.paths))
    assert [v.outcome for v in verdicts] == ["shown", "shown"]
    assert "ranks 1 " in verdicts[0].reason
    alone = replace(found, phases=(found.phases[0], replace(found.phases[1], support="RankMe only")))
    open_ = carriers(balance, alone, list(balance.paths))
    assert [v.outcome for v in open_] == ["shown", "not resolved"]
    assert "rests on RankMe only" in open_[1].reason


def test_groups_that_add_alike_few_seeds_and_changes_without_a_sign_are_not_resolved():
    found = phases(1e4, 1e6)
    two = entropy_balance(made_runs([growing(first=g) for g in SEEDS[:2]]))
    table = phase_balance(two, found, list(two.paths))
    assert set(table["status"]) == {"flagged"}
    assert table["reason"].str.contains("2 seeds, of 3").all()
    assert table["low"].isna().all()
    assert carriers(two, found, list(two.paths))[0].outcome == "not resolved"
    either = entropy_balance(made_runs([growing(first=g) for g in (-0.5, 0.1, 0.5)]))
    table = phase_balance(either, found, list(either.paths))
    assert set(table["status"]) == {"flagged"}
    assert table["reason"].str.contains("no sign").all()
    assert table["share"].isna().all()
    verdict = carriers(either, found, list(either.paths))[0]
    assert (verdict.outcome, "no sign" in verdict.reason) == ("not resolved", True)
    # In some seeds the first rank adds more, in others the last ones: no group is apart.
    alike = [growing(first=first, tail=-2.0) for first in (0.2, 0.25, 0.3)]
    mixed = entropy_balance(made_runs(alike))
    assert "not apart" in carriers(mixed, found, list(mixed.paths))[0].reason


@pytest.mark.parametrize(("second", "least", "most"), [(1.0, 0.0, 0.08), (0.2, 0.95, 1.0)])
def test_a_group_is_rarely_apart_by_chance_and_mostly_where_it_is(second, least, most):
    """Two groups that add alike, of four, and one that adds five times as much; 300 sets of three seeds each."""
    rng, shown = np.random.default_rng(0), 0
    for _ in range(300):
        parts = np.array([1.0, second, 0.1, 0.1]) + 0.1 * rng.standard_normal((3, 4))
        each = [Balance(own.sum(), own, 0.0, 0.0, 0.0, "ok", "") for own in parts]
        shown += _carrier("E", each, ["1", "2-8", "9-32", "33-64"]).outcome == "shown"
    assert least <= shown / 300 <= most


def test_the_mean_state_is_told_for_each_phase():
    balance = entropy_balance(made_runs([growing(first=g) for g in SEEDS]))
    table = mean_state(balance, phases(1e4, 1.1e5, 1e6), list(balance.paths))
    assert len(table) == 2
    assert table["mean"].sum() == pytest.approx(0.5 * 39 / 40)
    assert table["after"].iloc[-1] == pytest.approx(0.71)
    runs = made_runs([growing(first=g) for g in SEEDS])
    without = entropy_balance(replace(runs, rows=runs.rows[runs.rows["step"] > 5]))
    # The first phase begins at a look without.
    assert mean_state(without, phases(1e4, 1.1e5, 1e6), list(balance.paths))["number"].tolist() == [2]
    assert without.looks["mean_share"].isna().any()


def test_runs_without_spectra_or_of_several_widths_are_refused():
    runs = made_runs([growing(first=0.5)])
    with pytest.raises(MeasureError, match="'embed' at 0 looks, of two needed"):
        entropy_balance(runs, "embed")
    narrow = made_runs([growing(first=0.5), growing(first=0.4)])
    narrow.spectra["values"] = [
        own[:20] if seed else own
        for own, seed in zip(narrow.spectra["values"], narrow.spectra["seed"], strict=True)
    ]
    with pytest.raises(MeasureError, match="widths 20, 40"):
        entropy_balance(narrow)


def test_a_toy_run_has_a_balance_of_its_rankme(tmp_path, tiny_run, tiny_measure):
    config = tiny_run(steps=12, eval_every=6)
    measure = tiny_measure(every=6, geometry=True, schedules=("activations=6+5/decade",))
    assert not run_group([config], measure, tmp_path)
    runs = load(tmp_path)
    balance = entropy_balance(runs)
    rankme = runs.values("rankme", "activation", "final").sort_values("step")["value"]
    np.testing.assert_allclose(balance.looks["entropy"], np.log(rankme), rtol=1e-9)
    assert balance.looks["mean_share"].between(0, 1).all()
    assert float(balance.checks["residual"].max()) < 1e-12
    assert math.isfinite(float(balance.checks["rule_error"].iloc[0]))
