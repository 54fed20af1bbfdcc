"""Read rows of format 1, whose `detail` held what band, regime, seen, set, window and detail hold now.

Examples of such details: "10-40" (ranks of an exponent), "31:20 clean unseen task" (band, regime, seen, set of
frequencies), "31:20 clean unseen pc1", "digits task" (token family, set), "10" (of top_share).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import pyarrow as pa

_BAND = re.compile(r"(\d+:\d+) (clean|matched) (seen|unseen)(?: (.*))?")
_OVER_SETS = ("h_s", "h_s_debiased")


def has_rows(table: pa.Table) -> bool:
    """Return whether a table holds rows of format 1."""
    return "detail" in table.column_names and "window" not in table.column_names


def with_columns(table: pa.Table) -> pa.Table:
    """Replace the `detail` of rows by the columns of format 2."""
    pairs = zip(table["quantity"].to_pylist(), table["detail"].to_pylist(), strict=True)
    parts = [split(quantity, detail or "") for quantity, detail in pairs]
    columns = {name: table[name] for name in table.column_names if name != "detail"}
    for name in ("band", "regime", "set", "window", "detail"):
        columns[name] = pa.array([part[name] for part in parts], pa.string())
    columns["seen"] = pa.array([part["seen"] for part in parts], pa.bool_())
    return pa.table(columns)


@lru_cache(maxsize=4096)
def split(quantity: str, detail: str) -> dict[str, Any]:
    """Return the columns of format 2 that a quantity's detail of format 1 stands for."""
    found: dict[str, Any] = {"band": "", "regime": "", "seen": None, "set": "", "window": ""}
    if quantity == "alpha":
        return {**found, "window": detail, "detail": ""}
    if match := _BAND.fullmatch(detail):
        band, regime, seen, detail = match.groups("")
        found |= {"band": band, "regime": regime, "seen": seen == "seen"}
    if quantity in _OVER_SETS:
        # The set comes last, after the name of a token family if there is one.
        detail, _, found["set"] = detail.rpartition(" ")
    return {**found, "detail": detail}
