"""The study of phases of the geometry: planted answers, their claims, labels and page."""

import ast
import inspect
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from planted_phases import BASE, GATHERS, LOOKS, SHARE, WE, WEC, of, outcomes, planted

from sims.analysis import geometry, segmentation
from sims.analysis.geometry import label_phases
from sims.studies.claims import NOT_SHOWN, OPEN, SHOWN
from sims.studies.phases import carrier_sections, labels
from sims.studies.phases.answers import PhaseAnswers
from sims.studies.phases.labels import StoredLabels
from sims.studies.phases.page import lead, write_phases
from sims.studies.phases.published import claims
from sims.studies.phases.study import PAGE
from sims.studies.study import figures, sections


def test_the_published_phases_are_shown_where_they_are_planted():
    answers = planted({"rope": (BASE, WEC, {1: WEC, 8: WE, 32: WE, 0: WE}, GATHERS)})
    found = outcomes(answers)
    assert answers.words["rope"].word == "WEC"
    assert of(found, "States go through W, E and C") == SHOWN
    # RankMe rises by a factor e, between 2 and 3.
    assert of(found, "RankMe grows") == SHOWN
    factor = answers.factor("rope", "E")
    assert factor is not None
    assert factor.value == pytest.approx(math.e, rel=0.1)
    assert of(found, "Training ends in compression") == SHOWN
    assert of(found, "C is there without the first 1 direction") == SHOWN
    assert of(found, "C is there without the first 8 directions") == NOT_SHOWN
    assert of(found, "C is there with the mean state") == NOT_SHOWN
    assert of(found, "In W the states gather") == SHOWN
    # What needs other runs is open, and says which.
    for text in ("W is there without a ramp", "W ends at the same", "C needs fewer", "A bias", "Null runs"):
        assert of(found, text) == OPEN
    assert all(
        "train" in c.reason or "null run" in c.reason for c in claims(answers) if c.runs == "no such runs"
    )


def test_narrow_states_have_no_spectrum_without_most_of_their_directions():
    answers = planted({"narrow": (replace(BASE, width=8), WEC, {1: WEC}, GATHERS)})
    reasons = {c.claim: c.reason for c in claims(answers)}
    assert "fewer than two are left" in reasons["C is there without the first 8 directions"]
    assert "fewer than two" not in reasons["C is there without the first 1 direction"]
    assert "not measured" in reasons["C is there with the mean state"]


def test_two_phases_are_not_three_and_one_seed_decides_nothing():
    sets = {"rope": (BASE, WE, {8: WE}, 1.1 - GATHERS)}
    found = outcomes(planted(sets))
    assert of(found, "States go through W, E and C") == NOT_SHOWN
    assert of(found, "Training ends in compression") == NOT_SHOWN
    assert of(found, "In W the states gather") == NOT_SHOWN
    assert of(found, "C is there without the first 8 directions") == OPEN
    small = outcomes(planted({"rope": (BASE, 3 + 0.3 * (WE - 3), {8: WE}, GATHERS)}))
    assert of(small, "RankMe grows") == NOT_SHOWN
    assert set(outcomes(planted(sets, seeds=2)).values()) == {OPEN}


def test_what_holms_correction_takes_away_is_not_claimed():
    # With 39 bootstrap curves the smallest p-value is 1/40, three times which is too much.
    sets = {
        name: (replace(BASE, lr=lr), WEC, {8: WE}, GATHERS) for name, lr in zip("abc", (1, 2, 3), strict=True)
    }
    answers = planted(sets)
    assert {own.word for own in answers.words.values()} == {"W?"}
    found = outcomes(answers)
    for text in (
        "States go",
        "Training ends",
        "RankMe grows",
        "In W the states",
        "C is there without the first 8",
    ):
        assert of(found, text) == OPEN


