"""Register the claims: one file for each family, and one line here."""

from __future__ import annotations

import copyreg
import pickle
from collections.abc import Callable

from theory.claim import Claim
from theory.claims import (
    batch,
    batch_tail,
    covariance,
    detection,
    exponent,
    features,
    flow,
    intercept,
    law,
    markov,
    null,
    optimiser,
    shift,
    spectral_entropy,
    tail,
    task,
    tying,
)

_FAMILIES = (
    shift,
    covariance,
    null,
    flow,
    tail,
    exponent,
    batch,
    batch_tail,
    optimiser,
    tying,
    task,
    detection,
    features,
    spectral_entropy,
    intercept,
    law,
    markov,
)

CLAIMS: tuple[Claim, ...] = tuple(claim for family in _FAMILIES for claim in family.CLAIMS)

_REGISTRY = {c.id: c for c in CLAIMS}

if len(_REGISTRY) != len(CLAIMS):
    raise ValueError("two claims share an id; ids are permanent and unique")


def _registered(identity: str) -> Claim:
    return _REGISTRY[identity]


def _by_reference(claim: Claim) -> tuple[Callable[[str], Claim], tuple[str]]:
    """Pickle a claim by its id, as functions are pickled by name, and only if it is the registered one."""
    if _REGISTRY.get(claim.id) is not claim:
        raise pickle.PicklingError(
            f"this {claim.id} is not the registered claim of that id, and its functions cannot be copied to another "
            "process; verify it in this one"
        )
    return _registered, (claim.id,)


copyreg.pickle(Claim, _by_reference)


def select(*names: str) -> tuple[Claim, ...]:
    """Return claims by id or family, in registry order.

    ``T8.boundary`` is an id and ``T8`` a family; without names, all claims.

    Raises:
        KeyError: a name that is neither an id nor a family.

    >>> [claim.id for claim in select("T3", "T8.floor")]
    ['T3', 'T3.anisotropic', 'T8.floor']
    """
    known = {c.id for c in CLAIMS} | {c.family for c in CLAIMS}
    unknown = [n for n in names if n not in known]
    if unknown:
        raise KeyError(f"no claim called {', '.join(unknown)}; choose from {', '.join(c.id for c in CLAIMS)}")
    return tuple(c for c in CLAIMS if not names or c.id in names or c.family in names)
