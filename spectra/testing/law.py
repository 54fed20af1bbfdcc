"""Define laws, kinds of estimator, and the function under test.

A `Law` is data: a name, a statement, the kinds it binds, a hypothesis strategy of cases and a check that
raises `Violation`. A `Subject` wraps the user's function for the laws: it passes
copies, converts the result to one form, and distinguishes rejected input from crashes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis.strategies import SearchStrategy

from spectra.arrays import brief, flag, real, to_real
from spectra.errors import InputError
from spectra.testing.results import NotThere, Pick, checked_pick, picked
from spectra.testing.text import short

# Relative agreement required of two float64 computations of one number. Rounding of sums over some hundred entries
# is below 1e-12; float32 arithmetic anywhere inside leaves 1e-7 or more.
TOLERANCE = 1e-8

Case = dict[str, Any]


class Violation(AssertionError):
    """Report that a law does not hold; the message gives both sides.

    >>> issubclass(Violation, AssertionError)
    True
    """


class Refused(Violation):
    """Report that a valid input was refused; the exception of the function is the cause."""


@dataclass(frozen=True)
class Kind:
    """Describe one kind of estimator: call, result and inputs.

    Attributes:
        name: as passed to `check_estimator`.
        signature: the call that the laws make and the result that they expect.
        valid: strategy of named arguments that every function of this kind must accept.
        empty: strategy of named arguments without data, which it must refuse.
        arrays: the names of the arguments that are arrays.
        convert: the result as float64 numbers (a float, an array or a tuple), raising Violation otherwise.
        usable: whether arguments are still valid after a change of dtype.
        call: how the function is applied to the arguments; plain positional call by default.

    Raises:
        InputError: a name that is no text or empty, a strategy that is none, or something else than a function.

    >>> from spectra.testing import KINDS
    >>> KINDS["effective rank"].signature
    'f(eigenvalues: (r,) array) -> float'
    """

    name: str
    signature: str
    valid: SearchStrategy[Case]
    empty: SearchStrategy[Case]
    arrays: tuple[str, ...]
    convert: Callable[[Any], Any]
    usable: Callable[[Case], bool] = lambda case: True
    call: Callable[..., Any] = lambda function, *arguments: function(*arguments)

    def __post_init__(self) -> None:
        _check_fields(self, texts=("name", "signature"), names=("arrays",), strategies=("valid", "empty"))
        _check_functions(self, ("convert", "usable", "call"))


@dataclass(frozen=True)
class Law:
    """Describe one law as data.

    Attributes:
        name: unique within a kind; what `laws=` and `skip=` select by.
        statement: the law in the field's notation, where f is the function under test.
        kinds: names of the kinds that it applies to.
        cases: strategy of named arguments for the check.
        check: check(subject, **case) returns when the law holds for the case and raises Violation otherwise.
        needs_torch: whether it passes torch tensors, which a numpy-only function need not take.

    Raises:
        InputError: as `Kind`; or it binds no kind.

    >>> from spectra.testing import laws_for
    >>> laws_for("effective rank")[0].name
    'scale'
    """

    name: str
    statement: str
    kinds: tuple[str, ...]
    cases: SearchStrategy[Case]
    check: Callable[..., None]
    needs_torch: bool = False

    def __post_init__(self) -> None:
        _check_fields(self, texts=("name", "statement"), names=("kinds",), strategies=("cases",))
        _check_functions(self, ("check",))
        flag(self.needs_torch, "needs_torch")
        if not self.kinds:
            raise InputError("kinds is empty; name the kinds that the law binds, of spectra.testing.KINDS")


@dataclass(frozen=True)
class Subject:
    """Wrap the function under test for the laws.

    Attributes:
        function: the user's function.
        kind: the kind that it is tested as.
        tolerance: relative agreement required where a law states an equality.
        refusals: exception types that count as rejecting an input.
        tensors: whether the function takes torch tensors only; arrays are then handed over as tensors of their dtype.
        result: which part of what it returns is the result: a name, an index, a function of it; None for all of it.
        made: what the function is handed in place of an array of a law; None for the array itself.
        may_refuse: whether it may refuse valid inputs; laws then leave these out.

    Raises:
        InputError: what is called is no function, the kind no `Kind`, the refusals no types of exceptions, or the
            tolerance not in (0, 1), or the result no name, index or function.

    >>> from spectra.testing import KINDS
    >>> Subject(np.max, KINDS["effective rank"])(np.array([3.0, 1.0]))
    3.0
    """

    function: Callable[..., Any]
    kind: Kind
    tolerance: float = TOLERANCE
    refusals: tuple[type[BaseException], ...] = (ValueError,)
    tensors: bool = False
    result: Pick = None
    made: Callable[[np.ndarray], np.ndarray] | None = None
    may_refuse: bool = False

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise InputError(f"function is {brief(self.function)}; pass the estimator itself, a function")
        if not isinstance(self.kind, Kind):
            raise InputError(f"kind is {brief(self.kind)}; pass a Kind, of spectra.testing.KINDS")
        types = self.refusals if isinstance(self.refusals, tuple) else ()
        if not types or not all(isinstance(t, type) and issubclass(t, BaseException) for t in types):
            raise InputError(
                f"refusals is {brief(self.refusals)}; pass a tuple of exception types, such as (ValueError,)"
            )
        if not 0.0 < real(self.tolerance, "tolerance") < 1.0:
            raise InputError(f"tolerance is {self.tolerance}; it must lie between 0 and 1 (1e-8 by default)")
        flag(self.tensors, "tensors")
        checked_pick(self.result)
        flag(self.may_refuse, "may_refuse")
        if self.made is not None and not callable(self.made):
            raise InputError(f"made is {brief(self.made)}; pass a function of an array, or None")

    def given(self, argument: Any) -> Any:
        """Return an argument as the function takes it; a tensor shares the memory of its array where it can."""
        if not isinstance(argument, np.ndarray):
            return argument
        if self.made is not None:
            argument = self.made(argument)
        if not self.tensors:
            return argument
        shared = argument.flags.writeable and all(stride >= 0 for stride in argument.strides)
        return torch.from_numpy(argument if shared else argument.copy())

    def __call__(self, *arguments: Any) -> Any:
        """Call the function on copies and convert its result.

        Raises:
            Violation: the function raised, or returned something that its kind does not allow.
        """
        return self.raw(*(a.copy() if isinstance(a, np.ndarray) else a for a in arguments))

    def raw(self, *arguments: Any) -> Any:
        """Call the function on the arrays themselves.

        For laws about mutation, memory layout and dtype.
        """
        return self.converted(
            self.attempt(lambda: self.kind.call(self.function, *map(self.given, arguments)))
        )

    def attempt(self, step: Callable[[], Any]) -> Any:
        """Return what a step of the function under test returns.

        Raises:
            Refused: it refused its input.
            Violation: it raised anything else.
        """
        try:
            # Overflow inside the function shows in its result; a warning for each example would hide the report.
            with np.errstate(all="ignore"):
                return step()
        except Violation:
            raise
        except self.refusals as error:
            raise Refused(f"refused a valid input: {type(error).__name__}: {first_line(error)}") from error
        except Exception as error:
            raise Violation(f"raised {type(error).__name__}: {first_line(error)}") from error

    def must_refuse(self, *arguments: Any, why: str) -> None:
        """Check that the function rejects these arguments.

        By an exception, or by a result "not fitted".

        Raises:
            Violation: it returned a value, or crashed with an exception outside `refusals`.
        """
        copies = [self.given(a.copy()) if isinstance(a, np.ndarray) else a for a in arguments]
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
        with contextlib.suppress(NotThere):
            result = picked(result, self.result)
        raise Violation(f"{why}: it returned {short(result)} instead of raising {names}")

    def or_refusal(self, *arguments: Any) -> Any:
        """Call the function on copies and convert its result; None where it rejects the input.

        Raises:
            Violation: it crashed, or returned something that its kind does not allow, such as a NaN that says "ok".
        """
        copies = [self.given(a.copy()) if isinstance(a, np.ndarray) else a for a in arguments]
        try:
            with np.errstate(all="ignore"):
                result = self.kind.call(self.function, *copies)
        except self.refusals:
            return None
        except Exception as error:
            raise Violation(f"raised {type(error).__name__}: {first_line(error)}") from error
        return None if getattr(result, "status", None) == "not fitted" else self.converted(result)

    def converted(self, result: Any) -> Any:
        """Return the result, or the part of it that is asked for, in the form of its kind."""
        if getattr(result, "status", None) == "not fitted":
            raise Violation(f"did not fit a valid input: {getattr(result, 'reason', '')}")
        try:
            return self.kind.convert(picked(result, self.result))
        except NotThere as missing:
            raise Violation(str(missing)) from None


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message.

    Cut at 160 characters, so that a report has one line per failure.
    """
    text = str(error).splitlines() or [""]
    return text[0] if len(text[0]) <= 160 else text[0][:157] + "..."


