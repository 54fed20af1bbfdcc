"""Wrap estimators of public packages so that the laws can be tried on them, by name.

Each is called as its users call it; the wrapper hands over the input and takes the number. A package is imported when
its estimator is made. What came out is in docs/public-estimators.md.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module, metadata
from typing import Any

import numpy as np

from spectra.shown import Shown
from spectra.testing.check import check_estimator
from spectra.testing.report import Report
from spectra.testing.results import Pick

# Conventions that several estimators share.
_NOTHING = "the rank of nothing is 0 by definition"
_NAN = "NaN in, NaN out, as everywhere in numpy and scipy"
_PRECISION = "float32 is computed in float32, within its rounding"
_ONE_ROW = "a warning, not an exception, says that there is one sample only"
_MLE = "divides by n, the maximum of the likelihood, where the law has n − 1"
_SHRINKS = "shrinkage moves eigenvalues towards their mean"
_SHRUNK = {
    "normalisation": _MLE,
    "Gram duality": _MLE,
    "known spectrum": _MLE,
    "one row": _ONE_ROW,
    "dtype": _PRECISION,
    **dict.fromkeys(("zero padding", "Kronecker", "Weyl", "Mirsky", "Cauchy interlacing"), _SHRINKS),
    **dict.fromkeys(("Marchenko–Pastur edge", "BBP position"), _SHRINKS),
}


@dataclass(frozen=True)
class PublicEstimator(Shown):
    """Hold a public estimator: where it comes from, what it is, how it is called.

    Attributes:
        name: what `PUBLIC` calls it.
        package: what pip installs.
        call: the call, as its documentation has it.
        kind, takes, result: as `check_estimator` takes them.
        make: return the function under test; imports the package.
        by_design: why a law need not hold, by its name: a convention, an option, what the estimator is for.
        may_refuse: whether its documentation has a least size, below which it may refuse.
        remark: what a broken law is due to, where that was looked up.

    >>> PUBLIC["numpy.linalg.matrix_rank"].kind
    'effective rank'
    """

    name: str
    package: str
    call: str
    kind: str
    takes: str
    make: Callable[[], Callable[..., Any]]
    result: Pick = None
    by_design: Mapping[str, str] = field(default_factory=dict)
    may_refuse: bool = False
    remark: str = ""

    @property
    def version(self) -> str | None:
        """Return the version of the installed package; None without it."""
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return None

    def check(self, **options: Any) -> Report:
        """Run the laws; the options are those of `check_estimator`.

        Raises:
            ImportError: the package is not installed.
        """
        if self.version is None:
            raise ImportError(f"{self.name} needs {self.package}; pip install {self.package}")
        given = {
            "takes": self.takes,
            "result": self.result,
            "name": self.name,
            "holds": "numpy",
            "may_refuse": self.may_refuse,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return check_estimator(_quiet(self.make()), self.kind, **{**given, **options})


def _quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    """Call a function without what it prints."""

    def quiet(*arguments: Any) -> Any:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return function(*arguments)

    return quiet


def _module(name: str) -> Any:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return import_module(name)


def _powerlaw() -> Callable[..., Any]:
    fit = _module("powerlaw").Fit
    return lambda eigenvalues: fit(eigenvalues, verbose=False)


def _powerlaw_wide() -> Callable[..., Any]:
    fit = _module("powerlaw").Fit
    return lambda eigenvalues: fit(eigenvalues, verbose=False, parameter_ranges={"alpha": [1, 10]})


def _weightwatcher_fit() -> Callable[..., Any]:
    return _module("weightwatcher.WW_powerlaw").pl_fit


def _weightwatcher_layer() -> Callable[..., Any]:
    watcher = _module("weightwatcher").WeightWatcher()
    singular_values = _module("weightwatcher.RMT_Util").svd_vals

    def alpha(W: Any) -> Any:
        fit = watcher.fit_powerlaw(np.sort(singular_values(W) ** 2), plot=False)
        if "failed" in fit:
            raise ValueError("status 'failed'")
        return fit

    return alpha


def _weightwatcher(name: str) -> Callable[[], Callable[..., Any]]:
    return lambda: getattr(_module("weightwatcher.RMT_Util"), name)


def _dimensionality() -> Callable[..., Any]:
    return _module("dimensionality").participation_ratio


def _lpca(version: str) -> Callable[[], Callable[..., Any]]:
    def make() -> Callable[..., Any]:
        estimator = _module("skdim").id.lPCA
        return lambda x: estimator(ver=version).fit(x).dimension_

    return make


def _sklearn_covariance(name: str) -> Callable[[], Callable[..., Any]]:
    def make() -> Callable[..., Any]:
        estimator = getattr(_module("sklearn.covariance"), name)
        return lambda x: np.linalg.eigvalsh(estimator().fit(x).covariance_)[::-1]

    return make


def _sklearn_pca() -> Callable[..., Any]:
    pca = _module("sklearn.decomposition").PCA
    return lambda x: pca(svd_solver="full").fit(x).explained_variance_


def _numpy_cov() -> Callable[..., Any]:
    return lambda x: np.linalg.eigvalsh(np.atleast_2d(np.cov(x, rowvar=False)))[::-1]


def _entropy_rank() -> Callable[..., Any]:
    entropy = _module("scipy.stats").entropy
    return lambda eigenvalues: np.exp(entropy(eigenvalues))


_RANK, _TAIL, _COVARIANCE = "effective rank", "tail exponent", "covariance spectrum"

PUBLIC = {
    estimator.name: estimator
    for estimator in (
        PublicEstimator(
            "numpy.linalg.matrix_rank",
            "numpy",
            "numpy.linalg.matrix_rank(W)",
            _RANK,
            "weights",
            lambda: np.linalg.matrix_rank,
            by_design={"all zeros": _NOTHING, "empty": _NOTHING, "dtype": "numpy.linalg has no float16"},
        ),
        PublicEstimator(
            "numpy.cov",
            "numpy",
            "numpy.linalg.eigvalsh(numpy.cov(x, rowvar=False))",
            _COVARIANCE,
            "matrix",
            _numpy_cov,
            by_design={
                "NaN and Inf": _NAN,
                "one row": "NaN, and a warning that no degree of freedom is left",
            },
        ),
        PublicEstimator(
            "scipy.stats.entropy",
            "scipy",
            "numpy.exp(scipy.stats.entropy(eigenvalues))",
            _RANK,
            "spectrum",
            _entropy_rank,
            by_design={"NaN and Inf": _NAN, "dtype": _PRECISION},
        ),
        PublicEstimator(
            "powerlaw.Fit",
            "powerlaw",
            "powerlaw.Fit(eigenvalues).alpha",
            _TAIL,
            "spectrum",
            _powerlaw,
            "alpha",
            by_design={
                "powers": "fits α ≤ 3 unless told otherwise",
                "Pareto quantiles": "fits α ≤ 3 unless told otherwise",
            },
            remark="With the default range the threshold goes up the tail until a fit has α ≤ 3: a larger exponent is "
            "never found, and nothing says so.",
        ),
        PublicEstimator(
            "powerlaw.Fit, wide range",
            "powerlaw",
            'powerlaw.Fit(eigenvalues, parameter_ranges={"alpha": [1, 10]}).alpha',
            _TAIL,
            "spectrum",
            _powerlaw_wide,
            "alpha",
        ),
        PublicEstimator(
            "weightwatcher.pl_fit",
            "weightwatcher",
            "weightwatcher.WW_powerlaw.pl_fit(eigenvalues).alpha",
            _TAIL,
            "spectrum",
            _weightwatcher_fit,
            "alpha",
        ),
        PublicEstimator(
            "weightwatcher.fit_powerlaw",
            "weightwatcher",
            "WeightWatcher().fit_powerlaw(numpy.sort(svd_vals(W) ** 2), plot=False)[0]",
            _TAIL,
            "weights",
            _weightwatcher_layer,
            0,
            by_design={"dtype": _PRECISION},
            remark="Eigenvalues below 1e-5 are dropped in the units of W, so that a small matrix has no fit "
            "(status 'failed', counted as a refusal) where a multiple of it has one.",
        ),
        PublicEstimator(
            "weightwatcher.stable_rank",
            "weightwatcher",
            "weightwatcher.RMT_Util.stable_rank(eigenvalues)",
            _RANK,
            "spectrum",
            _weightwatcher("stable_rank"),
            by_design={"dtype": _PRECISION},
        ),
        PublicEstimator(
            "weightwatcher.matrix_soft_rank",
            "weightwatcher",
            "weightwatcher.RMT_Util.matrix_soft_rank(W)",
            _RANK,
            "weights",
            _weightwatcher("matrix_soft_rank"),
            by_design={"dtype": _PRECISION},
            remark="W is divided by its trace, which the rank does not depend on and which may be 0.",
        ),
        PublicEstimator(
            "dimensionality.participation_ratio",
            "dimensionality",
            "dimensionality.participation_ratio(x)",
            _RANK,
            "matrix",
            _dimensionality,
            by_design=dict.fromkeys(
                ("bounds", "flat spectrum", "Kronecker", "orthogonal"),
                "unbiased for rows and columns sampled from a larger matrix: no function of the sample's eigenvalues",
            ),
            may_refuse=True,
        ),
        PublicEstimator(
            "skdim.id.lPCA, participation ratio",
            "scikit-dimension",
            'skdim.id.lPCA(ver="participation_ratio").fit(x).dimension_',
            _RANK,
            "matrix",
            _lpca("participation_ratio"),
            by_design={"dtype": _PRECISION},
            may_refuse=True,
        ),
        PublicEstimator(
            "skdim.id.lPCA, FO",
            "scikit-dimension",
            'skdim.id.lPCA(ver="FO").fit(x).dimension_',
            _RANK,
            "matrix",
            _lpca("FO"),
            by_design={
                "Kronecker": "counts eigenvalues above 5 % of the largest",
                "all zeros": _NOTHING,
            },
            may_refuse=True,
        ),
        PublicEstimator(
            "sklearn.decomposition.PCA",
            "scikit-learn",
            'PCA(svd_solver="full").fit(x).explained_variance_',
            _COVARIANCE,
            "matrix",
            _sklearn_pca,
            by_design={"dtype": _PRECISION, "one row": "NaN, and a warning"},
        ),
        PublicEstimator(
            "sklearn.covariance.EmpiricalCovariance",
            "scikit-learn",
            "numpy.linalg.eigvalsh(EmpiricalCovariance().fit(x).covariance_)",
            _COVARIANCE,
            "matrix",
            _sklearn_covariance("EmpiricalCovariance"),
            by_design={
                **dict.fromkeys(("normalisation", "Gram duality", "known spectrum"), _MLE),
                "one row": _ONE_ROW,
            },
        ),
        PublicEstimator(
            "sklearn.covariance.LedoitWolf",
            "scikit-learn",
            "numpy.linalg.eigvalsh(LedoitWolf().fit(x).covariance_)",
            _COVARIANCE,
            "matrix",
            _sklearn_covariance("LedoitWolf"),
            by_design=_SHRUNK,
        ),
        PublicEstimator(
            "sklearn.covariance.OAS",
            "scikit-learn",
            "numpy.linalg.eigvalsh(OAS().fit(x).covariance_)",
            _COVARIANCE,
            "matrix",
            _sklearn_covariance("OAS"),
            by_design=_SHRUNK,
            remark="Where the covariance is isotropic up to rounding, as that of the corners of an equilateral "
            "triangle, the denominator of the shrinkage is a rounding error: if negative, the shrinkage is about −10¹⁵ "
            "and one eigenvalue is negative. It is limited to 1 from above, not to 0 from below.",
        ),
    )
}
