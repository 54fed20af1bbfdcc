"""Claim T8: the effect of batch size in one-pass least mean squares."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from theory.claim import Assumption, Claim, Domain, Effort, Mutant
from theory.claims.draws import SEEDS, generator, log_uniform, reals, record
from theory.derivations import dynamics as derivations
from theory.formulas import lms
from theory.simulate import lms as simulate
from theory.values import Array, Case, Measurement, Sampling, Tolerance

SOURCE = "Gaussian fourth moments (Isserlis); one-pass stochastic gradient descent on least squares"

# --- T8.moments -------------------------------------------------------------------------------------------


def _spectrum(case: Case) -> Array:
    return log_uniform(generator(case), 0.05, 1.0, case["d"])


def _start(case: Case) -> Array:
    return generator(case, 1).choice([-1.0, 1.0], case["d"]) * log_uniform(
        generator(case, 2), 0.3, 3.0, case["d"]
    )


def _rate(case: Case) -> float:
    return case["eta"] * lms.critical_rate(_spectrum(case), case["batch"])


def _with(case: Case, own: float = 1.0, others: float = 1.0, power: int = 1) -> Array:
    """The recursion with its two noise terms weighted, and B^power for B."""
    lam, p, eta, batch = _spectrum(case), _start(case) ** 2, _rate(case), case["batch"] ** power
    for _ in range(case["steps"]):
        spread = lam @ p
        p = (
            (1 - eta * lam) ** 2 + own * eta**2 * lam**2 / batch
        ) * p + others * eta**2 / batch * lam * spread
    return p


def _recursion(case: Case) -> Array:
    p = _start(case) ** 2
    for _ in range(case["steps"]):
        p = lms.moment_step(p, _spectrum(case), _rate(case), case["batch"])
    return p


def _monte_carlo(case: Case, sampling: Sampling) -> Measurement:
    return Measurement.mean_of(
        simulate.squared_errors(
            sampling.rng,
            _spectrum(case),
            _start(case),
            _rate(case),
            case["batch"],
            case["steps"],
            sampling.draws,
        )
    )


MOMENTS = Claim(
    id="T8.moments",
    title="Second moments of minibatch LMS",
    statement="One-pass minibatch LMS on x ~ N(0, diag λ): p_j = E e_j² obeys "
    "p_j⁺ = [(1−ηλ_j)² + η²λ_j²/B] p_j + (η²/B) λ_j Σ_i λ_i p_i.",
    meaning="In a linear model trained on small batches, sampling noise couples the modes: the error of each "
    "one feeds all others, the more the smaller the batch. The average squared errors can be computed "
    "exactly, step by step.",
    latex=r"$p_j^{+}=\left[(1-\eta\lambda_j)^2+\frac{\eta^2\lambda_j^2}{B}\right]p_j"
    r"+\frac{\eta^2}{B}\lambda_j\sum_i\lambda_ip_i$",
    source=SOURCE,
    quantity="E e_j² after some steps",
    domain=Domain(
        record(
            d=st.integers(1, 6),
            batch=st.sampled_from([1, 2, 3, 4, 8]),
            steps=st.integers(1, 8),
            eta=reals(0.1, 1.0),
            seed=SEEDS,
        ),
        (Assumption("η at most 0.6 η_c, where the draws have a usable variance", lambda x: x["eta"] <= 0.6),),
    ),
    predicted=_recursion,
    measured=_monte_carlo,
    tolerance=Tolerance(
        "5.5 standard errors: e_j² has heavy tails, so its error estimate is itself noisy", sigmas=5.5
    ),
    mutants=(
        Mutant("noise of the other modes left out", predicted=lambda x: _with(x, others=0.0)),
        Mutant("own fourth moment left out", predicted=lambda x: _with(x, own=0.0)),
        Mutant("noise falls as 1/B²", predicted=lambda x: _with(x, power=2)),
    ),
    derivation=derivations.moment_recursion,
    quick=Effort(20, 20_000),
    full=Effort(60, 60_000),
)

# --- T8.boundary ------------------------------------------------------------------------------------------


def _flat_spectrum(case: Case) -> Array:
    return np.arange(1, case["d"] + 1.0) ** -case["power"]


def _critical(case: Case) -> Array:
    return np.array([lms.critical_rate(_flat_spectrum(case), case["batch"])] * 2)


def _without_batch(case: Case) -> Array:
    lam = _flat_spectrum(case)
    return np.array([2 / (lam.max() * (1 + 1 / case["batch"]))] * 2)


def _wrong_denominator(case: Case) -> Array:
    lam, batch = _flat_spectrum(case), case["batch"]
    etas = np.linspace(1e-3, 2 / lam.max(), 20_000)[:-1]
    sums = (etas[:, None] / batch * lam / (2 - etas[:, None] * lam)).sum(1)
    return np.array([etas[np.argmax(sums > 1)]] * 2)


def _radius_root(lam: Array, batch: int) -> float:
    """η at which the spectral radius of the moment map reaches 1, by bisection on its eigenvalues."""
    low, high = 0.0, 2 / lam.max()
    for _ in range(50):
        eta = (low + high) / 2
        step = np.diag((1 - eta * lam) ** 2 + eta**2 * lam**2 / batch) + eta**2 / batch * np.outer(lam, lam)
        low, high = (eta, high) if np.abs(np.linalg.eigvals(step)).max() < 1 else (low, eta)
    return (low + high) / 2


def _measured_boundary(case: Case, sampling: Sampling) -> Measurement:
    lam, batch = _flat_spectrum(case), case["batch"]
    exact = _radius_root(lam, batch)
    found = simulate.critical_rate(sampling.rng, lam, batch, (0.91 * exact, 1.09 * exact), sampling.draws)
    return Measurement(np.array([exact, found.eta]), np.array([0.0, found.stderr]))


BOUNDARY = Claim(
    id="T8.boundary",
    title="Stability boundary of minibatch LMS",
    statement="The second moments contract iff ηλ_j(1+1/B) < 2 for all j and Σ_j (η/B)λ_j/(2−ηλ_j(1+1/B)) < 1. "
    "The rate at which they stop is met by the eigenvalues of the moment map and by Monte Carlo.",
    meaning="For every batch size a linear model has an exact largest learning rate, below the full-batch "
    "limit; beyond it squared errors no longer die out. It depends on the whole spectrum and not only "
    "on the largest eigenvalue.",
    latex=r"$\eta\lambda_j(1+\frac{1}{B})<2\ \forall j,\qquad "
    r"\sum_j\frac{(\eta/B)\,\lambda_j}{2-\eta\lambda_j(1+1/B)}<1$",
    source="a non-negative matrix diag + rank one has radius below 1 iff its resolvent sum is below 1",
    quantity="critical η: from eigenvalues, and from the growth of a resampled population",
    domain=Domain(
        record(d=st.integers(1, 12), batch=st.sampled_from([1, 2, 4, 8, 16]), power=reals(0.0, 1.5)),
        minimum=4,
    ),
    predicted=_critical,
    measured=_measured_boundary,
    tolerance=Tolerance(
        "bisection for the eigenvalues; for Monte Carlo 5 standard errors, and 1 % for the finite "
        "population and for interpolating over steps of 3 %",
        absolute=(1e-9, 0.0),
        relative=(0.0, 0.01),
        sigmas=5.0,
    ),
    mutants=(
        Mutant("the sum condition left out", predicted=_without_batch),
        Mutant("2 − ηλ in the denominator", predicted=_wrong_denominator),
    ),
    derivation=derivations.moment_recursion,
    quick=Effort(6, 400),
    full=Effort(20, 1_500),
)

# --- T8.floor ---------------------------------------------------------------------------------------------


def _floor(case: Case, linear: bool = False) -> Array:
    eta = case["product"] / case["kappa"]
    value = lms.noise_floor(eta, case["kappa"], case["variance"], case["batch"])
    # Without the curvature term of the exact floor only the small-η limit remains.
    return np.array([value * (1 - case["product"] / 2) if linear else value])


def _floor_draws(case: Case, sampling: Sampling) -> Measurement:
    eta = case["product"] / case["kappa"]
    steps = int(np.ceil(8 / min(case["product"], 2 - case["product"])))
    return Measurement.mean_of(
        simulate.floor_samples(
            sampling.rng, eta, case["kappa"], case["variance"], case["batch"], steps, sampling.draws
        )
    )


FLOOR = Claim(
    id="T8.floor",
    title="Noise floor",
    statement="Additive gradient noise of variance C a sample leaves a mode of curvature κ at E e² = ηC/(Bκ(2−ηκ)).",
    meaning="At a constant learning rate gradient noise keeps every mode at a remaining error, which falls as "
    "one over the batch size and grows with the rate. To get below it takes a smaller rate or a "
    "larger batch, not more steps.",
    latex=r"$\mathbf{E}\,e^2\rightarrow\frac{\eta C}{B\kappa(2-\eta\kappa)}$",
    source="stationary variance of a first-order autoregression",
    quantity="E e² after 8 relaxation times",
    domain=Domain(
        record(
            product=reals(0.1, 1.8),
            kappa=reals(0.1, 10.0),
            variance=reals(0.1, 10.0),
            batch=st.sampled_from([1, 2, 4, 8]),
        )
    ),
    predicted=_floor,
    measured=_floor_draws,
    tolerance=Tolerance("5 standard errors; e^{−16} of the transient is left", sigmas=5.0, relative=1e-5),
    mutants=(
        Mutant("the small-η limit ηC/(2Bκ) at every η", predicted=lambda x: _floor(x, linear=True)),
        Mutant("floor falls as 1/√B", predicted=lambda x: _floor(x) * np.sqrt(x["batch"])),
    ),
    quick=Effort(15, 20_000),
    full=Effort(60, 60_000),
)

CLAIMS = (MOMENTS, BOUNDARY, FLOOR)
