"""Define a claim as data: statement, domain, prediction, measurement and wrong versions."""

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
    """State one hypothesis of a claim in words and as a predicate.

    >>> Assumption("x is even", lambda case: case["x"] % 2 == 0).holds({"x": 4})
    True
    """

    text: str
    holds: Callable[[Case], bool]


@dataclass(frozen=True)
class Domain:
    """Define where a claim applies.

    Attributes:
        strategy: hypothesis strategy of cases; a case is a mapping of plain numbers and strings (arrays are
            built from a ``seed`` in the case, so that a counterexample can be printed and replayed).
        assumptions: predicates; a drawn case that breaks one counts as not tested.
        minimum: fewest distinct effective cases that support a verdict.

    >>> from hypothesis import strategies as st
    >>> domain = Domain(st.fixed_dictionaries({"x": st.integers(0, 9)}), (Assumption("x > 0", lambda c: c["x"] > 0),))
    >>> domain.unmet({"x": 0}), domain.unmet({"x": 1})
    ('x > 0', None)
    """

    strategy: SearchStrategy[dict[str, Any]]
    assumptions: tuple[Assumption, ...] = ()
    minimum: int = 5

    def unmet(self, case: Case) -> str | None:
        """Return the first assumption that a case breaks, or None."""
        return next((a.text for a in self.assumptions if not a.holds(case)), None)


Predict = Callable[[Case], Array]
Measure = Callable[[Case, Sampling], Measurement]


@dataclass(frozen=True)
class Mutant:
    """Define a wrong version of a claim, which its check must reject.

    At least one of ``predicted`` and ``measured`` replaces that of the claim.

    Raises:
        ValueError: neither is given.

    >>> Mutant("sign", predicted=lambda case: -np.array([case["x"]])).name
    'sign'
    """

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
    """Hold one line of a derivation, in words and as LaTeX printed by sympy.

    >>> Step("the square", "x^{2}").latex
    'x^{2}'
    """

    text: str
    latex: str


@dataclass(frozen=True)
class Agreement:
    """Hold the largest error of the formula in use against a result of sympy, over some points.

    >>> Agreement("square", 1e-12).holds, Agreement("square", float("nan")).holds
    (True, False)
    """

    name: str
    error: float
    tolerance: float = 1e-9

    @property
    def holds(self) -> bool:
        """Return whether the error is finite and within tolerance."""
        return bool(self.error <= self.tolerance)


@dataclass(frozen=True)
class Derivation:
    """Hold an executed symbolic derivation and its comparisons.

    >>> Derivation((), (Agreement("square", 0.0),)).holds, Derivation((), ()).holds
    (True, False)
    """

    steps: tuple[Step, ...]
    agreements: tuple[Agreement, ...]

    @property
    def holds(self) -> bool:
        """Return whether all comparisons hold, at least one."""
        return bool(self.agreements) and all(a.holds for a in self.agreements)


@dataclass(frozen=True)
class Claim:
    """State one falsifiable claim as data.

    Attributes:
        id: permanent, ``T<number>`` or ``T<number>.<part>``; never reused for another statement.
        title, statement, latex: the claim in a few words, in full, and as LaTeX.
        meaning: what it says about training, and what follows for a reader of spectra: one or two plain sentences
            without formulas, for somebody who knows transformers and nothing of this theory.
        source: where the mathematics comes from.
        quantity: meaning of the numbers of ``predicted`` and ``measured``, with units or normalisation.
        domain: assumptions as a samplable domain.
        predicted: closed form, case → (k,).
        measured: simulation or direct computation that does not use the closed form.
        tolerance: accepted error with its reason.
        mutants: wrong versions that the same check must reject; at least one.
        compare: component-wise scores; a score above 1, or NaN, is a failure.
        derivation: executes the symbolic derivation, where sympy carries it.
        quick, full: effort of the two profiles.
        remark: limits, scope, or what the check does not show.

    Raises:
        ValueError: an id of another form, no mutant, or a tolerance without a reason.

    >>> from theory import select
    >>> (claim,) = select("T8.floor")
    >>> claim.family, claim.effort("quick").cases, claim.title
    ('T8', 15, 'Noise floor')
    """

    id: str
    title: str
    statement: str
    meaning: str
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
        """Return the part of the id before the dot: ``T8`` of ``T8.boundary``."""
        return self.id.split(".")[0]

    def effort(self, profile: Profile) -> Effort:
        """Return the number of cases and draws of a profile.

        Raises:
            ValueError: another profile than "quick" and "full".
        """
        efforts = {"quick": self.quick, "full": self.full}
        if profile not in efforts:
            raise ValueError(f"the profile is {profile!r}; pass 'quick' or 'full'")
        return efforts[profile]
