"""`speclens compare`: runs side by side."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import tyro

from sims.pages.plain import cell, show_table
from sims.runs.folders import LAST, listing_of
from sims.runs.select import select
from sims.runs.selection import Selection
from sims.runs.status import COMPLETE
from sims.system.errors import QueryError, StoreError

# As many cells stand beside each other on a terminal; more of them stand below each other.
BESIDE = 5
MILLIONS = ("tokens", "tokens_to_common")


@dataclass(frozen=True)
class Compare:
    """Put complete runs side by side: what differs in their configuration, and what came out.

    Shown are the final validation loss, the tokens to the loss that all of them reached, and the main measurements.
    Runs that differ in nothing but the seed make one cell, with its mean and a 95 % interval over seeds.

    Examples:
        speclens compare runs/rope-b32-lr0.003-s0-… runs/muon-b32-lr0.003-s0-…
        speclens compare runs --where "batch_size == 32"
        speclens compare runs --where "stage == 'muon'" --each
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of single runs, or folders of runs."""
    selection: Annotated[Selection, tyro.conf.arg(name="")] = field(default_factory=Selection)
    each: bool = False
    """Every run for itself, seeds too."""

    def run(self) -> int:
        """Run it."""
        # These load torch, which the other commands that look at runs do without.
        from sims.analysis.compare import compare
        from sims.analysis.runs import read_runs
        from sims.runs.store import RunFolder

        folders = run_paths(self.runs)
        table = select(listing_of(folders), self.selection.status, self.selection.where)
        complete = table[table["status"].isin([s for s in COMPLETE if s != "pruned"])]
        if complete.empty:
            raise StoreError(
                f"none of the {len(folders)} folders given holds a complete run that is asked for; `speclens ls` shows "
                "how they stand"
            )
        chosen = [folders[i] for i in complete.index]
        names = listing_of(chosen)
        own = names.loc[:, : LAST[0]].columns[:-1]
        found = compare(
            read_runs([RunFolder(p) for p in chosen]), names[[c for c in own if c != "status"]], self.each
        )
        if len(complete) < len(table):
            left_out = (
                f"{len(table) - len(complete)} of {len(table)} runs are not complete, or pruned, and left out"
            )
            print(left_out, file=sys.stderr)
        show_cells(found.fields, found.cells, found.numbers, found.common_loss)
        return 0


def run_paths(given: Sequence[Path]) -> list[Path]:
    """The run folders among the paths, and those directly below the others.

    Raises:
        QueryError: two runs of the same name, which have the same configuration.
    """
    found: list[Path] = []
    for path in given:
        below = sorted(file.parent for file in path.glob("*/run.json"))
        if not (path / "run.json").exists() and not below:
            raise StoreError(f"{path} is not a run folder and holds none; give folders made by speclens")
        found += [path] if (path / "run.json").exists() else below
    names: dict[str, Path] = {}
    for path in dict.fromkeys(p.resolve() for p in found):
        if path.name in names:
            raise QueryError(f"{path} and {names[path.name]} are runs of one configuration; give one of them")
        names[path.name] = path
    return list(names.values())


def show_cells(fields: Sequence[str], cells: pd.DataFrame, numbers: pd.DataFrame, common_loss: float) -> None:
    """Few cells beside each other, many below each other."""
    quantities = list(dict.fromkeys(numbers["quantity"]))
    heads = [_head(q, common_loss) for q in quantities]
    texts = {(int(row["cell"]), str(row["quantity"])): _number(row) for row in numbers.to_dict("records")}
    lines = [
        [
            *(_field(own[name]) for name in fields),
            f"{own['runs']}" + (f", {own['diverged']} diverged" if own["diverged"] else ""),
            *(texts.get((int(str(number)), q), "–") for q in quantities),
        ]
        for number, own in cells.to_dict("index").items()
    ]
    columns = [*fields, "runs", *heads]
    if len(cells) > BESIDE:
        show_table(columns, lines, left=len(fields))
        return
    alone = bool((cells["runs"] == 1).all())
    titles = cells["run_id"] if alone else (f"cell {i + 1}" for i in range(len(cells)))
    show_table(("", *titles), list(zip(columns, *lines, strict=True)))


def _field(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) and value == value else cell(value)


def _head(quantity: str, common_loss: float) -> str:
    from sims.analysis.summaries import label

    names = {
        "val_loss": "final loss (nats)",
        "tokens": "M tokens seen",
        "tokens_to_common": f"M tokens to {common_loss:.3f}",
        "h_peak_top": "H_peak, highest",
        "h_peak_end": "H_peak, last",
    }
    return names.get(quantity) or label(quantity) or quantity


def _number(row: Mapping[Any, Any]) -> str:
    scale = 1e-6 if row["quantity"] in MILLIONS else 1.0
    mean, low, high = (row[k] * scale for k in ("mean", "low", "high"))
    return f"{mean:.4g}" if low != low else f"{mean:.4g} [{low:.4g}, {high:.4g}]"
