"""Published claims beside runs, with their verdicts: what studies of claims have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from rich.console import Console

from sims.analysis.verdicts import Verdict
from sims.pages.page import Statement, Tone
from sims.pages.table import Table
from sims.pages.terminal import rich_table

SHOWN, NOT_SHOWN, OPEN = VERDICTS = ("shown", "not shown", "not resolved")
TONES: Mapping[str, Tone] = {SHOWN: "good", NOT_SHOWN: "bad", OPEN: "open"}


@dataclass(frozen=True)
class Claim:
    """One published claim beside some of the runs.

    Attributes:
        claim: in plain words.
        runs: which of them, or which are compared.
        published: the published figure.
        here: the same of these runs, with its 95 % interval.
        against: the same where nothing is to be found.
        outcome: "shown", "not shown" or "not resolved".
        reason: the numbers that decided.
    """

    claim: str
    runs: str
    published: str
    here: str
    against: str
    outcome: str
    reason: str

    @classmethod
    def judged(
        cls, claim: str, runs: str, published: str, here: str, against: str, verdict: Verdict
    ) -> Claim:
        """Return a claim with the outcome and the reason of a verdict."""
        return cls(claim, runs, published, here, against, verdict.outcome, verdict.reason)


def claim_table(found: Sequence[Claim]) -> pd.DataFrame:
    """Return claims as a table, one row a claim and set of runs."""
    return pd.DataFrame([claim.__dict__ for claim in found], columns=list(Claim.__dataclass_fields__))


def statements(found: Sequence[Claim], named: int | None = None) -> Iterator[Statement]:
    """Yield one sentence for each claim that is decided, with the runs of each outcome, then one for each open one.

    Args:
        found: the claims.
        named: runs of one outcome that a sentence names, with the number of all of them; None names all.
    """
    for decided in (True, False):
        for name in dict.fromkeys(claim.claim for claim in found):
            parts = []
            for outcome in VERDICTS:
                own = [c for c in found if (c.claim, c.outcome) == (name, outcome)]
                if own and decided == (outcome != OPEN):
                    told = [f"{c.runs} ({c.reason if outcome == OPEN else c.here})" for c in own[:named]]
                    number = "" if named is None else f" in {len(own)}"
                    more = f"; and {len(own) - len(told)} more" if len(own) > len(told) else ""
                    parts.append(f"{outcome.capitalize()}{number}: {'; '.join(told)}{more}.")
            if parts:
                yield Statement(f"{name}. {' '.join(parts)}", decided)


def print_claims(title: str, found: Sequence[Claim], console: Console) -> None:
    """Print every claim with its verdict as a table."""
    rows = tuple((c.claim, c.runs, c.here, c.outcome) for c in found)
    table = Table(("claim", "runs", "here [95 %]", "verdict"), rows, text=(0, 1, 2, 3))
    console.print(rich_table(title, table, TONES))