def test_letters_on_rankme_alone_decide_claims_on_c_only():
    def alone(sets):
        answers = planted(sets)
        rows = answers.data.runs.rows
        runs = replace(answers.data.runs, rows=rows[rows["quantity"] != "alpha_req"].reset_index(drop=True))
        return PhaseAnswers(replace(answers.data, runs=runs), draws=39)

    answers = alone({"none": (replace(BASE, warmup=0), WEC, {8: WEC}, GATHERS),
                     "long": (replace(BASE, warmup=64), WEC, {8: WEC}, GATHERS)})  # fmt: skip
    assert {own.word for own in answers.words.values()} == {"WEC"}
    found = outcomes(answers)
    for text in ("RankMe grows", "In W the states gather", "W ends at the same tokens", "Training ends"):
        assert of(found, text) == OPEN
        assert any("RankMe only" in c.reason for c in claims(answers) if c.claim.startswith(text))
    assert of(found, "C is there without the first 8 directions") == SHOWN


def test_a_phase_is_all_of_its_pieces():
    curve = 3.5 + np.interp(SHARE, [0, 0.2, 0.4, 0.6, 0.8, 1], [0, -1.2, -0.4, -0.4, 0.5, 0.5])
    share = np.interp(SHARE, [0, 0.2, 0.4, 0.6, 0.8, 1], [0.2, 0.9, 0.9, 0.9, 0.4, 0.4])
    answers = planted({"rope": (BASE, curve, {}, share)})
    labels_ = [own.label for own in answers.words["rope"].phases]
    assert labels_[:4] == ["W", "E", "flat", "E"]
    change = answers.factor("rope", "E")
    assert change is not None
    assert change.value == pytest.approx(math.exp(1.7), rel=0.1)
    phase = answers.phase("rope", "E")
    assert phase is not None
    assert phase.move == pytest.approx(1.7, abs=0.1)
    assert phase.slope == pytest.approx(phase.move / math.log(phase.end / phase.start))
    shares = answers.mean_share("rope")
    assert shares is not None
    assert shares[1].value == pytest.approx(-0.5, abs=0.1)


def test_sets_on_null_texts_are_not_compared_with_each_other():
    null = replace(BASE, text="null", null="shuffled text")
    sets = {
        "a": null,
        "b": replace(null, bias=True),
        "c": replace(null, width=32),
        "d": replace(null, warmup=0),
    }
    answers = planted({name: (own, WE, {}, GATHERS) for name, own in sets.items()})
    assert answers.ramps == answers.widths == answers.biases == []
    wide = planted({"rope": (BASE, WE, {}, GATHERS), "wide": (replace(BASE, width=1024), WE, {}, GATHERS)})
    assert wide.widths == [["rope", "wide"]]


def later(shift):
    """Return the curve WE with its first turn a factor later."""
    share = SHARE - shift * math.log(2) / math.log(LOOKS[-1] / LOOKS[0])
    return 3.5 - 6 * np.minimum(share, 0.2) + 2.5 * np.clip(share - 0.2, 0, 0.4)


def test_ramps_are_told_by_their_configuration():
    def of_ramps(curve):
        first = (replace(BASE, warmup=0), WE, {}, GATHERS)
        return outcomes(planted({"none": first, "long": (replace(BASE, warmup=64), curve, {}, GATHERS)}))

    # Two that fall to their last look end W nowhere.
    fall = 5.0 - 1.5 * SHARE
    ending = planted({"none": (replace(BASE, warmup=0), fall, {}, GATHERS),
                      "long": (replace(BASE, warmup=64), fall, {}, GATHERS)})  # fmt: skip
    assert {own.word for own in ending.words.values()} == {"W"}
    assert of(outcomes(ending), "W ends at the same tokens") == OPEN
    assert np.isnan(ending.minimum_times("none")).all()
    assert ending.spacing("none", list(ending.minimum_times("none"))) == 1
    same, moved = of_ramps(WE), of_ramps(later(2))
    assert of(same, "W is there without a ramp") == SHOWN
    assert of(same, "W ends at the same tokens") == SHOWN
    assert of(moved, "W ends at the same tokens") == NOT_SHOWN
    assert ("W ends at the same tokens whatever the ramp", "long over none") in same


