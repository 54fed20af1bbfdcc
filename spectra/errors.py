"""Define the error of this package; each message names the value, the rule and the remedy."""

from __future__ import annotations


class InputError(ValueError):
    """Report an input that no estimator can accept.

    Examples are NaN or Inf, a wrong shape, a negative energy, or a window outside the spectrum.

    >>> from spectra import rankme
    >>> rankme([1.0, -1.0])  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    InputError: the spectrum has a negative value (-1, largest 1); ...
    """


class NotFiniteError(InputError):
    """Report numbers that are NaN or Inf: of a model, that its training has diverged.

    >>> issubclass(NotFiniteError, InputError)
    True
    """
