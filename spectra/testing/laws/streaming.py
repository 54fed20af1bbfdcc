"""Define the laws of streaming estimators: they equal the batch result in every merge order.

Source of the merge that satisfies them: Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for
computing sample variances" (1979).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from spectra.testing import strategies as make
from spectra.testing.kinds import COVARIANCE, STREAMING
from spectra.testing.law import Case, Law, Subject, same
from spectra.testing.laws.matrices import second_moment


def _filled(subject: Subject, chunks: list[np.ndarray]) -> Any:
    accumulator = subject.function()
    for chunk in chunks:
        accumulator.update(subject.given(chunk.copy()))
    return accumulator


def _join(left: Any, right: Any) -> Any:
    """Merge two accumulators, in place (returning None or self) or into a new one."""
    merged = left.merge(right)
    return left if merged is None else merged


def _chunks(x: np.ndarray, cuts: tuple[int, ...]) -> list[np.ndarray]:
    return np.split(x, list(cuts))


def _batch(x: np.ndarray) -> np.ndarray:
    return np.linalg.eigvalsh(second_moment(x, COVARIANCE))[::-1]


def _compare(subject: Subject, accumulator: Any, x: np.ndarray, name: str) -> None:
    got, want = np.sort(subject.converted(accumulator.spectrum()))[::-1], _batch(x)
    same(got, want, subject.tolerance * float(want[0]), name, "batch covariance spectrum")


def _streaming(subject: Subject, x: np.ndarray, cuts: tuple[int, ...]) -> None:
    def step() -> None:
        _compare(subject, _filled(subject, _chunks(x, cuts)), x, "spectrum after updates")

    subject.attempt(step)


def _merging(subject: Subject, x: np.ndarray, cuts: tuple[int, ...], order: tuple[int, ...]) -> None:
    def step() -> None:
        parts = [_filled(subject, [chunk]) for chunk in _chunks(x, cuts)]
        for choice in order:
            left = parts.pop(choice % len(parts))
            right = parts.pop((choice // 7) % len(parts))
            parts.append(_join(left, right))
        _compare(subject, parts[0], x, "spectrum after merges")

    subject.attempt(step)


def _other_untouched(subject: Subject, x: np.ndarray, cut: int) -> None:
    def step() -> None:
        left, right = _filled(subject, [x[:cut]]), _filled(subject, [x[cut:], x[cut:]])
        before = subject.converted(right.spectrum())
        merged = _join(left, right)
        merged.update(subject.given(x))
        same(subject.converted(right.spectrum()), before, 0.0, "spectrum of other after merge", "before")

    subject.attempt(step)


@st.composite
def _cut(draw: st.DrawFn) -> Case:
    x = draw(make.matrices())
    cuts = draw(st.sets(st.integers(1, len(x) - 1), max_size=4))
    return {"x": x, "cuts": tuple(sorted(cuts))}


@st.composite
def _tree(draw: st.DrawFn) -> Case:
    case = draw(_cut().filter(lambda c: len(c["cuts"]) > 0))
    merges = len(case["cuts"])
    # Each whole number names the pair to merge next: every binary tree over the chunks can be drawn.
    order = draw(st.lists(st.integers(0, 48), min_size=merges, max_size=merges))
    return {**case, "order": tuple(order)}


@st.composite
def _halved(draw: st.DrawFn) -> Case:
    x = draw(make.matrices().filter(lambda a: len(a) >= 3))
    cut = draw(st.integers(1, len(x) - 1).filter(lambda c: make.varies(x[c:])))
    return {"x": x, "cut": cut}


LAWS = (
    Law(
        "streaming = batch",
        "updates chunk by chunk give the spectrum of all rows",
        (STREAMING,),
        _cut(),
        _streaming,
    ),
    Law(
        "merge order",
        "merging the chunks in any order gives the spectrum of all rows",
        (STREAMING,),
        _tree(),
        _merging,
    ),
    Law(
        "merge leaves other",
        "a.merge(b) leaves b as it was, also when a is updated afterwards",
        (STREAMING,),
        _halved(),
        _other_untouched,
    ),
)