@pytest.mark.slow
def test_widths_and_biases_are_told_by_their_configuration():
    wide, bias = replace(BASE, width=1024), replace(BASE, bias=True)

    def found(curve):
        return planted({"rope": (BASE, WEC, {}, GATHERS), "wide": (wide, curve, {}, GATHERS),
                        "bias": (bias, curve, {}, 0.5 * GATHERS)}, draws=79)  # fmt: skip

    as_published, other = found(WE), found(WEC)
    for answers, outcome in ((as_published, SHOWN), (other, NOT_SHOWN)):
        own = outcomes(answers)
        assert of(own, "C needs fewer directions than tokens") == outcome
        assert of(own, "Fewer directions than tokens bring C") == SHOWN
        assert of(own, "A bias on the logits takes C away") == outcome
        assert of(own, "Without a bias of the logits the mean state has a larger share") == SHOWN
        assert of(own, "Null runs have no third phase") == outcome
        # A width of the vocabulary is a null, and no set that the published phases are asked of.
        assert ("States go through W, E and C", "wide") not in own
    # Where there is no third phase, nothing can take it away.
    none = outcomes(planted({"rope": (BASE, WE, {}, GATHERS), "wide": (wide, WE, {}, GATHERS),
                             "bias": (bias, WE, {}, GATHERS)}, draws=79))  # fmt: skip
    assert of(none, "C needs fewer directions than tokens") == of(none, "A bias on the logits") == OPEN
    assert of(none, "Fewer directions than tokens bring C") == NOT_SHOWN
    (word,) = [c for c in claims(as_published) if c.claim.startswith("States go") and c.runs == "rope"]
    assert word.against == "wide: WE"
    (section,) = [s for s in sections(PAGE, as_published) if s.name == "width"]
    assert section.figure is not None
    assert section.table is not None
    assert [row[:3] for row in section.table.rows] == [("rope", "d = 64", "WEC"), ("wide", "d = 1024", "WE")]


def test_labels_are_kept_and_read_again(tmp_path, monkeypatch):
    noise = 0.01 * np.random.default_rng(0).standard_normal((2, 3, len(LOOKS)))
    curves = np.exp(WEC + noise[0]), 4 - WEC + noise[1]
    stored = StoredLabels(tmp_path)
    first = stored(LOOKS, *curves, draws=39)
    with monkeypatch.context() as patch:
        patch.setattr(labels, "label_phases", lambda *_, **__: pytest.fail("labelled again"))
        again = stored(LOOKS, *curves, draws=39)
    wanted = label_phases(LOOKS, *curves, draws=39)
    for found in (first, again):
        assert repr(found) == repr(wanted)
    flat = stored(LOOKS, np.full(len(LOOKS), 9.0), draws=39)
    assert repr(flat) == repr(stored(LOOKS, np.full(len(LOOKS), 9.0), draws=39))
    assert flat.word == "flat"
    few = stored(LOOKS[:5], curves[0][:, :5], draws=39)
    assert few.status == "not fitted"
    assert len(list((tmp_path / "measured").iterdir())) == 3


def test_changed_rules_label_again(tmp_path, monkeypatch):
    """Whatever of this package decides labels is among the files whose change makes them again."""
    imported = set()
    for module in (geometry, segmentation):
        tree = ast.parse(inspect.getsource(module))
        imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    # Errors and words for people decide nothing.
    rules = {name for name in imported if name.startswith(("sims.analysis", "theory"))}
    assert {module.__name__ for module in labels.RULES} == rules | {"sims.analysis.geometry"}
    stored = StoredLabels(tmp_path)
    for digest in ("one", "other", "one"):
        labels._rules.cache_clear()
        monkeypatch.setattr(labels, "sha256", lambda path, own=digest: own if path.stem == "decision" else "")
        stored(LOOKS, np.exp(np.tile(WE, (1, 1))), draws=9)
    labels._rules.cache_clear()
    assert len(list((tmp_path / "measured").iterdir())) == 2


@pytest.mark.slow
def test_groups_that_begin_with_one_set_are_all_shown():
    two = replace(BASE, steps=270, lr=1e-3)
    sets = {"rope": BASE, "wide": replace(BASE, width=128), "slow": two, "wider": replace(two, width=256)}
    answers = planted({cell: (own, WE, {}, GATHERS) for cell, own in sets.items()})
    # A set may be in several groups, and begin them.
    answers.__dict__["widths"] = [["rope", "wide"], ["rope", "wider"], ["slow", "wider"]]
    (section,) = [s for s in sections(PAGE, answers) if s.name == "width"]
    assert section.table is not None
    assert [row[0] for row in section.table.rows] == ["rope", "wide", "rope", "wider", "slow", "wider"]
    assert section.figure is not None
    titles = [ax.get_title(loc="left") for ax in section.figure.axes if ax.get_visible()]
    assert titles == ["rope, wide", "rope, wider", "slow"]
    assert "up to the tokens that all sets of a group reach" in section.caption


