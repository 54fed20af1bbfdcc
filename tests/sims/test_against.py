"""Questions to trained models: every outcome on tables with a known answer."""

import math
import re

import numpy as np
import pandas as pd
import pytest
from planted_evidence import (
    WINDOW,
    against_law,
    along,
    arrivals,
    concentrations,
    evidence,
    label,
    row,
    spectrum,
    task,
)

from sims.studies.theory.batch_tail import batch_tail
from sims.studies.theory.checkpoint_tables import table
from sims.studies.theory.head_bound import head_bound
from sims.studies.theory.hitting import hitting, spreads
from sims.studies.theory.noise import noise
from sims.studies.theory.null_start import null_start, probabilities
from sims.studies.theory.outcome import FAILS, HOLDS, NOT_TESTABLE, Question, seed_mean
from sims.studies.theory.overshoot import highest_of_noise, overshoot
from sims.studies.theory.position import position
from sims.studies.theory.predictive import predictive
from sims.studies.theory.questions import FAMILIES
from sims.studies.theory.tails import tails
from sims.studies.theory.tying import direct_path, initial_loss, is_untied
from spectra import h_s_null, task_band
from theory.predictions import PREDICTIONS

# --- intervals ---------------------------------------------------------------------------------------------


def test_the_interval_counts_seeds_not_rows():
    rows = pd.DataFrame({"seed": [0] * 10 + [1], "value": [1.0] * 10 + [3.0]})
    mean, low, high, n = seed_mean(rows)
    assert (mean, n) == (2.0, 2)
    assert high - mean == pytest.approx(12.706 * math.sqrt(2) / math.sqrt(2), rel=1e-3)
    assert low == pytest.approx(mean - 12.706, rel=1e-3)


def test_one_seed_decides_nothing_statistical_and_nothing_is_asked_of_nothing():
    rows = [row("alpha", 2.0, "activation", "final", null=0.2, which=WINDOW, step=5)]
    assert noise(evidence(rows))[0].verdict == NOT_TESTABLE
    empty = evidence([row("val_loss", 1.0)])
    for family in FAMILIES:
        for outcome in family(empty):
            assert outcome.verdict == NOT_TESTABLE, outcome
            assert outcome.reason


def seeds_of(values):
    return pd.DataFrame(
        {"run_id": [f"r{i}" for i in range(len(values))], "seed": range(len(values)), "value": values}
    )


def test_seeds_without_a_number_are_left_out_and_counted_out():
    question = Question(PREDICTIONS["token-order"], "≤ 0")
    found = question.over_seeds(seeds_of([-0.3, math.nan, -0.2, -0.25]))
    assert (found.verdict, found.seeds, found.runs) == (HOLDS, 3, 3)
    none = question.over_seeds(seeds_of([math.nan] * 3))
    assert none.verdict == NOT_TESTABLE
    assert "no number" in none.reason


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("above-noise", [0.999, 0.99, 0.997]),
        ("above-noise", [0.96, 0.97, 0.955]),
        ("null-h-s", [0.05, 0.4, 0.1]),
        ("flatter-faster", [0.99, 0.5, 0.9, -0.5]),
        ("token-order", [-0.3, -0.1, 0.05]),
    ],
)
def test_an_open_question_needs_more_seeds_than_it_has(name, values):
    """On the plain scale three seeds near a bound would have been enough, which they were not."""
    found = Question(PREDICTIONS[name], "").over_seeds(seeds_of(values))
    assert found.verdict == NOT_TESTABLE
    (needed,) = re.findall(r"about (\d+) seeds", found.needs)
    assert int(needed) > len(values)


def test_intervals_of_differences_of_shares_stay_within_them():
    for name, most in (("fading", 1.0), ("kernel-in-class-means", 2.0)):
        found = Question(PREDICTIONS[name], "").over_seeds(seeds_of([-0.9 * most, 0.9 * most]))
        assert (found.low, found.high) == (-most, most)


# --- T2, T7 ------------------------------------------------------------------------------------------------


