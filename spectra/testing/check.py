"""Run laws on a function: one reproducible hypothesis search for each law."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable
from typing import Any, Literal

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis.errors import Flaky, Unsatisfiable

from spectra.errors import InputError
from spectra.testing import text
from spectra.testing.kinds import kind_named
from spectra.testing.law import TOLERANCE, Case, Law, Subject, Violation
from spectra.testing.laws import laws_for
from spectra.testing.report import LawResult, Report

EXAMPLES = 200
# A failure of more than SHORT_ENOUGH characters of numbers is searched for again RESTARTS times, in shorter form.
SHORT_ENOUGH = 12
RESTARTS = 2


def check_estimator(
    function: Callable[..., Any],
    kind: str,
    *,
    laws: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    tolerance: float = TOLERANCE,
    max_examples: int = EXAMPLES,
    torch: bool | Literal["only"] = False,
    refusals: tuple[type[BaseException], ...] = (ValueError,),
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
    - ``"divergence"``: f(p, q) gives a float in nats
    - ``"concentration"``: f(H), H (c, d) class means, gives a float in [0, 1]
    - further: ``"streaming moments"``, ``"band energies"``, ``"frequency split"``, ``"bulk edges"``,
      ``"spike position"``

    Examples depend on the law and the kind only, so that a run can be repeated exactly; nothing is written to disk.

    Args:
        function: the estimator to test.
        kind: one of the above.
        laws: names of the laws to run; by default all that apply to the kind. `laws_for(kind)` lists them.
        skip: names of laws to omit, for an estimator that need not obey them; they appear as skipped.
        tolerance: relative agreement where a law states an equality. The default 1e-8 is a million times the
            rounding of float64 and below that of float32; an estimator that computes in float32 needs about 1e-4.
        max_examples: valid examples for each law; laws with fewer distinct cases stop when these are exhausted.
        torch: also pass tensors (the law "device"), on CUDA too where available; "only" for a function that takes no
            numpy arrays: every law then hands over tensors of the dtype of its arrays.
        refusals: exception types that count as rejecting a bad input. A result whose ``status`` is
            ``"not fitted"`` counts too; a NaN result does not.
        name: name of the function in the report; by default its ``__name__``.
        quiet: return the report without printing it.

    Returns:
        Report, with ``.passed``, ``.failures``, ``report["scale"]`` and ``.raise_if_failed()``.

    Raises:
        InputError: unknown kind or law, a law both selected and skipped, tolerance not in (0, 1), max_examples below 1,
            or another ``torch``.

    >>> from spectra import rankme
    >>> report = check_estimator(rankme, "effective rank", laws=["scale"], max_examples=3)
    rankme as effective rank: all 1 laws hold (tolerance 1e-08)
      ok    scale                  3 examples
    >>> report.passed
    True
    """
    chosen = _choose(kind, laws, tuple(skip))
    if not 0.0 < tolerance < 1.0:
        raise InputError(f"tolerance is {tolerance}; it must lie between 0 and 1 (1e-8 by default)")
    if max_examples < 1:
        raise InputError(f"max_examples is {max_examples}; a law needs at least one example")
    if torch not in (True, False, "only"):
        raise InputError(f"torch is {torch!r}; it must be True, False or 'only'")
    subject = Subject(function, kind_named(kind), tolerance, refusals, torch == "only")
    results = []
    for law in chosen:
        if law.name in skip:
            results.append(LawResult(law.name, law.statement, "skipped", message="asked to skip"))
        elif law.needs_torch and not torch:
            why = "pass torch=True to hand over tensors"
            results.append(LawResult(law.name, law.statement, "skipped", message=why))
        else:
            results.append(run_law(law, subject, max_examples))
    called = name or getattr(function, "__name__", type(function).__name__)
    report = Report(called, kind, tolerance, tuple(results))
    if not quiet:
        print(report)
    return report


def run_law(law: Law, subject: Subject, max_examples: int = EXAMPLES) -> LawResult:
    """Search for a small example that breaks one law.

    `check_estimator` calls this for all laws of a kind.

    >>> from spectra import rankme
    >>> law = laws_for("effective rank")[0]
    >>> run_law(law, Subject(rankme, kind_named("effective rank")), max_examples=3).outcome
    'passed'
    """
    first = _Trial(law, subject)
    best = first.search(max_examples)
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
    return LawResult(law.name, law.statement, "failed", first.first_failure, best.case, best.message)


class _Found(AssertionError):
    """Carry the failing case through hypothesis, which raises the smallest one last."""

    def __init__(self, case: Case, message: str, unsteady: bool = False) -> None:
        super().__init__(message)
        self.case, self.message, self.unsteady = case, message, unsteady


class _Trial:
    """Search once for a failing case, smaller than a known one."""

    def __init__(self, law: Law, subject: Subject, restart: int = 0, below: float = math.inf) -> None:
        self.law, self.subject, self.restart, self.below = law, subject, restart, below
        self.tried = self.first_failure = 0

    def search(self, max_examples: int) -> _Found | None:
        """Return the smallest failure found, or None."""
        try:
            self._hypothesis(max_examples)()
        except _Found as found:
            return found
        except Flaky as flaky:
            found = _failure_inside(flaky)
            return _Found(found.case if found else {}, _UNSTEADY, unsteady=True)
        except Unsatisfiable as error:
            kind = self.subject.kind.name
            raise InputError(f"no valid example of law {self.law.name!r} for kind {kind!r}") from error
        return None

    def once(self, case: Case) -> None:
        """Check one example; hypothesis calls this."""
        message = None
        try:
            # The law reports what a defective function does to its arithmetic; numpy's warnings would repeat it.
            with np.errstate(all="ignore"):
                self.law.check(self.subject, **case)
        except Violation as violation:
            message = str(violation)
        self.tried += 1
        if message is not None and text.size(case) < self.below:
            self.first_failure = self.first_failure or self.tried
            raise _Found(case, message)

    def _hypothesis(self, max_examples: int) -> Callable[[], None]:
        """Return a search that depends on no random state, disk or hypothesis profile of the caller."""
        options = settings(
            max_examples=max_examples,
            derandomize=True,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
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


_UNSTEADY = "the same input was judged differently on a second call; the function keeps state or is random"


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


def _choose(kind: str, laws: Iterable[str] | None, skip: tuple[str, ...]) -> list[Law]:
    known = laws_for(kind)
    names = [law.name for law in known]
    selected = names if laws is None else list(laws)
    for name in [*selected, *skip]:
        if name not in names:
            raise InputError(f"{name!r} is no law of kind {kind!r}; known: {', '.join(names)}")
    both = set(skip) & set(selected) if laws is not None else set()
    if both:
        raise InputError(f"{sorted(both)} are both selected and skipped; name each law once")
    return [law for law in known if law.name in selected]
