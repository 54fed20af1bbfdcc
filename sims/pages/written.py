"""Tables of an analysis as CSV files and as Markdown, with the command and versions that made them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from sims.pages.style import to_png, to_svg
from sims.system.files import make_folder, write_atomic
from sims.system.provenance import provenance

NOT_GIVEN = "–"


def write_tables(
    folder: Path,
    title: str,
    tables: Mapping[str, pd.DataFrame],
    figures: Mapping[str, Figure],
    shown: Mapping[str, pd.DataFrame],
    seconds: float,
) -> Path:
    """Write every table as CSV, every figure as SVG and PNG, and a Markdown page of the shown tables.

    Args:
        folder: made if it does not exist.
        shown: heading → table, in the order of the page.
        seconds: of processor time that the analysis took.

    Returns:
        The page, `folder`/tables.md.
    """
    make_folder(folder)
    for name, table in tables.items():
        text = table.to_csv(index=False)
        write_atomic(folder / f"{name}.csv", lambda file, text=text: file.write(text.encode()))
    for name, figure in figures.items():
        svg = to_svg(figure)
        write_atomic(folder / f"{name}.svg", lambda file, svg=svg: file.write(svg.encode()))
        to_png(figure, folder / f"{name}.png", dpi=110)
    origin = provenance("cpu")
    versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    commit = (origin["git"] or {}).get("commit", "no checkout")
    lines = [f"# {title}", "", f"    {origin['command']}", "", f"{versions}; commit {commit[:12]}; "]
    lines[-1] += f"{seconds:.0f} s of processor time."
    for heading, table in shown.items():
        lines += ["", f"## {heading}", "", *pipes(table)]
    page = folder / "tables.md"
    write_atomic(page, lambda file: file.write(("\n".join(lines) + "\n").encode()))
    return page


def pipes(table: pd.DataFrame) -> list[str]:
    """The lines of a Markdown table: three significant digits, a dash for what is missing."""
    rule = ["---:" if pd.api.types.is_numeric_dtype(table[c]) else "---" for c in table.columns]
    rows = [[cell(v) for v in row] for row in table.itertuples(index=False)]
    return ["| " + " | ".join(r) + " |" for r in (list(map(str, table.columns)), rule, *rows)]


def cell(value: Any) -> str:
    """A value as text."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return NOT_GIVEN
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1_000 else f"{value:.3g}"
    return str(value)


def bracketed(table: pd.DataFrame, value: str, low: str, high: str) -> list[str]:
    """A column of "0.12 [0.08, 0.16]"; without brackets where there is no interval."""
    return [
        cell(v) if math.isnan(a) else f"{cell(v)} [{cell(a)}, {cell(b)}]"
        for v, a, b in table[[value, low, high]].to_numpy(float)
    ]
