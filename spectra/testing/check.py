"""Run laws on a function: one reproducible hypothesis search for each law."""

from __future__ import annotations

import contextlib
import math
import warnings
import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Literal

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase, Verbosity, assume, given, settings
from hypothesis.errors import Flaky, Unsatisfiable

from spectra.arrays import brief, choice, flag, whole
from spectra.errors import InputError
from spectra.testing import text
from spectra.testing.forms import form_of, formed
from spectra.testing.kinds import kind_named
from spectra.testing.law import TOLERANCE, Case, Law, Refused, Subject, Violation, first_line
from spectra.testing.laws import laws_for
from spectra.testing.report import UNSTEADY, LawResult, Report
from spectra.testing.results import Pick

EXAMPLES = 200
# More would run for days.
MOST_EXAMPLES = 10**6
# Examples of one law, to see whether a function takes arrays or tensors.
TASTED = 5
# A failure of more than SHORT_ENOUGH characters of numbers is searched for again RESTARTS times, in shorter form.
SHORT_ENOUGH = 12
RESTARTS = 2
ALL_REFUSED = "the function refused every example"


def check_estimator(
    function: Callable[..., object],
    kind: str,
    *,
    takes: str | None = None,
    holds: Literal["numpy", "torch"] | None = None,
    result: Pick = None,
    laws: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    tolerance: float = TOLERANCE,
    max_examples: int = EXAMPLES,
    torch: bool = False,
    refusals: tuple[type[BaseException], ...] = (ValueError,),
    may_refuse: bool = False,
    name: str | None = None,
    quiet: bool = False,
) -> Report:
    """Run every law of a kind on a function; print a report.

    The report is also returned.

    The function is called on private copies, as `spectra.testing.kinds` describes for each kind:

    - ``"covariance spectrum"``: f(x), x (n, d), gives eigenvalues of the centred 1/(n−1) covariance, descending;
      ``"second moment spectrum"`` the same of xᵀx/n, ``"singular values"`` σ of a matrix
    - ``"effective rank"``: f(eigenvalues) gives a float; ``"effective ranks"`` gives four (see there)
    - ``"exponent"``: f(eigenvalues, lo, hi) gives a float or an Estimate, ranks 1-based and inclusive
    - ``"tail exponent"``: f(eigenvalues) gives the exponent of the density of the large values
    - ``"divergence"``: f(p, q) gives a float in nats
    - ``"alignment"``: f(X, Y), (n, d) and (n, k) of the same samples, gives a float in [0, 1]
    - ``"concentration"``: f(H), H (c, d) class means, gives a float in [0, 1]
    - further: ``"streaming moments"``, ``"band energies"``, ``"frequency split"``, ``"bulk edges"``,
      ``"spike position"``

    Examples depend on the law and the kind only, so that a run can be repeated exactly; nothing is written to disk.

    Args:
        function: the estimator to test.
        kind: one of the above.
        takes: what the function takes in place of eigenvalues: ``"singular"`` values; a data ``"matrix"``, (n, d); a
            matrix of ``"weights"``; by default what the kind says. The laws of spectra then hand over
            `as_taken(eigenvalues, takes)`, and laws of matrices join them.
        holds: ``"torch"`` for a function of tensors, ``"numpy"`` for one of arrays; by default arrays, and tensors
            if the function takes no arrays and does take tensors (the report says so).
        result: which part of what the function returns is the number (or array): the name of an entry or attribute,
            an index, or a function of what is returned.
        laws: names of the laws to run; by default all that apply to the kind. `laws_for(kind)` lists them.
        skip: names of laws to omit, for an estimator that need not obey them; they appear as skipped.
        tolerance: relative agreement where a law states an equality. The default 1e-8 is a million times the
            rounding of float64 and below that of float32; an estimator that computes in float32 needs about 1e-4.
        max_examples: valid examples for each law; laws with fewer distinct cases stop when these are exhausted.
        torch: also pass tensors to a function of arrays (the law "device"), on CUDA too where available.
        refusals: exception types that count as rejecting a bad input. A result whose ``status`` is
            ``"not fitted"`` counts too; a NaN result does not.
        may_refuse: leave out valid examples that the function refuses, as one that documents a least size does,
            instead of calling each refusal a broken law. A function that refuses all of them does not pass.
        name: name of the function in the report; by default its ``__name__``.
        quiet: return the report without printing it.

    Returns:
        Report, with ``.passed``, ``.failures``, ``report["scale"]`` and ``.raise_if_failed()``.

    Raises:
        InputError: an argument of another type, unknown kind, form or law, a law both selected and skipped, tolerance
            not in (0, 1), or max_examples below 1.

    >>> from spectra import rankme
    >>> report = check_estimator(rankme, "effective rank", laws=["scale"], max_examples=3)
    rankme as effective rank: its one law holds (tolerance 1e-08)
      ok    scale                  3 examples
    >>> report.passed
    True
    >>> import torch
    >>> def stable_rank(W):
    ...     sigma = torch.linalg.svdvals(W)
    ...     return {"rank": (sigma**2).sum() / sigma[0] ** 2, "norm": sigma[0]}
    >>> options = {"takes": "weights", "result": "rank", "laws": ["scale", "transpose"], "max_examples": 3}
    >>> report = check_estimator(stable_rank, "effective rank", **options)  # doctest: +ELLIPSIS
    stable_rank as effective rank, given weight matrices as_taken(eigenvalues, 'weights'), as tensors: ...
      ok    scale                  3 examples
      ok    transpose              3 examples
    """
    form = form_of(kind_named(kind), takes)
    chosen, skipped = chosen_laws(kind, takes, laws, skip)
    max_examples = whole(max_examples, "max_examples", least=1, most=MOST_EXAMPLES)
    torch = flag(torch, "torch")
    if holds is not None:
        choice(holds, "holds", ("numpy", "torch"))
    if name is not None and not isinstance(name, str):
        raise InputError(f"name is {brief(name)}; pass a text")
    quiet = flag(quiet, "quiet")
    subject = Subject(
        function,
        formed(kind_named(kind), form),
        tolerance,
        refusals,
        holds == "torch",
        result,
        None,
        may_refuse,
    )
    found = _run(chosen, subject, skipped, torch, max_examples, holds is None)
    if found is None:
        subject = replace(subject, tensors=True)
        found = _run(chosen, subject, skipped, torch, max_examples, False)
    results, refused = found or ([], False)
    called = name or getattr(function, "__name__", type(function).__name__)
    given = (
        f"{form.words} as_taken(eigenvalues, {form.name!r})" if form else "",
        "as tensors" if subject.tensors else "",
    )
    words = ", ".join(filter(None, given))
    report = Report(called, kind, subject.tolerance, tuple(results), words, refused)
    if not quiet:
        print(report)
    return report


