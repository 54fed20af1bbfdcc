"""A claim of the mechanistic model as data: what it says, where it applies, and how it could be shown wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from hypothesis.strategies import SearchStrategy

from theory.compare import Comparator, equal
from theory.values import Array, Case, Effort, Measurement, Sampling, Tolerance

Profile = Literal["quick", "full"]

QUICK, FULL = Effort(20), Effort(200)

_ID = re.compile(r"T\d+(\.[a-z][a-z-]*)?")


@dataclass(frozen=True)
class Assumption:
    """One hypothesis of a claim: words, and the predicate that decides whether a drawn case meets it."""

    text: str
    holds: Callable[[Case], bool]


@dataclass(frozen=True)
class Domain:
    """Where a claim applies.

    Attributes:
        strategy: hypothesis strategy of cases; a case is a mapping of plain numbers and strings (arrays are
            built from a ``seed`` in the case, so that a counterexample can be printed and replayed).
        assumptions: predicates; a drawn case that breaks one is counted as not tested.
        minimum: fewest distinct effective cases that support a verdict.
    """

    strategy: SearchStrategy[dict[str, Any]]
    assumptions: tuple[Assumption, ...] = ()
    minimum: int = 5

    def unmet(self, case: Case) -> str | None:
        """Text of the first assumption that ``case`` breaks, or None when all hold."""
        return next((a.text for a in self.assumptions if not a.holds(case)), None)


Predict = Callable[[Case], Array]
Measure = Callable[[Case, Sampling], Measurement]


@dataclass(frozen=True)
class Mutant:
    """A wrong version of the claim; at least one of ``predicted`` and ``measured`` replaces the claim's own."""

    name: str
    predicted: Predict | None = None
    measured: Measure | None = None

    def __post_init__(self) -> None:
        if self.predicted is None and self.measured is None:
            raise ValueError(
                f"mutant {self.name!r} changes nothing; give it a wrong `predicted` or `measured`"
            )


@dataclass(frozen=True)
class Step:
    """One line of a derivation: words, and the LaTeX that sympy printed."""

    text: str
    latex: str


@dataclass(frozen=True)
class Agreement:
    """Comparison of what sympy returned with the formula that the numerics use, at drawn points."""

    name: str
    error: float
    tolerance: float = 1e-9

    @property
    def holds(self) -> bool:
        """Whether the error is finite and within tolerance."""
        return bool(self.error <= self.tolerance)


@dataclass(frozen=True)
class Derivation:
    """An executed symbolic derivation with its comparisons against the numerics."""

    steps: tuple[Step, ...]
    agreements: tuple[Agreement, ...]

    @property
    def holds(self) -> bool:
        """Whether there is at least one comparison and all of them hold."""
        return bool(self.agreements) and all(a.holds for a in self.agreements)


@dataclass(frozen=True)
class Claim:
    """One falsifiable statement.

    Attributes:
        id: permanent, ``T<number>`` or ``T<number>.<part>``; never reused for another statement.
        title, statement, latex: the claim in a few words, in full, and as LaTeX that matplotlib can render.
        source: where the mathematics comes from.
        quantity: what the numbers of ``predicted`` and ``measured`` are, with units or normalisation.
        domain: assumptions as a samplable domain.
        predicted: closed form, case → (k,).
        measured: simulation or direct computation that does not use the closed form.
        tolerance: accepted error with its reason.
        mutants: wrong versions that the same check must reject; at least one.
        compare: component-wise scores; a score above 1, or NaN, is a failure.
        derivation: executes the symbolic derivation, where sympy carries it.
        quick, full: effort of the two profiles.
        remark: limits, scope, or what the check does not show.
    """

    id: str
    title: str
    statement: str
    latex: str
    source: str
    quantity: str
    domain: Domain
    predicted: Predict
    measured: Measure
    tolerance: Tolerance
    mutants: tuple[Mutant, ...]
    compare: Comparator = equal
    derivation: Callable[[], Derivation] | None = None
    quick: Effort = QUICK
    full: Effort = FULL
    remark: str = ""

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ValueError(f"claim id {self.id!r} is not of the form T8 or T8.boundary")
        if not self.mutants:
            raise ValueError(f"{self.id} has no mutant; add a wrong version that its check must reject")
        if not self.tolerance.reason:
            raise ValueError(
                f"{self.id} gives no reason for its tolerance; say why this much error is accepted"
            )

    @property
    def family(self) -> str:
        """The part of the id before the dot: ``T8`` of ``T8.boundary``."""
        return self.id.split(".")[0]

    def effort(self, profile: Profile) -> Effort:
        """Number of cases and draws of the named profile."""
        return self.quick if profile == "quick" else self.full
