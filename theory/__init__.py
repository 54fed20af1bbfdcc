"""State the claims of the mechanistic model as data; derive, verify and ask them of runs."""

from theory.claim import Claim, Domain, Mutant
from theory.claims import CLAIMS, select
from theory.values import Effort, Measurement, Tolerance
from theory.verify import Verdict, verify

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