def _run(
    laws: list[Law], subject: Subject, skipped: tuple[str, ...], torch: bool, max_examples: int, tasting: bool
) -> tuple[list[LawResult], bool] | None:
    """Return the results of the laws, and whether valid inputs were left out and none was accepted.

    None where the function turns out to take tensors and no arrays.
    """
    results, untold, calls = [], tasting, _Calls(subject)
    for law in laws:
        if law.name in skipped:
            results.append(LawResult(law.name, law.statement, "skipped", message="asked to skip"))
        elif law.needs_torch and not (torch or subject.tensors):
            why = "pass torch=True to hand over tensors"
            results.append(LawResult(law.name, law.statement, "skipped", message=why))
        else:
            found = run_law(law, calls.subject, max_examples)
            # Once, and only before any law has held: after that the function is known to take arrays.
            if untold and found.raised and _takes_tensors_only(subject):
                return None
            untold = untold and not found.raised and found.outcome != "passed"
            results.append(found)
    refused = not calls.returned and any(result.message == ALL_REFUSED for result in results)
    return None if tasting and refused and _takes_tensors_only(subject) else (results, refused)


def _takes_tensors_only(subject: Subject) -> bool:
    """Return whether a function returns nothing on plain arrays, and something on plain tensors."""

    def call(subject: Subject, **case: Any) -> None:
        subject(*case.values())

    plain = Law("plain", "f returns", (subject.kind.name,), subject.kind.valid, call)
    arrays, tensors = _Calls(subject), _Calls(replace(subject, tensors=True))
    for calls in (arrays, tensors):
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _Trial(plain, calls.subject).search(TASTED, shrink=False)
    return arrays.returned == 0 < tensors.returned


class _Calls:
    """Count the calls of a function that return."""

    def __init__(self, subject: Subject) -> None:
        self.returned = 0
        call = subject.kind.call

        def counted(*arguments: Any) -> Any:
            result = call(*arguments)
            self.returned += 1
            return result

        self.subject = replace(subject, kind=replace(subject.kind, call=counted))


def run_law(law: Law, subject: Subject, max_examples: int = EXAMPLES) -> LawResult:
    """Search for a small example that breaks one law.

    `check_estimator` calls this for all laws of a kind.

    Raises:
        InputError: an argument of another type, or max_examples out of 1 to 10⁶.

    >>> from spectra import rankme
    >>> law = laws_for("effective rank")[0]
    >>> run_law(law, Subject(rankme, kind_named("effective rank")), max_examples=3).outcome
    'passed'
    """
    max_examples = whole(max_examples, "max_examples", least=1, most=MOST_EXAMPLES)
    for value, what, type_ in ((law, "law", Law), (subject, "subject", Subject)):
        if not isinstance(value, type_):
            raise InputError(f"{what} is {brief(value)}; pass a {type_.__name__}")
    first = _Trial(law, subject)
    best = first.search(max_examples)
    if best is None and subject.may_refuse and not first.tried:
        return LawResult(law.name, law.statement, "skipped", message=ALL_REFUSED)
    if best is None:
        return LawResult(law.name, law.statement, "passed", first.tried)
    # Shrinking stays within the family of data of the first failure. A new search for a failure that is shorter to
    # write down can find one in a simpler family.
    for restart in range(1, RESTARTS + 1):
        if text.size(best.case) <= SHORT_ENOUGH or best.unsteady:
            break
        shorter = _Trial(law, subject, restart, text.size(best.case)).search(max_examples)
        if shorter is None or shorter.unsteady:
            break
        best = shorter
    return LawResult(
        law.name, law.statement, "failed", first.first_failure, best.case, best.message, best.raised
    )


