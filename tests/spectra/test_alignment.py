"""Alignment of states with predictive operators: slow oracles, invariances, nulls, refusals."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra import InputError, alignment
from spectra.reference import alignment as slow
from theory.formulas.law import WalkLaw
from theory.formulas.markov import fisher_metric
from theory.simulate.walk_draws import draw_walks

FAST = settings(deadline=None, max_examples=40)
SHAPES = st.tuples(st.integers(12, 40), st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**32 - 1))


def drawn(shape):
    """States (n, d), partly explaining Φ (n, k)."""
    n, d, k, seed = shape
    rng = np.random.default_rng(seed)
    h = rng.normal(size=(n, d)) * 10.0 ** rng.uniform(-2, 2, size=d) + rng.normal(size=d)
    return rng, h, h @ rng.normal(size=(d, k)) + rng.normal(size=(n, k))


@FAST
@given(SHAPES)
def test_fast_and_slow_agree(shape):
    rng, h, phi = drawn(shape)
    assert alignment.explained_share(h, phi) == pytest.approx(slow.explained_share(h, phi), abs=1e-6)
    assert alignment.linear_cka(h, phi) == pytest.approx(slow.linear_cka(h, phi), abs=1e-9)
    k = min(shape[1], shape[2])
    assert alignment.subspace_overlap(h, phi, k) == pytest.approx(slow.subspace_overlap(h, phi, k), abs=1e-6)
    head, states = rng.normal(size=(7, shape[1])), rng.normal(size=(9, shape[1]))
    metric = alignment.head_metric(head, states)
    np.testing.assert_allclose(metric, slow.head_metric(head, states), atol=1e-12)
    np.testing.assert_allclose(metric, np.mean([fisher_metric(head, s) for s in states], axis=0), atol=1e-12)


DTYPES = st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16])


def constant(value, shape, dtype, seed):
    """Rows that are equal up to the last place of a dtype, as sums taken in another order leave them."""
    x = torch.full(shape, value, dtype=dtype)
    last_place = 1 + torch.finfo(dtype).eps * torch.as_tensor(
        np.random.default_rng(seed).integers(-1, 2, shape)
    )
    return x, (x.double() * last_place).to(dtype)


@FAST
@given(
    st.floats(0.01, 1e4),
    st.tuples(st.integers(4, 1500), st.integers(1, 4)),
    DTYPES,
    st.integers(0, 2**32 - 1),
)
def test_a_constant_has_no_alignment_in_any_function(value, shape, dtype, seed):
    varying = np.random.default_rng(seed).normal(size=(shape[0], 3))
    for c in constant(value, shape, dtype, seed):
        # Fitted contexts that vary help nothing where the scored ones do not.
        half = c.clone()
        half[::2] = torch.as_tensor(varying[::2, :1])
        for embedding in (c, half):
            for measure in (alignment.explained_share, alignment.eigenfunction_shares):
                with pytest.raises(InputError, match="does not vary over the"):
                    measure(varying, embedding)
            assert not alignment.held_out_residuals(varying, embedding)[1].any()
        for pair in ((varying, c), (c, varying)):
            with pytest.raises(InputError, match="does not vary over the contexts"):
                alignment.linear_cka(*pair)
            with pytest.raises(InputError, match="does not vary over the contexts"):
                alignment.subspace_overlap(*pair, 1)
        # States that say nothing are those that are 0.
        zero = np.zeros(shape)
        assert alignment.explained_share(c, varying) == alignment.explained_share(zero, varying) <= 0


@FAST
@given(st.floats(0.01, 1e4), st.integers(12, 600), DTYPES, st.integers(0, 2**32 - 1))
def test_a_constant_column_among_others_changes_nothing(value, n, dtype, seed):
    h, phi = (
        torch.tensor(np.random.default_rng(seed + i).normal(size=(n, 2)), dtype=dtype) for i in range(2)
    )
    for c in constant(value, (n, 1), dtype, seed):
        wide_h, wide = (torch.cat([c, x], dim=1) for x in (h, phi))
        for measure in (alignment.explained_share, alignment.linear_cka):
            expected = measure(h, phi)
            assert measure(h, wide) == pytest.approx(expected, abs=1e-9)
            assert measure(wide_h, phi) == pytest.approx(expected, abs=1e-9)
        with pytest.raises(InputError, match="rank 2"):
            alignment.subspace_overlap(wide_h, phi, 3)
        assert len(alignment.eigenfunction_shares(h, wide).shares) == 2
        left, distance = alignment.held_out_residuals(h, wide)
        assert not left[:, 0].any()
        assert not distance[:, 0].any()


@FAST
@given(SHAPES, st.floats(0, 300), st.floats(-100, 100), st.floats(-140, 140))
def test_the_metric_of_a_confident_head_keeps_its_digits(shape, confidence, shift, power):
    n, d, k, seed = shape
    rng = np.random.default_rng(seed)
    head, states = rng.normal(size=(k + 1, d)), rng.normal(size=(n, d))
    logits = states @ head.T
    states *= confidence / np.ptp(logits, axis=1).max()
    scale = 2.0 ** int(power)
    metric = alignment.head_metric((head + shift) * scale, states / scale)
    # The shift leaves the rows of the head 1e-14, and the logits so much more.
    slack = 1e-14 * (1 + abs(shift)) * (1 + np.abs(states).max() * d)
    by_definition = np.mean([fisher_metric(head, s) for s in states], axis=0)
    for expected in (slow.head_metric(head, states), by_definition):
        np.testing.assert_allclose(metric / scale**2, expected, rtol=0, atol=slack * expected.trace())
    np.testing.assert_array_equal(metric, metric.T)
    assert np.linalg.eigvalsh(metric)[0] >= -1e-15 * d * metric.trace()


def metrics_at(head, states):
    """The metric by all three implementations."""
    head, states = np.array(head, float), np.array(states, float)
    return (
        alignment.head_metric(head, states),
        slow.head_metric(head, states),
        np.mean([fisher_metric(head, s) for s in states], axis=0),
    )


@pytest.mark.parametrize("logit", [1.0, 40.0, 80.0, 700.0])
def test_the_metric_of_nearly_certain_tokens_is_that_of_their_small_chances(logit):
    for metric in metrics_at([[2.3, 5.0], [1.3, 5.0]], [[logit, 0.0], [-logit, 0.0]]):
        np.testing.assert_allclose(
            metric, [[np.exp(-logit) / (1 + np.exp(-logit)) ** 2, 0.0], [0.0, 0.0]], rtol=1e-12 * logit
        )
    # Each of three states has a token of its own: Σ over pairs of q_v q_w (e_v − e_w)(e_v − e_w)ᵀ.
    chance = 1 / (1 + 2 * np.exp(-logit))
    pair = chance * (chance * np.exp(-logit)) * (2 + np.exp(-logit)) / 3
    for metric in metrics_at(np.eye(3), logit * np.eye(3)):
        np.testing.assert_allclose(metric / pair, 3 * np.eye(3) - 1, rtol=1e-12 * logit)
        assert np.linalg.eigvalsh(metric)[0] >= -1e-14 * metric.trace()


def test_logits_beyond_float64_make_one_token_certain():
    for metric in metrics_at([[1e140], [0]], [[1e250], [-1e250]]):
        np.testing.assert_array_equal(metric, [[0.0]])
    for metric in metrics_at([[1e140], [0]], [[1e-140]]):
        np.testing.assert_allclose(metric / 1e280, alignment.head_metric([[1.0], [0]], [[1.0]]), rtol=1e-12)


def test_the_metric_of_many_states_is_the_mean_of_its_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    head, states = rng.normal(size=(60, 2)), rng.normal(size=(50, 2))
    at_once = alignment.head_metric(head, states)
    monkeypatch.setattr(alignment, "_HELD", 7 * 60)
    np.testing.assert_allclose(alignment.head_metric(head, states), at_once, rtol=1e-12)


@FAST
@given(SHAPES)
def test_shares_do_not_change_under_affine_maps_of_states(shape):
    rng, h, phi = drawn(shape)
    d = h.shape[1]
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0] * 10.0 ** rng.uniform(-1, 1, size=d)
    moved = h @ turn + rng.normal(size=d)
    assert alignment.explained_share(moved, phi) == pytest.approx(alignment.explained_share(h, phi), abs=1e-6)
    np.testing.assert_allclose(
        alignment.eigenfunction_shares(moved, phi).shares,
        alignment.eigenfunction_shares(h, phi).shares,
        atol=1e-6,
    )


@FAST
@given(SHAPES)
def test_the_explained_share_is_the_mean_over_eigenfunctions(shape):
    _, h, phi = drawn(shape)
    found = alignment.eigenfunction_shares(h, phi)
    mean = found.weights @ found.shares / found.weights.sum()
    assert mean == pytest.approx(alignment.explained_share(h, phi), abs=1e-9)
    centred = phi - phi.mean(axis=0)
    values = np.linalg.eigvalsh(centred @ centred.T / len(phi))[::-1][: len(found.eigenvalues)]
    np.testing.assert_allclose(found.eigenvalues, values, rtol=1e-6)


@FAST
@given(SHAPES, st.floats(-200, 200))
def test_a_common_scale_changes_nothing(shape, power):
    _, h, phi = drawn(shape)
    scale = 2.0 ** int(power)
    for measure in (alignment.explained_share, alignment.linear_cka):
        assert measure(h * scale, phi / scale) == pytest.approx(measure(h, phi), abs=1e-9)


@FAST
@given(st.integers(4, 9), st.integers(10, 40), st.integers(0, 2**32 - 1))
def test_arrays_of_more_columns_than_contexts_agree_with_the_slow_ones(n, k, seed):
    rng = np.random.default_rng(seed)
    h, phi = rng.normal(size=(n, 2)), rng.normal(size=(n, k)) + rng.normal(size=k)
    assert alignment.linear_cka(h, phi) == pytest.approx(slow.linear_cka(h, phi), abs=1e-9)
    assert alignment.subspace_overlap(h, phi, 2) == pytest.approx(slow.subspace_overlap(h, phi, 2), abs=1e-6)
    values = np.linalg.svd(phi - phi.mean(axis=0), compute_uv=False)[: n - 1] ** 2 / n
    np.testing.assert_allclose(alignment.eigenfunction_shares(h, phi).eigenvalues, values, rtol=1e-9)


@FAST
@given(SHAPES)
def test_what_determines_the_embedding_explains_all_of_it(shape):
    _, _, phi = drawn(shape)
    assert alignment.explained_share(phi, phi) == pytest.approx(1, abs=1e-5)
    assert alignment.linear_cka(phi, phi * 3.0 + 1.0) == pytest.approx(1, abs=1e-9)
    assert alignment.subspace_overlap(phi, phi, 1) == pytest.approx(1, abs=1e-9)


def test_of_the_exact_law_and_of_permuted_contexts():
    # Contexts of the toy: √p itself explains everything, permuted contexts nothing (about −2d/N).
    rng = np.random.default_rng(0)
    laws = WalkLaw(16).next_tokens(draw_walks(rng, 1200, 3, vocab=16))
    root = alignment.predictive_embedding(laws)
    assert alignment.explained_share(root, root) == pytest.approx(1, abs=1e-5)
    order = rng.permutation(len(root))
    assert -0.1 < alignment.explained_share(root[order], root) < 0.02
    null = alignment.subspace_overlap(root[order], root, 8)
    # 64 squared cosines of mean 1/(N − 1), summed over 8.
    assert null == pytest.approx(8 / 1199, abs=4 * np.sqrt(2 * 64) / 1199 / 8)


def test_head_metric_predicts_small_changes_of_the_prediction():
    rng = np.random.default_rng(1)
    head, states, v = rng.normal(size=(9, 4)), rng.normal(size=(50, 4)), 1e-3 * rng.normal(size=4)

    def log_law(h):
        z = h @ head.T
        return z - np.log(np.exp(z).sum(axis=1, keepdims=True))

    after, before = log_law(states + v), log_law(states)
    divergence = (np.exp(after) * (after - before)).sum(axis=1).mean()
    assert divergence == pytest.approx(v @ alignment.head_metric(head, states) @ v / 2, rel=0.02)
    # What is common to all rows of the head is read by nobody.
    np.testing.assert_allclose(
        alignment.head_metric(head + 1e3, states), alignment.head_metric(head, states), atol=1e-9
    )


H, PHI = np.random.default_rng(2).normal(size=(8, 2)), np.random.default_rng(3).normal(size=(8, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: alignment.explained_share(H[:5], PHI), "pass the same contexts in both, at least 4"),
        (lambda: alignment.explained_share(H[:3], PHI[:3]), "at least 4"),
        (lambda: alignment.explained_share(H, np.ones((8, 2))), "does not vary over the contexts"),
        (lambda: alignment.eigenfunction_shares(H, np.ones((8, 2))), "does not vary over the contexts"),
        (lambda: alignment.explained_share(H * np.nan, PHI), "NaN or Inf"),
        (lambda: alignment.eigenfunction_shares(H, PHI * 1e200), "cannot hold its energy"),
        (lambda: alignment.linear_cka(np.ones((8, 2)), PHI), "does not vary over the contexts"),
        (lambda: alignment.subspace_overlap(H, PHI, 3), "k is 3 and the centred states have rank 2"),
        (lambda: alignment.subspace_overlap(H, PHI, 0), "k is 0"),
        (
            lambda: alignment.subspace_overlap([[1.0, 0], [-1, 0], [0, 1], [0, -1]], np.eye(4, 1), 1),
            "1 and 2 of the centred states are equal",
        ),
        (
            lambda: alignment.held_out_residuals(H, np.sign(PHI) * 1.7e308),
            "float64 cannot hold its residuals",
        ),
        (lambda: alignment.predictive_embedding(np.ones((0, 3))), "at least one context"),
        (lambda: alignment.predictive_embedding([[0.5, 0.6]]), "row 0 of laws sums to 1.1"),
        (lambda: alignment.predictive_embedding([[1.5, -0.5]]), "laws have a chance of -0.5"),
        (lambda: alignment.predictive_embedding([[1.0]], "cosine"), "kernel"),
        (lambda: alignment.head_metric(PHI, H), "of one width"),
        (lambda: alignment.head_metric([[1e200], [0]], [[1e-200]]), "cannot hold its energy"),
        (lambda: alignment.head_metric([[1e-200], [0]], [[1e200]]), "cannot hold its energy"),
    ],
)
def test_what_has_no_alignment_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_the_embedding_is_an_array_of_its_own():
    laws = np.eye(3)
    for kernel in alignment.KERNELS:
        assert not np.shares_memory(alignment.predictive_embedding(laws, kernel), laws)


def test_states_that_say_nothing_explain_nothing():
    assert alignment.explained_share(np.ones((8, 2)), PHI) <= 0
