"""Phases of the geometry on constructed curves: words, turns, seeds that disagree, false third phases, claims."""

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sims.analysis.geometry import LEAST_MOVE, Phase, Phases, label_phases
from sims.analysis.geometry_claims import coincidence, word_verdict
from sims.analysis.geometry_runs import corrected, geometry_phases
from sims.analysis.runs import Runs
from sims.analysis.segmentation import level_p
from sims.runs.columns import WHICH
from sims.system.errors import MeasureError

LOOKS = 20
FEWER = 99
# Shares of ln tokens at which the phases end, and what they move ln RankMe by.
SHAPES = {
    "W": ((), (-1.0,)),
    "E": ((), (1.0,)),
    "WE": ((0.25,), (-0.8, 1.0)),
    "WEC": ((0.2, 0.7), (-0.8, 1.0, -0.3)),
    "EC": ((0.6,), (1.0, -0.4)),
    "WECE": ((0.2, 0.5, 0.75), (-0.8, 1.0, -0.5, 0.6)),
    # A rise that ends: what comes after is no third phase.
    "WE level": ((0.2, 0.7), (-0.8, 1.0, 0.0)),
}


def tokens_of(looks=LOOKS):
    return 1e4 * 300 ** np.linspace(0, 1, looks)


def curve(shape, looks=LOOKS, third=None):
    """ln RankMe of a shape without noise."""
    ends, moves = SHAPES[shape]
    if third is not None:
        moves = (*moves[:2], -third)
    share = np.linspace(0, 1, looks)
    edges = (0.0, *ends, 1.0)
    parts = zip(pairwise(edges), moves, strict=True)
    return 3.0 + np.sum([move * np.clip((share - a) / (b - a), 0, 1) for (a, b), move in parts], axis=0)


def noise(generator, shape, correlation):
    """Stationary noise of unit variance with a first-order correlation along the last axis."""
    steps = generator.standard_normal(shape)
    out = steps.copy()
    for i in range(1, shape[-1]):
        out[..., i] = correlation * out[..., i - 1] + math.sqrt(1 - correlation**2) * steps[..., i]
    return out


def words(shape, sd, draws, *, seeds=1, looks=LOOKS, correlation=0.5, third=None, first=0):
    """How often each word is found in curves of one shape with noise; α-ReQ mirrors the curve, with own noise."""
    found = Counter()
    for draw in range(first, first + draws):
        generator = np.random.default_rng([17, draw])
        plain = curve(shape, looks, third)
        y, z = (sd * noise(generator, (seeds, looks), correlation) for _ in range(2))
        own = label_phases(tokens_of(looks), np.exp(plain + y), 4 - plain + z, draws=FEWER, seed=draw)
        found[own.word] += 1
    return found


@pytest.mark.parametrize("shape", [s for s in SHAPES if " " not in s])
def test_curves_without_noise_have_their_words(shape):
    looks = 30
    y = curve(shape, looks)
    found = label_phases(tokens_of(looks), np.exp(y), 4 - y)
    assert found.word == shape
    assert (found.status, found.reason) == ("ok", "")
    assert len(found.phases) == len(shape)
    for own, move in zip(found.phases, SHAPES[shape][1], strict=True):
        assert own.move == pytest.approx(move, abs=0.1)
        assert own.slope == pytest.approx(own.move / math.log(own.end / own.start))
        assert own.rho == pytest.approx(-1.0)
        assert own.support == "RankMe and α"
    spacing = math.log(300) / (looks - 1)
    for (_, place), end in zip(found.turns(), SHAPES[shape][0], strict=True):
        assert abs(place - math.log(1e4) - end * math.log(300)) < spacing
    assert found.rows()[0]["word"] == shape
    assert shape in found.sentence


def test_units_change_nothing():
    y = curve("WEC") + 0.02 * noise(np.random.default_rng(0), (LOOKS,), 0.5)
    plain = label_phases(tokens_of(), np.exp(y))
    other = label_phases(1e3 * tokens_of(), 7 * np.exp(y))
    assert plain.word == other.word == "WEC"
    assert [own.slope for own in other.phases] == pytest.approx([own.slope for own in plain.phases])
    assert [own.start for own in other.phases] == pytest.approx([1e3 * own.start for own in plain.phases])


