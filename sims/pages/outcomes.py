"""The table of outcomes: final losses and tokens of every cell."""

from __future__ import annotations

import pandas as pd

from sims.pages.number import interval, missing, number, significant
from sims.pages.table import Table


def outcomes_table(outcomes: pd.DataFrame) -> Table:
    """Write final losses, how far they are above the exact floor where it is known, and tokens to the common loss.

    Args:
        outcomes: of `sims.analysis.stages.outcome_table`.
    """
    common = outcomes["common_loss"].iloc[0]
    goal = "a common loss" if missing(common) else f"{common:.3f}"
    floor = outcomes["above_floor"].notna().any()
    # Short runs, and watched models that count their steps, would have 0.000 million.
    few = outcomes["million_tokens"].max() < 0.1
    unit, scale, digits = ("", 1e6, 0) if few else ("M ", 1.0, 3)
    columns = (
        *("stage", "B", "lr", "seeds", "final loss (nats)"),
        *(("above the floor",) if floor else ()),
        *(f"{unit}tokens seen", f"{unit}tokens to {goal}", "diverged"),
    )
    goals = [outcomes[name] * scale for name in ("to_common", "to_common_low", "to_common_high")]
    rows = tuple(
        (
            r["stage"],
            str(r["batch_size"]),
            significant(r["lr"]),
            str(r["seeds"]),
            interval(r["loss"], r["loss_low"], r["loss_high"]),
            *((interval(r["above_floor"], r["above_floor_low"], r["above_floor_high"]),) if floor else ()),
            number(r["million_tokens"] * scale, digits),
            interval(to, low, high, digits),
            str(r["diverged"]),
        )
        for r, to, low, high in zip(outcomes.to_dict("records"), *goals, strict=True)
    )
    return Table(columns, rows)


def floor_note(floor: float | None, missing: str = "") -> str:
    """Say what the dashed line of a figure of losses is; why there is none, if that is to be said."""
    if floor is None:
        return missing and f" The floor of the loss is not computed: {missing}."
    return (
        f" Dashed: the floor, {floor:.3f} nats: the exact mean entropy of the next token given the tokens before it, "
        "on the validation sequences of the loss. On sequences that it has not seen no model does better on average."
    )
