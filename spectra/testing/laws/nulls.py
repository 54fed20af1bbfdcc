"""Define the laws of null models at γ = d/n and unit variance: bulk edges and spikes.

Sources: Marchenko & Pastur 1967; Baik, Ben Arous & Péché 2005; Baik & Silverstein 2006.
"""

from __future__ import annotations

import math

from hypothesis import strategies as st

from spectra.testing.kinds import EDGES, SPIKE
from spectra.testing.law import Case, Law, Subject, expect, same


def _mp_edges(subject: Subject, gamma: float) -> None:
    low, high = subject(gamma)
    slack = subject.tolerance * (1 + gamma)
    # Moments fix the edges: their midpoint is mean + γ = 1 + γ and their width 4√γ.
    same((low + high) / 2, 1 + gamma, slack, "midpoint of the edges", "1 + γ")
    same(high - low, 4 * math.sqrt(gamma), slack, "upper − lower", "4√γ")


def _duality(subject: Subject, gamma: float) -> None:
    slack = subject.tolerance * (1 + gamma) ** 2
    names = ("lower", "upper")
    for name, here, there in zip(names, subject(gamma), subject(1 / gamma), strict=True):
        same(here, gamma * there, slack, f"{name} edge at γ", "γ · edge at 1/γ")


def _position(subject: Subject, ell: float, gamma: float) -> None:
    got, want = subject(ell, gamma), ell * (1 + gamma / (ell - 1))
    same(got, want, subject.tolerance * want, "f(ℓ, γ)", "ℓ(1 + γ/(ℓ−1))")


def _detached(subject: Subject, gamma: float, above: float) -> None:
    edge = (1 + math.sqrt(gamma)) ** 2
    near, far = (subject(1 + math.sqrt(gamma) + gap, gamma) for gap in (above, 2 * above))
    slack = subject.tolerance * edge
    expect(
        near >= edge - slack,
        f"a spike above the transition sits at {near:.8g}, inside the bulk edge {edge:.8g}",
    )
    expect(far > near, f"a stronger spike sits at {far:.8g}, not beyond {near:.8g}")


@st.composite
def _spikes(draw: st.DrawFn) -> Case:
    gamma = draw(_GAMMA)
    return {"ell": 1 + math.sqrt(gamma) + draw(st.integers(1, 400)) / 8, "gamma": gamma}


_GAMMA = st.integers(1, 512).map(lambda k: k / 64) | st.integers(65, 512).map(lambda k: 64 / k)

LAWS = (
    Law(
        "Marchenko–Pastur edge",
        "the edges are (1 ± √γ)²",
        (EDGES,),
        st.fixed_dictionaries({"gamma": _GAMMA}),
        _mp_edges,
    ),
    Law(
        "Gram duality",
        "edge(γ) = γ · edge(1/γ)",
        (EDGES,),
        st.fixed_dictionaries({"gamma": _GAMMA}),
        _duality,
    ),
    Law("BBP position", "a spike ℓ > 1 + √γ appears at ℓ(1 + γ/(ℓ−1))", (SPIKE,), _spikes(), _position),
    Law(
        "detached",
        "a spike above the transition lies beyond the bulk edge, further the stronger it is",
        (SPIKE,),
        st.fixed_dictionaries({"gamma": _GAMMA, "above": st.integers(1, 80).map(lambda k: k / 8)}),
        _detached,
    ),
)
