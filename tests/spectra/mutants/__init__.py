"""Estimators with one planted defect each, and the laws that must catch it.

Every mutant is correct and validated but for the defect in its docstring, so that a law that fires on it fires
for that reason. The modules are the families of the laws, and each lists its mutants with their kind and the laws
that must fail; `MUTANTS` is all of them. The first four are the defects that the documentation walks through.
"""

from . import alignment, divergence, exponents, fourier, matrices, nulls, ranks, streaming, tails
from .documented import DOCUMENTED
from .mutant import tried

MUTANTS = (
    *DOCUMENTED,
    *matrices.MUTANTS,
    *streaming.MUTANTS,
    *ranks.MUTANTS,
    *exponents.MUTANTS,
    *tails.MUTANTS,
    *divergence.MUTANTS,
    *alignment.MUTANTS,
    *fourier.MUTANTS,
    *nulls.MUTANTS,
)

__all__ = ["DOCUMENTED", "MUTANTS", "tried"]
