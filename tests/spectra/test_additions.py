"""Adding an estimator, with a made-up one: its slow oracle, the laws of its kind, and a wrong version."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given

from spectra.spectrum import Spectrum, as_spectrum
from spectra.testing import check_estimator, strategies


def cubic_rank(spectrum: Spectrum | Any) -> float:
    """Return the effective rank of order 3, 1/√(Σp³) with p = λ/Σλ."""
    p = as_spectrum(spectrum).shares
    return float((p**3).sum() ** -0.5)


def reference_cubic_rank(energies: Sequence[float]) -> float:
    """Compute the rank of order 3 term by term, as a file in `spectra/reference/` would."""
    total = math.fsum(energies)
    return 1 / math.sqrt(math.fsum((e / total) ** 3 for e in energies))


@given(strategies.spectra())
def test_the_estimator_agrees_with_its_definition(energies):
    assert cubic_rank(energies) == pytest.approx(reference_cubic_rank(energies), rel=1e-12)


def test_the_laws_of_its_kind_hold():
    report = check_estimator(cubic_rank, kind="effective rank", max_examples=30, quiet=True)
    assert report.passed, str(report)


def test_a_wrong_version_breaks_a_law_on_a_small_example():
    def without_root(spectrum: Spectrum | Any) -> float:
        return cubic_rank(spectrum) ** 2

    report = check_estimator(without_root, kind="effective rank", max_examples=30, quiet=True)
    broken = {result.law for result in report.failures}
    assert "flat spectrum" in broken
    assert report["flat spectrum"].example["size"] == 2
