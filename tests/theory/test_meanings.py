"""What a reader without the paper is told: of every claim and family, in plain words."""

import re

import pytest

from theory.claims import CLAIMS
from theory.families import FAMILIES

FORMULA = re.compile(r"[=<>≤≥≠≃≈^√Σ∑∏∈→⇒∞×·±∂_{}\[\]|$\\]|[α-ωΑ-Ω²³⁺⁻¹]|\b[A-Za-z]\(")
IDIOM = re.compile(
    r"\bT\d|mutant|plug-in|debias|circulant|replicator|Ky Fan|Schur|spike|anisotrop|eigenbasis|LMS|null\b|moments?\b|"
    r"overshoot|Marchenko|Newton|Nyquist|kernel|unitary|commut|Dirichlet|Beta\b|sharp\b|vacuous|oracle",
    re.IGNORECASE,
)
SHORTEST, LONGEST = 40, 300
PLAIN = [(c.id, c.meaning) for c in CLAIMS] + [(name, f.sentence) for name, f in FAMILIES.items()]


def not_plain(text: str) -> list[str]:
    """Return what is wrong with a meaning."""
    # A name that every page explains.
    words = text.replace("H_S", "concentration")
    found = [m[0] for rule in (FORMULA, IDIOM) for m in rule.finditer(words)]
    if not SHORTEST <= len(text) <= LONGEST:
        found.append(f"{len(text)} characters")
    if not re.fullmatch(r"[A-Z].*[a-zS]\.", text):
        found.append("no sentence")
    if len(re.findall(r"[.!?](?:\s|$)", words)) > 2:
        found.append("more than two sentences")
    return found


@pytest.mark.parametrize(("name", "text"), PLAIN, ids=[name for name, _ in PLAIN])
def test_meanings_are_plain(name: str, text: str):
    assert not not_plain(text), text


@pytest.mark.parametrize(
    "text",
    [
        "Short.",
        "Eigenvalues decay as λ, which is what a reader of spectra would expect to see.",
        "The bound H_S ≤ 1 holds for everything that a reader of spectra would look at.",
        "This follows from T2 and holds for everything that a reader of spectra would look at.",
        "The mutant is rejected, which is what a reader of spectra would expect to see.",
        "one sentence without a capital at its start and with no full stop at its end",
        "A sentence stands here. Another sentence stands here. And a third one stands here.",
    ],
)
def test_what_is_not_plain_is_found(text: str):
    assert not_plain(text)


def test_no_two_meanings_are_equal():
    assert len({text for _, text in PLAIN}) == len(PLAIN)


def test_families_are_those_of_the_claims():
    assert list(FAMILIES) == list(dict.fromkeys(c.family for c in CLAIMS))
