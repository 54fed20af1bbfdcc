"""The page of the theory against trained runs: what is decided first, and what would decide the rest."""

import math
import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sims.pages.page import Page
from sims.pages.write import write_page
from sims.studies.theory.outcome import FAILS, HOLDS, NOT_TESTABLE, Question, seeds_that_decide
from sims.studies.theory.page import _by_family, _lead, statements
from theory.predictions import PREDICTIONS, judge

SPREAD = PREDICTIONS["relative-spread"]
NULL = PREDICTIONS["null-h-s"]


def asked(values, prediction=SPREAD, of=""):
    rows = pd.DataFrame(
        {"run_id": [f"r{s}" for s in range(len(values))], "seed": range(len(values)), "value": values}
    )
    return Question(prediction, "≤ 0", of).over_seeds(rows)


OUTCOMES = [
    asked([-0.4, 0.5, 0.1], of="muon"),
    asked([-0.4, -0.5, -0.45], of="rope"),
    asked([0.4, 0.5, 0.45], of="untied"),
    asked([0.3], of="baseline"),
    Question(PREDICTIONS["token-order"], "≤ 0").untestable("no two runs with a common seed"),
    asked([0.4, 0.6, 0.5], NULL),
]


def test_statements_are_decided_first_and_open_ones_say_what_would_decide_them():
    found = list(statements(OUTCOMES))
    assert [s.decided for s in found] == [True, True, False, False, False]
    assert "Holds: rope -0.450 [" in found[0].text
    assert found[0].text.endswith("(T9.spread).")
    assert "Fails: untied 0.450 [" in found[1].text
    both = found[2]
    assert "Open: muon 0.067 [" in both.text
    assert "baseline 0.300" in both.text
    assert re.fullmatch(r"about \d+ seeds \(muon\); at least 2 seeds \(baseline\)", both.needs)
    assert found[3].text == "Do larger rates save tokens? Open: no two runs with a common seed (T6.order)."
    assert not found[3].needs


def test_the_page_says_how_many_are_decided_and_what_the_claims_mean(tmp_path):
    lead = _lead(OUTCOMES)
    assert "6 questions" in lead
    assert "1 is answered as it predicts, 1 against it, and 4 stay open" in lead
    sections = list(_by_family(OUTCOMES))
    assert [s.title.split(" ")[0] for s in sections if s.level == 2] == ["T3", "T6", "T9"]
    page = Page(title="t", lead=lead, findings=list(statements(OUTCOMES)), sections=sections)
    text = write_page(page, tmp_path / "page.html").read_text("utf-8")
    assert "What would decide it: about" in text
    assert (
        text.index("Holds: rope")
        < text.index("Open: muon")
        < text.index("<h2>T9 · Gradient descent and Muon")
    )
    assert "T9.spread: How far apart in time" in text


@given(st.floats(-2, 2), st.floats(0.01, 5), st.sampled_from([SPREAD, NULL]))
def test_so_many_seeds_decide_if_mean_and_spread_stay(mean, spread, prediction):
    said = seeds_that_decide(prediction, mean, spread)
    away = min(prediction.range.reach(mean, limit) for limit in prediction.limits)
    if said.startswith("more than"):
        assert away < 0.2 * spread
        return
    (seeds,) = map(int, re.findall(r"\d+", said))
    half = float(stats.t.ppf(0.975, seeds - 1)) * spread / math.sqrt(seeds)
    low, high = prediction.range.interval(mean, half)
    assert judge(prediction, low, mean, high).outcome != "not testable"


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=6))
def test_only_open_questions_need_anything(values):
    outcome = asked(values)
    assert (outcome.verdict == NOT_TESTABLE) == bool(outcome.needs)
    assert outcome.verdict in (HOLDS, FAILS, NOT_TESTABLE)


def test_seeds_that_agree_decide_nothing():
    assert asked([0.2, 0.2]).needs == "seeds that differ"


@pytest.mark.parametrize(
    ("of", "parts"), [("", ""), ("muon", "muon"), ("α(10-40), pairs [x]", "α(10-40), pairs [x]")]
)
def test_a_question_is_told_from_its_runs(of, parts):
    outcome = Question(SPREAD, "≤ 0", of).untestable("no")
    assert outcome.asked == (SPREAD.question, parts)
