"""What `check_estimator` returns: one outcome a law, and a text of it that a person can act on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from spectra.errors import InputError
from spectra.testing import text

Outcome = Literal["passed", "failed", "skipped"]


class LawsBroken(AssertionError):
    """At least one law failed; the message is the report."""


@dataclass(frozen=True)
class LawResult:
    """How one law went.

    Attributes:
        law: its name.
        statement: what it says.
        outcome: ``"passed"``, ``"failed"`` or ``"skipped"``.
        examples: how many valid examples were tried; for a failure, how many until the first one that failed.
        example: the smallest failing example by argument name, with the real arrays; empty unless failed.
        message: what was found against what was due, or why the law was skipped; empty when passed.
    """

    law: str
    statement: str
    outcome: Outcome
    examples: int = 0
    example: Mapping[str, Any] = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True)
class Report:
    """All outcomes for one function; its text (`str`, `print`) is what `check_estimator` prints.

    Attributes:
        function: name of the function on trial.
        kind: the kind it was tried as.
        tolerance: relative agreement that was demanded.
        results: one `LawResult` a law, in the order in which they were run.
    """

    function: str
    kind: str
    tolerance: float
    results: tuple[LawResult, ...]

    @property
    def passed(self) -> bool:
        """Whether no law failed; a skipped law does not count as failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[LawResult, ...]:
        """The results of the laws that failed."""
        return tuple(r for r in self.results if r.outcome == "failed")

    def __getitem__(self, law: str) -> LawResult:
        """The result of one law by name; InputError names those that were run."""
        for result in self.results:
            if result.law == law:
                return result
        raise InputError(f"no law {law!r} in this report; it holds {', '.join(r.law for r in self.results)}")

    def raise_if_failed(self) -> Report:
        """Return self when every law held, for use as an assertion in a test.

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
