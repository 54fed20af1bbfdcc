"""Tables of a speed-run in the terminal."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from sims.pages.answer import Answer
from sims.pages.plain import cell, show_table
from sims.studies.speedruns.folder import TrainingLogs
from sims.studies.speedruns.tables import Spread, run_spread


def show_records(
    logs: TrainingLogs,
    records: pd.DataFrame,
    gains: pd.DataFrame,
    target: float,
    answer: Answer | None = None,
) -> None:
    """Print the records, their transitions, and what the intervals rest on.

    Args:
        logs: the folder.
        records, gains: of `record_table` and `record_gains`.
        target: validation loss (nats) of these tables.
        answer: gets target, the tables records and transitions, spread and notes, in place of the terminal.
    """
    spread = run_spread(logs)
    if answer is not None:
        tables = {"records": records, "transitions": gains}
        answer |= {"target": target, **tables, "spread": vars(spread), "notes": logs.notes}
        return
    show_table(*_records(records, target), left=4)
    print()
    show_table(*_transitions(gains), left=1)
    _explain(logs, spread)


def _records(table: pd.DataFrame, target: float) -> tuple[list[str], list[list[str]]]:
    columns = [
        *(
            "record",
            "log",
            "date",
            "change",
            "M tokens",
            "final loss",
            f"M tokens to {target:g}",
            "± at most",
        ),
        *(f"s to {target:g}", "ms per step", "k tokens/s", "status", "note"),
    ]
    rows = [
        [
            *(str(r["record"]), r["file"], r["date"], r["change"]),
            *(_scaled(r["tokens"], 1e-6), _scaled(r["val_loss"], 1, 4), _scaled(r["tokens_to_target"], 1e-6)),
            *(
                _scaled(r["bracket"], 1e-6),
                _scaled(r["seconds_to_target"], 1),
                _scaled(r["step_avg_ms"], 1, 2),
            ),
            *(_scaled(r["tokens_per_second"], 1e-3, 0), r["status"], r["reason"]),
        ]
        for r in table.to_dict("records")
    ]
    return columns, rows


def _transitions(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    columns = [
        *("transition", "token gain", "95 %", "over quantiles", "throughput gain", "95 %"),
        *("outcome", "outcome of the intervals", "note"),
    ]
    rows = [
        [
            f"{r['before']}→{r['after']}",
            *_gain(r, "token_gain"),
            _scaled(r["proximal"], 1, 3),
            *_gain(r, "throughput_gain"),
            *(r["outcome"], r["settled"], r["reason"]),
        ]
        for r in table.to_dict("records")
    ]
    return columns, rows


def _gain(row: dict[Any, Any], name: str) -> tuple[str, str]:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return _scaled(row[name], 1, 3), "" if math.isnan(low) else f"[{low:.3f}, {high:.3f}]"


def _scaled(value: float, scale: float, digits: int = 1) -> str:
    return cell(None) if math.isnan(value) else f"{value * scale:.{digits}f}"


def _explain(logs: TrainingLogs, spread: Spread) -> None:
    """Print what the intervals rest on, and the notes of the folder's README."""
    print()
    if spread.freedom:
        shown = ", ".join(map(str, spread.records))
        print(
            f"Every record is one run. Its intervals are from the runs of records {shown} ({spread.freedom} degrees of "
            f"freedom), which differ by {100 * spread.tokens:.2f} % in tokens to a loss and "
            f"{100 * spread.throughput:.2f} % in throughput; another machine is not in it."
        )
    else:
        print(
            "Every record is one run, and no record has a second one of the same speed: there are no intervals."
        )
    if logs.notes:
        print(f"\nWhat the folder's README says:\n{logs.notes}")