def bound(**changes):
    values = {
        "h_s": 0.5,
        "head": 0.6,
        "bound": 0.3,
        "total_head": 0.4,
        "rankme": 3.0,
        "entropy": 4.0,
        "trace": 1.0,
    }
    return {**label(step=10), "band": "31:2 clean seen", "set": "task", **values, **changes}


def test_inequalities_hold_until_one_checkpoint_breaks_one():
    good = head_bound(evidence(bounds=[bound(), bound(h_s=0.6)]))
    assert [o.verdict for o in good] == [HOLDS] * 4
    assert good[0].effect == pytest.approx(0)
    assert (good[0].runs, good[0].checkpoints) == (1, 1)
    broken = {"head": 0.499, "total_head": 0.299, "rankme": 4.001, "trace": 1.01}
    for i, (name, value) in enumerate(broken.items()):
        outcomes = head_bound(evidence(bounds=[bound(), bound(step=20, **{name: value})]))
        assert [o.verdict == FAILS for o in outcomes] == [k == i for k in range(4)]


@pytest.mark.parametrize("name", ["head", "total_head", "rankme", "trace"])
def test_a_checkpoint_without_a_number_leaves_an_inequality_open_unless_another_breaks_it(name):
    lost = bound(step=20, **{name: math.nan})
    at = ["head", "total_head", "rankme", "trace"].index(name)
    verdict = [o.verdict for o in head_bound(evidence(bounds=[bound(), lost]))]
    assert verdict == [NOT_TESTABLE if k == at else HOLDS for k in range(4)]
    broken = bound(step=30, **{name: {"head": 0.4, "total_head": 0.2}.get(name, 5.0)})
    assert head_bound(evidence(bounds=[bound(), lost, broken]))[at].verdict == FAILS


# --- T3 ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tails_", "verdict"),
    [
        ((0.45, 0.5, 0.55), HOLDS),
        # An interval that holds nearly everything is no evidence that the start is that of noise.
        ((0.2, 0.5, 0.8), NOT_TESTABLE),
        ((0.01, 0.02, 0.015), FAILS),
    ],
)
def test_the_start_against_the_beta_law(tails_, verdict):
    law = h_s_null(31, 8, task_band(31))
    rows = [
        row("h_s", float(law.quantile(1 - p)), "probe", "final", which=task("31:2", True), seed=s)
        for s, p in enumerate(tails_)
    ]
    outcome, fresh = null_start(evidence(rows))
    assert fresh.verdict == NOT_TESTABLE
    drawn = [
        {**label(seed=s), "band": "31:2", "c": 31, "d": 8, "h_s": float(law.quantile(1 - p))}
        for s, p in enumerate(tails_)
    ]
    assert null_start(evidence(initial=drawn))[1].effect == pytest.approx(np.mean(tails_), rel=1e-6)
    assert outcome.effect == pytest.approx(np.mean(tails_), rel=1e-6)
    assert outcome.verdict == verdict


def test_the_start_is_that_of_noise_on_clean_bands_alone():
    rows = [
        row("h_s", value, "probe", "final", which={**task("31:2", True), "regime": regime}, seed=s)
        for s, value in enumerate((0.45, 0.47, 0.46))
        for regime in ("clean", "matched")
    ]
    found = probabilities(evidence(rows))
    assert found["band"].tolist() == ["31:2 clean seen"] * 3


# --- T5 ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "others", "verdict", "effect"),
    [
        ((0.4, 0.8, 0.5), (0.4, 0.8, 0.5), HOLDS, 0.31),
        # Less than what the highest of three looks at noise may lie above the null, in all seeds.
        ((0.4, 0.82, 0.8), (0.4, 0.82, 0.8), HOLDS, 0.03),
        # The first seed chooses the moment: the others rise from there.
        ((0.4, 0.8, 0.5), (0.4, 0.6, 0.8), FAILS, -0.19),
        ((0.4, 0.6, 0.8), (0.4, 0.8, 0.5), NOT_TESTABLE, 0.0),
        ((0.40, 0.44, 0.40), (0.40, 0.44, 0.40), NOT_TESTABLE, math.nan),
        # Above the level of one look, not above that of three.
        ((0.40, 0.455, 0.40), (0.40, 0.455, 0.40), NOT_TESTABLE, math.nan),
    ],
)
def test_overshoot(first, others, verdict, effect):
    (outcome,) = overshoot(evidence(concentrations(first, others)))
    assert outcome.verdict == verdict
    assert highest_of_noise(0.4, 0.45, 3) - 0.4 > 0.06
    assert outcome.effect == pytest.approx(effect, nan_ok=True)