def test_a_level_curve_and_one_that_moves_too_little_are_flat():
    for move in (0.0, 0.9 * LEAST_MOVE):
        found = label_phases(tokens_of(), np.exp(3 + move * np.linspace(0, 1, LOOKS)))
        assert found.word == "flat"
        assert found.turns() == []
    more = label_phases(tokens_of(), np.exp(3 + 2 * LEAST_MOVE * np.linspace(0, 1, LOOKS)))
    assert more.word == "E"


def test_slopes_have_intervals_that_hold_them():
    """Of the mean slope of a straight line with correlated noise: 95 % up to chance, and what is estimated of it."""
    held, draws, x = 0, 200, np.log(tokens_of())
    for draw in range(draws):
        y = 3 + 0.3 * (x - x[0]) + 0.1 * noise(np.random.default_rng([3, draw]), (LOOKS,), 0.3)
        (own,) = label_phases(tokens_of(), np.exp(y), max_changes=0).phases
        held += own.low <= 0.3 <= own.high
    assert held / draws >= 0.88


def test_planted_words_are_found_in_noise():
    assert words("WE", 0.02, 20) == {"WE": 20}
    assert words("WEC", 0.02, 20)["WEC"] >= 18
    assert words("WEC", 0.02, 4, seeds=3)["WEC"] == 4


@pytest.mark.parametrize("shape", ["WE", pytest.param("WE level", marks=pytest.mark.slow)])
def test_a_third_phase_is_rarely_found_where_there_is_none(shape):
    draws = 200
    third = sum(count for word, count in words(shape, 0.02, draws).items() if "C" in word)
    assert third <= 0.05 * draws


@pytest.mark.slow
@pytest.mark.parametrize("sd", [0.02, 0.05])
@pytest.mark.parametrize("shape", ["WE", "WE level"])
def test_a_third_phase_is_found_in_at_most_5_percent_of_200_draws(shape, sd):
    third = sum(count for word, count in words(shape, sd, 200, looks=30).items() if "C" in word)
    assert third <= 10


@pytest.mark.slow
def test_a_third_phase_over_seeds_is_rarer_still_and_a_planted_one_is_found():
    assert sum(n for word, n in words("WE level", 0.05, 100, seeds=3, looks=30).items() if "C" in word) <= 2
    assert words("WEC", 0.02, 50, seeds=3, looks=30)["WEC"] >= 48
    assert words("WEC", 0.02, 100, looks=30, third=0.1)["WEC"] >= 50


def seeds_of(places, sd=0.01):
    """Curves that rise, and fall from different places on."""
    share = np.linspace(0, 1, LOOKS)
    generator = np.random.default_rng(5)
    plain = [np.minimum(share, p) / p - 0.8 * np.maximum(0, share - p) / (1 - p) for p in places]
    return np.array(plain) + 3 + sd * noise(generator, (len(places), LOOKS), 0.3)


def test_seeds_must_have_the_turns_of_their_mean():
    agreeing = label_phases(tokens_of(), np.exp(seeds_of([0.6, 0.6, 0.6])))
    assert agreeing.word == "EC"
    assert agreeing.phases[-1].agree == 1.0
    apart = label_phases(tokens_of(), np.exp(seeds_of([0.5, 0.6, 0.7])))
    assert "?" in apart.word
    assert apart.status == "flagged"
    assert "of the seeds have this turn" in apart.reason
    assert min(own.agree for own in apart.phases if own.label == "?") < 2 / 3


def test_an_exponent_that_does_not_move_the_other_way_leaves_rankme_only():
    y = curve("WEC", 30)
    alpha = 4 - y
    alpha[-9:] = alpha[-9] - np.linspace(0, 0.3, 9)
    found = label_phases(tokens_of(30), np.exp(y), alpha)
    assert found.word == "WEC"
    assert found.status == "flagged"
    assert found.reason == "RankMe only: C"
    assert [own.support for own in found.phases] == ["RankMe and α"] * 2 + ["RankMe only"]
    assert found.phases[-1].rho > 0.9
    none = label_phases(tokens_of(30), np.exp(y))
    assert none.reason == "RankMe only: W, E, C"
    # Looks without an exponent are left out; fewer than four say nothing.
    alpha = np.where(np.arange(30) < 27, np.nan, 4 - y)
    some = label_phases(tokens_of(30), np.exp(y), alpha)
    assert all(math.isnan(own.rho) for own in some.phases)


