"""Fourier features of class means against their defining sums, and the laws they must obey."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spectra.bands import closed_set, task_band, task_kernel
from spectra.errors import InputError
from spectra.fourier import (
    ClassMeans,
    band_energies,
    band_masses,
    class_means,
    component_count,
    component_frequencies,
    dominant_frequency,
    gini,
    h_peak,
    h_s,
    h_s_debiased,
    peak_band,
    top_k_band,
)
from spectra.reference import fourier as slow
from spectra.subspaces import control_subspace, drop_frequencies, frequency_subspace, keep_frequencies


@st.composite
def means_and_set(draw):
    """Class means of both parities of c, and a closed set of frequencies."""
    c, d = draw(st.integers(3, 14)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    H = draw(st.sampled_from([1e-6, 1.0, 1e5])) * (
        rng.standard_normal((c, d)) + draw(st.sampled_from([0.0, 100.0]))
    )
    chosen = draw(st.sets(st.integers(1, c - 1), min_size=1))
    return H, closed_set(chosen, c)


def wave(c, d, r, rng):
    """Class means that go round once every c/r states, in a random plane."""
    plane = np.linalg.qr(rng.standard_normal((d, 2)))[0].T
    angle = 2 * np.pi * r * np.arange(c) / c
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) @ plane


@given(means_and_set())
@settings(max_examples=100)
def test_against_the_defining_sums(case):
    H, S = case
    scale = slow.band_energies(H)
    np.testing.assert_allclose(band_energies(H), scale, rtol=1e-9, atol=1e-13 * sum(scale))
    assert h_s(H, S) == pytest.approx(slow.h_s(H, S), rel=1e-9)
    assert h_peak(H) == pytest.approx(slow.h_peak(H), rel=1e-9)
    np.testing.assert_allclose(
        keep_frequencies(H, S), slow.keep_frequencies(H, S), rtol=0, atol=1e-11 * abs(H).max()
    )


@given(means_and_set())
def test_laws(case):
    H, S = case
    centred = H - H.mean(axis=0)
    energies = band_energies(H)
    c = len(H)
    # Parseval, conjugate symmetry, no mean.
    assert energies.sum() == pytest.approx(np.sum(centred**2) / c, rel=1e-9)
    assert energies[0] == 0.0
    np.testing.assert_array_equal(energies[1:], energies[1:][::-1])
    # Invariance: scale, shift, rotation of the states round the circle, and mirror image.
    for other in (3e7 * H, H + 5.0 * abs(H).max(), np.roll(H, 2, axis=0), H[::-1]):
        assert h_s(other, S) == pytest.approx(h_s(H, S), rel=1e-6)
    # Multiplying the state by a unit of Z_c permutes the frequencies.
    if c % 2:
        doubled = H[(2 * np.arange(c)) % c]
        assert h_s(doubled, {2 * r % c for r in S}) == pytest.approx(h_s(H, S), rel=1e-8)
    # Complement, and monotonicity in S.
    rest = set(range(1, c)) - set(S)
    if rest:
        assert h_s(H, S) + h_s(H, rest) == pytest.approx(1.0, abs=1e-12)
    assert h_peak(H) <= (0.5 if c % 2 else 1.0) + 1e-12
    assert h_s(H, peak_band(H)) >= h_peak(H) - 1e-12


@given(means_and_set())
def test_keep_plus_drop_is_the_identity(case):
    H, S = case
    keep, drop = keep_frequencies(H, S), drop_frequencies(H, S)
    tolerance = 1e-12 * abs(H).max()
    np.testing.assert_allclose(keep + drop - H.mean(axis=0), H, rtol=0, atol=tolerance)
    np.testing.assert_allclose(keep_frequencies(keep, S), keep, rtol=0, atol=tolerance)
    np.testing.assert_allclose(
        keep_frequencies(drop, S), np.tile(H.mean(axis=0), (len(H), 1)), rtol=0, atol=tolerance
    )


@given(st.integers(3, 40), st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_class_means_against_a_loop(c, d, seed):
    rng = np.random.default_rng(seed)
    states = np.concatenate([np.arange(c), rng.integers(0, c, 2 * c)])
    h = rng.standard_normal((3 * c, d)) + 1000.0
    means, counts, traces = slow.class_means(h, states.tolist(), c)
    result = class_means(h, states, c)
    np.testing.assert_allclose(result.means, means, rtol=1e-13)
    assert result.counts.tolist() == counts
    np.testing.assert_allclose(result.within_trace, traces, rtol=1e-7)


def test_class_means_survive_a_large_mean():
    rng = np.random.default_rng(0)
    signal = wave(7, 4, 2, rng)
    states = np.tile(np.arange(7), 50)
    h = signal[states] + 1e8
    assert h_s(class_means(h, states, 7).means, [2, 5]) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtypes_and_no_mutation(dtype):
    h = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    states = torch.arange(60) % 6
    kept = h.clone()
    means = class_means(h, states, 6).means
    assert torch.equal(h, kept)
    assert means.dtype == np.float64
    as_numpy = class_means(h.double().numpy(), states.numpy(), 6).means
    np.testing.assert_array_equal(means, as_numpy)
    before = means.copy()
    h_s(means, [1, 5]), drop_frequencies(means, [1, 5]), component_frequencies(means, 2)
    np.testing.assert_array_equal(means, before)


def test_a_pure_wave_is_found():
    rng = np.random.default_rng(1)
    H = wave(97, 16, 13, rng) + 0.01 * wave(97, 16, 5, rng)
    assert dominant_frequency(H) == 13
    assert peak_band(H) == (13, 84)
    assert top_k_band(H, 2) == (5, 13, 84, 92)
    assert h_peak(H) == pytest.approx(0.5 / 1.0001, rel=1e-6)
    components = component_frequencies(H, 2)
    assert components.frequency.tolist() == [13, 13]
    np.testing.assert_allclose(components.peak_mass, 0.5, atol=1e-3)
    assert components.share.sum() == pytest.approx(1.0, abs=1e-3)


def test_the_frequency_at_half_an_even_modulus():
    H = np.array([[1.0], [-1.0]] * 4) + 0.1 * np.cos(2 * np.pi * np.arange(8) / 8)[:, None]
    assert dominant_frequency(H) == 4
    # All of ±4 is one frequency of energy 1; the wave at ±1 has energies 0.0025 twice.
    assert h_peak(H) == pytest.approx(1.0 / 1.005, rel=1e-12)
    assert h_s(H, [4]) == pytest.approx(1.0 / 1.005, rel=1e-12)
    assert component_frequencies(H, 1).peak_mass[0] == pytest.approx(1.0 / 1.005, rel=1e-12)
    # Ranked by what a pair adds to H_S, two sides of 0.6 beat one alone.
    beat = (
        np.array([[1.0], [-1.0]] * 4) * np.sqrt(1.0)
        + np.sqrt(4 * 0.6) * np.cos(np.pi * np.arange(8) / 4)[:, None]
    )
    assert dominant_frequency(beat) == 4
    assert top_k_band(beat, 1) == (1, 7)


@pytest.mark.parametrize("c", [3, 5, 8, 31, 97, 179])
def test_task_kernel_and_band(c):
    np.testing.assert_allclose(task_kernel(c), slow.task_kernel(c), atol=1e-12)
    assert task_band(c) == closed_set([r for r in range(1, 8) if r < c], c)


@pytest.mark.parametrize("c", [97, 179])
def test_task_band_holds_89_percent(c):
    power = task_kernel(c)[1:] ** 2
    held = sum(power[r - 1] for r in task_band(c)) / power.sum()
    assert held == pytest.approx(0.89, abs=0.005)
    assert task_kernel(c)[8] < 0.1 * task_kernel(c)[1]


@given(arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 1e6)).filter(lambda x: x.max() > 1e-3))
def test_gini_against_pairs(x):
    assert gini(x) == pytest.approx(slow.gini(x.tolist()), abs=1e-9)
    assert gini(np.repeat(x, 2)) == pytest.approx(gini(x), abs=1e-9)


def test_subspace_carries_the_frequencies_and_the_control_does_not():
    rng = np.random.default_rng(2)
    H = wave(31, 24, 3, rng) + 0.5 * wave(31, 24, 7, rng) + 0.2 * rng.standard_normal((31, 24)) + 4.0
    S = closed_set([3], 31)
    basis = frequency_subspace(H, S)
    assert basis.shape == (24, 2)
    np.testing.assert_allclose(basis.T @ basis, np.eye(2), atol=1e-12)
    centred = H - H.mean(axis=0)
    removed = centred - centred @ basis @ basis.T
    assert h_s(removed, S) < 1e-20
    controls = [control_subspace(H, S, np.random.default_rng(seed)) for seed in range(2)]
    for control in controls:
        assert control.shape == basis.shape
        np.testing.assert_allclose(control.T @ control, np.eye(2), atol=1e-12)
        np.testing.assert_allclose(basis.T @ control, 0.0, atol=1e-12)
        left = band_energies(centred - centred @ control @ control.T)
        assert left[3] == pytest.approx(band_energies(H)[3], rel=1e-9)
    assert not np.allclose(controls[0] @ controls[0].T, controls[1] @ controls[1].T)
    np.testing.assert_array_equal(controls[0], control_subspace(H, S, np.random.default_rng(0)))


def test_a_control_does_not_depend_on_the_basis_of_a_decomposition():
    """All directions that remain weigh the same: any basis of them is a right one, and the last bits choose it."""
    angles = 2 * np.pi * np.outer(np.arange(7), [1, 2, 3]) / 7
    H = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    one, *others = (
        control_subspace(H + 1e-13 * noise, [1, 6], np.random.default_rng(0))
        for noise in np.random.default_rng(1).standard_normal((5, *H.shape))
    )
    for other in others:
        np.testing.assert_allclose(one @ one.T, other @ other.T, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_rounding_of_the_class_means_is_no_direction(dtype, offset):
    H = (wave(7, 3, 1, np.random.default_rng(0)) * 9 + offset).astype(dtype)
    assert frequency_subspace(H, [1, 6]).shape == (3, 2)
    assert component_count(H) == 2
    with pytest.raises(InputError, match="span 0 dimensions"):
        frequency_subspace(H, [2, 5])
    with pytest.raises(InputError, match="remaining directions span 0"):
        control_subspace(H, [1, 6], np.random.default_rng(0))
    with pytest.raises(InputError, match="2 components"):
        component_frequencies(H, 3)


def test_control_needs_room():
    H = wave(9, 3, 2, np.random.default_rng(0))
    with pytest.raises(InputError, match="span 0 dimensions"):
        control_subspace(H, [2, 7], np.random.default_rng(0))


def test_debiasing_removes_the_probe_noise():
    """The plug-in value shrinks toward |S|/(c−1); the debiased one is right on average (400 probes, fixed seed)."""
    rng = np.random.default_rng(3)
    c, d, per_state = 11, 20, 4
    H = wave(c, d, 2, rng)
    S = closed_set([2], c)
    states = np.repeat(np.arange(c), per_state)
    estimates, plug_ins = [], []
    for _ in range(400):
        h = H[states] + 0.3 * rng.standard_normal((len(states), d))
        estimate = h_s_debiased(class_means(h, states, c), S)
        estimates.append(estimate.value)
        plug_ins.append(estimate.details["plug_in"])
    # ν = σ²d/(c n_m) exactly, so the plug-in tends to (1 + 2ν)/(1 + 10ν) of the true energies.
    nu = 0.09 * d / (c * per_state)
    assert np.mean(plug_ins) == pytest.approx((1 + 2 * nu) / (1 + 10 * nu), abs=0.005)
    assert np.mean(estimates) == pytest.approx(1.0, abs=4 * np.std(estimates) / 20)
    assert abs(np.mean(plug_ins) - 1.0) > 0.1


def test_debiasing_knows_its_limits():
    rng = np.random.default_rng(4)
    states = np.repeat(np.arange(7), 3)
    noise = class_means(rng.standard_normal((21, 6)), states, 7)
    verdicts = {h_s_debiased(noise, [1, 6]).status}
    weak = class_means(0.5 * wave(7, 6, 1, rng)[states] + rng.standard_normal((21, 6)), states, 7)
    verdicts.add(h_s_debiased(weak, [1, 6]).status)
    assert verdicts <= {"flagged", "not fitted"}
    none_left = ClassMeans(weak.means, weak.counts, 100 * weak.within_trace)
    assert h_s_debiased(none_left, [1, 6]).status == "not fitted"
    with pytest.raises(InputError, match="seen once"):
        h_s_debiased(class_means(np.eye(7), np.arange(7), 7), [1, 6])


H7 = np.random.default_rng(0).standard_normal((7, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: h_s(H7, [1]), r"closed_set\(frequencies, 7\)"),
        (lambda: h_s(H7, [0, 1, 6]), "r = 0 is the mean"),
        (lambda: h_s(H7, [1, 7]), "frequencies 7"),
        (lambda: h_s(H7, [1.5]), "frequencies 1.5"),
        (lambda: h_s(H7, [float("nan")]), "frequencies nan"),
        (lambda: h_s(H7, []), "empty"),
        (lambda: h_peak(np.full((7, 3), np.nan)), "NaN or Inf"),
        (lambda: h_peak(np.full((7, 3), np.inf)), "NaN or Inf"),
        (lambda: h_peak(np.ones((2, 3))), "at least 3"),
        (lambda: h_peak(np.ones((1, 3))), "at least 3"),
        (lambda: h_peak(np.ones((0, 3))), "at least 3"),
        (lambda: h_peak(np.ones((5, 0))), "no columns"),
        (lambda: h_peak(np.ones(5)), "2 axes"),
        (lambda: h_peak(np.full((5, 2), 0.1)), "rounding"),
        (lambda: band_masses(np.zeros((5, 2))), "rounding"),
        (lambda: class_means(H7, [0, 1, 2, 2, 4, 5, 6], 7), "states 3 of 7 have no sample"),
        (lambda: class_means(H7, [0, 1, 2, 3, 4, 5, 7], 7), "0..6"),
        (lambda: class_means(H7, [0, 1, 2, 3, 4, 5, 5.5], 7), "integers"),
        (lambda: class_means(H7, [0, 1, 2], 7), "one state per row"),
        (lambda: component_frequencies(H7, 4), "3 components"),
        (lambda: top_k_band(H7, 4), "ask for 1..3"),
        (lambda: gini([0.0, 0.0]), "positive"),
        (lambda: gini([-1.0, 2.0]), "negative"),
        (lambda: task_band(2), "at least 3"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("scale", [1e200, 1e-200, 1e300, 1e-290, 1e100])
def test_concentration_has_no_scale(scale):
    states = np.repeat(np.arange(7), 30)
    rng = np.random.default_rng(6)
    h = 0.5 * np.cos(2 * np.pi * states / 7)[:, None] + rng.standard_normal((210, 3)) + [5.0, 0.0, -1.0]
    one, other = class_means(h, states, 7), class_means(scale * h, states, 7)
    np.testing.assert_allclose(other.means / scale, one.means, rtol=1e-12)
    want, got = h_s_debiased(one, [1, 6]), h_s_debiased(other, [1, 6])
    assert (got.value, got.status) == (pytest.approx(want.value, rel=1e-9), want.status)
    assert got.details["noise_share"] == pytest.approx(want.details["noise_share"], rel=1e-9)
    for measure in (
        h_peak,
        dominant_frequency,
        lambda H: h_s(H, [2, 5]),
        lambda H: component_frequencies(H, 2).share[1],
    ):
        assert measure(other.means) == pytest.approx(measure(one.means), rel=1e-9)
    if not 1e-140 < scale < 1e140:
        with pytest.raises(InputError, match="float64 cannot hold"):
            band_energies(other.means)
        with pytest.raises(InputError, match="float64 cannot hold"):
            _ = other.noise
