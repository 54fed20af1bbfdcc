"""Handle sets of frequencies on a cyclic band of modulus c, and the band of the toy task.

A set is closed when it holds c−r with every r.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from spectra.arrays import brief, real, whole
from spectra.errors import InputError

# The half width of the favoured band: with q/c about 1/8, |k_r| first nears 0 at r = 8.
TASK_HALF_WIDTH = 7


def closed_set(frequencies: Iterable[int], c: int) -> tuple[int, ...]:
    """Close a set of frequencies under r → c−r.

    Returns the smallest closed set that holds them: sorted residues in 1..c−1.

    Raises:
        InputError: empty, not integers, 0, or outside −(c−1)..c−1.

    >>> closed_set([1, 3], c=7)
    (1, 3, 4, 6)
    """
    residues = _residues(frequencies, c)
    return tuple(sorted(residues | {c - r for r in residues}))


def closed_frequencies(frequencies: Iterable[int], c: int) -> tuple[int, ...]:
    """Sort frequencies after checking closure under r → c−r.

    Returns residues in 1..c−1.

    Raises:
        InputError: as `closed_set`, or a frequency r without c−r.

    >>> closed_frequencies([-1, 1], c=7)
    (1, 6)
    """
    residues = _residues(frequencies, c)
    unpaired = sorted(r for r in residues if c - r not in residues)
    if unpaired:
        raise InputError(
            f"the set of frequencies has {listed(unpaired)} without {listed([c - r for r in unpaired])}; a real "
            f"signal has equal energy at r and c−r, so S must hold both: use closed_set(frequencies, {c})"
        )
    return tuple(sorted(residues))


def task_kernel(c: int) -> np.ndarray:
    """Return the modulus of the bigram operator at each frequency.

    (c,) |k_r| = |sin(πrq/c)/sin(πr/c)|/(c−q) with q = max(1, ⌊c/8⌋).

    It is the modulus of E e^{2πi r d/c} for a step d uniform on q..c−1, so |k_0| = 1.

    Raises:
        InputError: c below 3.

    >>> task_kernel(5).round(6)
    array([1.  , 0.25, 0.25, 0.25, 0.25])
    """
    require_modulus(c)
    q = max(1, c // 8)
    r = np.arange(1, c)
    # Folding r to min(r, c−r) makes |k_r| = |k_{c−r}| exact.
    angle = np.pi * np.minimum(r, c - r) / c
    return np.concatenate([[1.0], np.abs(np.sin(q * angle) / np.sin(angle)) / (c - q)])


def task_band(c: int) -> tuple[int, ...]:
    """Return the frequencies ±1..±7 that the bigram statistics favour.

    Sorted residues mod c.

    They hold 89 % of Σ_{r≠0}|k_r|² for c = 97 and 179. For c ≤ 15 the band is every non-zero frequency, and
    H_S = 1.

    Raises:
        InputError: c below 3.

    >>> task_band(97)
    (1, 2, 3, 4, 5, 6, 7, 90, 91, 92, 93, 94, 95, 96)
    """
    require_modulus(c)
    return closed_set(range(1, min(TASK_HALF_WIDTH, c // 2) + 1), c)


def _residues(frequencies: Iterable[int], c: int) -> set[int]:
    require_modulus(c)
    try:
        given = [real(r, "a frequency") for r in frequencies]
    except TypeError:
        raise InputError(
            f"the frequencies are {brief(frequencies)}; pass a set or list of integers"
        ) from None
    if not given:
        raise InputError("the set of frequencies is empty; name at least one pair r, c−r")
    bad = [r for r in given if not (r.is_integer() and 0 < abs(r) < c)]
    if bad:
        raise InputError(
            f"frequencies {listed(bad)} are not non-zero integers in −{c - 1}..{c - 1}; r = 0 is the mean, "
            "which the centring removes, and larger ones repeat"
        )
    return {int(r) % c for r in given}


def require_modulus(c: int) -> int:
    """Return the modulus, a whole number of at least 3.

    Raises:
        InputError: anything else.
    """
    c = whole(c, "the modulus (number of states)")
    if c < 3:
        raise InputError(f"the modulus (number of states) is {c}; a cyclic band needs at least 3")
    return c


def listed(values: Iterable[Any]) -> str:
    """Format at most eight values for an error message.

    >>> listed([1, 2.5])
    '1, 2.5'
    """
    shown = [f"{v:g}" for v in values]
    return ", ".join(shown[:8]) + (f", … ({len(shown)} in all)" if len(shown) > 8 else "")
