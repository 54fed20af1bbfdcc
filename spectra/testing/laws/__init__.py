"""List the laws, one family in each file.

A new family is one new file with a tuple `LAWS` and one line here.
"""

from __future__ import annotations

from spectra.testing.kinds import kind_named
from spectra.testing.law import Law
from spectra.testing.laws import divergence, exponents, fourier, hygiene, matrices, nulls, ranks, streaming

LAWS: tuple[Law, ...] = (
    *matrices.LAWS,
    *streaming.LAWS,
    *ranks.LAWS,
    *exponents.LAWS,
    *divergence.LAWS,
    *fourier.LAWS,
    *nulls.LAWS,
    *hygiene.LAWS,
)


def laws_for(kind: str) -> tuple[Law, ...]:
    """Return the laws of one kind, in the order of a run.

    Raises:
        InputError: unknown kind.

    >>> [law.name for law in laws_for("effective rank")][:3]
    ['scale', 'permutation', 'zero padding']
    """
    name = kind_named(kind).name
    return tuple(law for law in LAWS if name in law.kinds)
