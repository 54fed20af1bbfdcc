"""Claim T11: the frequencies that the walk's bigram statistics favour, and when this must fade."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from theory.claim import Assumption, Claim, Domain, Effort, Mutant
from theory.claims.draws import record
from theory.derivations import fourier as derivations
from theory.formulas import fourier
from theory.simulate.walks import bigram_matrix, counted_bigrams, eigenvalue_moduli, fourier_moduli
from theory.values import Array, Case, Measurement, Sampling, Tolerance


def _unknown_step(c: int, q: int) -> Array:
    return bigram_matrix(c, np.arange(q, c))


def _sorted_moduli(case: Case, from_one: bool = False) -> Array:
    q = 1 if from_one else fourier.smallest_step(case["c"])
    k = fourier.bigram_modulus(case["c"], q)
    return np.concatenate([np.sort(k)[::-1], k])


def _measured_moduli(case: Case, _: Sampling) -> Measurement:
    p = _unknown_step(case["c"], fourier.smallest_step(case["c"]))
    return Measurement.exact(np.concatenate([eigenvalue_moduli(p), fourier_moduli(p)]))


def _unsummed(case: Case) -> Array:
    c, q = case["c"], fourier.smallest_step(case["c"])
    k = fourier.bigram_modulus(c, q) * np.where(np.arange(c) == 0, 1.0, (c - q) / c)
    return np.concatenate([np.sort(k)[::-1], k])


KERNEL = Claim(
    id="T11",
    title="Spectrum of the bigram matrix with unknown step",
    statement="Known band, unknown d ~ U{q..c−1}, q = ⌊c/8⌋: P(y|x) is circulant with "
    "|k_r| = |sin(πrq/c)/sin(πr/c)|/(c−q) for r ≠ 0.",
    meaning="Averaged over the steps that can occur, the next token favours low frequencies, because short "
    "forward steps never occur. How strongly is known before any model is trained, exactly for bands "
    "of prime length.",
    latex=r"$|k_r|=\left|\frac{\sin(\pi rq/c)}{\sin(\pi r/c)}\right|\frac{1}{c-q}$",
    source="geometric sum over the steps that do not occur",
    quantity="moduli of the eigenvalues (sorted), then of the Fourier diagonal (by r)",
    domain=Domain(
        record(c=st.integers(3, 180)),
        (Assumption("the step range is not everything: c ≥ 16", lambda x: x["c"] >= 16),),
    ),
    predicted=_sorted_moduli,
    measured=_measured_moduli,
    tolerance=Tolerance("eigenvalues of a normal matrix up to 180×180 in float64", absolute=1e-9),
    mutants=(
        Mutant("d uniform on 1..c−1", predicted=lambda x: _sorted_moduli(x, True)),
        Mutant("divided by c, not by c − q", predicted=_unsummed),
    ),
    derivation=derivations.bigram,
    quick=Effort(25),
    full=Effort(160),
    remark="For composite c the task also rounds d down to multiples of a divisor with probability 0.3; the kernel "
    "then changes. For prime c (97, 179) it is exact.",
)


def _zero_index(moduli: Array) -> int:
    """First folded frequency at which |k_r| stops falling: the first near-zero."""
    k = moduli[1 : len(moduli) // 2 + 1]
    return int(np.argmax(k[1:] > k[:-1])) + 1


def _power_share(q_of, r_max: int = 7):
    def measured(case: Case, _: Sampling) -> Measurement:
        k = fourier_moduli(_unknown_step(case["c"], q_of(case["c"])))
        inside = k[1 : r_max + 1]
        return Measurement.exact([2 * (inside**2).sum() / (k[1:] ** 2).sum(), _zero_index(k)])

    return measured


SHARE = Claim(
    id="T11.band",
    title="The task band is r ≤ 7",
    statement="For c = 97 and c = 179 the frequencies r ≤ 7 (both signs) hold 89 % of Σ_{r≠0}|k_r|², and r = 8 is the "
    "first near-zero.",
    meaning="For the two bands checked here the seven lowest frequencies hold 89 percent of the structure "
    "between neighbouring tokens. Pairs of tokens already favour them, so concentration there is not "
    "in itself evidence that a model uses context.",
    latex=r"$\sum_{1\leq |r|\leq 7}|k_r|^2=0.89\,\sum_{r\neq 0}|k_r|^2$",
    source="T11, evaluated: the kernel's first zero is at r = c/q ≈ 8",
    quantity="share of power within r ≤ 7; first near-zero r",
    domain=Domain(record(c=st.sampled_from([97, 179])), minimum=2),
    predicted=lambda x: np.array([0.89, 8.0]),
    measured=_power_share(fourier.smallest_step),
    tolerance=Tolerance(
        "the share is quoted to two digits (.892 and .890); r is an integer", absolute=(0.005, 0.0)
    ),
    mutants=(
        Mutant("every step equally likely", measured=_power_share(lambda c: 1)),
        Mutant("within r ≤ 6", measured=_power_share(fourier.smallest_step, 6)),
        Mutant("q = ⌊c/4⌋", measured=_power_share(lambda c: c // 4)),
    ),
    derivation=derivations.bigram,
    quick=Effort(2),
    full=Effort(2),
)


def _known_moduli(case: Case, _: Sampling) -> Measurement:
    p = bigram_matrix(case["c"], np.array([case["d"]]))
    return Measurement.exact([*eigenvalue_moduli(p), *fourier_moduli(p)])


KNOWN = Claim(
    id="T11.known",
    title="A known step has no preferred frequency",
    statement="With d known from context P(y|x) is a permutation and every eigenvalue has modulus 1: the next token "
    "then favours no frequency, low or high.",
    meaning="Once earlier tokens have shown the step, the task treats all frequencies alike, so a preference "
    "for low ones should fade along the sequence. This is about the task; whether a trained model "
    "follows is a question to its runs.",
    latex=r"$d\ \mathrm{known}:\ |k_r|=1\ \forall r$",
    source="T1",
    quantity="moduli of the eigenvalues of P(y|x, d), and of its Fourier diagonal",
    domain=Domain(
        record(c=st.integers(16, 120), d=st.integers(1, 119)),
        (Assumption("d is a step", lambda x: x["d"] < x["c"]),),
    ),
    predicted=lambda x: np.ones(2 * x["c"]),
    measured=_known_moduli,
    tolerance=Tolerance("eigenvalues of a permutation up to 120×120 in float64", absolute=1e-9),
    mutants=(
        Mutant("the preference of the unknown step stays", predicted=_sorted_moduli),
        Mutant(
            "two steps still possible",
            measured=lambda x, _: Measurement.exact(
                [
                    *eigenvalue_moduli(p := bigram_matrix(x["c"], np.array([x["d"], x["d"] + 1]))),
                    *fourier_moduli(p),
                ]
            ),
        ),
    ),
    derivation=derivations.shift,
    quick=Effort(25),
    full=Effort(300),
)


def _counted(case: Case, sampling: Sampling) -> Measurement:
    c = case["c"]
    q = fourier.smallest_step(c)
    blocks = [
        fourier_moduli(counted_bigrams(sampling.rng, c, q, 300 * c))[1:5] for _ in range(sampling.draws)
    ]
    return Measurement.mean_of(np.array(blocks))


COUNTED = Claim(
    id="T11.counted",
    title="The kernel shows in counted walks",
    statement="The Fourier diagonal of bigram frequencies counted over simulated walks has the moduli of T11.",
    meaning="Counting pairs of tokens in simulated walks gives the computed preference for low frequencies, "
    "up to sampling error. The formula therefore also describes finite samples of such data.",
    latex=r"$|\hat k_r|\rightarrow|k_r|$",
    source="law of large numbers",
    quantity="|k_1|..|k_4| from counts",
    domain=Domain(record(c=st.sampled_from([17, 31, 47, 61, 97])), minimum=4),
    predicted=lambda x: fourier.bigram_modulus(x["c"], fourier.smallest_step(x["c"]))[1:5],
    measured=_counted,
    tolerance=Tolerance(
        "5 standard errors; the modulus of a noisy complex number is biased upward by at most 1/(1,200·c·|k|)",
        absolute=5e-4,
        sigmas=5.0,
    ),
    mutants=(
        Mutant("d uniform on 1..c−1", predicted=lambda x: fourier.bigram_modulus(x["c"], 1)[1:5]),
        Mutant(
            "powers in place of moduli",
            predicted=lambda x: fourier.bigram_modulus(x["c"], fourier.smallest_step(x["c"]))[1:5] ** 2,
        ),
    ),
    quick=Effort(5, 20),
    full=Effort(5, 200),
)

CLAIMS = (KERNEL, SHARE, KNOWN, COUNTED)
