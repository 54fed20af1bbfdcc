"""A property-testing kit for spectral estimators, yours or ours.

    from spectra.testing import check_estimator
    check_estimator(my_function, kind="covariance spectrum")

runs the laws that every such estimator obeys and prints which one failed on which smallest example.
"""

from spectra.testing import strategies
from spectra.testing.check import check_estimator, run_law
from spectra.testing.kinds import KINDS
from spectra.testing.law import Kind, Law, Subject, Violation, expect, same
from spectra.testing.laws import LAWS, laws_for
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
    "check_estimator",
    "expect",
    "laws_for",
    "run_law",
    "same",
    "strategies",
]
