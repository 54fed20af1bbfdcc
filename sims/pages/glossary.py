"""The words of the pages, each in one line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

# So many words stand on the first screen.
MOST = 6


class Term(NamedTuple):
    """A word and what it means.

    Attributes:
        name: as it is shown.
        meaning: one line, without full stop.
        pattern: regular expression of the word in a text.
    """

    name: str
    meaning: str
    pattern: str


# In the order in which they are shown.
TERMS = (
    Term(
        "W, E, C",
        "phases of RankMe over training: a fall before any rise (warm-up), a rise (entropy-seeking), a fall after it "
        "(compression-seeking)",
        r"W, E and C|\bW is a fall",
    ),
    Term(
        "α-ReQ",
        "how steeply the spectrum of the states falls with rank; it moves against RankMe where both see the same",
        "α-ReQ",
    ),
    Term(
        "mean state",
        "mean of the states over sequences; its share is ‖h̄‖²/E‖h‖², and centring takes it away",
        "mean state",
    ),
    Term(
        "control",
        "a run that memorises its training examples and never generalises, whatever it lacks for that",
        "types of control",
    ),
    Term(
        "area under the curve",
        "chance that a signal ranks a run that groks above a control: 0.5 is a coin, 1 never errs",
        "area under the curve",
    ),
    Term(
        "commutator defect",
        "how far the gradient steps of two training batches are from giving the same result in either order",
        "[Cc]ommutator defect",
    ),
    Term(
        "edge: gap",
        "largest ratio of neighbouring singular values of the last 10 updates; PC 1 is the share of the first one",
        "[Ee]dge: gap",
    ),
    Term(
        "published alarm",
        "the first look at which the defect is 10 times as large as at the start, and above 20",
        "published alarm",
    ),
    Term(
        "window of updates",
        "the last W changes of the weights, each from one snapshot to the next, as the rows of a matrix",
        "[Ww]indows of (?:updates|the last W)",
    ),
    Term(
        "gap, k*",
        "the largest ratio σ_j/σ_{j+1} of neighbouring singular values of a window, and the j at which it is",
        r"k\*",
    ),
    Term(
        "momentum noise",
        "updates of random gradients, which momentum alone makes alike: their windows have a gap too",
        "momentum noise",
    ),
    Term(
        "lag",
        "snapshots by which one series is moved against another; positive where the first one is earlier",
        "lags?",
    ),
    Term(
        "sketch",
        "d random combinations of the numbers of an update, which are kept in its place",
        "sketch(?:es)?",
    ),
    Term(
        "band",
        "tokens on which the task counts in a circle; band 31:20 is 31 tokens (modulus 31) from token 20 on",
        r"bands?",
    ),
    Term(
        "H_S",
        "share of the variance between the mean states of a band’s tokens on low frequencies, ±1…±7 (0 to 1)",
        "H_S",
    ),
    Term(
        "H_peak",
        "share of that variance on the strongest frequency (0 to 0.5 for odd moduli, since +r and −r have half each)",
        "H_peak",
    ),
    Term(
        "null",
        "what the measurement gives where there is nothing to find, such as shuffled states; figures show its level",
        "null",
    ),
    Term("RankMe", "how many directions the states fill: exp of the entropy of their spectrum", "RankMe"),
    Term(
        "α",
        "how steeply a spectrum falls with rank: share ≈ rank to the power −α, over a window of ranks",
        "α",
    ),
    Term(
        "noise",
        "Gaussian matrices of the same shape: what an untrained matrix shows, beside each number",
        "noise",
    ),
    Term(
        "JS", "Jensen–Shannon divergence, the distance of two spectra in nats; 0 where they are equal", "JS"
    ),
    Term(
        "stable rank",
        "sum of all energies over the largest one: about how many directions carry weight",
        "stable rank",
    ),
    Term(
        "participation ratio",
        "(sum of energies)² over the sum of their squares: a count of directions that favours the large ones",
        "participation ratio",
    ),
    Term(
        "Hill, FARMS",
        "exponents of the tail of the density of energies; small means heavy-tailed",
        "Hill|FARMS",
    ),
    Term(
        "claim",
        "one statement of the theory, with the cases in which it must hold and a tolerance",
        "claims?",
    ),
    Term("mutant", "a claim made wrong on purpose; the same check must reject it", "mutants?"),
    Term(
        "seed", "one repetition of a training from other random numbers; intervals are over seeds", "seeds?"
    ),
    Term("stage", "one version of the model; each adds one change to the stage before", "stages?"),
    Term("nat", "unit of the loss: −ln of the probability given to the right token", "nats?"),
)


def terms(texts: Sequence[str]) -> list[Term]:
    """Return the first words of the glossary that the texts of a page use, at most six."""
    everything = "\n".join(texts)
    found = [t for t in TERMS if re.search(rf"(?<![\w-])(?:{t.pattern})(?![\w-])", everything)]
    return found[:MOST]
