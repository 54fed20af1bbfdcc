"""The kit's strategies: what they promise of the data, the hard data among them, and what these shrink to."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from spectra.covariance import covariance_spectrum
from spectra.errors import InputError
from spectra.testing import strategies


@pytest.mark.parametrize("centred", [True, False])
def test_planted_matrices_have_their_spectrum(centred):
    @settings(max_examples=50, database=None)
    @given(strategies.matrices_with_spectrum(centred=centred))
    def check(planted):
        x, energies = planted
        if centred:
            x = x - x.mean(axis=0)
        freedom = len(x) - 1 if centred else len(x)
        found = np.linalg.svd(x, compute_uv=False) ** 2 / freedom
        # 1e-12·λ₁: rounding of the product that builds x.
        np.testing.assert_allclose(found, energies, atol=1e-12 * energies[0], rtol=0)

    check()


def test_planting_says_what_it_cannot_do():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="need at least 4 samples"):
        strategies.matrix_with_spectrum([3.0, 2.0, 1.0], 3, rng)
    with pytest.raises(InputError, match="none negative"):
        strategies.matrix_with_spectrum([1.0, -1.0], 5, rng)
    assert strategies.matrix_with_spectrum([3.0, 2.0, 1.0], 3, rng, centred=False).shape == (3, 3)


@settings(max_examples=100, database=None)
@given(strategies.matrices(), strategies.spectra(), strategies.class_means(), strategies.spectrum_pairs(3))
def test_strategies_keep_their_promises(x, eigenvalues, H, pairs):
    assert strategies.varies(x)
    assert covariance_spectrum(x).values[0] > 0
    assert eigenvalues[0] > 0
    assert (eigenvalues >= 0).all()
    assert (np.diff(eigenvalues) <= 0).all()
    assert len(H) >= 3
    assert len({len(values) for values in pairs}) == 1


@settings(max_examples=50, database=None)
@given(st.integers(1, 8).flatmap(strategies.orthogonal_matrices))
def test_orthogonal_matrices_are_orthogonal(q):
    # Rank-one update of the identity: a few ulp.
    np.testing.assert_allclose(q.T @ q, np.eye(len(q)), atol=1e-14)


FAMILIES = [
    ("large mean", lambda x: np.abs(x.mean(axis=0)).max() > 1e4 * x.std(axis=0).max()),
    (
        "ill scaled",
        lambda x: (
            x.shape[1] > 1 and x.std(axis=0).min() > 0 and x.std(axis=0).max() > 1e6 * x.std(axis=0).min()
        ),
    ),
    ("near duplicates", lambda x: 0 < min(np.abs(a - b).max() for a, b in combinations(x, 2)) < 1e-4),
    (
        "heavy tailed",
        lambda x: np.abs(x).max() > 1e4 * max(np.median(np.abs(x)), 1) and x.min() < 0 < x.max(),
    ),
    ("more columns than rows", lambda x: x.shape[1] > x.shape[0]),
    ("rank deficient", lambda x: min(x.shape) > 2 and np.linalg.matrix_rank(x) < min(x.shape) - 1),
]


@pytest.mark.parametrize(("name", "condition"), FAMILIES, ids=[name for name, _ in FAMILIES])
def test_hard_data_are_drawn_within_a_usual_run(name, condition):
    options = settings(max_examples=200, database=None, derandomize=True, phases=(Phase.generate,))
    assert condition(find(strategies.matrices(), condition, settings=options))


def test_a_large_mean_shrinks_to_one_column_of_whole_numbers():
    options = settings(max_examples=200, database=None, derandomize=True)
    x = find(strategies.matrices(), lambda x: x.mean() > 1e3 * x.std(), settings=options)
    assert x.tolist() in ([[1000.0], [1001.0]], [[10000.0], [10001.0]])


@pytest.mark.parametrize("r", [1, 2, 3])
def test_a_wave_has_its_energy_at_its_frequency(r):
    transform = np.abs(np.fft.fft(strategies.wave(7, r)[:, 0]) / 7) ** 2
    expected = np.zeros(7)
    expected[[r, 7 - r]] = 0.25
    np.testing.assert_allclose(transform, expected, atol=1e-15)