@pytest.mark.parametrize(
    ("tokens", "rankme", "alpha", "message"),
    [
        (np.arange(20.0), np.ones(20), None, "must be positive"),
        (tokens_of()[::-1], np.ones(20), None, "and rise"),
        (tokens_of(), np.ones(19), None, "have shape"),
        (tokens_of(), np.zeros(20), None, "finite and positive"),
        (tokens_of(), np.full(20, np.nan), None, "finite and positive"),
        (tokens_of(), np.ones(20), np.ones((2, 20)), "of the same looks"),
    ],
)
def test_curves_that_cannot_be_labelled_are_refused(tokens, rankme, alpha, message):
    with pytest.raises(MeasureError, match=message):
        label_phases(tokens, rankme, alpha)


def test_few_looks_have_no_word():
    found = label_phases(tokens_of(7), np.ones(7))
    assert (found.word, found.status) == ("", "not fitted")
    assert "7 looks" in found.sentence
    assert found.rows() == [
        {"word": "", "status": "not fitted", "reason": found.reason, "seeds": 1, "points": 7}
    ]


def made_runs(shapes, seeds=3, detail="width", sd=0.01):
    """Runs of one batch size whose RankMe has a shape by stage, with α-ReQ that mirrors it."""
    runs, rows = [], []
    for i, (stage, shape) in enumerate(shapes.items()):
        for seed in range(seeds):
            label = {"run_id": f"{stage}-{seed}", "stage": stage, "batch_size": 8, "lr": 1e-3, "seed": seed}
            y = curve(shape) + sd * noise(np.random.default_rng([i, seed]), (LOOKS,), 0.3)
            place = {"object": "activation", "site": "final", **WHICH, "status": "ok"}
            for step, tokens in enumerate([0.0, *tokens_of()]):
                value = 3.0 if step == 0 else y[step - 1]
                head = {**label, "step": step, "tokens": tokens, **place}
                rows.append({**head, "quantity": "rankme", "value": math.exp(value)})
                rows.append({**head, "quantity": "alpha_req", "detail": detail, "value": 4 - value})
            runs.append({**label, "ended": "finished", "step": LOOKS, "tokens": 3e6, "val_loss": 1.0})
    return Runs(pd.DataFrame(runs), pd.DataFrame(rows), pd.DataFrame({"run_id": []}), ())


def test_runs_and_cells_have_words_claims_and_turns_corrected_over_cells():
    found = geometry_phases(made_runs({"rope": "WEC", "muon": "WE"}))
    table = found.words
    assert table["of"].tolist() == ["run", "run", "run", "seeds"] * 2
    assert set(table["alpha"]) == {"width"}
    words = table[table["of"] == "seeds"].set_index("stage")
    assert words["word"].to_dict() == {"rope": "WEC", "muon": "WE"}
    assert words["seeds"].tolist() == [3, 3]
    assert (words["p_holm"] >= words["p"]).all()
    assert words["p_holm"].max() <= 2 * words["p"].max() <= 0.05
    assert table[table["of"] == "run"]["p_holm"].isna().all()
    phases = found.phases
    assert phases[(phases["stage"] == "rope") & (phases["of"] == "seeds")]["label"].tolist() == [
        "W",
        "E",
        "C",
    ]
    outcomes = {
        stage: {claim: word_verdict(own, claim).outcome for claim in ("WE", "WEC")}
        for (stage, _), own in found.sets.items()
    }
    assert outcomes == {
        "rope": {"WE": "not shown", "WEC": "shown"},
        "muon": {"WE": "shown", "WEC": "not shown"},
    }


