"""Every law of the kit on every estimator of ours that it binds.

Thirty examples a law by default, to stay quick; HYPOTHESIS_PROFILE=default runs 100 and =slow runs 2,000, and
`-m slow` runs the 200 whatever the profile.
"""

import os

import pytest
from hypothesis import settings

from spectra.alignment import explained_share, linear_cka, subspace_overlap
from spectra.covariance import covariance_spectrum
from spectra.divergence import js_divergence
from spectra.exponents import alpha_req, window_exponent
from spectra.fourier import band_energies, h_peak, h_s
from spectra.moments import Moments
from spectra.nulls import MarchenkoPastur, bbp_position
from spectra.powerlaw import clauset, hill
from spectra.spectrum import Spectrum
from spectra.subspaces import drop_frequencies, keep_frequencies
from spectra.summaries import participation_ratio, rank, rankme, stable_rank, top_share
from spectra.testing import KINDS, check_estimator, laws_for
from spectra.weights import weight_spectrum

EXAMPLES = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick")).max_examples

# Robust slopes ignore single values by design, so they do not claim that both ends count.
ROBUST = ("both ends count",)
# As a function of λ the entropy of √λ is not Schur concave; as a function of σ it is (see test_testing_kit).
ESCORT = ("Schur concavity",)


def singular_rankme(sigma):
    return rankme(Spectrum(sigma, kind="singular"), on="singular")


def four_ranks(eigenvalues):
    s = Spectrum(eigenvalues)
    return stable_rank(s), participation_ratio(s), rankme(s), rankme(s, on="singular")


def theil_sen(eigenvalues, lo, hi):
    return window_exponent(eigenvalues, lo, hi, method="theil-sen")


def doubled_singular_exponent(eigenvalues, lo, hi):
    return 2 * window_exponent(eigenvalues, lo, hi, on="singular").value


def peak_pair(H):
    return h_s(H, (1, len(H) - 1))


def keep_and_drop(H, frequencies):
    return keep_frequencies(H, frequencies), drop_frequencies(H, frequencies)


def leading_overlap(X, Y):
    # Refuses two equal singular values, of which none leads.
    return subspace_overlap(X, Y, 1)


OURS = [
    pytest.param(covariance_spectrum, "covariance spectrum", (), id="covariance_spectrum"),
    pytest.param(
        lambda x: covariance_spectrum(x, center=False),
        "second moment spectrum",
        (),
        id="uncentred covariance",
    ),
    pytest.param(weight_spectrum, "singular values", (), id="weight_spectrum"),
    pytest.param(Moments, "streaming moments", (), id="Moments"),
    pytest.param(rankme, "effective rank", (), id="rankme energy"),
    pytest.param(singular_rankme, "effective rank", (), id="rankme singular of σ"),
    pytest.param(lambda v: rankme(v, on="singular"), "effective rank", ESCORT, id="rankme singular of λ"),
    pytest.param(participation_ratio, "effective rank", (), id="participation_ratio"),
    pytest.param(stable_rank, "effective rank", (), id="stable_rank"),
    pytest.param(rank, "effective rank", (), id="rank"),
    pytest.param(lambda v: 1 / top_share(v, 1), "effective rank", (), id="1/top_share"),
    pytest.param(four_ranks, "effective ranks", (), id="four ranks"),
    pytest.param(window_exponent, "exponent", (), id="window_exponent"),
    pytest.param(theil_sen, "exponent", ROBUST, id="window_exponent theil-sen"),
    pytest.param(alpha_req, "exponent", (), id="alpha_req"),
    pytest.param(hill, "tail exponent", (), id="hill"),
    pytest.param(clauset, "tail exponent", (), id="clauset"),
    pytest.param(js_divergence, "divergence", (), id="js_divergence"),
    pytest.param(linear_cka, "alignment", (), id="linear_cka"),
    pytest.param(leading_overlap, "alignment", (), id="subspace_overlap"),
    pytest.param(h_peak, "concentration", (), id="h_peak"),
    pytest.param(peak_pair, "concentration", (), id="h_s"),
    pytest.param(band_energies, "band energies", (), id="band_energies"),
    pytest.param(keep_and_drop, "frequency split", (), id="keep and drop"),
    pytest.param(lambda gamma: MarchenkoPastur(gamma).edges, "bulk edges", (), id="MarchenkoPastur"),
    pytest.param(bbp_position, "spike position", (), id="bbp_position"),
]

# Kinds whose input without data is one single case: there is nothing more to draw.
ONE_EMPTY = ("effective rank", "effective ranks", "tail exponent", "divergence")


def obeys(function, kind, skip, examples):
    may_refuse = function is leading_overlap
    report = check_estimator(
        function, kind, skip=skip, max_examples=examples, torch=True, quiet=True, may_refuse=may_refuse
    )
    report.raise_if_failed()
    for result in report.results:
        few = result.law == "empty" and kind in ONE_EMPTY
        if result.outcome == "passed" and not few:
            assert result.examples >= min(examples, 200), (
                f"{result.law} tried only {result.examples} examples"
            )


@pytest.mark.parametrize(("function", "kind", "skip"), OURS)
def test_our_estimators_obey_every_law(function, kind, skip):
    obeys(function, kind, skip, EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize(("function", "kind", "skip"), OURS)
def test_our_estimators_obey_every_law_on_200_examples(function, kind, skip):
    obeys(function, kind, skip, max(EXAMPLES, 200))


def test_every_kind_is_tried_on_an_estimator_of_ours():
    assert {parameters.values[1] for parameters in OURS} == set(KINDS)


@pytest.mark.slow
def test_a_held_out_share_obeys_the_laws_of_an_alignment_that_it_claims():
    # Few examples, loosely: the fit of four samples may have any condition.
    # It is of one array given another, scored on some of the samples: neither bounded below nor symmetric.
    # Rounding to a dtype may leave the fitted samples without variation.
    laws = {law.name for law in laws_for("alignment")}
    laws -= {"bounds", "itself", "unrelated", "symmetry", "permutation", "constant array", "dtype", "device"}
    report = check_estimator(
        explained_share,
        "alignment",
        laws=sorted(laws),
        tolerance=1e-3,
        may_refuse=True,
        max_examples=30,
        quiet=True,
    )
    report.raise_if_failed()


def test_a_fit_to_singular_values_is_half_of_the_energy_exponent():
    report = check_estimator(
        doubled_singular_exponent,
        "exponent",
        laws=["power law recovery", "scale"],
        max_examples=EXAMPLES,
        quiet=True,
    )
    report.raise_if_failed()
