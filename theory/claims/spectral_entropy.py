"""Claim T14: how the entropy of a spectrum changes, and which ranks change it."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from scipy.special import entr

from theory.claim import Claim, Domain, Effort, Mutant
from theory.claims.draws import SEEDS, generator, log_uniform, reals, record
from theory.derivations import features as derivations
from theory.formulas import entropy
from theory.values import Array, Case, Measurement, Sampling, Tolerance

# --- T14 ----------------------------------------------------------------------------------------------------


def _path(case: Case) -> tuple[Array, Array]:
    """A matrix F (3d, d) and its derivative, whose columns have sizes that differ by up to 10."""
    rng, d = generator(case), case["width"]
    scale = log_uniform(rng, 0.3, 3.0, d)
    return rng.standard_normal((3 * d, d)) * scale, case["speed"] * rng.standard_normal((3 * d, d)) * scale


def _balance(case: Case, weighted: bool = True, centred: bool = True) -> Array:
    matrix, change = _path(case)
    left, sizes, right = np.linalg.svd(matrix, full_matrices=False)
    growth = 2 * np.einsum("ni,nd,id->i", left, change, right) / sizes
    if not centred:
        p = entropy.shares(sizes**2)
        return -np.array([(p * growth * np.log(p)).sum()])
    if not weighted:
        return -np.array([np.mean((growth - growth.mean()) * np.log(sizes**2))])
    return np.array([entropy.entropy_rate(sizes**2, growth)])


def _slope(case: Case, _: Sampling) -> Measurement:
    matrix, change = _path(case)
    h = 1e-3

    def at(k: int) -> float:
        moved = matrix + k * h * change
        p = np.linalg.eigvalsh(moved.T @ moved)
        p = p / p.sum()
        return float(-(p * np.log(p)).sum())

    return Measurement.exact([(8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * h)])


ENTROPY = Claim(
    id="T14",
    title="Entropy balance of a spectrum",
    statement="With shares p_i = λ_i/Σλ, S = −Σ p ln p and g_i = d ln λ_i/dt: dS/dt = −Cov_p(g, ln p). RankMe on "
    "energies, exp(S), rises exactly while directions of smaller share grow at the larger relative rates.",
    meaning="The effective rank rises exactly while small directions grow faster, in proportion to their size, than "
    "large ones, each counted by its share of the energy.",
    latex=r"$\frac{dS}{dt}=-\mathrm{Cov}_p\left(g,\ln p\right),\qquad g_i=\frac{d\ln\lambda_i}{dt}$",
    source="chain rule; replicator equation of the shares",
    quantity="dS/dt along a path of matrices, nats per unit of time",
    domain=Domain(record(width=st.integers(2, 8), speed=reals(0.1, 1.0), seed=SEEDS)),
    predicted=_balance,
    measured=_slope,
    tolerance=Tolerance("fourth-order differences over steps of 1e-3", absolute=1e-8),
    mutants=(
        Mutant("unweighted covariance", predicted=lambda case: _balance(case, weighted=False)),
        Mutant("growth not centred", predicted=lambda case: _balance(case, centred=False)),
    ),
    derivation=derivations.entropy_balance,
    quick=Effort(30),
    full=Effort(500),
)

# --- T14.ranks ----------------------------------------------------------------------------------------------

_NODES = 200


def _spectra(case: Case) -> tuple[Array, Array]:
    """Two spectra; one rank of the first may have no energy at all."""
    rng, k = generator(case), case["ranks"]
    before, after = log_uniform(rng, 1e-3, 1.0, k), log_uniform(rng, 1e-3, 1.0, k)
    if case["empty"]:
        before[-1] = 0.0
    return before, before + case["change"] * (after - before)


def _summed(case: Case, _: Sampling) -> Measurement:
    """Integrate −(ln p_i + S) dp_i along the line with the nodes of a Gauss–Legendre rule."""
    p, q = (x / x.sum() for x in _spectra(case))
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    u = (1 + nodes) / 2
    # Shares of 0 are left slowly, as u³, so that the integral of the logarithm is exact.
    path = p + u[:, None] ** 3 * (q - p)
    logs = np.log(path)
    typical = -(path * logs).sum(1, keepdims=True)
    return Measurement.exact(-(1.5 * weights * u**2) @ (logs + typical) * (q - p))


def _terms(case: Case) -> Array:
    p, q = (entropy.shares(x) for x in _spectra(case))
    return entr(q) - entr(p)


def _by_start(case: Case) -> Array:
    """Contributions with the entropy of the first spectrum instead of that along the way."""
    before, after = _spectra(case)
    change = entropy.shares(after) - entropy.shares(before)
    return _terms(case) + change * (1 - entropy.spectral_entropy(before))


RANKS = Claim(
    id="T14.ranks",
    title="What each rank adds to a change of entropy",
    statement="Along the straight line between two sets of shares the contributions c_i = −∫(ln p_i + S)dp_i have a "
    "closed form, and their sum is the change of S. For small changes c_i is the term of rank i in −Cov_p(g, ln p).",
    meaning="The change of the effective rank from one step of training to another can be split over the directions, "
    "so that one sees which of them carry it.",
    latex=r"$S(q)-S(p)=\sum_i c_i,\qquad c_i=-\int(\ln p_i+S)\,dp_i$",
    source="integration of T14 along a straight line",
    quantity="contribution of every rank, nats",
    domain=Domain(
        record(ranks=st.integers(2, 12), change=reals(0.001, 1.0), empty=st.booleans(), seed=SEEDS)
    ),
    predicted=lambda case: entropy.entropy_contributions(*_spectra(case)),
    measured=_summed,
    tolerance=Tolerance(f"Gauss–Legendre rule with {_NODES} nodes", absolute=1e-8),
    mutants=(
        Mutant("each rank's own −p ln p", predicted=_terms),
        Mutant("entropy of the first spectrum all along", predicted=_by_start),
    ),
    quick=Effort(30),
    full=Effort(500),
)

CLAIMS = (ENTROPY, RANKS)
