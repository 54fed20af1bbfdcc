"""List the laws, one family in each file.

A new family is one new file with a tuple `LAWS` and one line here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from spectra.testing.forms import form_of, formed
from spectra.testing.kinds import kind_named
from spectra.testing.law import Law, Subject
from spectra.testing.laws import (
    alignment,
    divergence,
    exponents,
    fourier,
    hygiene,
    matrices,
    nulls,
    ranks,
    streaming,
    tails,
)
from spectra.testing.laws.taken import laws_of_matrices

LAWS: tuple[Law, ...] = (
    *matrices.LAWS,
    *streaming.LAWS,
    *ranks.LAWS,
    *exponents.LAWS,
    *tails.LAWS,
    *divergence.LAWS,
    *alignment.LAWS,
    *fourier.LAWS,
    *nulls.LAWS,
    *hygiene.LAWS,
)


def laws_for(kind: str, takes: str | None = None) -> tuple[Law, ...]:
    """Return the laws of one kind, in the order of a run.

    Args:
        kind: name of the kind.
        takes: what the function takes in place of eigenvalues, as `check_estimator` describes; None for what the
            kind says. The laws of spectra then hand over what has these eigenvalues, and laws of matrices join them.

    Raises:
        InputError: unknown kind, or a form that this kind has not.

    >>> [law.name for law in laws_for("effective rank")][:3]
    ['scale', 'permutation', 'zero padding']
    >>> "orthogonal" in [law.name for law in laws_for("effective rank", takes="matrix")]
    True
    """
    found = kind_named(kind)
    form = form_of(found, takes)
    own = tuple(law for law in LAWS if found.name in law.kinds)
    if form is None:
        return own
    spectral = tuple(
        replace(law, check=partial(_through, law.check, form.make)) for law in own if law not in hygiene.LAWS
    )
    other = formed(found, form)
    return (*spectral, *laws_of_matrices(other), *hygiene.laws_of_handling(other))


def _through(
    check: Callable[..., None], make: Callable[[np.ndarray], np.ndarray], subject: Subject, **case: Any
) -> None:
    """Check a law of spectra on a function that takes something else."""
    check(replace(subject, made=make), **case)
