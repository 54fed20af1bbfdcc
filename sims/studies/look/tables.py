"""What a look shows as tables: one row a matrix, its place in the model, and where each number lies among noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from sims.analysis.summaries import label
from sims.measure.noise_levels import DRAWS
from sims.models.names import short
from sims.pages.number import ABSENT, compact, interval, missing
from sims.pages.table import Table
from sims.studies.look.weights import WEIGHT

# Quantities of the table by matrix, with their windows, and their headings.
SHOWN: Mapping[str, str] = {
    "rankme": "RankMe",
    "participation_ratio": "participation ratio",
    "stable_rank": "stable rank",
    "alpha 1-10": "α 1–10",
    "alpha 10-40": "α 10–40",
    "hill": "Hill α",
    "farms": "FARMS α",
}
TAILS = ("hill", "farms")
# The kind of what leaves a block.
STREAM = "stream"
# The kind of a matrix that has a number in place of a name.
NUMBERED = "matrix"
# The same where a line has 100 columns.
SHORT: Mapping[str, str] = {**SHOWN, "participation_ratio": "particip.", "stable_rank": "stable r."}
# Where a number lies among those of noise.
BELOW, INSIDE, ABOVE, UNKNOWN = "below", "inside", "above", ""
# Behind a number: flagged; outside the range of noise.
FLAGGED, OUTSIDE = "!", "*"
KEY = (
    f"value/noise of the same shape; ± the longer side of the 95 % interval; {OUTSIDE} outside the range of {DRAWS} "
    f"draws of noise; {FLAGGED} flagged fit: no tail exponent"
)
# Kinds of matrices in the order of a block; others come after them, in the order of the file.
KINDS = (
    "embed",
    "positions",
    *(f"attn.{part}" for part in ("qkv", "q", "k", "v", "o")),
    *(f"mlp.{part}" for part in ("gate", "fc", "proj")),
)
# Blocks that a terminal shows unless all are asked for.
MOST = 96


def place(site: str, unnamed: str = STREAM) -> tuple[int | None, str]:
    """Return the block of a matrix, None outside blocks, and its kind: its name without numbers.

    >>> place("blocks.3.mlp.experts.7.gate"), place("embed"), place("layer1.0.conv")
    ((3, 'mlp.experts.gate'), (None, 'embed'), (0, 'layer1.conv'))
    """
    parts = site.removeprefix("blocks.").split(".")
    numbers = [int(part) for part in parts if part.isdigit()]
    kind = ".".join(part for part in parts if not part.isdigit())
    return (numbers[0] if numbers else None), kind or unnamed


def weight_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of weight matrices in the order of the model, with their places and what they say.

    Returns:
        Columns of the rows and layer (missing outside blocks), kind, name (quantity and window), position ("below",
        "inside", "above" noise, "" where it cannot be told).
    """
    own = rows[rows["object"] == WEIGHT].copy()
    places = [place(site, NUMBERED) for site in own["site"]]
    own["layer"] = pd.array([layer for layer, _ in places], "Int64")
    own["kind"] = [kind for _, kind in places]
    own["name"] = (own["quantity"] + " " + own["window"]).str.strip()
    own["position"] = [position(row) for row in own.to_dict("records")]
    # Files may hold their tensors in the order of names; those of a block have one that is known.
    kinds = sorted(
        dict.fromkeys(own["kind"]), key=lambda kind: KINDS.index(kind) if kind in KINDS else len(KINDS)
    )
    first = {kind: i for i, kind in enumerate(kinds)}
    order = [_order(*item, first) for item in places]
    return own.iloc[sorted(range(len(own)), key=lambda i: (order[i], i))].reset_index(drop=True)


def position(row: Mapping[Any, Any]) -> str:
    """Return where a number lies among those of noise."""
    value, low, high = row["value"], row["null_low"], row["null_high"]
    if any(missing(v) for v in (value, low, high)):
        return UNKNOWN
    return BELOW if value < low else ABOVE if value > high else INSIDE


