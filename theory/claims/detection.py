"""Claim T12: what can be detected above noise, and the exponent of pure noise."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from theory.claim import Assumption, Claim, Domain, Effort, Mutant
from theory.claims.draws import reals, record
from theory.derivations import detection as derivations
from theory.formulas import matrices
from theory.formulas.dynamics import exponent
from theory.simulate.spiked import mean_gradient_energies, spiked_covariance, white_spectra
from theory.values import Array, Case, Measurement, Sampling, Tolerance

# --- T12.spike --------------------------------------------------------------------------------------------


def _gamma(case: Case) -> float:
    return case["d"] / case["n"]


def _ell(case: Case) -> float:
    return 1 + case["strength"] * np.sqrt(_gamma(case))


def _spike(case: Case) -> Array:
    ell, gamma = _ell(case), _gamma(case)
    return np.array([matrices.spike_position(ell, gamma), matrices.spike_overlap(ell, gamma)])


def _sampled_spike(case: Case, sampling: Sampling) -> Measurement:
    top, overlap = spiked_covariance(sampling.rng, case["n"], case["d"], _ell(case), sampling.draws)
    return Measurement.mean_of(np.stack([top, overlap], axis=1))


def _not_at_threshold(case: Case) -> bool:
    return abs(case["strength"] - 1) >= 0.35


SPIKE = Claim(
    id="T12.spike",
    title="When a covariance spike detaches, where and how aligned",
    statement="Isotropic unit bulk, γ = d/n: a spike ℓ detaches iff ℓ > 1+√γ (1.354 at γ = .125), at ℓ(1+γ/(ℓ−1)), "
    "with squared overlap (1−γ/θ²)/(1+γ/θ), θ = ℓ−1. Below, λ_1 is the edge (1+√γ)² and the overlap 0.",
    meaning="A direction of extra variance stands out of the noise only beyond a threshold set by width over "
    "sample count; its eigenvalue then reads too high and its direction is only partly right. No "
    "outlier does not mean no structure.",
    latex=r"$\lambda_1\rightarrow\ell\left(1+\frac{\gamma}{\ell-1}\right),\quad "
    r"\langle v,\hat v\rangle^2\rightarrow\frac{1-\gamma/\theta^2}{1+\gamma/\theta},\quad \ell>1+\sqrt{\gamma}$",
    source="Baik, Ben Arous and Péché 2005; Paul 2007; Benaych-Georges and Nadakuditi 2011",
    quantity="mean largest eigenvalue and mean squared overlap with the spike",
    domain=Domain(
        record(d=st.sampled_from([100, 160]), n=st.sampled_from([320, 800, 1280]), strength=reals(0.0, 8.0)),
        (
            Assumption(
                "ℓ not within 35 % of its threshold distance, where the limits are slow", _not_at_threshold
            ),
        ),
    ),
    predicted=_spike,
    measured=_sampled_spike,
    tolerance=Tolerance(
        "finite size: below threshold the first eigenvalue sits O(d^{−2/3}) under the edge and the overlap is O(1/d); "
        "5 standard errors for the draws",
        absolute=(0.03, 0.035),
        relative=0.02,
        sigmas=5.0,
    ),
    mutants=(
        Mutant(
            "no threshold: the spike shows at ℓ itself", predicted=lambda x: np.array([_ell(x), _spike(x)[1]])
        ),
        Mutant("γ in place of √γ in the threshold", predicted=lambda x: _linear_threshold(x)),
        Mutant(
            "overlap 1 once detached", predicted=lambda x: np.array([_spike(x)[0], float(_spike(x)[1] > 0)])
        ),
    ),
    derivation=derivations.covariance_spike,
    quick=Effort(14, 16),
    full=Effort(60, 50),
)


def _linear_threshold(case: Case) -> Array:
    ell, gamma = _ell(case), _gamma(case)
    if ell <= 1 + gamma:
        return np.array([(1 + gamma) ** 2, 0.0])
    return np.array([ell * (1 + gamma / (ell - 1)), _spike(case)[1]])


# --- T12.null ---------------------------------------------------------------------------------------------

WINDOWS = ((10, 40), (50, 128))


def _null(case: Case) -> Array:
    d = 128
    return np.array([matrices.null_exponent(d, round(d / case["gamma"]), *w) for w in WINDOWS])


def _white(case: Case, sampling: Sampling) -> Measurement:
    spectra = white_spectra(sampling.rng, round(128 / case["gamma"]), 128, sampling.draws)
    return Measurement.mean_of([[exponent(s, *w) for w in WINDOWS] for s in spectra])


NULL = Claim(
    id="T12.null",
    title="What white noise reads as a power law",
    statement="White noise with d = 128 reads the exponents of the Marchenko–Pastur quantiles: at γ = .125, "
    "α(10:40) = .208 and α(50:128) = .906.",
    meaning="White noise of finite size already reads as a power law, with an exponent that depends on width "
    "over sample count. A measured exponent means something only where it differs from that of noise "
    "of the same shape.",
    latex=r"$\alpha_{10:40}=.208,\quad \alpha_{50:128}=.906\quad(\gamma=.125,\ d=128,\ \mathrm{pure\ noise})$",
    source="Marchenko–Pastur law",
    quantity="α(10:40) and α(50:128) of centred white noise",
    domain=Domain(record(gamma=st.sampled_from([0.0625, 0.125, 0.25, 0.5])), minimum=3),
    predicted=_null,
    measured=_white,
    tolerance=Tolerance(
        "the last eigenvalues of a finite sample sit off their quantiles: 1.5 % of the tail exponent at d = 128; "
        "5 standard errors",
        absolute=0.002,
        relative=0.015,
        sigmas=5.0,
    ),
    mutants=(
        Mutant("noise has no slope", predicted=lambda x: np.zeros(2)),
        Mutant("the null does not depend on γ", predicted=lambda x: _null({"gamma": 0.125})),
    ),
    quick=Effort(4, 25),
    full=Effort(4, 400),
    remark="Simulated at γ = .125 over 400 draws: .2082 ± .0003 and .9109 ± .0006 (mean and standard error; one draw "
    "scatters by .007 and .011). The quantiles give .2077 and .9057.",
)

# --- T12.gradient -----------------------------------------------------------------------------------------


def _theta(case: Case) -> float:
    return case["strength"] * matrices.mean_gradient_threshold(case["m"], case["p"])


def _energy(case: Case) -> Array:
    return np.array([matrices.mean_gradient_energy(_theta(case), case["m"], case["p"])])


def _sampled_energy(case: Case, sampling: Sampling) -> Measurement:
    return Measurement.mean_of(
        mean_gradient_energies(sampling.rng, case["m"], case["p"], _theta(case), sampling.draws)[:, None]
    )


GRADIENT = Claim(
    id="T12.gradient",
    title="When the mean gradient is visible",
    statement="Per-sample gradients with isotropic unit noise: the mean shows iff M‖ḡ‖² > √(MP), and then "
    "σ_1² = (θ+M)(θ+P)/θ with θ = M‖ḡ‖²; below, σ_1² is the edge (√M+√P)².",
    meaning="The mean of many per-sample gradients shows as a separate first singular value only if it is "
    "large enough for the numbers of samples and parameters. Without an outlier a mean gradient may "
    "still be there, hidden in the noise.",
    latex=r"$M\Vert\bar g\Vert^2>\sqrt{MP}:\quad \sigma_1^2=\frac{(\theta+M)(\theta+P)}{\theta}$",
    source="Benaych-Georges and Nadakuditi 2012 (rank-one rectangular)",
    quantity="largest squared singular value of the M×P matrix of gradients",
    domain=Domain(
        record(m=st.sampled_from([64, 100]), p=st.sampled_from([200, 800, 2000]), strength=reals(0.1, 8.0)),
        (Assumption("θ not within 35 % of its threshold, where the limit is slow", _not_at_threshold),),
    ),
    predicted=_energy,
    measured=_sampled_energy,
    tolerance=Tolerance(
        "finite size: the edge of a 64×2000 matrix sits 2–3 % low; 5 standard errors",
        relative=0.03,
        sigmas=5.0,
    ),
    mutants=(
        Mutant("the noise adds nothing: σ_1² = θ", predicted=lambda x: np.array([_theta(x)])),
        Mutant(
            "noise of the M samples only: σ_1² = θ + M", predicted=lambda x: np.array([_theta(x) + x["m"]])
        ),
    ),
    derivation=derivations.mean_gradient,
    quick=Effort(14, 20),
    full=Effort(60, 60),
)

CLAIMS = (SPIKE, NULL, GRADIENT)