def expect(holds: bool, message: str) -> None:
    """Raise Violation with the message unless the condition holds.

    Raises:
        InputError: the condition is neither true nor false.

    >>> expect(2 > 1, "2 must exceed 1")
    """
    if not flag(holds, "holds"):
        raise Violation(message)


def same(got: Any, want: Any, slack: float, got_name: str, want_name: str) -> None:
    """Raise Violation unless |got − want| ≤ slack everywhere.

    The message names the worst entry.

    Args:
        got, want: numbers or arrays; 1-D arrays of unequal length are padded with zeros.
        slack: absolute difference allowed.
        got_name, want_name: names of the two sides in the message.

    Raises:
        InputError: something else than real numbers, or a slack below 0.

    >>> same([1.0, 2.0], [1.0, 2.5], 0.1, "f(x)", "the mean")
    Traceback (most recent call last):
        ...
    spectra.testing.law.Violation: f(x) = 2 but the mean = 2.5 at position 2 (allowed difference 0.1)
    """
    slack = real(slack, "slack")
    if not slack >= 0:
        raise InputError(f"slack is {slack}; it must be 0 or more")
    a, b = (np.atleast_1d(to_real(side, name=name)) for side, name in ((got, "got"), (want, "want")))
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
    """Pad vectors with zeros to one length.

    Spectra may list their zero values or not.
    """
    size = max(len(v) for v in vectors)
    return [np.concatenate([v, np.zeros(size - len(v))]) for v in vectors]


def _check_fields(
    entry: Law | Kind, texts: tuple[str, ...], names: tuple[str, ...], strategies: tuple[str, ...]
) -> None:
    """Refuse fields that are not texts, tuples of texts, or hypothesis strategies."""
    for field in texts:
        if not _is_text(value := getattr(entry, field)):
            raise InputError(f"{field} is {brief(value)}; pass a text that is not empty")
    for field in names:
        value = getattr(entry, field)
        if not isinstance(value, tuple) or not all(map(_is_text, value)):
            raise InputError(f"{field} is {brief(value)}; pass a tuple of names, such as ('eigenvalues',)")
    for field in strategies:
        if not isinstance(value := getattr(entry, field), SearchStrategy):
            raise InputError(f"{field} is {brief(value)}; pass a hypothesis strategy of named arguments")


def _check_functions(entry: Law | Kind, fields: tuple[str, ...]) -> None:
    for field in fields:
        if not callable(value := getattr(entry, field)):
            raise InputError(f"{field} is {brief(value)}; pass a function")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
