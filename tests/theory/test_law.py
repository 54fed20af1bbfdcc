"""The exact law of modular walks against enumeration, its own generator, and fresh sequences."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import math
import sys
import types
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from theory.formulas import law as law_module
from theory.formulas.law import WalkLaw, _tables
from theory.simulate.enumeration import _step_chances, enumerated_law
from theory.simulate.walk_draws import draw_walks
from toymodel.reference import draw_sequences
from toymodel.tasks import ModularWalks
from toymodel.tasks.modular_walk_laws import draw_latents
from toymodel.tasks.modular_walks import draw_split

SETTINGS = st.fixed_dictionaries(
    {
        "vocab": st.integers(5, 12),
        "modulus_min": st.integers(2, 5),
        "modulus_power": st.sampled_from([0.0, 1.3, 4.0]),
        "offset_power": st.sampled_from([0.0, 0.5, 1.0, 1.2, 6.0]),
        "step_fraction": st.sampled_from([0.0, 0.125, 0.5, 0.99]),
        "noncoprime": st.sampled_from([0.0, 0.3, 1.0]),
    }
)
EVERY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def worst(law: WalkLaw, truth: dict[tuple[int, ...], np.ndarray]) -> float:
    """Return the largest difference over all prefixes, and check that every law sums to one."""
    error = np.abs(law.start() - truth[()]).max()
    for length in range(1, 1 + max(map(len, truth))):
        prefixes = [p for p in truth if len(p) == length]
        found = law.next_tokens(prefixes)
        assert np.abs(found.sum(axis=1) - 1).max() < 1e-12
        assert found.min() >= 0
        error = max(error, np.abs(found - [truth[p] for p in prefixes]).max())
    return float(error)


@settings(EVERY, max_examples=25)
@given(SETTINGS)
def test_the_law_is_that_of_enumeration_for_every_prefix(options):
    assert worst(WalkLaw(**options), enumerated_law(4, **options)) < 1e-12


def test_the_law_is_that_of_enumeration_at_24_tokens():
    assert worst(WalkLaw(24), enumerated_law(3, vocab=24)) < 1e-12


@settings(EVERY, max_examples=10)
@given(SETTINGS, st.integers(0, 2**32 - 1))
def test_entropies_and_losses_are_those_of_the_law(options, seed):
    law, task = WalkLaw(**options), ModularWalks(**options, length=5, train=1, val=1, test=1)
    tokens = draw_split(task, np.random.default_rng(seed), 20).tokens
    entropies, losses = law.entropies(tokens[:, :-1]), law.losses(tokens)
    for k in range(5):
        p = law.next_tokens(tokens[:, : k + 1])
        with np.errstate(divide="ignore", invalid="ignore"):
            plain = -np.nansum(p * np.log(p), axis=1)
        np.testing.assert_allclose(entropies[:, k], plain, atol=1e-12)
        np.testing.assert_allclose(losses[:, k], -np.log(p[np.arange(20), tokens[:, k + 1]]), atol=1e-12)


def test_rows_do_not_depend_on_the_others():
    # More rows than are held at once.
    task = ModularWalks(vocab=300, length=6, train=1, val=1500, test=1)
    tokens = task.splits()[1].inputs
    law = WalkLaw(300)
    np.testing.assert_array_equal(law.entropies(tokens)[[0, -1]], law.entropies(tokens[[0, -1]]))
    np.testing.assert_array_equal(law.next_tokens(tokens)[[0, -1]], law.next_tokens(tokens[[0, -1]]))


@pytest.mark.parametrize(
    "options", [{"vocab": 64}, {"vocab": 40, "modulus_min": 2, "noncoprime": 1.0, "step_fraction": 0.3}]
)
def test_losses_of_fresh_sequences_have_the_entropies_as_their_mean(options):
    task, n = ModularWalks(**options, length=32, train=1, val=1, test=1), 20_000
    tokens = draw_split(task, np.random.default_rng(7), n).tokens
    law = WalkLaw(**options)
    # Given the context the mean of the loss is the entropy exactly: the difference has mean 0 at every position.
    excess = law.losses(tokens) - law.entropies(tokens[:, :-1])
    z = excess.mean(axis=0) / (excess.std(axis=0) / np.sqrt(n))
    assert np.abs(z).max() < 4


@pytest.mark.parametrize("power", [440.0, 441.0, 1e3, 1e5])
def test_of_absurd_powers_the_smallest_modulus_and_offset_remain(power):
    options = {"vocab": 24, "modulus_power": power, "offset_power": power}
    task = ModularWalks(**options, length=8, train=1, val=1, test=1)
    latents = draw_latents(task, np.random.default_rng(0), 500)
    assert set(latents.modulus.ravel().tolist()) == {5}
    assert set(latents.offset.ravel().tolist()) == {0}
    for tokens in (
        draw_walks(np.random.default_rng(0), 50, 8, **options),
        draw_sequences(task, np.random.default_rng(0), 50)[0],
    ):
        assert set(tokens.ravel().tolist()) == {0, 1, 2, 3, 4}
    found = enumerated_law(1, vocab=8, modulus_power=power, offset_power=power)
    np.testing.assert_allclose(found[()], [0.2] * 5 + [0.0] * 3, atol=1e-12)


@pytest.mark.parametrize("powers", [(1.3, 1.2), (0.0, 0.4), (3.0, 2.5)])
def test_the_prior_is_that_of_the_toys_draws(powers):
    n, (modulus_power, offset_power) = 200_000, powers
    task = ModularWalks(vocab=24, modulus_power=modulus_power, offset_power=offset_power)
    latents = draw_latents(task, np.random.default_rng(3), n)
    tables = _tables(WalkLaw(24, modulus_power=modulus_power, offset_power=offset_power))
    at = {c: i for i, c in enumerate(tables.moduli.tolist())}
    drawn = Counter(
        zip(*(latents.__dict__[x][:, 0].tolist() for x in ("modulus", "offset", "step")), strict=True)
    )
    expected = {
        (c, o, d): tables.weights[i] * c * (o + 1.0) ** -offset_power * tables.steps[i, d]
        for c, i in at.items()
        for o in range(24 - c + 1)
        for d in range(24)
    }
    assert sum(expected.values()) == pytest.approx(1, abs=1e-12)
    assert all(expected[key] > 0 for key in drawn)
    # χ² over the cells that are expected often enough; 5 standard deviations of its normal limit.
    often = {key: p for key, p in expected.items() if n * p >= 10}
    chi = sum((drawn[key] - n * p) ** 2 / (n * p) for key, p in often.items())
    assert abs(chi - len(often)) < 5 * np.sqrt(2 * len(often))


def test_rare_offsets_are_not_lost_in_rounding():
    # Sums from the near end would give 0/0: the offset 40 has a chance of 1e-20.
    law = WalkLaw(50, modulus_power=0.0, offset_power=12.0)
    found = law.next_tokens([[45, 47], [49, 44]])
    assert np.abs(found.sum(axis=1) - 1).max() < 1e-12
    assert law.losses([[45, 47, 49]]).min() > 0


def log_chances(modulus_min, modulus_power, offset_power, vocab=12, length=4):
    """Return ln p of every prefix of up to four tokens, summed over all walks in logarithms."""
    parts = defaultdict(list)
    moduli = np.arange(modulus_min, vocab + 1)
    of_moduli = -modulus_power * np.log(moduli)
    for c, of_c in zip(moduli.tolist(), of_moduli - np.logaddexp.reduce(of_moduli), strict=True):
        of_offsets = -offset_power * np.log(np.arange(1, vocab - c + 2))
        of_offsets -= np.logaddexp.reduce(of_offsets)
        for d, of_d in _step_chances(c, 0.125, 0.3).items():
            for (o, of_o), a in itertools.product(enumerate(of_offsets), range(c)):
                walk = tuple(o + (a + d * k) % c for k in range(length))
                for k in range(1, length + 1):
                    parts[walk[:k]].append(of_c + math.log(of_d / c) + of_o)
    return {prefix: np.logaddexp.reduce(logs) for prefix, logs in parts.items()}


@settings(EVERY, max_examples=20)
@given(st.integers(2, 6), st.floats(0, 300), st.floats(0, 300), st.integers(0, 2**32 - 1))
def test_the_rarest_walks_of_admitted_powers_keep_their_digits(
    modulus_min, modulus_power, offset_power, seed
):
    options = {"modulus_min": modulus_min, "modulus_power": modulus_power, "offset_power": offset_power}
    law = None
    with contextlib.suppress(ValueError):
        law = WalkLaw(12, **options)
    assume(law is not None)
    rng = np.random.default_rng(seed)
    c = rng.integers(modulus_min, 13, size=50)[:, None]
    o, d, a = rng.integers(0, 13 - c), rng.integers(1, c), rng.integers(0, c)
    tokens = o + (a + d * np.arange(4)) % c
    exact = log_chances(**options)
    expected = [[exact[(*row[:k],)] - exact[(*row[: k + 1],)] for k in (1, 2, 3)] for row in tokens.tolist()]
    np.testing.assert_allclose(law.losses(tokens), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([[0, 1, 2, 1]], "sequence 0 has no chance from token 3 on"),
        ([[1, 2], [4, 4]], "sequence 1 has no chance from token 1 on"),
        ([[16]], r"tokens are 16..16; the vocabulary is 0..15"),
        ([[-1]], r"tokens are -1..-1; the vocabulary is 0..15"),
        ([1, 2], r"pass integers of shape \(n, k\), k ≥ 1"),
        ([[0.5]], "tokens are float64"),
        (np.zeros((2, 0), int), "pass integers of shape"),
    ],
)
def test_what_is_no_walk_is_refused(tokens, message):
    with pytest.raises(ValueError, match=message):
        WalkLaw(16).entropies(tokens)


def test_a_next_token_that_no_walk_has_is_refused():
    with pytest.raises(ValueError, match="sequence 0 has no chance from token 2 on"):
        WalkLaw(16).losses([[0, 1, 15]])
    with pytest.raises(ValueError, match="one token and no next one"):
        WalkLaw(16).losses([[0]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"components": 2}, "components is 2; the exact law is that of one walk"),
        ({"noise": 0.5}, "noise is 0.5; the exact law is that of walks without noise"),
        ({"modulus_min": 17}, "modulus_min is 17 and vocab 16"),
        ({"modulus_min": 1}, "modulus_min is 1 and vocab 16"),
        ({"step_fraction": 1.0}, "step_fraction is 1.0; steps end at c−1"),
        ({"noncoprime": 1.5}, "noncoprime is 1.5; it is a probability"),
        ({"offset_power": float("nan")}, "offset_power is nan"),
        ({"modulus_power": float("inf")}, "modulus_power is inf"),
        ({"modulus_power": 1e3}, "the rarest walk has a chance of about 1e-506"),
        ({"offset_power": 1e300}, "lower the powers"),
    ],
)
def test_settings_without_an_exact_law_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        WalkLaw(16, **options)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("above - c + 1, first", "above - c, first"),  # wraps one offset too early
        ("high[row, k] - c + 1, 0)", "high[row, k] - c, 0)"),  # an offset too many
        ("np.minimum(low[row, k], vocab - c)", "low[row, k]"),  # offsets outside the vocabulary
        ("(moved == d - c)", "(moved == d + c)"),  # increments that wrap do not agree
        ("/ moduli / np.cumsum", "/ np.cumsum"),  # the phase has no chance of 1/c
        ("/ np.cumsum(offsets)[vocab - moduli]", "/ offsets.sum()"),  # p(o | c) is not normalised for each c
        ("np.maximum(steps // g * g, g)", "steps // g * g"),  # a step of 0
        ("math.isqrt(c) + 1) if", "c) if"),  # divisors above √c too
        (
            "first = tails[np.maximum(tokens + 1 - column, 0)]",
            "first = tails[np.maximum(tokens - column, 0)]",
        ),
        ("np.minimum(tokens, vocab - column) + 1", "tokens + 1"),
    ],
)
def test_a_wrong_law_is_rejected(right, wrong):
    source = inspect.getsource(law_module)
    assert source.count(right) == 1
    wrong_module = types.ModuleType("wrong")
    # A dataclass looks its module up by name.
    sys.modules["wrong"] = wrong_module
    try:
        exec(compile(source.replace(right, wrong), "wrong", "exec"), wrong_module.__dict__)
    finally:
        del sys.modules["wrong"]
    truth = enumerated_law(4, vocab=12)
    try:
        error = worst(wrong_module.WalkLaw(12), truth)
    except (ValueError, AssertionError):
        return
    assert error > 1e-6