class _Found(AssertionError):
    """Carry the failing case through hypothesis, which raises the smallest one last."""

    def __init__(self, case: Case, message: str, raised: str = "", unsteady: bool = False) -> None:
        super().__init__(message)
        self.case, self.message, self.raised, self.unsteady = case, message, raised, unsteady


class _Trial:
    """Search once for a failing case, smaller than a known one."""

    def __init__(self, law: Law, subject: Subject, restart: int = 0, below: float = math.inf) -> None:
        self.law, self.subject, self.restart, self.below = law, subject, restart, below
        self.tried = self.first_failure = 0

    def search(self, max_examples: int, shrink: bool = True) -> _Found | None:
        """Return the smallest failure found, or None."""
        try:
            self._hypothesis(max_examples, shrink)()
        except _Found as found:
            return found
        except Flaky as flaky:
            found = _failure_inside(flaky)
            return _Found(found.case if found else {}, UNSTEADY, unsteady=True)
        except Unsatisfiable as error:
            if self.subject.may_refuse:
                return None
            kind = self.subject.kind.name
            raise InputError(f"no valid example of law {self.law.name!r} for kind {kind!r}") from error
        return None

    def once(self, case: Case) -> None:
        """Check one example; hypothesis calls this."""
        message, raised = None, ""
        try:
            # The law reports what a defective function does to its arithmetic; numpy's warnings would repeat it.
            with np.errstate(all="ignore"):
                self.law.check(self.subject, **case)
        except Refused as refused:
            assume(not self.subject.may_refuse)
            message = str(refused)
            raised = f"{type(refused.__cause__).__name__}: {first_line(refused.__cause__ or refused)}"
        except Violation as violation:
            message = str(violation)
            if violation.__cause__ is not None:
                raised = f"{type(violation.__cause__).__name__}: {first_line(violation.__cause__)}"
        self.tried += 1
        if message is not None and text.size(case) < self.below:
            self.first_failure = self.first_failure or self.tried
            raise _Found(case, message, raised)

    def _hypothesis(self, max_examples: int, shrink: bool) -> Callable[[], None]:
        """Return a search that depends on no random state, disk or hypothesis profile of the caller."""
        options = settings(
            max_examples=max_examples,
            derandomize=True,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
            suppress_health_check=list(HealthCheck),  # pyright: ignore[reportArgumentType]
            verbosity=Verbosity.quiet,
            report_multiple_bugs=False,
            print_blob=False,
        )
        # Laws share the test function below, so the seed of each comes from its name.
        seed = zlib.crc32(f"{self.subject.kind.name}/{self.law.name}/{self.restart}".encode())

        def trial(case: Case) -> None:
            self.once(case)

        return hypothesis.seed(seed)(options(given(self.law.cases)(trial)))


def _failure_inside(error: BaseException) -> _Found | None:
    """Return the failing case inside the exception of an unreproducible failure."""
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop()
        if isinstance(current, _Found):
            return current
        if current is not None:
            pending += [current.__cause__, current.__context__, *getattr(current, "exceptions", ())]
    return None


def chosen_laws(
    kind: str, takes: str | None, laws: Iterable[str] | None, skip: Iterable[str]
) -> tuple[list[Law], tuple[str, ...]]:
    """Return the laws of a run, and the names of those that it skips.

    Raises:
        InputError: an unknown kind, form or law, no law, or a law both selected and skipped.
    """
    known = laws_for(kind, takes)
    names = [law.name for law in known]
    selected, skipped = tuple(names) if laws is None else _names(laws, "laws"), _names(skip, "skip")
    if not selected:
        raise InputError("laws is empty; name one at least, or leave it out for all")
    for name in [*selected, *skipped]:
        if name not in names:
            raise InputError(f"{brief(name)} is no law of kind {kind!r}; known: {', '.join(names)}")
    both = set(skipped) & set(selected) if laws is not None else set()
    if both:
        raise InputError(f"{sorted(both)} are both selected and skipped; name each law once")
    return [law for law in known if law.name in selected], skipped


def _names(given: Any, what: str) -> tuple[Any, ...]:
    try:
        if isinstance(given, str | bytes):
            raise TypeError("one text is not a list of texts")
        return tuple(given)
    except TypeError:
        raise InputError(f"{what} is {brief(given)}; pass a list of names of laws") from None
