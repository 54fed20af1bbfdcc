"""Test spectral estimators against the laws that all estimators of a kind obey.

The report names each law that fails, with the smallest example that breaks it.

>>> from spectra import rankme
>>> report = check_estimator(rankme, kind="effective rank", max_examples=3, quiet=True)
>>> report.passed
True
"""

from spectra.testing import strategies
from spectra.testing.check import check_estimator, run_law
from spectra.testing.forms import as_taken
from spectra.testing.kinds import KINDS
from spectra.testing.law import Kind, Law, Subject, Violation, expect, same
from spectra.testing.laws import LAWS, laws_for
from spectra.testing.pytests import estimator_tests
from spectra.testing.report import LawResult, LawsBroken, Report

__all__ = [
    "KINDS",
    "LAWS",
    "Kind",
    "Law",
    "LawResult",
    "LawsBroken",
    "Report",
    "Subject",
    "Violation",
    "as_taken",
    "check_estimator",
    "estimator_tests",
    "expect",
    "laws_for",
    "run_law",
    "same",
    "strategies",
]
