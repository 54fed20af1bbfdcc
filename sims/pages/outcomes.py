"""The table of outcomes: final losses and tokens of every cell."""

from __future__ import annotations

import pandas as pd

from sims.pages.number import interval, number, significant
from sims.pages.table import Table


def outcomes_table(outcomes: pd.DataFrame) -> Table:
    """Write final losses and tokens to the common loss.

    Args:
        outcomes: of `sims.analysis.stages.outcome_table`.
    """
    common = outcomes["common_loss"].iloc[0]
    columns = (
        *("stage", "B", "lr", "seeds", "final loss (nats)", "M tokens seen"),
        *(f"M tokens to {common:.3f}", "diverged"),
    )
    rows = tuple(
        (
            r["stage"],
            str(r["batch_size"]),
            significant(r["lr"]),
            str(r["seeds"]),
            interval(r["loss"], r["loss_low"], r["loss_high"]),
            number(r["million_tokens"]),
            interval(r["to_common"], r["to_common_low"], r["to_common_high"]),
            str(r["diverged"]),
        )
        for r in outcomes.to_dict("records")
    )
    return Table(columns, rows)
