"""The law of leads: exact laws, the level against laws without content, power, refusals."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sims.analysis.leads import lead_law
from sims.system.errors import MeasureError


def runs(generator, n=16):
    return pd.DataFrame({"t_90": generator.uniform(1_500, 6_000, n), "t_mem": generator.uniform(200, 600, n)})


@settings(deadline=None)
@given(st.integers(0, 10**6), st.floats(0.3, 1.0), st.floats(0.1, 0.9))
def test_an_exact_power_law_is_recovered(seed, b, c):
    table = runs(np.random.default_rng(seed))
    found = lead_law(table.assign(lead=c * table["t_90"] ** b))
    assert (found.b, found.c) == pytest.approx((b, c), rel=1e-6)
    assert found.low == pytest.approx(found.high, abs=1e-6)
    assert found.r2 == pytest.approx(1.0)
    fit = stats.linregress(np.log(table["t_90"]), np.log(table["t_90"] - table["t_mem"]))
    assert found.b_memorised == pytest.approx(fit[0])


@settings(deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 1_400.0))
def test_an_exact_constant_is_recovered_and_claims_nothing(seed, constant):
    table = runs(np.random.default_rng(seed))
    found = lead_law(table.assign(lead=table["t_90"] - constant))
    assert found.constant == pytest.approx(constant, abs=0.5)
    assert found.b_constant == pytest.approx(found.b, abs=1e-3)
    assert found.r2_constant == pytest.approx(1.0, abs=1e-5)
    assert found.b >= 1 - 1e-9


def test_the_standard_error_is_that_of_its_definition():
    generator = np.random.default_rng(0)
    table = runs(generator)
    table["lead"] = table["t_90"] ** 0.9 * np.exp(0.1 * generator.standard_normal(16))
    found = lead_law(table)
    design = np.column_stack([np.ones(16), np.log(table["t_90"])])
    inverse = np.linalg.inv(design.T @ design)
    hat = np.diag(design @ inverse @ design.T)
    rest = np.log(table["lead"]) - design @ (inverse @ design.T @ np.log(table["lead"]))
    variance = inverse @ design.T @ np.diag((rest / (1 - hat)) ** 2) @ design @ inverse
    assert found.high - found.b == pytest.approx(stats.t.ppf(0.975, 14) * math.sqrt(variance[1, 1]))


def test_a_lead_that_does_not_grow_shows_no_law():
    table = runs(np.random.default_rng(0))
    for lead in (np.full(16, 50.0), 1e6 / table["t_90"]):
        found = lead_law(table.assign(lead=lead))
        assert found.verdict.outcome == "not shown"
        assert "this does not lie above 0" in found.sentence


TRIALS = 200


@pytest.mark.parametrize("law", ["constant", "memorised"])
def test_an_early_alarm_shows_no_law(law):
    """Alarms at a fixed step, or at memorisation, with noise: at most 5 % of 200 sets claim a law."""
    shown = 0
    for i in range(TRIALS):
        generator = np.random.default_rng([1, i])
        table = runs(generator)
        alarm = 700.0 if law == "constant" else table["t_mem"]
        lead = table["t_90"] - alarm * np.exp(0.12 * generator.standard_normal(16))
        shown += lead_law(table.assign(lead=lead)).verdict.outcome == "shown"
    assert stats.binomtest(shown, TRIALS, 0.05, "greater").pvalue > 1e-2


def test_a_law_of_its_own_is_shown():
    shown = 0
    for i in range(40):
        generator = np.random.default_rng([2, i])
        table = runs(generator)
        lead = 2.5 * table["t_90"] ** 0.8 * np.exp(0.1 * generator.standard_normal(16))
        shown += lead_law(table.assign(lead=lead)).verdict.outcome == "shown"
    assert shown >= 34


def test_missed_alarms_and_other_kinds_are_left_out():
    table = runs(np.random.default_rng(3), 12)
    table = table.assign(lead=0.5 * table["t_90"], kind="groks", status="ok")
    table.loc[:1, "lead"] = 0.0
    control = pd.DataFrame(
        [{"kind": "labels", "t_mem": 300.0, "t_90": math.nan, "lead": math.nan, "status": "ok"}]
    )
    unknown = table.iloc[-1:].assign(lead=math.nan, status="not resolved")
    found = lead_law(pd.concat([table, control, unknown]))
    assert (found.runs, found.missed) == (10, 2)
    assert "2 without a lead" in found.sentence


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda t: t[:5], "5 runs have a lead"),
        (lambda t: t.assign(lead=0.0), "0 runs have a lead"),
        (lambda t: t.assign(t_90=2_000.0, lead=500.0), "2000 to 2000"),
        (lambda t: t.assign(t_90=np.where(np.arange(16) < 8, 2_000.0, 4_000.0)), "three different"),
        (lambda t: t.assign(t_90=np.linspace(2_000, 2_100, 16), lead=500.0), "factor of 1.5"),
    ],
)
def test_too_little_is_not_resolved(change, why):
    table = runs(np.random.default_rng(4))
    found = lead_law(change(table.assign(lead=0.4 * table["t_90"].min())))
    assert found.verdict.outcome == "not resolved"
    assert why in found.sentence


def test_equal_leads_have_exponent_zero():
    found = lead_law(runs(np.random.default_rng(5)).assign(lead=500.0))
    assert found.b == pytest.approx(0.0, abs=1e-9)
    assert found.r2 == 0.0
    assert found.status == "ok"


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.assign(lead=-1.0),
        lambda t: t.assign(lead=np.nan),
        lambda t: t.assign(lead=9e9),
        lambda t: t.assign(t_mem=np.nan),
        lambda t: t.assign(t_mem=9e9),
    ],
)
def test_times_that_cannot_be_are_refused(change):
    with pytest.raises(MeasureError, match="pass runs that grok"):
        lead_law(change(runs(np.random.default_rng(6)).assign(lead=100.0)))
    with pytest.raises(MeasureError, match="no column lead"):
        lead_law(runs(np.random.default_rng(6)))
