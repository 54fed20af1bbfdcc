"""JS divergence: definition, metric laws, and the floor that sampling puts under it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from spectra.covariance import covariance_spectrum
from spectra.divergence import js_divergence, js_excess, js_floor
from spectra.errors import InputError
from spectra.reference import summaries as slow
from spectra.spectrum import Spectrum

spectrum_of = st.lists(st.one_of(st.just(0.0), st.floats(1e-9, 1e3)), min_size=5, max_size=5).filter(any)


@given(spectrum_of, spectrum_of)
def test_definition_range_and_symmetry(a, b):
    js = js_divergence(a, b)
    assert js == pytest.approx(slow.js_divergence(sorted(a)[::-1], sorted(b)[::-1]), rel=1e-9, abs=1e-14)
    assert js == pytest.approx(jensenshannon(sorted(a)[::-1], sorted(b)[::-1]) ** 2, rel=1e-6, abs=1e-12)
    assert 0.0 <= js <= math.log(2)
    assert js == js_divergence(b, a)
    assert js_divergence(a, a) == 0.0


@pytest.mark.parametrize("small", [1e-3, 1e-9, 1e-15])
def test_no_digits_are_lost_where_one_share_is_tiny(small):
    p, q = [0.5, 0.5], [1 / (1 + small), small / (1 + small)]
    assert js_divergence(p, q) == pytest.approx(slow.js_divergence(p, q), rel=1e-14)


@given(spectrum_of, spectrum_of, spectrum_of)
def test_root_obeys_the_triangle_inequality(a, b, c):
    ab, bc, ac = (math.sqrt(js_divergence(*pair)) for pair in ((a, b), (b, c), (a, c)))
    assert ac <= ab + bc + 1e-12


def test_extremes_and_precision():
    # A spectrum is sorted, so two of them always overlap at rank 1: ln 2 is approached, not reached.
    p, q = np.array([1.0, 0.0]), np.array([0.5, 0.5])
    assert js_divergence(p, q) == pytest.approx(slow.js_divergence(p, q), rel=1e-12)
    # For p = (½+e, ½−e) against uniform the divergence is e²/2 to leading order; differences of logarithms
    # lose it.
    e = 1e-7
    assert js_divergence([0.5 + e, 0.5 - e], [0.5, 0.5]) == pytest.approx(e**2 / 2, rel=1e-6)


def test_scale_and_kind_do_not_matter():
    a, b = np.array([4.0, 1.0, 0.25]), np.array([2.0, 2.0, 1.0])
    assert js_divergence(a, 7 * b) == pytest.approx(js_divergence(a, b), rel=1e-12)
    assert js_divergence(Spectrum(np.sqrt(a), "singular"), b) == pytest.approx(js_divergence(a, b), rel=1e-12)


def test_what_it_refuses():
    with pytest.raises(InputError, match="same number"):
        js_divergence([1.0, 2.0], [1.0])
    with pytest.raises(InputError, match="equal n"):
        js_divergence(Spectrum(np.ones(2), n=5), Spectrum(np.ones(2), n=6))
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="four"):
        js_floor(np.eye(3), rng)
    with pytest.raises(InputError, match="equal n and d"):
        js_excess(np.eye(6), np.eye(8), rng)
    with pytest.raises(InputError, match="splits"):
        js_floor(np.eye(6), rng, splits=0)


@pytest.mark.parametrize(("n", "published"), [(256, 8.6e-4), (4096, 8e-5)])
def test_published_floors(n, published):
    # Two disjoint samples of one α = 1 population of dimension 64; fixed seed, 30 populations' worth of
    # pairs.
    rng = np.random.default_rng(7)
    values = []
    for _ in range(30 if n == 256 else 12):
        x = rng.standard_normal((2 * n, 64)) * np.arange(1, 65) ** -0.5
        values.append(js_divergence(covariance_spectrum(x[:n]), covariance_spectrum(x[n:])))
    assert np.mean(values) == pytest.approx(published, rel=0.3)


def test_floor_from_one_sample_predicts_the_floor_between_fresh_samples():
    rng = np.random.default_rng(3)
    scale = np.arange(1, 33) ** -0.5
    floors = [js_floor(rng.standard_normal((400, 32)) * scale, rng, splits=5) for _ in range(20)]
    fresh = []
    for _ in range(60):
        pair = [covariance_spectrum(rng.standard_normal((200, 32)) * scale) for _ in range(2)]
        fresh.append(js_divergence(*pair))
    assert floors[0].details["n"] == 200
    assert np.mean([f.value for f in floors]) == pytest.approx(np.mean(fresh), rel=0.2)


def test_excess_is_zero_in_the_mean_for_one_population_and_positive_for_two():
    rng = np.random.default_rng(4)
    flat, steep = np.ones(16), np.arange(1, 17) ** -0.5
    same = [
        js_excess(
            rng.standard_normal((120, 16)) * steep, rng.standard_normal((120, 16)) * steep, rng, splits=20
        )
        for _ in range(40)
    ]
    values = np.array([e.value for e in same])
    assert abs(values.mean()) < 3 * values.std() / math.sqrt(40)
    # 1/21 < 0.05 makes "ok" the event that the observed divergence beats all 20 relabellings: 4.8 % of
    # samples.
    assert sum(e.ok for e in same) <= 6
    other = js_excess(rng.standard_normal((120, 16)) * steep, rng.standard_normal((120, 16)) * flat, rng)
    assert other.ok
    assert other.value == pytest.approx(other.details["js"] - other.details["floor"])
    assert other.value > 5 * other.details["floor"]