# --- T6, T7 ------------------------------------------------------------------------------------------------


BATCHES, CHAINED = (("untied", 32), ("untied", 128)), (("muon", 32), ("untied", 32))


def pair_of_runs(flat_first, dominated, seeds=3, cells=BATCHES):
    """Two cells; the first one reaches the loss first. flat_first: of every seed, or of each."""
    flat = [flat_first] * seeds if isinstance(flat_first, bool) else flat_first
    rows, spectra = [], []
    for seed in range(seeds):
        for cell, tokens, alpha in zip(
            cells, (10, 20 + seed), (1.0 if flat[seed] else 2.0, 1.5), strict=True
        ):
            where = {"stage": cell[0], "batch_size": cell[1], "seed": seed}
            rows += [row("val_loss", 3.0, **where), row("val_loss", 1.0, step=tokens, **where)]
            rows.append(row("alpha", alpha, "activation", "final", which=WINDOW, step=tokens, **where))
            values = np.arange(12, 0, -1.0) * (2 if dominated and cell == cells[0] else 1)
            if not dominated and cell == cells[0]:
                values[0] += 5
                values[-1] /= 2
            spectra.append(spectrum(values, step=tokens, **where))
    return evidence(rows, spectra)


def test_flatter_tails_and_tokens():
    def answer(flat):
        seeds = 3 if isinstance(flat, bool) else len(flat)
        return next(o for o in tails(pair_of_runs(flat, True, seeds)) if "batch sizes" in o.question)

    # Seeds that agree have no spread: with so few of them that is likely by chance, and decides nothing.
    for flat, effect in ((True, 1.0), (False, -1.0), ([True, False], 0.0)):
        outcome = answer(flat)
        assert (outcome.effect, outcome.verdict) == (effect, NOT_TESTABLE)
    assert answer(True).runs == 6
    assert "no width" in answer(True).reason
    for flat, verdict in ((True, HOLDS), (False, FAILS)):
        outcome = answer([not flat, *[flat] * 19])
        assert (outcome.effect, outcome.verdict) == (pytest.approx(0.9 if flat else -0.9), verdict)
        assert -1 <= outcome.low <= outcome.high <= 1


def test_domination_is_asked_only_where_it_is_met():
    met = tails(pair_of_runs(True, True, cells=CHAINED))[0]
    assert met.verdict == HOLDS
    assert met.effect == pytest.approx(np.mean(np.log(10 / np.array([20, 21, 22]))))
    unmet = tails(pair_of_runs(True, False, cells=CHAINED))[0]
    assert unmet.verdict == NOT_TESTABLE
    assert "premise never met" in unmet.reason
    # Between batch sizes tokens are no time.
    batches_ = tails(pair_of_runs(True, True))[0]
    assert batches_.verdict == NOT_TESTABLE
    assert "no two stages with a common batch size" in batches_.reason


@pytest.mark.parametrize("first", [True, False])
def test_ranks_without_variance_in_both_spectra_leave_the_premise(first):
    """Of the first run they counted against it, and of the second one they did not."""
    cells = CHAINED if first else CHAINED[::-1]
    found = pair_of_runs(True, True, cells=cells)
    found.runs.spectra["values"] = [[*v[:-1], 0.0] for v in found.runs.spectra["values"]]
    assert tails(found)[0].verdict == HOLDS
    assert tails(found)[0].seeds == 3


def test_domination_that_costs_tokens_fails():
    reversed_ = pair_of_runs(True, True, cells=CHAINED)
    scale = np.where(reversed_.runs.spectra["stage"] == "muon", 0.1, 1.0)
    values = [np.asarray(v) * s for v, s in zip(reversed_.runs.spectra["values"], scale, strict=True)]
    reversed_.runs.spectra["values"] = values
    assert tails(reversed_)[0].verdict == FAILS


