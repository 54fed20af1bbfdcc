"""Peaks of agreement with n-grams on constructed curves: found where planted, rarely elsewhere, in order, in phases."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sims.analysis.geometry import ALPHA_OPPOSITE, FLAT, RANKME_ONLY, Phase, Phases
from sims.analysis.geometry_runs import geometry_phases
from sims.analysis.memorisation import extremum, later, neighbours, peak, peaks_within, spacing_around
from sims.analysis.memorisation_runs import memorisation, ngram_curves
from sims.analysis.runs import Runs
from sims.runs.columns import WHICH
from sims.system.errors import MeasureError
from sims.text.continuations import ORDERS

LOOKS = 30
X = np.linspace(0, 1, LOOKS)
TOKENS = 1e4 * 300**X
BY_LOOK = 300 ** (1 / (LOOKS - 1))
SHAPES = {
    "rising": 0.3 + 0.5 * X,
    "saturating": 0.3 + 0.5 * np.minimum(X / 0.6, 1),
    "level": np.full(LOOKS, 0.6),
    "peak": 0.3 + 0.5 * np.minimum(X / 0.5, 1) - 0.1 * np.maximum(X - 0.5, 0) / 0.5,
}


def seeds_of(curve, key, seeds=3, sd=0.01):
    return curve + sd * np.random.default_rng(key).standard_normal((seeds, LOOKS))


def outcomes(shape, draws=200, seeds=3):
    return [peak(TOKENS, seeds_of(SHAPES[shape], [i, 7], seeds)).verdict.outcome for i in range(draws)]


def bump(place, fall=0.4):
    """A curve that is highest at a share of ln tokens."""
    return 0.9 - 0.6 * np.maximum(place - X, 0) - fall * np.maximum(X - place, 0)


def test_curves_without_a_peak_rarely_have_one():
    # 3 seeds, noise as large as what they end apart: nearly 5 % of intervals lie above 0 by chance.
    for shape in ("saturating", "level"):
        assert outcomes(shape).count("shown") <= 16
    rising = outcomes("rising")
    assert rising.count("shown") == 0
    assert rising.count("not shown") >= 140


def test_planted_peaks_are_found_at_their_tokens():
    found = [peak(TOKENS, seeds_of(SHAPES["peak"], [i, 9])) for i in range(100)]
    assert sum(own.found for own in found) >= 95
    right = TOKENS[np.argmax(SHAPES["peak"])]
    near = [abs(math.log(own.place / right)) <= math.log(2) for own in found if own.found]
    assert np.mean(near) >= 0.95
    # The fall is read at the peak of the other seeds: it is not larger than the planted one.
    assert 0.085 <= np.mean([own.fall for own in found]) <= 0.1


def test_a_peak_of_known_numbers():
    tokens = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    rows = np.array([[0.1, 0.5, 0.9, 0.6, 0.40], [0.1, 0.5, 0.9, 0.6, 0.42], [0.2, 0.95, 0.9, 0.6, 0.44]])
    found = peak(tokens, rows, "ρ of the 1-gram")
    assert found.tokens.tolist() == [4, 4, 2]
    assert found.values.tolist() == [0.9, 0.9, 0.95]
    assert (found.first, found.last, found.spacing) == (1, 16, 2)
    assert found.place == pytest.approx(32 ** (1 / 3))
    # Seeds 0 and 1 are read at the third look, as seed 2 is.
    falls = np.array([0.50, 0.48, 0.46])
    assert found.fall == pytest.approx(falls.mean())
    half = 4.302653 * falls.std(ddof=1) / math.sqrt(3)
    assert (found.low, found.high) == pytest.approx((falls.mean() - half, falls.mean() + half), abs=1e-6)
    assert found.spread == pytest.approx(0.02)
    assert found.sentence.startswith("ρ of the 1-gram peaks before the end: shown (the end lies 0.48 [")
    row = found.row()
    assert (row["tokens_min"], row["tokens_max"], row["outcome"]) == (2, 4, "shown")


def test_what_is_no_peak_says_why():
    def why(values, tokens=TOKENS):
        found = peak(tokens, values)
        return found.verdict.outcome, found.verdict.reason

    outcome, reason = why(seeds_of(SHAPES["peak"], 0, 2))
    assert (outcome, reason) == ("not resolved", "2 seeds, of 3 needed")
    assert why(seeds_of(SHAPES["peak"], 0, 1))[0] == "not resolved"
    assert why(SHAPES["rising"] + np.zeros((3, 1))) == (
        "not shown",
        "still rising: 100% of the seeds are highest at the last look",
    )
    # Seeds whose ends differ by as much as the fall.
    apart = SHAPES["peak"] + np.linspace(-0.2, 0.2, 3)[:, None] * X
    outcome, reason = why(apart)
    assert outcome == "not resolved"
    assert "no less" in reason
    # Seeds that are copies of one have no spread.
    outcome, reason = why(np.tile(SHAPES["peak"], (3, 1)))
    assert outcome == "not resolved"
    assert "no width" in reason


@pytest.mark.parametrize(
    ("tokens", "values", "message"),
    [
        (TOKENS, np.zeros((3, 4)), "shape"),
        (TOKENS[:2], np.zeros((3, 2)), "2 looks"),
        (TOKENS[::-1], np.zeros((3, LOOKS)), "rise"),
        (TOKENS, np.full((3, LOOKS), np.nan), "finite"),
    ],
)
def test_curves_that_cannot_be_read_are_refused(tokens, values, message):
    with pytest.raises(MeasureError, match=message):
        peak(tokens, values)


def test_peaks_come_in_an_order_by_a_factor():
    early, late = (peak(TOKENS, seeds_of(bump(p), i, sd=0.002)) for i, p in enumerate((0.3, 0.7)))
    assert early.found
    assert late.found
    found = later(early, late)
    assert found.verdict.outcome == "shown"
    assert found.factor == pytest.approx(300**0.4, rel=0.2)
    assert found.low < found.factor < found.high
    assert later(early, late, factor=5).verdict.outcome == "shown"
    assert later(early, late, factor=50).verdict.outcome == "not shown"
    assert later(late, early).verdict.outcome == "not shown"
    assert later(early, early).verdict.outcome == "not resolved"
    # Equal looks in all seeds are known to the distance of looks.
    step = later(early, replace(early, tokens=early.tokens * BY_LOOK))
    assert step.verdict.outcome == "not resolved"
    assert step.low == pytest.approx(1, rel=1e-6)
    two = peak(TOKENS, seeds_of(bump(0.7), 1, 2))
    fewer = replace(early, tokens=early.tokens[:2])
    assert later(fewer, two).verdict.outcome == "not resolved"
    with pytest.raises(MeasureError, match="same seeds"):
        later(early, two)
    with pytest.raises(MeasureError, match="at least 1"):
        later(early, late, factor=0.5)


def test_what_still_rises_peaks_later_than_anything_that_has_a_peak():
    early = peak(TOKENS, seeds_of(bump(0.3), 0, sd=0.002), "ρ of the 1-gram")
    rising = peak(TOKENS, seeds_of(SHAPES["rising"], 1, sd=0.002), "ρ of the 2-gram")
    found = later(early, rising)
    assert found.verdict.outcome == "shown"
    assert found.high == math.inf
    assert found.low < 300**0.7 < found.low * 1.6
    assert "still rising" in found.verdict.reason
    assert later(rising, early).verdict.outcome == "not resolved"
    level = peak(TOKENS, seeds_of(SHAPES["level"], 2))
    assert later(early, level).verdict.outcome == "not resolved"
    saturating = peak(TOKENS, seeds_of(SHAPES["saturating"], 2))
    open_ = later(early, saturating)
    assert (open_.verdict.outcome, open_.high) == ("shown", math.inf)
    assert "has no certain peak" in open_.verdict.reason


def phases_of(word, *ends, status: Any = "ok"):
    edges = [TOKENS[0], *ends, TOKENS[-1]]
    own = tuple(
        Phase(c, edges[i], edges[i + 1], 0, 0, 0, 0, support=ALPHA_OPPOSITE) for i, c in enumerate(word)
    )
    return Phases(word, status, "why", 3, LOOKS, own)


def test_peaks_lie_in_phases():
    found = peak(TOKENS, seeds_of(bump(0.5), 0, sd=0.002))
    middle = TOKENS[[8, 22]]
    assert peaks_within(found, phases_of("WEC", *middle)).outcome == "shown"
    assert peaks_within(found, phases_of("WEC", *TOKENS[[2, 6]])).outcome == "not shown"
    assert peaks_within(found, phases_of("W")).outcome == "not shown"
    assert peaks_within(found, phases_of("W?", TOKENS[6], status="flagged")).outcome == "not resolved"
    assert peaks_within(found, replace(phases_of("W"), status="not fitted")).outcome == "not resolved"
    rising = peak(TOKENS, seeds_of(SHAPES["rising"], 1, sd=0.002))
    assert peaks_within(rising, phases_of("WEC", *middle)).outcome == "not shown"
    assert peaks_within(rising, phases_of("WE", middle[0])).outcome == "not resolved"
    # One of three seeds lies outside.
    moved = replace(found, tokens=np.array([found.tokens[0], found.tokens[1], TOKENS[1]]))
    assert peaks_within(moved, phases_of("WEC", *middle)).outcome == "shown"
    moved = replace(found, tokens=np.array([found.tokens[0], TOKENS[1], TOKENS[1]]))
    assert peaks_within(moved, phases_of("WEC", *middle)).outcome == "not shown"


def test_a_phase_that_is_not_supported_decides_nothing():
    found = peak(TOKENS, seeds_of(bump(0.5), 0, sd=0.002))
    rising = peak(TOKENS, seeds_of(SHAPES["rising"], 1, sd=0.002))
    middle = TOKENS[[8, 22]]
    # The end of E is not supported: only a peak before its start is decided.
    open_ = phases_of("WE?", *middle, status="flagged")
    for own in (rising, found, peak(TOKENS, seeds_of(bump(0.9), 0, sd=0.002))):
        verdict = peaks_within(own, open_)
        assert verdict.outcome == "not resolved"
        assert "not supported" in verdict.reason
    early = peak(TOKENS, seeds_of(bump(0.2), 0, sd=0.002))
    assert peaks_within(early, open_).outcome == "not shown"
    # A supported E before the open one decides.
    assert peaks_within(early, phases_of("ECE?", *TOKENS[[10, 15, 20]], status="flagged")).outcome == "shown"
    whole = phases_of("WEC", *middle)
    by_rankme = [replace(p, support=RANKME_ONLY if p.label == "E" else p.support) for p in whole.phases]
    for own in (found, rising, early):
        verdict = peaks_within(own, replace(whole, phases=tuple(by_rankme), status="flagged"))
        assert (verdict.outcome, verdict.reason) == ("not resolved", "E rests on RankMe only")
    # What is flat between two pieces of E is a part of it.
    pieces = phases_of("WEfEC", *TOKENS[[6, 12, 18, 24]])
    pieces = tuple(replace(p, label=FLAT, support="") if p.label == "f" else p for p in pieces.phases)
    assert peaks_within(found, replace(whole, phases=pieces)).outcome == "shown"
    assert neighbours(replace(whole, phases=pieces), "EC") == (TOKENS[6], TOKENS[-1])
    # Few seeds decide nothing, whatever they show.
    for word, ends in (("W", ()), ("WEC", middle)):
        for seeds in (1, 2):
            verdict = peaks_within(peak(TOKENS, seeds_of(bump(0.5), 0, seeds, 0.002)), phases_of(word, *ends))
            assert verdict.outcome == "not resolved"
            assert "of 3 needed" in verdict.reason


def test_turns_are_read_between_their_phases():
    # A fall, a rise and a fall below where it began.
    curve = (
        10
        - 8 * np.minimum(X / 0.2, 1)
        + 6 * np.clip((X - 0.2) / 0.4, 0, 1)
        - 7 * np.clip((X - 0.6) / 0.4, 0, 1)
    )
    rows = np.tile(curve, (2, 1))
    phases = phases_of("WEC", *TOKENS[[6, 17]])
    assert extremum(TOKENS, rows, phases, "WE").tolist() == [TOKENS[6]] * 2
    assert extremum(TOKENS, rows, phases, "EC").tolist() == [TOKENS[17]] * 2
    # Phases without such neighbours have no turn, however the curve goes.
    for word, letters in (("WE", "EC"), ("WE?", "EC"), ("W?", "WE"), ("E", "WE"), ("W", "WE")):
        ends = TOKENS[[6, 17]][: len(word) - 1]
        assert np.isnan(extremum(TOKENS, rows, phases_of(word, *ends), letters)).all()
    flat = Phases(FLAT, "ok", "", 3, LOOKS, (Phase(FLAT, TOKENS[0], TOKENS[-1], 0, 0, 0, 0),))
    early = rows[:, :20]
    assert np.isnan(extremum(TOKENS[:20], early, flat, "WE")).all()
    # Without phases the least value is the end, which is no turn.
    assert np.isnan(extremum(TOKENS, rows, None, "WE")).all()
    assert extremum(TOKENS[:20], early, None, "WE").tolist() == [TOKENS[6]] * 2
    assert extremum(TOKENS[:20], early, None, "EC").tolist() == [TOKENS[17]] * 2
    with pytest.raises(MeasureError, match="choose WE"):
        extremum(TOKENS, rows, None, "CE")


def test_the_distance_of_looks_around_a_time():
    assert spacing_around(TOKENS, TOKENS[[5]]) == pytest.approx(BY_LOOK)
    assert spacing_around(np.array([1.0, 2.0, 6.0, 7.0]), np.array([6.0])) == 3
    assert spacing_around(TOKENS, np.array([math.nan])) == 1


# Shares of ln tokens at which ρ_n peaks; the ∞-gram rises to the end.
PLACES = {"1-gram": 0.25, "2-gram": 0.6, "3-gram": 0.7, "5-gram": 0.9}


def made_runs(seeds=3, without=()):
    """Runs whose RankMe goes through WEC, least where ρ of the 1-gram is largest."""
    runs, rows = [], []
    for seed in range(seeds):
        label = {"run_id": f"rope-{seed}", "stage": "rope", "batch_size": 8, "lr": 1e-3, "seed": seed}
        rng = np.random.default_rng(seed)
        share = np.clip([X / 0.25, (X - 0.25) / 0.45, (X - 0.7) / 0.3], 0, 1)
        rankme = 3 - 0.8 * share[0] + share[1] - 0.4 * share[2] + 0.003 * rng.standard_normal(LOOKS)
        curves = {law: bump(place) + 0.002 * rng.standard_normal(LOOKS) for law, place in PLACES.items()}
        curves["∞-gram"] = SHAPES["rising"] + 0.002 * rng.standard_normal(LOOKS)
        for step, tokens in enumerate([0.0, *TOKENS]):
            head = {**label, "step": step, "tokens": tokens, "status": "ok", "site": "final", **WHICH}
            at = max(step - 1, 0)
            rows.append({**head, "quantity": "rankme", "object": "activation", "value": math.exp(rankme[at])})
            alpha = {"quantity": "alpha_req", "detail": "width", "value": 4 - rankme[at]}
            rows.append({**head, "object": "activation", **alpha})
            for law, curve in curves.items() if seed not in without else ():
                own = {"object": "ngram", "detail": law}
                rows.append({**head, **own, "quantity": "ngram_correlation", "value": curve[at]})
                if law in ("1-gram", "2-gram"):
                    rows.append({**head, **own, "quantity": "ngram_divergence", "value": 2 - curve[at]})
        runs.append({**label, "ended": "finished", "step": LOOKS, "tokens": 3e6, "val_loss": 1.0})
    return Runs(pd.DataFrame(runs), pd.DataFrame(rows), pd.DataFrame({"run_id": []}), ())


def test_claims_about_runs_are_decided():
    runs = made_runs()
    sets = geometry_phases(runs, draws=99).sets
    assert sets["rope", 8].word == "WEC"
    found = memorisation(runs, sets)
    assert list(found.peaks["rope", 8]) == list(ORDERS.values())
    table = {(r["quantity"], r["law"]): r for r in found.table.to_dict("records")}
    for law, place in PLACES.items():
        own = table["ngram_correlation", law]
        assert own["outcome"] == "shown"
        assert own["tokens"] == pytest.approx(1e4 * 300**place, rel=0.25)
    assert table["ngram_correlation", "∞-gram"]["outcome"] == "not shown"
    least = table["ngram_divergence", "1-gram"]
    assert least["value"] == pytest.approx(2 - 0.9, abs=0.01)
    assert least["end"] > least["value"]
    assert least["tokens"] == table["ngram_correlation", "1-gram"]["tokens"]
    assert len(found.seeds) == 3 * 7
    claims = dict(zip(found.claims["claim"], found.claims["outcome"], strict=True))
    assert claims["ρ of the 2-gram is highest later than ρ of the 1-gram"] == "shown"
    assert claims["ρ of the ∞-gram is highest later than ρ of the 5-gram"] == "shown"
    assert claims["ρ of the ∞-gram peaks within phase E"] == "not shown"
    assert claims["The least RankMe and the peak of ρ of the 1-gram coincide"] == "shown"
    assert claims["The least RankMe and the peak of ρ of the 2-gram coincide"] == "not shown"
    assert claims["The largest RankMe and the peak of ρ of the 3-gram coincide"] == "shown"
    assert "The largest RankMe and the peak of ρ of the ∞-gram coincide" not in claims
    without = memorisation(runs).claims
    assert len(without) == 5 + 4
    assert ngram_curves(runs, ("rope", 8), "2-gram").shape == (LOOKS, 3)


def test_turns_of_phases_that_are_not_there_are_not_resolved():
    runs = made_runs()
    never = Phases(FLAT, "ok", "", 3, LOOKS, (Phase(FLAT, TOKENS[0], TOKENS[-1], 0, 0, 0, 0),))
    for phases, said in (
        (never, "go through flat"),
        (phases_of("W?", TOKENS[7], status="flagged"), "W[?]; why"),
    ):
        claims = memorisation(runs, {("rope", 8): phases}).claims
        own = claims[claims["claim"].str.endswith("coincide")]
        # Two turns and four peaks.
        assert len(own) == 2 * 4
        assert set(own["outcome"]) == {"not resolved"}
        assert own["reason"].str.contains(said).all()
        assert own["factor"].isna().all()


@pytest.mark.parametrize(
    ("weak", "open_"), [("W", {"least"}), ("E", {"least", "largest"}), ("C", {"largest"})]
)
def test_a_turn_with_a_letter_that_rests_on_rankme_only_is_not_resolved(weak, open_):
    whole = phases_of("WEC", 1e4 * 300**0.25, 1e4 * 300**0.7)
    phases = replace(
        whole,
        phases=tuple(replace(p, support=RANKME_ONLY) if p.label == weak else p for p in whole.phases),
    )
    claims = memorisation(made_runs(), {("rope", 8): phases}).claims.set_index("claim")
    for turn, letters in (("least", "WE"), ("largest", "EC")):
        own = claims[claims.index.str.startswith(f"The {turn}") & claims.index.str.endswith("coincide")]
        rests = own["reason"].eq(f"{weak} rests on RankMe only")
        assert len(own) == 4, letters
        assert rests.all() == rests.any() == (turn in open_)
        assert (own["outcome"] == "shown").any() == (turn not in open_)


@pytest.mark.slow
def test_a_set_with_few_looks_leaves_the_others_their_claims():
    runs = made_runs()

    def beside(chosen):
        """A second set whose rows are some of those of the first."""
        again = {"stage": "short", "run_id": lambda table: "short-" + table["seed"].astype(str)}
        return replace(
            runs,
            runs=pd.concat([runs.runs.assign(**again), runs.runs], ignore_index=True),
            rows=pd.concat([runs.rows[chosen].assign(**again), runs.rows], ignore_index=True),
        )

    sets = geometry_phases(runs, draws=39).sets
    wanted = memorisation(runs, sets).claims
    few = runs.rows["step"] <= 2
    both = {**sets, ("short", 8): geometry_phases(beside(few), draws=39).sets["short", 8]}
    claims = memorisation(beside(few), both).claims
    assert set(claims["stage"]) == {"rope"}
    assert claims["outcome"].tolist() == wanted["outcome"].tolist()
    # Few looks at RankMe alone.
    states = runs.rows["object"] == "activation"
    for phases, said in ((both["short", 8], "2 looks"), (sets["rope", 8], "2 looks at RankMe")):
        claims = memorisation(beside(few | ~states), {**sets, ("short", 8): phases}).claims
        own = claims[(claims["stage"] == "short") & claims["claim"].str.endswith("coincide")]
        assert len(own) == 2 * 4
        assert set(own["outcome"]) == {"not resolved"}
        assert own["reason"].str.contains(said).all()


def test_runs_without_n_grams_are_refused():
    runs = made_runs()
    with pytest.raises(MeasureError, match=r"--measuring\.ngrams"):
        memorisation(replace(runs, rows=runs.rows[runs.rows["object"] != "ngram"]))
    with pytest.raises(MeasureError, match="rope-1 has no ngram_correlation"):
        memorisation(made_runs(without=(1,)))
    few = runs.rows[(runs.rows["step"] < 3) | (runs.rows["object"] != "ngram")].reset_index(drop=True)
    with pytest.raises(MeasureError, match="three looks"):
        memorisation(replace(runs, rows=few))
