"""Simulators against independent facts: decoupling, polar factors, planted energies, errors with their remedy."""

import numpy as np
import pytest
from scipy.linalg import polar

from theory.formulas import fourier, lms, tying
from theory.simulate import class_means, flows, readout, walks
from theory.simulate import lms as simulate


def test_planted_states_carry_the_energies_asked_for():
    energies = np.array([2.0, 0.5, 1.0, 0.25])
    h = class_means.planted_states(np.random.default_rng(0), 8, 10, energies)
    got = fourier.mode_energies(h)
    np.testing.assert_allclose(got[1:5], energies, atol=1e-12)
    np.testing.assert_allclose(got[1:], got[1:][::-1], atol=1e-12)
    assert got.sum() == pytest.approx(((h - h.mean(0)) ** 2).sum() / 8)
    with pytest.raises(ValueError, match="orthogonal directions"):
        class_means.planted_states(np.random.default_rng(0), 8, 6, energies)


def test_polar_factor_is_scipys_and_kills_nothing_at_full_rank():
    g = np.random.default_rng(1).standard_normal((6, 4))
    np.testing.assert_allclose(flows.polar_factor(g), polar(g)[0], atol=1e-12)
    assert not flows.polar_factor(np.zeros((3, 2))).any()
    assert not flows.newton_schulz_matrix(np.zeros((3, 2))).any()


def test_newton_schulz_keeps_singular_vectors():
    g = np.random.default_rng(2).standard_normal((5, 5))
    u, _, vt = np.linalg.svd(g)
    inside = u.T @ flows.newton_schulz_matrix(g) @ vt.T
    np.testing.assert_allclose(inside - np.diag(np.diag(inside)), 0, atol=1e-10)
    assert (np.diag(inside) > 0).all()


def test_matrix_flow_decouples_into_modes():
    target, rate = np.array([1.0, -2.0, 0.5]), np.array([1.0, 0.3, 2.0])
    problem = flows.MatrixProblem.draw(np.random.default_rng(3), 7, 5, target, rate)
    times = [0.2, 1.0, 3.0]
    np.testing.assert_allclose(
        flows.matrix_descent(problem, times), flows.mode_flow(target, rate, times), atol=1e-10
    )


def test_gradient_of_the_matrix_problem_is_the_gradient_of_its_loss():
    rng = np.random.default_rng(4)
    problem = flows.MatrixProblem.draw(rng, 4, 3, np.array([1.0, -1.0]), np.array([0.5, 2.0]))
    w, step = rng.standard_normal((4, 3)), 1e-6

    def loss(x: np.ndarray) -> float:
        return float(0.5 * (problem.rate * (problem.target - problem.amplitudes(x)) ** 2).sum())

    for i, j in np.ndindex(w.shape):
        e = np.zeros_like(w)
        e[i, j] = step
        assert problem.gradient(w)[i, j] == pytest.approx((loss(w + e) - loss(w - e)) / (2 * step), abs=1e-7)


def test_runge_kutta_is_fourth_order():
    errors = [
        abs(flows.runge_kutta(lambda x: -x, np.ones(1), [1.0], n)[0, 0] - np.exp(-1)) for n in (4, 8, 16)
    ]
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(16, rel=0.2)


def test_hitting_times_interpolate_and_say_never():
    times, path = np.array([0.0, 1.0, 2.0]), np.array([[0.0, 0.0], [-1.0, 0.1], [-2.0, 0.2]])
    got = flows.hitting_times(times, path, np.array([1.5, 5.0]))
    assert got[0] == 1.5
    assert np.isnan(got[1])


def test_lms_step_is_the_gradient_step():
    lam, batch = np.array([1.0, 0.5]), 3
    error = np.array([[1.0, -2.0]])
    got = simulate.step(np.random.default_rng(6), error, lam, 0.1, batch)
    x = np.random.default_rng(6).standard_normal((1, batch, 2)) * np.sqrt(lam)
    expected = error[0] - 0.1 * np.mean([row * (row @ error[0]) for row in x[0]], axis=0)
    np.testing.assert_allclose(got[0], expected)


def test_moment_recursion_leaves_nothing_behind_below_the_boundary_and_explodes_above():
    lam, batch = np.array([1.0, 0.6, 0.3]), 2
    critical = lms.critical_rate(lam, batch)
    for factor, contracts in ((0.98, True), (1.02, False)):
        p = np.ones(3)
        for _ in range(3000):
            p = lms.moment_step(p, lam, factor * critical, batch)
        assert bool(p.sum() < 1e-3) is contracts


def test_errors_name_the_remedy():
    with pytest.raises(ValueError, match="lower η or raise the target"):
        lms.steps_to_loss([1.0], [1.0], 2.5, 1, 0.1, limit=50)
    with pytest.raises(ValueError, match="0 < ηκ < 2"):
        lms.noise_floor(3.0, 1.0, 1.0, 1)
    with pytest.raises(ValueError, match="must be positive"):
        lms.critical_rate([1.0, 0.0], 2)
    with pytest.raises(ValueError, match="widen the bracket"):
        simulate.critical_rate(np.random.default_rng(0), [1.0], 2, (0.1, 0.2), 50)
    with pytest.raises(ValueError, match="draw more"):
        walks.counted_bigrams(np.random.default_rng(0), 50, 6, 10)


def test_a_free_matrix_shifts_and_a_symmetric_one_does_not():
    assert readout.best_margin(7, 2, symmetric=False) == pytest.approx(2)
    assert readout.best_margin(7, 2) == pytest.approx(0, abs=1e-9)
    assert readout.best_margin(8, 4) == pytest.approx(2)
    assert tying.symmetric_margin(8, 4) == 2


def test_known_walk_is_a_permutation():
    p = walks.bigram_matrix(6, [4])
    assert (p.sum(0) == 1).all()
    assert p[5, 3] == 1