def test_many_cells_need_smaller_p_values():
    # With 39 bootstrap curves the smallest p-value is 1/40, three times which is too much.
    runs = made_runs({"rope": "WE", "muon": "WE", "untied": "WE"})
    found = geometry_phases(runs, draws=39)
    assert [own.status for own in found.sets.values()] == ["flagged"] * 3
    assert all("(Holm)" in own.reason for own in found.sets.values())
    assert word_verdict(found.sets["rope", 8], "WE").outcome == "not resolved"
    # What the turns lead to is not known.
    assert {own.word for own in found.sets.values()} == {"W?"}
    assert [p.label for p in found.sets["rope", 8].phases if p.label != "flat"] == ["W", "?"]
    assert set(found.words.loc[found.words["of"] == "seeds", "word"]) == {"W?"}
    assert "?" not in "".join(found.words.loc[found.words["of"] == "run", "word"])


@pytest.mark.parametrize("cells", [2, 14, 15, 40])
def test_curves_are_drawn_for_as_many_cells_as_there_are(cells):
    """Letters that are as sure as can be stay, however many cells are corrected for."""

    def surest(tokens, rankme, alpha=None, *, draws, **settings):
        p = 1 / (1 + draws)
        turned = Phase("E", 1e4, 1e6, 1.0, 0.9, 1.1, 1.0, -1.0, "RankMe and α", p, p)
        first = Phase("W", 1e3, 1e4, -1.0, -1.1, -0.9, -1.0, -1.0, "RankMe and α")
        return Phases("WE", "ok", "", len(np.atleast_2d(rankme)), len(tokens), (first, turned), p)

    runs = made_runs({f"stage{i}": "WE" for i in range(cells)}, seeds=2)
    found = geometry_phases(runs, label=surest)
    assert {own.word for own in found.sets.values()} == {"WE"}
    stricter = geometry_phases(runs, label=surest, level=0.01)
    assert {own.word for own in stricter.sets.values()} == {"WE"}
    # With fewer curves than that all of them fail.
    found = geometry_phases(runs, label=surest, draws=20 * cells - 2)
    assert {own.word for own in found.sets.values()} == {"W?"}


def test_letters_before_the_one_that_fails_stay():
    def phase(label, p):
        return Phase(label, 1.0, 2.0, 1.0, 0.9, 1.1, 0.7, p=p, p_level=p)

    own = Phases("WEC", "ok", "", 3, 30, (phase("W", math.nan), phase("E", 0.004), phase("C", 0.03)), 0.03)
    assert corrected(own, 0.06, 2).word == "WE?"
    assert corrected(own, 0.3, 20).word == "W?"
    assert corrected(own, 0.03, 1) is own
    # Those before a letter that fails by itself are tested over all cells too.
    unsure = replace(own, word="WE?", p=0.2, phases=(*own.phases[:2], phase("?", 0.2)))
    assert corrected(unsure, 0.4, 2) is unsure
    assert corrected(unsure, 1.0, 20).word == "W?"


def test_runs_without_the_numbers_are_refused():
    runs = made_runs({"rope": "WE"}, seeds=1)
    with pytest.raises(MeasureError, match="was not measured after step 0"):
        geometry_phases(runs, "blocks.0")
    twice = pd.concat([runs.rows, runs.rows.assign(detail="top 8")], ignore_index=True)
    with pytest.raises(MeasureError, match="several rows a look"):
        geometry_phases(replace(runs, rows=twice))
    alone = geometry_phases(
        replace(runs, rows=runs.rows.query("quantity == 'rankme'").reset_index(drop=True))
    )
    assert alone.words["reason"].tolist() == ["RankMe only: W, E"] * 2
    assert set(alone.words["alpha"]) == {""}


def test_words_that_are_not_decided_resolve_nothing():
    def outcome(claimed, word="WEC", status: Any = "ok", seeds=3):
        return word_verdict(Phases(word, status, "" if status == "ok" else "why", seeds, 30), claimed).outcome

    assert outcome("WEC") == "shown"
    assert outcome("WEC", seeds=2) == "not resolved"
    assert outcome("WEC", status="flagged") == "not resolved"
    assert outcome("WEC", word="WE?", status="flagged") == "not resolved"
    assert outcome("WE", word="WE?", status="flagged") == "not resolved"
    assert outcome("EC", word="WE?", status="flagged") == "not shown"
    assert outcome("WEC", word="", status="not fitted") == "not resolved"
    with pytest.raises(MeasureError, match="letters W, E and C"):
        outcome("ABC")