# --- T8 ----------------------------------------------------------------------------------------------------


def batches(gap, losses=(2.0, 1.5, 1.0), shifted=(1.9, 1.2, 0.9)):
    """α = 3 − loss for the small batch and `gap` more for the large one, at other losses."""
    rows = []
    for seed in range(3):
        for size, curve, extra in ((32, losses, 0.0), (128, shifted, gap + 0.01 * seed)):
            for i, loss in enumerate(curve, start=1):
                where = {"batch_size": size, "seed": seed, "step": i}
                rows.append(row("val_loss", loss, **where))
                rows.append(row("alpha", 3 - loss + extra, "activation", "final", which=WINDOW, **where))
    return evidence(rows)


@pytest.mark.parametrize(("gap", "verdict"), [(0.5, HOLDS), (-0.5, FAILS), (-0.01, NOT_TESTABLE)])
def test_batch_tail_at_matched_loss_leaves_no_loss_gap(gap, verdict):
    (outcome,) = batch_tail(batches(gap))
    # At equal step the curves differ by up to .3 in α; at equal loss only by the gap.
    assert outcome.effect == pytest.approx(gap + 0.01, abs=1e-9)
    assert outcome.verdict == verdict


def test_batches_without_a_common_loss_are_not_compared():
    (outcome,) = batch_tail(batches(0.5, shifted=(0.9, 0.8, 0.7)))
    assert outcome.verdict == NOT_TESTABLE


# --- T9 ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("adamw", "muon", "top", "verdict"),
    [
        ((1, 2, 8), (1, 2, 4), 1.0, HOLDS),
        ((1, 2, 4), (1, 2, 8), 1.0, FAILS),
        ((1, 2, 8), (1, 2, 4), 0.05, NOT_TESTABLE),
    ],
)
def test_hitting_times(adamw, muon, top, verdict):
    modes = [*arrivals("rope", adamw), *arrivals("muon", muon, top)]
    outcome, means = hitting(evidence(modes=modes))
    assert outcome.verdict == verdict
    assert means.verdict == NOT_TESTABLE
    moved = [{**m, "moved": m["amplitude"], "amplitude": 0.0} for m in modes]
    # However small a movement is, it has a time.
    assert hitting(evidence(modes=moved))[1].verdict == (verdict if top == 1.0 else HOLDS)
    if verdict != NOT_TESTABLE:
        assert outcome.effect == pytest.approx(math.log((max(muon)) / max(adamw)), abs=0.01)


def test_spreads_name_the_share_of_modes_learned_in_common():
    from sims.studies.theory.hitting import hitting_times

    modes = [*arrivals("rope", (1, 2, 3, 4)), *arrivals("muon", (1,))]
    found, share = spreads(hitting_times(table("modes", modes)))
    assert found.empty
    assert share == pytest.approx(0.25)


# --- T10 ---------------------------------------------------------------------------------------------------


def started(stage, loss, moved, seed):
    return {**label(stage, seed=seed), "loss": loss, "scatter": 1.0, "moved": moved, "V": 64, "d": 64}


def test_initial_losses():
    tied = [started("baseline", 63.7 + s, "embed", s) for s in (-0.5, 0.5)]
    zero = [started("untied", math.log(64), "head", s) for s in (0, 1)]
    assert [o.verdict for o in initial_loss(evidence(start=[*tied, *zero]))] == [HOLDS] * 3
    tied = [started("baseline", 60.0 + s, "embed", s) for s in (0, 1)]
    zero = [started("untied", math.log(64) + 1e-3, "head embed", s) for s in (0, 1)]
    assert [o.verdict for o in initial_loss(evidence(start=[*tied, *zero]))] == [FAILS] * 3
    assert is_untied("untied")
    assert not is_untied("muon")


