"""Report the outcome of each law, as data and as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from spectra.errors import InputError
from spectra.testing import text

Outcome = Literal["passed", "failed", "skipped"]


class LawsBroken(AssertionError):
    """Report that at least one law failed; the message is the report.

    >>> issubclass(LawsBroken, AssertionError)
    True
    """


@dataclass(frozen=True)
class LawResult:
    """Hold the outcome of one law.

    Attributes:
        law: name of the law.
        statement: the law in the field's notation.
        outcome: ``"passed"``, ``"failed"`` or ``"skipped"``.
        examples: how many valid examples were tried; for a failure, how many until the first one that failed.
        example: the smallest failing example by argument name, with the real arrays; empty unless failed.
        message: what was found and what the law requires, or why it was skipped; empty when passed.

    >>> print(Report("f", "effective rank", 1e-8, (LawResult("scale", "f(cλ) = f(λ)", "passed", 5),)))
    f as effective rank: all 1 laws hold (tolerance 1e-08)
      ok    scale                  5 examples
    """

    law: str
    statement: str
    outcome: Outcome
    examples: int = 0
    example: Mapping[str, Any] = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True)
class Report:
    """Hold all outcomes for one function; printing it gives the report.

    Attributes:
        function: name of the function under test.
        kind: the kind it was tested as.
        tolerance: relative agreement that was required.
        results: one `LawResult` for each law, in the order of the run.

    >>> broken = LawResult("bounds", "f(λ) ≥ 1", "failed", 1, {"eigenvalues": [1]}, "f(λ) = 0.5")
    >>> Report("f", "effective rank", 1e-8, (broken,)).passed
    False
    """

    function: str
    kind: str
    tolerance: float
    results: tuple[LawResult, ...]

    @property
    def passed(self) -> bool:
        """Return whether no law failed; skipped laws do not count."""
        return not self.failures

    @property
    def failures(self) -> tuple[LawResult, ...]:
        """Return the results of the laws that failed."""
        return tuple(r for r in self.results if r.outcome == "failed")

    def __getitem__(self, law: str) -> LawResult:
        """Return the result of one law by name.


        Raises:
            InputError: a law that was not run; the message names those that were.
        """
        for result in self.results:
            if result.law == law:
                return result
        raise InputError(f"no law {law!r} in this report; it holds {', '.join(r.law for r in self.results)}")

    def raise_if_failed(self) -> Report:
        """Return self when every law held; raise otherwise.

        Use it as an assertion in a test.

        Raises:
            LawsBroken: with the text of the report.
        """
        if self.failures:
            raise LawsBroken(str(self))
        return self

    def __str__(self) -> str:
        ran = [r for r in self.results if r.outcome != "skipped"]
        verdict = (
            f"{len(self.failures)} of {len(ran)} laws broken"
            if self.failures
            else f"all {len(ran)} laws hold"
        )
        head = f"{self.function} as {self.kind}: {verdict} (tolerance {self.tolerance:g})"
        return "\n".join([head, *(_lines(result) for result in self.results)])


def _lines(result: LawResult) -> str:
    if result.outcome == "passed":
        return f"  ok    {result.law:<22} {result.examples} example{'s' if result.examples != 1 else ''}"
    if result.outcome == "skipped":
        return f"  skip  {result.law:<22} {result.message}"
    return "\n".join(
        [
            f"  FAIL  {result.law:<22} first seen at example {result.examples}, then made small",
            f"          law      {result.statement}",
            f"          found    {result.message}",
            f"          example  {text.lines(dict(result.example), ' ' * 19).lstrip()}",
        ]
    )
