"""Define the laws of Fourier features of class means.

Ĥ_r = (1/c) Σ_m (H[m] − H̄) e^{−2πi r m/c}, E_r = ‖Ĥ_r‖². A concentration is a function of the shares of E_r, r ≠ 0,
that does not depend on where the walk starts or which way it runs.
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from spectra.testing import strategies as make
from spectra.testing.kinds import BANDS, CONCENTRATION, SPLIT, closed_sets
from spectra.testing.law import Case, Law, Subject, expect, same

_BOTH = (CONCENTRATION, BANDS)


def _equal(
    subject: Subject, got: np.ndarray | float, want: np.ndarray | float, got_name: str, want_name: str
) -> None:
    scale = 1.0 if subject.kind.name == CONCENTRATION else float(np.max(np.abs(want), initial=0.0))
    same(got, want, subject.tolerance * scale, got_name, want_name)


def _scale(subject: Subject, H: np.ndarray, a: float) -> None:
    factor = 1.0 if subject.kind.name == CONCENTRATION else a * a
    want_name = "f(H)" if subject.kind.name == CONCENTRATION else "a²·f(H)"
    _equal(subject, subject(a * H), factor * subject(H), "f(a·H)", want_name)


def _orthogonal(subject: Subject, H: np.ndarray, q: np.ndarray) -> None:
    _equal(subject, subject(H @ q), subject(H), "f(H·q)", "f(H)")


def _translation(subject: Subject, H: np.ndarray, shift: np.ndarray) -> None:
    _equal(subject, subject(H + shift), subject(H), "f(H + shift)", "f(H)")


def _cyclic_shift(subject: Subject, H: np.ndarray, steps: int) -> None:
    _equal(
        subject, subject(np.roll(H, steps, axis=0)), subject(H), "f(states renumbered m → m + steps)", "f(H)"
    )


def _reversal(subject: Subject, H: np.ndarray) -> None:
    _equal(subject, subject(H[::-1].copy()), subject(H), "f(states in reverse)", "f(H)")


def _zero_padding(subject: Subject, H: np.ndarray, zeros: int) -> None:
    wider = np.hstack([H, np.zeros((len(H), zeros))])
    _equal(subject, subject(wider), subject(H), "f(H with zero columns)", "f(H)")


def _range(subject: Subject, H: np.ndarray) -> None:
    value = subject(H)
    slack = subject.tolerance
    expect(-slack <= value <= 1 + slack, f"f(H) = {value:.10g} is outside [0, 1]")


def _tells_apart(subject: Subject, half: int, d: int) -> None:
    c = 2 * half + 1
    apart = np.eye(c, 1) * np.eye(1, d)
    values = [subject(apart), *(subject(make.wave(c, r, d)) for r in range(1, half + 1))]
    expect(
        max(values) - min(values) > subject.tolerance,
        f"f = {values[0]:.10g} for one state apart from {c - 1} equal ones, and for every wave over {c} states",
    )


def _constant(subject: Subject, H: np.ndarray) -> None:
    subject.must_refuse(H, why="all states have the same mean, so there are no shares")


def _parseval(subject: Subject, H: np.ndarray) -> None:
    values, centred = subject(H), H - H.mean(axis=0)
    expect(len(values) == len(H), f"f(H) has {len(values)} energies for {len(H)} states")
    want = float(np.sum(centred**2)) / len(H)
    same(float(values.sum()), want, subject.tolerance * want, "Σ_r f(H)_r", "(1/c) Σ_m ‖H[m] − H̄‖²")


def _conjugate(subject: Subject, H: np.ndarray) -> None:
    values = subject(H)
    _equal(subject, values[1:], values[1:][::-1], "E_r", "E_{c−r}")


def _pure_wave(subject: Subject, c: int, r: int, d: int) -> None:
    want = np.zeros(c)
    # A cosine of amplitude 1 has ¼ at r and ¼ at c−r; at r = c/2 the two meet and add in amplitude.
    want[r] = want[c - r] = 1.0 if 2 * r == c else 0.25
    _equal(subject, subject(make.wave(c, r, d)), want, "f(cos(2πrm/c))", "energy at ±r only")


def _identity(subject: Subject, H: np.ndarray, frequencies: tuple[int, ...]) -> None:
    centred = H - H.mean(axis=0)
    kept, dropped = subject(centred, frequencies)
    slack = subject.tolerance * float(np.abs(centred).max())
    same(kept + dropped, centred, slack, "kept + dropped", "H (centred)")


def _idempotent(subject: Subject, H: np.ndarray, frequencies: tuple[int, ...]) -> None:
    kept, dropped = subject(H, frequencies)
    slack = subject.tolerance * float(np.abs(H).max())
    if make.varies(kept):
        same(subject(kept, frequencies)[0], kept, slack, "keeping twice", "keeping once")
    if make.varies(dropped):
        same(subject(dropped, frequencies)[1], dropped, slack, "dropping twice", "dropping once")


def _separate(subject: Subject, H: np.ndarray, frequencies: tuple[int, ...]) -> None:
    centred = H - H.mean(axis=0)
    kept, dropped = (np.fft.fft(part, axis=0) for part in subject(centred, frequencies))
    slack = subject.tolerance * float(np.abs(centred).max()) * len(H)
    inside = list(frequencies)
    outside = [r for r in range(1, len(H)) if r not in frequencies]
    same(
        np.abs(dropped[inside]),
        np.zeros_like(dropped[inside], dtype=float),
        slack,
        "dropped part at S",
        "nothing",
    )
    same(
        np.abs(kept[outside]), np.zeros_like(kept[outside], dtype=float), slack, "kept part off S", "nothing"
    )


_MEANS = st.fixed_dictionaries({"H": make.class_means()})


@st.composite
def _rotated(draw: st.DrawFn) -> Case:
    H = draw(make.class_means())
    return {"H": H, "q": draw(make.orthogonal_matrices(H.shape[1]))}


@st.composite
def _shifted(draw: st.DrawFn) -> Case:
    H = draw(make.class_means())
    unit = draw(st.sampled_from([1.0, 10.0, 1000.0]))
    shift = draw(st.lists(st.integers(-9, 9), min_size=H.shape[1], max_size=H.shape[1]))
    return {"H": H, "shift": unit * np.array(shift)}


@st.composite
def _constants(draw: st.DrawFn) -> Case:
    row = draw(st.lists(st.integers(-9, 9), min_size=1, max_size=4))
    return {"H": np.tile(np.array(row, dtype=np.float64), (draw(st.integers(3, 13)), 1))}


@st.composite
def _waves(draw: st.DrawFn) -> Case:
    c = draw(st.integers(3, 40))
    return {"c": c, "r": draw(st.integers(1, c // 2)), "d": draw(st.integers(1, 3))}


@st.composite
def _splits(draw: st.DrawFn) -> Case:
    H = draw(make.class_means())
    return {"H": H, "frequencies": draw(closed_sets(len(H)))}


def _with(**more: st.SearchStrategy) -> st.SearchStrategy[Case]:
    return st.fixed_dictionaries({"H": make.class_means(), **more})


LAWS = (
    Law("range", "0 ≤ f(H) ≤ 1", (CONCENTRATION,), _MEANS, _range),
    Law(
        "scale",
        "f(a·H) = f(H); a²·f(H) for energies",
        _BOTH,
        _with(a=st.sampled_from([2.0, -1.0, 0.1, 1e6, 1e-6])),
        _scale,
    ),
    Law("orthogonal", "f(H·q) = f(H) for orthogonal q", _BOTH, _rotated(), _orthogonal),
    Law(
        "translation", "f(H + shift) = f(H): one vector added to every state", _BOTH, _shifted(), _translation
    ),
    Law(
        "cyclic shift",
        "where the numbering of the states starts does not matter",
        _BOTH,
        _with(steps=st.integers(1, 12)),
        _cyclic_shift,
    ),
    Law("reversal", "which way the states are numbered does not matter", _BOTH, _MEANS, _reversal),
    Law(
        "zero padding", "columns of zeros do not matter", _BOTH, _with(zeros=st.integers(1, 6)), _zero_padding
    ),
    Law(
        "not constant",
        "waves of all frequencies and one state apart from equal ones do not all have one value",
        (CONCENTRATION,),
        st.fixed_dictionaries({"half": st.integers(2, 32), "d": st.integers(1, 8)}),
        _tells_apart,
    ),
    Law(
        "constant states",
        "class means that are all equal are refused",
        (CONCENTRATION,),
        _constants(),
        _constant,
    ),
    Law("Parseval", "Σ_r E_r = (1/c) Σ_m ‖H[m] − H̄‖²", (BANDS,), _MEANS, _parseval),
    Law("conjugate pairs", "E_r = E_{c−r}", (BANDS,), _MEANS, _conjugate),
    Law("pure wave", "cos(2πrm/c) has ¼ at r and at c−r, or 1 at r = c/2", (BANDS,), _waves(), _pure_wave),
    Law("keep + drop", "kept + dropped = H for centred H", (SPLIT,), _splits(), _identity),
    Law(
        "idempotence",
        "keeping (dropping) S twice is keeping (dropping) it once",
        (SPLIT,),
        _splits(),
        _idempotent,
    ),
    Law(
        "separation",
        "the kept part has no energy off S, the dropped part none at S",
        (SPLIT,),
        _splits(),
        _separate,
    ),
)
