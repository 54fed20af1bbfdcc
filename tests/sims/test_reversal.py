"""Reversal of the gradient over depth: planted ones, layers that drift at random, verdicts, refusals."""

import numpy as np
import pytest

from sims.analysis.reversal import reversal, reversal_verdict

TIMES = np.linspace(0, 900, 46)
DEPTH = np.linspace(0, 1, 8)


def runs(generator, gradient, seeds=4, noise=0.03):
    """Curves whose gradient over depth is a function of the share of training that has passed."""
    share = TIMES / TIMES[-1]
    clean = 2.0 + gradient(share)[:, None] * DEPTH
    return clean + noise * generator.standard_normal((seeds, len(TIMES), len(DEPTH)))


def turns(share):
    return 1.2 * np.sin(np.pi * np.minimum(share, 0.2) / 0.2 / 2) * (share < 0.2) + (share >= 0.2) * (
        1.2 - 2.0 * (share - 0.2) / 0.8
    )


def test_a_planted_reversal_is_found_under_both_schedules():
    found = reversal(TIMES, runs(np.random.default_rng(0), turns))
    assert found.share == pytest.approx(0.2, abs=0.05)
    assert found.early_low < 1.2 < found.early_high
    assert found.late_low < -0.8 < found.late_high
    assert found.p < 0.01
    assert found.reverses
    assert reversal_verdict({"constant": found, "cosine": found}).outcome == "shown"
    one = reversal_verdict({"constant": found})
    assert one.outcome == "not resolved"
    assert reversal_verdict({"cosine": found}).reason == "no run has a constant learning rate"


@pytest.mark.parametrize(
    "gradient",
    [
        lambda share: 1 - np.exp(-share / 0.1),  # stays
        lambda share: np.where(share < 0.6, share, 0.6 - 4 * (share - 0.6)),  # turns late
        lambda share: np.exp(-share / 0.1) * share * 20,  # fades, without the other sign
    ],
)
def test_gradients_that_stay_turn_late_or_fade_do_not_reverse(gradient):
    found = reversal(TIMES, runs(np.random.default_rng(1), gradient))
    assert not found.reverses
    assert reversal_verdict({"constant": found, "cosine": found}).outcome == "not shown"


def test_a_reversal_under_decay_alone_is_not_shown():
    generator = np.random.default_rng(0)
    good, flat = reversal(TIMES, runs(generator, turns)), reversal(TIMES, runs(generator, np.zeros_like))
    assert reversal_verdict({"constant": flat, "cosine": good}).outcome == "not shown"
    assert reversal_verdict({"constant": good, "cosine": flat}).outcome == "not shown"
    assert reversal_verdict({"constant": good, "cosine": good, "flat": flat}).outcome == "shown"


def test_layers_that_drift_at_random_alike_in_all_seeds_seldom_reverse():
    """A mutant: the intervals over seeds alone, which do not see that layers differ by chance."""
    reversed_, fooled = 0, 0
    for i in range(200):
        generator = np.random.default_rng(i)
        walk = generator.standard_normal((1, 46, 8)).cumsum(axis=1)
        found = reversal(TIMES, walk + 0.1 * generator.standard_normal((4, 46, 8)))
        opposite = found.early_low > 0 > found.late_high or found.early_high < 0 < found.late_low
        fooled += opposite and found.share < 1 / 3
        reversed_ += found.reverses
    assert reversed_ <= 6
    assert fooled > reversed_


def test_noise_alone_does_not_reverse():
    hits = sum(reversal(TIMES, runs(np.random.default_rng(i), np.zeros_like)).reverses for i in range(200))
    assert hits <= 2


def test_what_cannot_be_judged_says_why():
    few = reversal(TIMES, runs(np.random.default_rng(0), turns, seeds=2))
    assert (few.status, few.reason) == ("not resolved", "2 seeds; an interval needs 3")
    assert not few.reverses
    shallow = reversal(TIMES, runs(np.random.default_rng(0), turns)[..., :5], interior=True)
    assert "3 layers" in shallow.sentence
    four = reversal(TIMES, runs(np.random.default_rng(0), turns)[..., :4])
    found = reversal_verdict({"constant": four, "cosine": few})
    assert found.outcome == "not resolved"
    assert "4 layers cannot have p" in found.reason
    assert "2 seeds" in found.reason
