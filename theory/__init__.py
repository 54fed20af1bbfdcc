"""State the claims of the mechanistic model as data; derive, verify and ask them of runs.

The names are loaded when they are used: reports decide by `theory.decision`, and sympy takes a second.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from spectral_lens import __version__ as __version__

if TYPE_CHECKING:
    from theory.claim import Claim, Domain, Mutant
    from theory.claims import CLAIMS, select
    from theory.values import Effort, Measurement, Tolerance
    from theory.verification import Verdict, verify

__all__ = [
    "CLAIMS",
    "Claim",
    "Domain",
    "Effort",
    "Measurement",
    "Mutant",
    "Tolerance",
    "Verdict",
    "select",
    "verify",
]

_MODULES = {
    **dict.fromkeys(("Claim", "Domain", "Mutant"), "claim"),
    **dict.fromkeys(("CLAIMS", "select"), "claims"),
    **dict.fromkeys(("Effort", "Measurement", "Tolerance"), "values"),
    **dict.fromkeys(("Verdict", "verify"), "verification"),
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = found
    return found