def test_a_narrow_tied_model_is_not_asked_for_its_first_loss():
    narrow = [{**started("baseline", 9.0 + s, "embed", s), "d": 8} for s in (0, 1)]
    outcome = initial_loss(evidence(start=narrow))[0]
    assert outcome.verdict == NOT_TESTABLE
    assert "the width is 8: below 4 ln(2V) = 19" in outcome.reason


@pytest.mark.parametrize(
    ("follows", "asymmetry", "verdict"), [(0.4, 0.0, HOLDS), (-0.4, 0.0, FAILS), (0.4, 1e-3, FAILS)]
)
def test_direct_path(follows, asymmetry, verdict):
    free = [{**label(seed=s, step=9), "asymmetry": 0.5, "follows": follows + 0.01 * s} for s in range(3)]
    tied = [{**label("muon", step=9), "asymmetry": asymmetry, "follows": math.nan}]
    (outcome,) = direct_path(evidence(direct=[*free, *tied]))
    assert outcome.verdict == verdict
    (alone,) = direct_path(evidence(direct=free))
    assert "tied run" not in alone.reason
    assert asymmetry or "in 1 tied run it is zero" in outcome.reason


# --- T11 ---------------------------------------------------------------------------------------------------


def test_fading_by_state_and_at_fixed_step():
    stated, fixed, filtered = position(evidence(positions=along(-0.1, -0.2)))
    assert [o.verdict for o in (stated, fixed, filtered)] == [HOLDS] * 3
    assert fixed.effect == pytest.approx(-0.205)
    assert filtered.effect == pytest.approx(-0.11)
    rising = position(evidence(positions=along(0.1, 0.2)))
    assert [o.verdict for o in rising] == [FAILS] * 3
    blind = position(evidence(positions=along(-0.1, -0.2, gain=0.1)))
    assert {o.verdict for o in blind} == {NOT_TESTABLE}
    assert "no run reads the step" in blind[0].reason


# --- T12 ---------------------------------------------------------------------------------------------------


def test_exponents_against_noise():
    def asked(*below):
        """One number a seed: how many of its 100 exponents lie below the null."""
        return noise(
            evidence(
                row(
                    "alpha",
                    0.1 if k < n else 1.0,
                    "activation",
                    "final",
                    null=0.2,
                    which=WINDOW,
                    seed=s,
                    step=5,
                )
                for s, n in enumerate(below)
                for k in range(100)
            )
        )

    assert asked(1, 2, 0, 1, 1)[0].verdict == HOLDS
    assert asked(50, 49, 51)[0].verdict == FAILS
    assert asked(50, 49, 51)[0].effect == pytest.approx(0.5)
    assert asked(0, 0)[0].verdict == asked(0, 5)[0].verdict == NOT_TESTABLE
    assert asked(1, 2, 0)[1].verdict == NOT_TESTABLE


# --- T18, T22 ----------------------------------------------------------------------------------------------


def test_predictions_against_the_exact_law():
    bound, falls, holds = predictive(evidence(against_law((-0.8, -0.2), (0.1, 0.5))))
    assert [o.verdict for o in (bound, falls, holds)] == [HOLDS] * 3
    assert (bound.claim, falls.claim, holds.claim) == ("T18", "T18", "T22")
    assert bound.effect == pytest.approx(0.8)
    # Gaps count by their size: −.8 to −.2 is a fall.
    assert falls.effect == pytest.approx(-0.61)
    assert holds.effect == pytest.approx(0.41)
    assert (falls.runs, falls.seeds) == (3, 3)


def test_a_broken_bound_a_growing_gap_and_falling_shares_fail():
    outcomes = predictive(evidence(against_law((0.2, 1.2), (0.5, 0.1))))
    assert [o.verdict for o in outcomes] == [FAILS] * 3
    assert "violated" in outcomes[0].reason
    # A gap where the bound allows none.
    none = predictive(evidence(against_law((0.2, 0.5), (0.1, 0.5), bound=0.0)))[0]
    assert (none.verdict, none.effect) == (FAILS, math.inf)
    assert predictive(evidence(against_law((0.0, math.nan), (0.1, 0.5))))[0].verdict == NOT_TESTABLE
