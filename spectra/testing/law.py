"""What a law, a kind of estimator and a function on trial are.

A `Law` is data: a name, a statement, the kinds it binds, a hypothesis strategy of cases and a check that
raises `Violation`. A `Subject` is the user's function as a law sees it: called on private copies, with its
result brought to one form and its refusals told apart from its crashes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis.strategies import SearchStrategy

from spectra.testing.text import short

# Relative agreement demanded of two float64 routes to one number. Rounding of sums over some hundred entries
# is below 1e-12; float32 arithmetic anywhere inside leaves 1e-7 or more.
TOLERANCE = 1e-8

Case = dict[str, Any]


class Violation(AssertionError):
    """A law does not hold for the function on trial; the message says what was found against what was due."""


@dataclass(frozen=True)
class Kind:
    """One kind of estimator: how it is called, what it returns, and valid and empty inputs for it.

    Attributes:
        name: as given to `check_estimator`.
        signature: the call that the laws make and the result that they expect.
        valid: strategy of named arguments that every function of this kind must accept.
        empty: strategy of named arguments without data, which it must refuse.
        arrays: the names of the arguments that are arrays.
        convert: the result as float64 numbers (a float, an array or a tuple), raising Violation otherwise.
        usable: whether arguments still are valid after a change of dtype.
        call: how the function is applied to the arguments; plain positional call by default.
    """

    name: str
    signature: str
    valid: SearchStrategy[Case]
    empty: SearchStrategy[Case]
    arrays: tuple[str, ...]
    convert: Callable[[Any], Any]
    usable: Callable[[Case], bool] = lambda case: True
    call: Callable[..., Any] = lambda function, *arguments: function(*arguments)


@dataclass(frozen=True)
class Law:
    """One law, as data.

    Attributes:
        name: unique within a kind; what `laws=` and `skip=` select by.
        statement: the law in the field's notation, f being the function on trial.
        kinds: names of the kinds it binds.
        cases: strategy of named arguments for the check.
        check: check(subject, **case) returns when the law holds for the case and raises Violation otherwise.
        needs_torch: whether it hands over torch tensors, which a numpy-only function need not take.
    """

    name: str
    statement: str
    kinds: tuple[str, ...]
    cases: SearchStrategy[Case]
    check: Callable[..., None]
    needs_torch: bool = False


@dataclass(frozen=True)
class Subject:
    """The function on trial.

    Attributes:
        function: the user's own.
        kind: what it claims to be.
        tolerance: relative agreement demanded where a law states an equality.
        refusals: exception types that count as refusing an input.
    """

    function: Callable[..., Any]
    kind: Kind
    tolerance: float = TOLERANCE
    refusals: tuple[type[BaseException], ...] = (ValueError,)

    def __call__(self, *arguments: Any) -> Any:
        """The converted result on private copies of the arguments.

        Raises:
            Violation: the function raised, or returned something that its kind does not allow.
        """
        return self.raw(*(a.copy() if isinstance(a, np.ndarray) else a for a in arguments))

    def raw(self, *arguments: Any) -> Any:
        """As calling, but on the very arrays given; for laws about mutation, memory layout and dtype."""
        try:
            # Overflow inside the function shows in its result; a warning per example would drown the report.
            with np.errstate(all="ignore"):
                result = self.kind.call(self.function, *arguments)
        except Violation:
            raise
        except self.refusals as error:
            raise Violation(f"refused a valid input: {type(error).__name__}: {first_line(error)}") from error
        except Exception as error:
            raise Violation(f"raised {type(error).__name__}: {first_line(error)}") from error
        return self.kind.convert(result)

    def must_refuse(self, *arguments: Any, why: str) -> None:
        """Return when the function refuses these arguments, by an exception or a result "not fitted".

        Raises:
            Violation: it returned a value, or crashed with an exception outside `refusals`.
        """
        copies = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
        names = " or ".join(t.__name__ for t in self.refusals)
        try:
            with np.errstate(all="ignore"):
                result = self.kind.call(self.function, *copies)
        except self.refusals:
            return
        except Exception as error:
            raise Violation(
                f"{why}: it crashed with {type(error).__name__} ({first_line(error)}) instead of raising {names}"
            ) from error
        if getattr(result, "status", None) == "not fitted":
            return
        raise Violation(f"{why}: it returned {short(result)} instead of raising {names}")


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, cut at 160 characters; reports stay one line a failure."""
    text = str(error).splitlines() or [""]
    return text[0] if len(text[0]) <= 160 else text[0][:157] + "..."


def expect(holds: bool, message: str) -> None:
    """Raise Violation with the message unless the condition holds."""
    if not holds:
        raise Violation(message)


def same(got: Any, want: Any, slack: float, got_name: str, want_name: str) -> None:
    """Raise Violation, naming the worst entry, unless |got − want| ≤ slack everywhere.

    Args:
        got, want: numbers or arrays; 1-D arrays of unequal length are compared with zeros filled in.
        slack: absolute difference allowed.
        got_name, want_name: how the message calls the two sides.
    """
    a, b = np.atleast_1d(np.asarray(got, float)), np.atleast_1d(np.asarray(want, float))
    if a.ndim == 1 and b.ndim == 1:
        a, b = padded(a, b)
    expect(a.shape == b.shape, f"{got_name} has shape {a.shape}, {want_name} has {b.shape}")
    gap = np.abs(a - b)
    # Written so that a NaN gap is a violation as well.
    if np.all(gap <= slack):
        return
    worst = np.unravel_index(int(np.argmax(np.where(np.isnan(gap), np.inf, gap))), gap.shape)
    place = "" if gap.size == 1 else f" at position {', '.join(str(int(i) + 1) for i in worst)}"
    raise Violation(
        f"{got_name} = {a[worst]:.10g} but {want_name} = {b[worst]:.10g}{place} (allowed difference {slack:.2g})"
    )


def padded(*vectors: np.ndarray) -> list[np.ndarray]:
    """The vectors filled with zeros to one length: spectra list their zero values or not, as they like."""
    size = max(len(v) for v in vectors)
    return [np.concatenate([v, np.zeros(size - len(v))]) for v in vectors]
