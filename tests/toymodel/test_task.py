"""The generator against its stated laws, its recurrence, its options and its slow oracle.

Sample sizes and seeds are fixed, so every p-value is a constant; beside an accepted law stands a
neighbouring one that the same sample rejects, which shows that the test could have failed.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from toymodel import TaskConfig
from toymodel.errors import ConfigError
from toymodel.reference import Walk, draw_sequences, walk_tokens
from toymodel.tasks.modular_walk_laws import Latents, draw_latents, draw_walk, render, walk_states

ACCEPT, REJECT = 1e-3, 1e-6
PUBLISHED = TaskConfig()


def latents_of(config: TaskConfig, n: int, seed: int = 0) -> Latents:
    return draw_latents(config, np.random.default_rng(seed), n)


def chi_square_p(observed: np.ndarray, probability: np.ndarray) -> float:
    """p-value of counts against a law; cells expecting fewer than 8 pooled, impossible ones empty."""
    assert observed[probability == 0].sum() == 0
    observed, probability = observed[probability > 0], probability[probability > 0]
    expected = probability / probability.sum() * observed.sum()
    small = expected < 8
    if small.any():
        observed = np.append(observed[~small], observed[small].sum())
        expected = np.append(expected[~small], expected[small].sum())
    return float(stats.chisquare(observed, expected).pvalue)


def step_law(config: TaskConfig, c: int) -> np.ndarray:
    """p(d | c) for d = 0..c-1, by walking through every draw the stated rule can make."""
    lowest = max(1, math.floor(c * config.step_fraction))
    divisors = [g for g in range(2, c) if c % g == 0 and g * g <= c]
    law = np.zeros(c)
    for d in range(lowest, c):
        share = 1 / (c - lowest)
        law[d] += share * (1 - config.noncoprime if divisors else 1)
        for g in divisors:
            law[min(max((d // g) * g, g), c - 1)] += share * config.noncoprime / len(divisors)
    return law


def test_modulus_follows_its_power_law():
    c = latents_of(PUBLISHED, 200_000).modulus[:, 0]
    observed = np.bincount(c, minlength=1025)[5:]
    values = np.arange(5, 1025)
    assert c.min() == 5
    assert c.max() > 1000
    assert chi_square_p(observed, values**-1.3) > ACCEPT
    assert chi_square_p(observed, values**-1.27) < REJECT


@pytest.mark.parametrize("c", [5, 300, 1020, 1024])
def test_offset_follows_its_law_cut_at_what_fits(c: int):
    config = TaskConfig(modulus_min=c, modulus_power=60.0)  # nearly every walk has the smallest modulus
    drawn = latents_of(config, 100_000)
    o = drawn.offset[drawn.modulus == c]
    law = np.arange(1, 1024 - c + 2) ** -1.2
    observed = np.bincount(o, minlength=len(law))
    assert len(o) > 5_000
    assert len(observed) == len(law)
    if c < 1024:
        assert chi_square_p(observed, law) > ACCEPT
        assert chi_square_p(observed, np.arange(1, 1024 - c + 2) ** -1.1) < REJECT


@pytest.mark.parametrize("c", [7, 36, 97, 1020])
def test_step_and_phase_given_the_modulus(c: int):
    d, a = draw_walk(PUBLISHED, np.random.default_rng(c), np.full(100_000, c))
    assert chi_square_p(np.bincount(d, minlength=c), step_law(PUBLISHED, c)) > ACCEPT
    assert chi_square_p(np.bincount(a, minlength=c), np.ones(c)) > ACCEPT
    if c not in (7, 97):  # a prime offers no divisor, so the rule must not matter there
        other = step_law(replace(PUBLISHED, noncoprime=0.25), c)
        assert chi_square_p(np.bincount(d, minlength=c), other) < REJECT


def test_joint_law_of_all_latents():
    config = TaskConfig(vocab=10, modulus_min=4, noncoprime=0.4)
    drawn = latents_of(config, 400_000)
    law: dict[tuple[int, int, int, int], float] = defaultdict(float)
    p_c = np.arange(4, 11) ** -1.3 / (np.arange(4, 11) ** -1.3).sum()
    for c in range(4, 11):
        p_o = np.arange(1, 10 - c + 2) ** -1.2
        p_o /= p_o.sum()
        for o in range(10 - c + 1):
            for d, p_d in enumerate(step_law(config, c)):
                for a in range(c):
                    law[c, o, d, a] = p_c[c - 4] * p_o[o] * p_d / c
    columns = np.stack([drawn.modulus, drawn.offset, drawn.step, drawn.phase])[:, :, 0].T
    cells, counts = np.unique(columns, axis=0, return_counts=True)
    observed = dict(zip(map(tuple, cells.tolist()), counts.tolist(), strict=True))
    assert set(observed) <= {cell for cell, p in law.items() if p > 0}
    table = np.array([observed.get(cell, 0) for cell in law])
    assert chi_square_p(table, np.array(list(law.values()))) > ACCEPT


@pytest.mark.slow
def test_noncoprime_share_at_the_published_setting():
    n = 100_000
    drawn = latents_of(PUBLISHED, n)
    share = float((np.gcd(drawn.step, drawn.modulus) > 1).mean())
    p_c = np.arange(5, 1025) ** -1.3
    p_c /= p_c.sum()
    expected = sum(
        p * step_law(PUBLISHED, c)[np.gcd(np.arange(c), c) > 1].sum()
        for c, p in zip(range(5, 1025), p_c, strict=True)
    )
    error = math.sqrt(expected * (1 - expected) / n)
    assert abs(share - expected) < 4 * error
    never = latents_of(replace(PUBLISHED, noncoprime=0.0), n)
    assert abs((np.gcd(never.step, never.modulus) > 1).mean() - expected) > 20 * error


def test_only_divisors_up_to_the_root_are_drawn():
    config = replace(PUBLISHED, noncoprime=1.0)
    for c, divisors in ((10, {2}), (35, {5}), (49, {7}), (12, {2, 3}), (1024, {2, 4, 8, 16, 32})):
        d, _ = draw_walk(config, np.random.default_rng(0), np.full(4000, c))
        assert all(any(step % g == 0 for g in divisors) for step in d.tolist())
        assert d.min() >= min(divisors)
        assert d.max() < c


@pytest.mark.parametrize(
    "config", [PUBLISHED, TaskConfig(vocab=64, length=300, modulus_min=2), TaskConfig(vocab=40_000)]
)
def test_every_clean_sequence_obeys_the_recurrence(config: TaskConfig):
    rng = np.random.default_rng(3)
    drawn = draw_latents(config, rng, 4000)
    tokens = render(config, drawn, rng).astype(np.int64)
    c, o, d, a = (x.astype(np.int64) for x in (drawn.modulus, drawn.offset, drawn.step, drawn.phase))
    state = tokens - o
    assert tokens.shape == (4000, config.length + 1)
    assert (state[:, :1] == a).all()
    assert ((state >= 0) & (state < c)).all()
    assert (state[:, 1:] == (state[:, :-1] + d) % c).all()
    assert (walk_states(drawn, 0, config.length, config.dtype) == state[:, :-1]).all()
    assert not np.array_equal(state[:, 1:], (state[:, :-1] + d + 1) % c)


def test_mixtures_are_rounded_weighted_means():
    config = TaskConfig(components_min=1, components_max=4, pareto=1.5, length=20)
    rng = np.random.default_rng(5)
    drawn = draw_latents(config, rng, 500)
    tokens = render(config, drawn, rng)
    assert len(set(drawn.count.tolist())) == 4
    for i in range(500):
        walks = [
            Walk(
                *(int(x[i, j]) for x in (drawn.modulus, drawn.offset, drawn.step, drawn.phase)),
                drawn.weights[i, j],
            )
            for j in range(drawn.count[i])
        ]
        weights = np.array([walk.weight for walk in walks])
        mean = weights @ np.array([walk_tokens(walk, 21) for walk in walks]) / weights.sum()
        assert tokens[i].tolist() == np.rint(mean).tolist()


def test_component_counts_are_uniform_and_weights_pareto():
    config = TaskConfig(components_min=2, components_max=5, pareto=2.5)
    drawn = latents_of(config, 20_000)
    observed = np.bincount(drawn.count, minlength=6)
    assert observed[:2].sum() == 0
    assert chi_square_p(observed[2:], np.ones(4)) > ACCEPT
    assert ((drawn.weights > 0).sum(axis=1) == drawn.count).all()
    weights = drawn.weights[drawn.weights > 0]
    assert stats.kstest(weights, stats.pareto(2.5).cdf).pvalue > ACCEPT
    assert stats.kstest(weights, stats.pareto(2.4).cdf).pvalue < REJECT
    equal = latents_of(replace(config, pareto=0.0), 1000)
    assert set(np.unique(equal.weights)) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("df", "law"), [(0.0, stats.norm()), (4.5, stats.t(4.5, scale=math.sqrt(2.5 / 4.5)))]
)
def test_noise_law_and_variance(df: float, law):
    # Wide vocabulary and a wide noise: rounding is negligible and clipping, counted below, never happens.
    config = TaskConfig(vocab=20_000, length=49, offset_power=0.0, noise=100.0, noise_df=df)
    rng = np.random.default_rng(11)
    drawn = draw_latents(config, rng, 4000)
    inside = (drawn.offset[:, 0] > 6000) & (drawn.offset[:, 0] + drawn.modulus[:, 0] < 14_000)
    noisy, clean = render(config, drawn, rng), render(config, drawn, rng, noise=0.0)
    z = (noisy.astype(float) - clean)[inside].ravel() / 100
    other = stats.t(4.5, scale=math.sqrt(2.5 / 4.5)) if df == 0 else stats.norm()
    assert len(z) > 20_000
    assert noisy[inside].min() > 0
    assert noisy[inside].max() < 19_999
    assert stats.kstest(z, law.cdf).pvalue > ACCEPT
    assert stats.kstest(z, other.cdf).pvalue < REJECT
    error = math.sqrt(((z**2).var()) / len(z))
    assert abs((z**2).mean() - 1) < 4 * error + 1e-4
    assert error < 0.05


def test_noise_is_clipped_to_the_vocabulary():
    config = TaskConfig(vocab=16, noise=40.0)
    drawn = latents_of(config, 200)
    tokens = render(config, drawn, np.random.default_rng(0))
    assert (tokens.min(), tokens.max()) == (0, 15)


@pytest.mark.parametrize(
    "config",
    [
        PUBLISHED,
        TaskConfig(components_min=1, components_max=3, pareto=1.2, noise=2.0, noise_df=3.0),
        TaskConfig(vocab=50, length=8, modulus_min=3, noncoprime=0.8, components_max=2, noise=0.7),
    ],
    ids=["published", "mixture", "small"],
)
def test_same_distribution_as_the_slow_oracle(config: TaskConfig):
    rng = np.random.default_rng(17)
    slow, walks = draw_sequences(config, rng, 3000)
    drawn = draw_latents(config, rng, 30_000)
    fast = render(config, drawn, rng)
    present = drawn.weights > 0
    flat = [walk for sequence in walks for walk in sequence]
    pairs = {
        "c": (drawn.modulus[present], [w.c for w in flat]),
        "o": (drawn.offset[present], [w.o for w in flat]),
        "d/c": ((drawn.step / drawn.modulus)[present], [w.d / w.c for w in flat]),
        "a/c": ((drawn.phase / drawn.modulus)[present], [w.a / w.c for w in flat]),
        "gcd": (np.gcd(drawn.step, drawn.modulus)[present], [math.gcd(w.d, w.c) for w in flat]),
        "weight": (drawn.weights[present], [w.weight for w in flat]),
        "count": (drawn.count, [len(sequence) for sequence in walks]),
        "first": (fast[:, 0], slow[:, 0]),
        "last": (fast[:, -1], slow[:, -1]),
        "jump": (fast[:, 4] - fast[:, 3].astype(int), slow[:, 4] - slow[:, 3]),
        "range": (np.ptp(fast, axis=1), np.ptp(slow, axis=1)),
    }
    for name, (ours, theirs) in pairs.items():
        assert stats.ks_2samp(ours, np.array(theirs)).pvalue > ACCEPT, name
    shifted = latents_of(replace(config, modulus_power=1.6), 30_000)
    assert stats.ks_2samp(shifted.modulus[shifted.weights > 0], np.array([w.c for w in flat])).pvalue < REJECT


@st.composite
def configs(draw: st.DrawFn) -> TaskConfig:
    vocab = draw(st.integers(2, 400) | st.sampled_from([32_767, 32_768]))
    low = draw(st.integers(1, 3))
    return TaskConfig(
        vocab=vocab,
        length=draw(st.integers(1, 12)),
        modulus_min=draw(st.integers(2, min(vocab, 300))),
        modulus_power=draw(st.floats(0, 3)),
        offset_power=draw(st.floats(0, 3)),
        step_fraction=draw(st.floats(0, 0.999)),
        noncoprime=draw(st.floats(0, 1)),
        components_min=low,
        components_max=draw(st.integers(low, 4)),
        pareto=draw(st.just(0.0) | st.floats(0.3, 5)),
        noise=draw(st.just(0.0) | st.floats(0, 50)),
        noise_df=draw(st.just(0.0) | st.floats(2.01, 30)),
        seed=draw(st.integers(0, 2**40)),
    )


@settings(max_examples=100)
@given(configs(), st.integers(1, 40))
def test_any_config_gives_tokens_in_range_again_and_again(config: TaskConfig, n: int):
    draws = []
    for _ in range(2):
        rng = np.random.default_rng(config.seed)
        drawn = draw_latents(config, rng, n)
        draws.append((drawn, render(config, drawn, rng)))
    (drawn, tokens), (_, again) = draws
    assert tokens.shape == (n, config.length + 1)
    assert tokens.dtype == (np.int16 if config.vocab <= 32_767 else np.int32)
    assert tokens.min() >= 0
    assert tokens.max() < config.vocab
    assert (tokens == again).all()
    assert not tokens.flags.writeable
    assert ((drawn.count >= config.components_min) & (drawn.count <= config.components_max)).all()
    present = drawn.weights > 0
    assert (present.sum(axis=1) == drawn.count).all()
    c, o, d, a = (x[present] for x in (drawn.modulus, drawn.offset, drawn.step, drawn.phase))
    assert ((c >= config.modulus_min) & (o >= 0) & (c + o <= config.vocab)).all()
    assert ((d >= 1) & (d < c) & (a >= 0) & (a < c)).all()
    assert (drawn.modulus[~present] == 1).all()


def test_equal_settings_make_equal_configs_down_to_their_text():
    config = TaskConfig(vocab=np.int64(64), noise=1, pareto=np.float32(2))  # type: ignore[arg-type]
    assert repr(config) == repr(TaskConfig(vocab=64, noise=1.0, pareto=2.0))
    assert {type(value) for value in asdict(config).values()} == {int, float, bool}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab": 4}, r"vocab is 4 but the smallest modulus is 5.*raise vocab or lower modulus_min"),
        ({"vocab": 2**31}, r"vocab is 2147483648; it must be an integer from 2 to 2147483647"),
        ({"vocab": 64.0}, r"vocab is 64\.0; pass an integer"),
        ({"length": 0}, r"length is 0; it must be an integer ≥ 1"),
        ({"train": 0}, r"train is 0"),
        ({"val": -3}, r"val is -3"),
        ({"test": True}, r"test is True; pass an integer"),
        ({"modulus_min": 1}, r"modulus_min is 1; it must be an integer ≥ 2"),
        ({"modulus_power": float("nan")}, r"modulus_power is nan; it must be finite"),
        ({"offset_power": -1.0}, r"offset_power is -1\.0"),
        ({"step_fraction": 1.0}, r"step_fraction is 1\.0.*pass a share below 1"),
        ({"noncoprime": 1.5}, r"noncoprime is 1\.5; it is a probability"),
        ({"components_min": 3}, r"components_max is 1, below components_min 3"),
        ({"pareto": "heavy"}, r"pareto is 'heavy'; pass a finite number"),
        ({"pareto": 1e-3}, r"pareto is 0.001; .* pass at least 0.05, or 0"),
        ({"noise": float("inf")}, r"noise is inf"),
        ({"noise_df": 2.0}, r"noise_df is 2\.0.*pass more than 2, or 0 for Gaussian noise"),
        ({"unique_val": 1}, r"unique_val is 1; it must be True or False"),
        ({"seed": -1}, r"seed is -1"),
    ],
)
def test_impossible_settings_are_named(change: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        TaskConfig(**change)