def by_matrix(rows: pd.DataFrame, spectra: pd.DataFrame) -> pd.DataFrame:
    """Return one row a matrix: its shape, and each quantity with its level of noise, tails with interval and status.

    Args:
        rows, spectra: of a `Look`.

    Returns:
        Columns matrix, rows, columns (missing where there is no spectrum), then of each quantity NAME, "NAME null", of
        tails "NAME low", "NAME high", "NAME status", and reason, why a matrix could not be measured.
    """
    weights = spectra[spectra["object"] == WEIGHT]
    shapes = dict(zip(weights["site"], weights[["n", "d"]].itertuples(index=False), strict=True))
    found = []
    for site, by_name in _by_name(rows).items():
        n, d = shapes.get(site, (pd.NA, pd.NA))
        line: dict[str, Any] = {"matrix": site, "rows": n, "columns": d}
        for name in SHOWN:
            here = by_name.get(name, {})
            line |= {name: here.get("value", math.nan), f"{name} null": here.get("null", math.nan)}
            if name in TAILS:
                line |= {f"{name} {part}": here.get(part, math.nan) for part in ("low", "high")}
                line[f"{name} status"] = here.get("status", "")
        line["reason"] = "" if site in shapes else by_name["rankme"]["reason"]
        found.append(line)
    return pd.DataFrame(found).astype({"rows": "Int64", "columns": "Int64"})


def narrow(rows: pd.DataFrame) -> Table:
    """Return the table by matrix for a terminal of 100 columns; its marks are explained by `KEY`."""
    lines = [
        (short(site), *(_cell(by_name.get(name)) for name in SHOWN))
        for site, by_name in _by_name(rows).items()
    ]
    return Table(("matrix", *SHORT.values()), tuple(lines))


def every_row(rows: pd.DataFrame) -> Table:
    """Return all numbers, one a row, of weights, activations and gradients."""
    lines = [
        (
            row["object"],
            row["site"],
            label(f"{row['quantity']} {row['window']}".strip()) or row["quantity"],
            row["detail"],
            interval(row["value"], row["low"], row["high"], write=compact),
            _noise(row),
            row["status"],
            row["reason"],
        )
        for row in rows.to_dict("records")
    ]
    return Table(
        ("of", "site", "quantity", "detail", "value", "noise", "status", "reason"),
        tuple(lines),
        text=(0, 1, 2, 3, 6, 7),
    )


def few_blocks(rows: pd.DataFrame, most: int = MOST) -> tuple[pd.DataFrame, list[int]]:
    """Return the rows of evenly spaced blocks, first and last among them, and these blocks; all if they are few.

    Args:
        rows: of a `Look`.
        most: lines of the table by matrix, about.
    """
    own = weight_rows(rows)
    blocks = sorted(own["layer"].dropna().unique())
    a_block = max(own[own["layer"].notna()].groupby("layer")["site"].nunique(), default=1)
    count = max(most // a_block, 2)
    if len(blocks) <= count:
        return own, blocks
    kept = sorted({blocks[round(k * (len(blocks) - 1) / (count - 1))] for k in range(count)})
    return own[own["layer"].isna() | own["layer"].isin(kept)], kept


def _by_name(rows: pd.DataFrame) -> dict[str, dict[str, Mapping[Any, Any]]]:
    """Return matrix → quantity with window → row, in the order of the model."""
    found: dict[str, dict[str, Mapping[Any, Any]]] = {}
    for row in weight_rows(rows).to_dict("records"):
        found.setdefault(row["site"], {})[row["name"]] = row
    return found


def _cell(row: Mapping[Any, Any] | None) -> str:
    """Write a number and its level of noise, marked where it lies outside the range of noise or its fit is flagged."""
    if row is None or row["status"] == "not fitted":
        return ABSENT
    marks = (OUTSIDE if row["position"] in (BELOW, ABOVE) else "") + (
        FLAGGED if row["status"] == "flagged" else ""
    )
    value, null = (_narrow(row[name], row["name"]) for name in ("value", "null"))
    if missing(row["low"]):
        return f"{value}/{null}{marks}"
    side = max(row["high"] - row["value"], row["value"] - row["low"])
    return f"{value}±{_narrow(side, row['name'])}/{null}{marks}"


def _narrow(value: float, name: str) -> str:
    """Write an exponent with two decimals (one from 10 on), a count of directions in compact form."""
    counts = not name.startswith("alpha") and name not in TAILS
    return (
        compact(value) if counts or missing(value) else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
    )


def _noise(row: Mapping[Any, Any]) -> str:
    return interval(row["null"], row.get("null_low", math.nan), row["null_high"], write=compact)


def _order(layer: int | None, kind: str, first: Mapping[str, int]) -> tuple[int, int, int]:
    """Order what comes before the blocks, the blocks, and the head."""
    if layer is None:
        return (2 if kind == "head" else 0, 0, first[kind])
    return 1, layer, first[kind]
