"""The claims of the theory, asked of trained models. One file a family; each makes outcomes from the evidence."""

from __future__ import annotations

from collections.abc import Callable

from sims.against.batch_tail import batch_tail
from sims.against.evidence import Evidence, gather
from sims.against.head_bound import head_bound
from sims.against.hitting import hitting
from sims.against.noise import noise
from sims.against.null_start import null_start
from sims.against.outcome import FAILS, HOLDS, NOT_TESTABLE, Outcome
from sims.against.overshoot import overshoot
from sims.against.page import print_outcomes, write_page
from sims.against.position import position
from sims.against.tails import tails
from sims.against.tying import direct_path, initial_loss

FAMILIES: tuple[Callable[[Evidence], tuple[Outcome, ...]], ...] = (
    head_bound,
    null_start,
    overshoot,
    tails,
    batch_tail,
    hitting,
    initial_loss,
    direct_path,
    position,
    noise,
)


def answer(evidence: Evidence) -> list[Outcome]:
    """Every question, in the order of the claims."""
    return [outcome for family in FAMILIES for outcome in family(evidence)]


__all__ = [
    "FAILS",
    "FAMILIES",
    "HOLDS",
    "NOT_TESTABLE",
    "Evidence",
    "Outcome",
    "answer",
    "gather",
    "print_outcomes",
    "write_page",
]
