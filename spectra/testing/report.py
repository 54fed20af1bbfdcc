"""Report the outcome of each law, as data and as text."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spectra.errors import InputError
from spectra.shown import Shown, data_frame, table_html
from spectra.testing import text
from spectra.testing.forms import TAKES

if TYPE_CHECKING:
    import pandas as pd

# What the law "repeatable" calls the result that differs.
SECOND = "f(a) the second time"
UNSTEADY = "the same input was judged differently on a second call; the function keeps state or is random"

Outcome = Literal["passed", "failed", "skipped"]


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; }}
th {{ vertical-align: top; white-space: nowrap; padding-right: 1em; }}
td {{ font-family: monospace; white-space: pre-wrap; }}
</style>
{body}
</html>
"""

# So many laws that fail by one exception have one cause.
SEVERAL = 3


class LawsBroken(AssertionError):
    """Report that at least one law failed, or that none was tested; the message is the report.

    >>> issubclass(LawsBroken, AssertionError)
    True
    """


@dataclass(frozen=True)
class LawResult(Shown):
    """Hold the outcome of one law.

    Attributes:
        law: name of the law.
        statement: the law in the field's notation.
        outcome: ``"passed"``, ``"failed"`` or ``"skipped"``.
        examples: how many valid examples were tried; for a failure, how many until the first one that failed.
        example: the smallest failing example by argument name, with the real arrays; empty unless failed.
        message: what was found and what the law requires, or why it was skipped; empty when passed.
        raised: the exception, "TypeError: …", where the law failed because the function raised; empty otherwise.

    >>> print(Report("f", "effective rank", 1e-8, (LawResult("scale", "f(cλ) = f(λ)", "passed", 5),)))
    f as effective rank: its one law holds (tolerance 1e-08)
      ok    scale                  5 examples
    """

    law: str
    statement: str
    outcome: Outcome
    examples: int = 0
    example: Mapping[str, Any] = field(default_factory=dict)
    message: str = ""
    raised: str = ""

    def _shown(self) -> Mapping[str, object]:
        shown: dict[str, object] = {"law": self.law, "statement": self.statement, "outcome": self.outcome}
        shown["examples"] = self.examples
        if self.message:
            shown["found"] = self.message
        return {**shown, **{f"example: {name}": value for name, value in self.example.items()}}


@dataclass(frozen=True)
class Report:
    """Hold all outcomes for one function; printing it gives the report.

    Attributes:
        function: name of the function under test.
        kind: the kind it was tested as.
        tolerance: relative agreement that was required.
        results: one `LawResult` for each law, in the order of the run.
        given: what the function was called with, in words; empty for what its kind says.
        refused: whether the function, which may refuse valid inputs, refused all of them: nothing is known of it.

    >>> broken = LawResult("bounds", "f(λ) ≥ 1", "failed", 1, {"eigenvalues": [1]}, "f(λ) = 0.5")
    >>> Report("f", "effective rank", 1e-8, (broken,)).passed
    False
    """

    function: str
    kind: str
    tolerance: float
    results: tuple[LawResult, ...]
    given: str = ""
    refused: bool = False

    @property
    def passed(self) -> bool:
        """Return whether laws were tested, on valid inputs too, and none failed; skipped ones do not count."""
        return bool(self._tested) and not self.failures and not self.refused

    @property
    def _tested(self) -> tuple[LawResult, ...]:
        return tuple(r for r in self.results if r.outcome != "skipped")

    @property
    def failures(self) -> tuple[LawResult, ...]:
        """Return the results of the laws that failed."""
        return tuple(r for r in self.results if r.outcome == "failed")

    @property
    def hint(self) -> str:
        """Return the likely reason when failures have one in common; empty otherwise."""
        if any(r.message == UNSTEADY or r.message.startswith(SECOND) for r in self.failures):
            return (
                "the function gives other numbers for the same input; fix what it draws from inside it (a seed, "
                "random_state=0, a new generator for each call), or every equality is tested against noise"
            )
        raised = [r.raised for r in self.failures]
        if len(raised) < SEVERAL or len({text.split(":")[0] for text in raised}) > 1 or not raised[0]:
            return ""
        forms = ", ".join(repr(form) for form in TAKES.get(self.kind, ())[1:])
        return (
            f"all {len(raised)} laws that fail raised {raised[0]!r}. The function was given "
            f"{self.given or 'what its kind says, as numpy arrays'}. If it takes something else: "
            + (f"takes={forms}; " if forms else "")
            + "holds='torch' or 'numpy'; or wrap it in a function of your own"
        )

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
        """Return self when it passed; raise otherwise.

        Use it as an assertion in a test.

        Raises:
            LawsBroken: with the text of the report.
        """
        if not self.passed:
            raise LawsBroken(str(self))
        return self

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each law: law, statement, outcome, examples, message.

        Raises:
            ImportError: without pandas.

        >>> report = Report("f", "effective rank", 1e-8, (LawResult("scale", "f(cλ) = f(λ)", "passed", 5),))
        >>> report.to_frame()["outcome"].tolist()
        ['passed']
        """
        names = ("law", "statement", "outcome", "examples", "message")
        return data_frame({name: [getattr(result, name) for result in self.results] for name in names})

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write the report as a page; return its path.

        The page is whole or not there: it is written beside its place and moved.

        Raises:
            OSError: the folder does not exist, or cannot be written.

        >>> import tempfile
        >>> report = Report("f", "effective rank", 1e-8, (LawResult("scale", "f(cλ) = f(λ)", "passed", 5),))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     "its one law holds" in report.to_html(folder + "/f.html").read_text("utf-8")
        True
        """
        place = Path(path)
        beside = place.with_name(f".{place.name}.{os.getpid()}")
        page = _PAGE.format(title=html.escape(self._head()), body=self._repr_html_())
        try:
            beside.write_text(page, encoding="utf-8")
            os.replace(beside, place)
        finally:
            beside.unlink(missing_ok=True)
        return place

    def _repr_html_(self) -> str:
        hint = {"hint": self.hint} if self.hint else {}
        return table_html(self._head(), {**{r.law: _in_words(r) for r in self.results}, **hint})

    def __str__(self) -> str:
        hint = [f"  hint  {self.hint}"] if self.hint else []
        return "\n".join([self._head(), *(_lines(result) for result in self.results), *hint])

    def _head(self) -> str:
        tested = len(self._tested)
        if self.failures:
            verdict = f"{len(self.failures)} of {tested} laws broken"
        elif not tested:
            verdict = "no law was tested"
        elif self.refused:
            verdict = "every valid input was refused"
        else:
            verdict = f"all {tested} laws hold" if tested != 1 else "its one law holds"
        given = f", given {self.given}" if self.given else ""
        return f"{self.function} as {self.kind}{given}: {verdict} (tolerance {self.tolerance:g})"


def _in_words(result: LawResult) -> str:
    if result.outcome == "failed":
        return f"failed: {result.message}\nlaw: {result.statement}\n{text.lines(dict(result.example), '')}"
    return f"{result.outcome}: {result.message or f'{result.examples} examples'}"


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
