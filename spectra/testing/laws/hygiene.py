"""Define laws of all kinds that take arrays: dtype, layout, device, bad values, no data, mutation."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch
from hypothesis import assume
from hypothesis import strategies as st

from spectra.arrays import machine_epsilon
from spectra.covariance import ROUNDING_MARGIN
from spectra.testing.kinds import (
    ALIGNMENT,
    BANDS,
    CONCENTRATION,
    COVARIANCE,
    DIVERGENCE,
    EXPONENT,
    KINDS,
    RANK,
    RANKS,
    SECOND_MOMENT,
    SINGULAR,
    STREAMING,
    TAIL,
)
from spectra.testing.law import Case, Kind, Law, Subject, Violation, same
from spectra.testing.report import SECOND
from spectra.testing.text import short

_SPECTRA = (COVARIANCE, SECOND_MOMENT, SINGULAR, STREAMING)
_SCALE_FREE = (RANK, RANKS, EXPONENT, TAIL, DIVERGENCE, ALIGNMENT, CONCENTRATION)
_ARRAY_KINDS = tuple(kind for kind in KINDS.values() if kind.arrays)
_DTYPES = ("float32", "float16", "int64", "int32")
_TORCH_DTYPES = ("float64", "float32", "bfloat16", "float16")
_LAYOUTS = ("transposed in memory", "every second row of a larger array", "read-only", "reversed view")


def _agree(subject: Subject, got: Any, want: Any, got_name: str, want_name: str, slack: float = 0.0) -> None:
    """Check that two results of one estimator agree, relative to the largest number in them."""
    pairs = list(zip(_parts(got), _parts(want), strict=True))
    # Results near 0 in these units carry the absolute rounding of sums of order 1.
    floor = 1.0 if subject.kind.name in (EXPONENT, DIVERGENCE, ALIGNMENT, CONCENTRATION) else 0.0
    scale = max([floor, *(float(np.max(np.abs(part), initial=0.0)) for pair in pairs for part in pair)])
    for a, b in pairs:
        same(a, b, subject.tolerance * scale + slack, got_name, want_name)


def _largest(result: Any) -> float:
    return max(float(np.max(np.abs(part), initial=0.0)) for part in _parts(result))


def _rounding(kind: Kind, a: np.ndarray, epsilon: float) -> float:
    """Return what rounding to a dtype may have put into the result, which may be 0 or refused instead."""
    if kind.name == CONCENTRATION:
        # Shares of a variation that rounding explains are anything; of any other they agree.
        return 0.0 if np.abs(a - a.mean(axis=0)).max() > epsilon * np.abs(a).max() else np.inf
    if kind.name == ALIGNMENT:
        # The same for each column: what rounding explains may be left out.
        deviations, norms = (np.linalg.norm(v, axis=0) for v in (a - a.mean(axis=0), a))
        clear = (np.ptp(a, axis=0) == 0) | (deviations > 2 * ROUNDING_MARGIN * epsilon * norms)
        return 0.0 if clear.all() else np.inf
    if kind.arrays[0] in ("x", "W") and kind.name in (RANK, RANKS, TAIL):
        # Directions that rounding explains count or not; of any other the numbers agree.
        norms = np.sqrt(np.square(a).sum(axis=0))
        return 0.0 if norms[norms > 0].min(initial=1.0) > ROUNDING_MARGIN * epsilon * norms.max() else np.inf
    if kind.name not in _SPECTRA:
        return 0.0
    divisor = {SINGULAR: 1, SECOND_MOMENT: len(a)}.get(kind.name, len(a) - 1)
    longest = max(float(np.linalg.norm(a, axis=axis).max()) for axis in (0, 1))
    return (ROUNDING_MARGIN * epsilon * longest) ** 2 / divisor


def _parts(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def _dtype(subject: Subject, dtype: str, **case: Any) -> None:
    cast, exact = dict(case), dict(case)
    slack = 0.0
    for name in subject.kind.arrays:
        low = np.round(case[name]) if dtype.startswith("int") else case[name]
        limit = np.finfo(dtype).max if dtype.startswith("float") else np.iinfo(dtype).max
        assume(np.abs(low).max() <= limit)
        cast[name] = low.astype(dtype)
        exact[name] = cast[name].astype(np.float64)
        slack = max(slack, _rounding(subject.kind, exact[name], machine_epsilon(cast[name])))
    assume(subject.kind.usable(exact))
    want = subject(*exact.values())
    assume(_largest(want) > slack)
    _agree(subject, subject(*cast.values()), want, f"f({dtype})", "f(the same numbers in float64)", slack)


def _layout(subject: Subject, layout: str, **case: Any) -> None:
    odd = dict(case)
    for name in subject.kind.arrays:
        odd[name] = _relaid(case[name], layout)
    _agree(subject, subject.raw(*odd.values()), subject(*case.values()), f"f({layout})", "f(plain copy)")


def _relaid(a: np.ndarray, layout: str) -> np.ndarray:
    if layout == "transposed in memory":
        return np.asfortranarray(a)
    if layout == "reversed view":
        return a[::-1].copy()[::-1]
    if layout == "every second row of a larger array":
        larger = np.full((2 * len(a), *a.shape[1:]), 7.0)
        larger[::2] = a
        return larger[::2]
    locked = a.copy()
    locked.setflags(write=False)
    return locked


def _tensors(subject: Subject, dtype: str, **case: Any) -> None:
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    for device in devices:
        tensors, exact, slack = dict(case), dict(case), 0.0
        for name in subject.kind.arrays:
            tensor = torch.tensor(case[name], dtype=getattr(torch, dtype), device=device)
            assume(bool(torch.isfinite(tensor).all()))
            tensors[name] = tensor.requires_grad_(True)
            exact[name] = tensor.detach().to("cpu", torch.float64).numpy()
            slack = max(slack, _rounding(subject.kind, exact[name], machine_epsilon(tensor)))
        assume(subject.kind.usable(exact))
        want = subject(*exact.values())
        assume(_largest(want) > slack)
        got = subject.raw(*tensors.values())
        _agree(subject, got, want, f"f(torch.{dtype} on {device})", "f(the same numbers in numpy)", slack)


@st.composite
def _poisoned(draw: st.DrawFn, kind: Kind) -> Case:
    case = dict(draw(kind.valid))
    name = draw(st.sampled_from(kind.arrays))
    array = case[name].copy()
    array.flat[draw(st.integers(0, array.size - 1))] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    case[name] = array
    return case


def _not_finite(subject: Subject, **case: Any) -> None:
    subject.must_refuse(*case.values(), why="one entry is NaN or Inf")


def _empty(subject: Subject, **case: Any) -> None:
    subject.must_refuse(*case.values(), why="there is no data")


def _extreme(subject: Subject, a: float, **case: Any) -> None:
    scaled = {name: a * v if name in subject.kind.arrays else v for name, v in case.items()}
    want, got = subject(*case.values()), subject.or_refusal(*scaled.values())
    if got is not None:
        _agree(subject, got, want, f"f({a:g}·a)", "f(a)")


def _one_row(subject: Subject, **case: Any) -> None:
    subject.must_refuse(*case.values(), why="one row has no variation to measure")


def _negative(subject: Subject, **case: Any) -> None:
    subject.must_refuse(*case.values(), why="an energy is negative")


def _all_zero(subject: Subject, **case: Any) -> None:
    subject.must_refuse(*case.values(), why="a spectrum is all zeros")


@st.composite
def _negated(draw: st.DrawFn, kind: Kind) -> Case:
    case = dict(draw(kind.valid))
    name = draw(st.sampled_from(kind.arrays))
    array = case[name].copy()
    # Clearly negative, at the size of the largest value: no rounding explains it.
    array[-1] = -array[0]
    case[name] = array
    return case


@st.composite
def _zeroed(draw: st.DrawFn, kind: Kind) -> Case:
    case = dict(draw(kind.valid))
    name = draw(st.sampled_from(kind.arrays))
    case[name] = np.zeros_like(case[name])
    return case


def _not_mutated(subject: Subject, **case: Any) -> None:
    arguments = {name: v.copy() if isinstance(v, np.ndarray) else v for name, v in case.items()}
    # Other laws check whether the call succeeds; a failing call must not change its input either.
    with contextlib.suppress(Violation):
        subject.raw(*arguments.values())
    for name in subject.kind.arrays:
        before, after = case[name], arguments[name]
        if before.tobytes() == after.tobytes():
            continue
        place = next(i for i in np.ndindex(before.shape) if before[i].tobytes() != after[i].tobytes())
        where = ", ".join(map(str, place))
        raise Violation(
            f"{name}[{where}] was {short(before[place])} and is {short(after[place])} after the call"
        )


def _repeatable(subject: Subject, **case: Any) -> None:
    _agree(subject, subject(*case.values()), subject(*case.values()), SECOND, "f(a)")


def _with(kind: Kind, **more: Any) -> st.SearchStrategy[Case]:
    extra = st.fixed_dictionaries(more)
    return st.tuples(extra, kind.valid).map(lambda pair: {**pair[1], **pair[0]})


def _single_rows(name: str) -> st.SearchStrategy[Case]:
    rows = st.lists(st.integers(-99, 99), min_size=1, max_size=6)
    return st.fixed_dictionaries({name: rows.map(lambda row: np.array([row], dtype=np.float64))})


def laws_of_handling(kind: Kind) -> list[Law]:
    """Return the laws that bind a kind, or a kind in another form."""

    def law(name: str, statement: str, cases: Any, check: Any, needs_torch: bool = False) -> Law:
        return Law(name, statement, (kind.name,), cases, check, needs_torch)

    laws = [
        law("repeatable", "the same input gives the same result twice", kind.valid, _repeatable),
        law(
            "dtype",
            "f(a in float32, float16 or integers) = f(the same numbers in float64), up to rounding in that dtype",
            _with(kind, dtype=st.sampled_from(_DTYPES)),
            _dtype,
        ),
        law(
            "layout",
            "strides and write protection do not matter",
            _with(kind, layout=st.sampled_from(_LAYOUTS)),
            _layout,
        ),
        law(
            "device",
            "f(tensor of any float dtype, device, requires_grad) = f(the same numbers in numpy)",
            _with(kind, dtype=st.sampled_from(_TORCH_DTYPES)),
            _tensors,
            needs_torch=True,
        ),
        law("NaN and Inf", "an input with a NaN or Inf is refused", _poisoned(kind), _not_finite),
        law("empty", "an input without entries is refused", kind.empty, _empty),
        law(
            "input not mutated",
            "the arrays handed over hold the same bytes after the call",
            kind.valid,
            _not_mutated,
        ),
    ]
    if kind.name in (COVARIANCE, STREAMING, CONCENTRATION, BANDS):
        laws.append(law("one row", "a single row is refused", _single_rows(kind.arrays[0]), _one_row))
    if kind.name in _SCALE_FREE:
        statement = "f(a·1e±200) = f(a), or is refused: never NaN, Inf or another number"
        scales = _with(kind, a=st.sampled_from([2.0**660, 2.0**-660]))
        laws.append(law("extreme scale", statement, scales, _extreme))
    if kind.name in (RANK, RANKS, EXPONENT, TAIL, DIVERGENCE):
        if kind.arrays[0] not in ("x", "W"):
            laws.append(
                law(
                    "negative energy",
                    "a spectrum with a negative value is refused",
                    _negated(kind),
                    _negative,
                )
            )
        laws.append(law("all zeros", "a spectrum of zeros is refused", _zeroed(kind), _all_zero))
    return laws


LAWS = tuple(law for kind in _ARRAY_KINDS for law in laws_of_handling(kind))