def test_sets_of_two_lengths_are_compared_as_far_as_both_go():
    # Twice as long, and with a third phase only after the end of the other.
    long = replace(BASE, steps=1080, bias=False)
    answers = planted({"long": (long, WEC, {}, GATHERS), "bias": (replace(BASE, bias=True), WE, {}, GATHERS)})
    rows = answers.data.runs.rows
    rows = rows[(rows["stage"] == "long") | (rows["tokens"] <= LOOKS[12])]
    answers = PhaseAnswers(replace(answers.data, runs=replace(answers.data.runs, rows=rows)), draws=39)
    assert answers.biases == [["long", "bias"]]
    assert answers.words["long"].word == "WEC"
    words = answers.compared(["long", "bias"])
    assert {cell: own.points for cell, own in words.items()} == {"long": 13, "bias": 13}
    assert "C" not in words["long"].word
    # Under a rate that falls, or with a partner of one length, they are not.
    falling = {cell: replace(own, warmdown=10) for cell, own in answers.data.settings.items()}
    assert not replace(answers.data, settings=falling).alike("bias")
    more = {**answers.data.settings, "short": replace(BASE, bias=False)}
    assert replace(answers.data, settings=more).alike("bias") == [["short", "bias"]]
    # A group that another one holds is not a second comparison.
    ramps = {"none": replace(BASE, warmup=0), "some": replace(BASE, warmup=64), "long": long}
    assert replace(answers.data, settings=ramps).alike("warmup") == [["none", "long", "some"]]


def test_looks_are_those_of_the_mean_and_times_those_of_each_seed():
    answers = planted({"rope": (BASE, WEC, {}, GATHERS)})
    curve = answers.rankme("rope")
    assert curve.values.shape == (3, 22)
    assert curve.tokens[0] == 0
    assert curve.trained.values.shape == (3, 21)
    least, most = answers.extremes("rope")
    assert least.end == pytest.approx(LOOKS[4], rel=0.3)
    assert most.end == pytest.approx(LOOKS[12], rel=0.3)
    assert least.low < least.value < least.high < most.low
    for time, row in zip(answers.minimum_times("rope"), curve.trained.values, strict=True):
        assert row[time == LOOKS] == row[:12].min()
    assert answers.spacing("rope", [LOOKS[5]]) == pytest.approx(LOOKS[1] / LOOKS[0])


def test_a_page_without_what_it_needs_says_so(tmp_path):
    answers = planted({"rope": (BASE, WEC, {}, GATHERS)})
    page = write_phases(answers, [tmp_path], tmp_path / "page", ["a note"])
    text = page.read_text()
    assert "a note" in text
    assert "nan" not in text.lower()
    assert lead(answers).startswith("rope: WEC (the published word, 3 seeds).")
    made = {s.name: s.text for s in sections(PAGE, answers)}
    assert "needs --measure.geometry" in made["without"]
    assert {"ramp", "width", "bias", "nulls"}.isdisjoint(made)
    assert {p.name for p in page.parent.iterdir()} >= {"words.svg", "phases.csv", "rankme.csv", "tables.md"}


def test_ranks_of_runs_with_one_look_after_the_start_say_why(monkeypatch):
    first = {"tokens_from": 0.0, "tokens_to": 9.0, "seed": 0, "part": "1", "contribution": 0.1}
    steps = pd.DataFrame([first])
    monkeypatch.setattr(carrier_sections, "phase_balance", lambda *_: pd.DataFrame())
    data = SimpleNamespace(cells=["rope"], run_ids=lambda _: [])
    answers = SimpleNamespace(data=data, balance=lambda _: SimpleNamespace(steps=steps), words={"rope": None})
    figure = figures(PAGE)["ranks"]
    assert "there is one look after the start" in figure.section(answers).text
