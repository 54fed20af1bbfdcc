"""The section about conclusions that move with the choices of the measurement."""

from __future__ import annotations

import pandas as pd
from rich.console import Console

from sims.pages.number import ABSENT
from sims.pages.page import Finding, Section
from sims.pages.table import Table
from sims.studies.robustness.measured import RobustnessPlan, robustness_report
from sims.studies.robustness.study import STUDY
from sims.studies.robustness.tables import CANNOT_TELL, MOVES
from sims.studies.stored import CHECKPOINTS, Stored, smallest_batch
from sims.studies.study import OPEN


@STUDY.figure("robustness", "Which conclusions move", order=150, rank=4, runs="A", refused=CHECKPOINTS)
def robustness(data: Stored) -> Section:
    """Show which conclusions move with the choices of the measurement."""
    report = robustness_report(data.folder, RobustnessPlan(), Console())
    judged, counts = report.tables["verdicts"], report.tables["tally"]
    decided = judged.loc[judged["reference_sign"] != 0, "conclusion"].nunique()
    return Section(
        text=f"{smallest_batch(data)} Measured again under one change at a time: fewer sequences (n/d), other rank "
        "windows, other poolings, validation sequences that do or do not occur in training. A conclusion stays or "
        "moves if its sign is decided over seeds on both sides; the reference decides "
        f"{decided} of {judged['conclusion'].nunique()}.",
        figure=report.figures["robustness"],
        caption="The effect in each cell, bold where its sign is decided; a difference of stages, or a rank "
        "correlation of a summary with the final loss over stages.",
        table=_moves(counts),
        tables={"robustness-verdicts": judged, "robustness-tally": counts},
        findings=(moves_finding(judged),),
    )


def _moves(counts: pd.DataFrame) -> Table:
    rows = tuple(
        (
            r["group"],
            r["variation"],
            str(r["stays"]),
            str(r["moves"]),
            str(r[CANNOT_TELL]),
            r["moved"] or ABSENT,
        )
        for r in counts.to_dict("records")
    )
    return Table(("what is varied", "to", "stays", "moves", CANNOT_TELL, "which move"), rows, text=(0, 1, 5))


def moves_finding(judged: pd.DataFrame) -> Finding:
    """Return how many conclusions change their sign with the measurement, and which."""
    known = judged[judged["reference_sign"] != 0]
    moved = known[known["verdict"] == MOVES]
    names = "; ".join(
        f"{r['conclusion']} with {r['variation']} ({r['reference']:+.2g} becomes {r['effect']:+.2g})"
        for r in moved.to_dict("records")
    )
    lost = int((known["verdict"] == CANNOT_TELL).sum())
    change = "changes" if len(moved) == 1 else "change"
    return Finding(
        f"Of {len(known)} verdicts on conclusions that the reference measurement decides, {len(moved)} {change} sign "
        f"with a choice of the measurement{f': {names}' if names else ''}; {lost} can no longer be told.",
        OPEN,
    )