def test_times_coincide_within_a_factor_of_root_two():
    def of(first, second=(1e5,) * 5, spacing=1.2):
        return coincidence(first, second, spacing=spacing)

    close = of([1e5, 1.1e5, 0.9e5, 1.05e5, 0.95e5])
    assert close.verdict.outcome == "shown"
    assert close.low < 1 < close.high
    assert close.seeds == 5
    assert of([1.5e5, 1.6e5, 1.55e5, 1.5e5, 1.6e5]).verdict.outcome == "not shown"
    # Later by less than √2, but later than the looks can be wrong by.
    assert of([1.3e5, 1.31e5, 1.3e5, 1.29e5, 1.3e5], spacing=1.1).verdict.outcome == "not shown"
    assert of([0.4e5, 2e5, 1e5, 3e5, 0.5e5]).verdict.outcome == "not resolved"
    assert of([1e5, 1e5, 1e5, 1e5, 1e5], spacing=1.5).verdict.outcome == "not resolved"
    few = of([1e5, 1e5, math.nan, math.nan, math.nan])
    assert few.verdict.outcome == "not resolved"
    assert "2 of 5 seeds" in few.sentence
    assert of([math.nan] * 5).seeds == 0
    same = of([1e5] * 5)
    assert same.verdict.outcome == "shown"
    assert same.row()["factor"] == 1.0
    # The interval is that of Student's t on paired differences.
    first, second = np.array([1.0, 2.0, 4.0]), np.array([1.5, 2.5, 3.0])
    d = np.log(first / second)
    low, high = stats.t.interval(0.95, 2, d.mean(), d.std(ddof=1) / math.sqrt(3))
    found = of(first, second)
    assert (found.low, found.high) == (pytest.approx(math.exp(low)), pytest.approx(math.exp(high)))


@pytest.mark.parametrize(
    ("first", "second", "spacing"),
    [([1.0, 2.0], [1.0], 1.2), ([0.0, 1, 2], [1, 1, 1], 1.2), ([1, 1, 1], [1, 1, 1], 0.9)],
)
def test_times_that_are_none_are_refused(first, second, spacing):
    with pytest.raises(MeasureError):
        coincidence(first, second, spacing=spacing)


def test_independent_times_rarely_coincide():
    """Differences of ln tokens uniform over a decade, three seeds: that they coincide is a chance of a few percent."""
    generator = np.random.default_rng(11)
    shown = 0
    for _ in range(400):
        first, second = 10 ** generator.uniform(5, 6, (2, 3))
        shown += coincidence(first, second, spacing=1.2).verdict.outcome == "shown"
    assert shown / 400 < 0.02


def test_a_level_segment_is_rarely_rejected_wherever_its_change_is():
    """A rise and a level part, its change between two looks: p ≤ .05 in at most 5 % of curves, up to chance."""
    x, draws = np.log(np.arange(1, 19) * 1_000.0), 120
    change = (x[9] + x[10]) / 2
    generator = np.random.default_rng(3)
    rejected, found = 0, 0

    def p(y, part, covers, i):
        return level_p(x, y, 1, part, covers, draws=199, seed=i)

    for i in range(draws):
        y = np.minimum(x, change) - x[0] + 0.05 * noise(generator, (len(x),), 0.5)
        rejected += p(y, 1, (12, 15), i) <= 0.05
        found += p(y - 0.8 * np.maximum(0, x - change), 1, (12, 15), i) <= 0.05
        assert p(y, 0, (2, 7), i) == pytest.approx(1 / 200)
    assert stats.binomtest(rejected, draws, 0.05, "greater").pvalue > 1e-2
    assert found >= 0.8 * draws
    # Of exact curves the slope is no chance, and a level part is none for certain.
    exact = np.minimum(x, x[9])
    assert p(exact, 0, (2, 7), 0) == 1 / 200
    assert p(exact, 1, (11, 15), 0) == 1.0
