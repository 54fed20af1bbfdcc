"""The summaries of a spectrum: one table, read where spectra are measured, where runs are compared, and by the docs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sims.runs.columns import WHICH, modulus
from spectra import (
    Estimate,
    Spectrum,
    participation_ratio,
    rankme,
    stable_rank,
    top_share,
    window_exponent,
)

if TYPE_CHECKING:
    import pandas as pd

    from sims.analysis.ranges import Range
    from sims.analysis.runs import Runs

TOP = 10


@dataclass(frozen=True)
class Summary:
    """Describe one number that summarises a spectrum.

    Args:
        name: the quantity of its rows.
        of: (spectrum) → number or `Estimate`; with windows (spectrum, first rank, last rank).
        label: for people.
        meaning: in a few words, for the documentation.
        windows: whether there is a row for each rank window.
        detail: column "detail" of its rows.
        null: whether its value for Gaussian matrices of the same shape is stored; without, it is not tested either.
        compared: whether tables of runs show it.
        within: lowest and highest value that it can take.
        counts: whether it counts directions, so that it is at most the width as well.
    """

    name: str
    of: Callable[..., float | Estimate]
    label: str
    meaning: str
    windows: bool = False
    detail: str = ""
    null: bool = True
    compared: bool = True
    within: tuple[float, float] = (-math.inf, math.inf)
    counts: bool = False


def _top_share(spectrum: Spectrum) -> float | Estimate:
    return top_share(spectrum, min(TOP, len(spectrum)))


def _trace(spectrum: Spectrum) -> float:
    return spectrum.trace


# In the order of their rows.
SUMMARIES: tuple[Summary, ...] = (
    Summary(
        "alpha",
        window_exponent,
        "α",
        "minus the least-squares slope of ln λ on ln rank, in each rank window",
        windows=True,
        within=(0.0, math.inf),
    ),
    Summary(
        "rankme",
        rankme,
        "RankMe",
        "exponential of the entropy of the shares λ/Σλ",
        counts=True,
    ),
    Summary(
        "participation_ratio",
        participation_ratio,
        "participation ratio",
        "(Σλ)²/Σλ², the number of directions that share the variance",
        compared=False,
        counts=True,
    ),
    Summary("stable_rank", stable_rank, "stable rank", "Σλ/λ₁", compared=False, counts=True),
    Summary(
        "top_share",
        _top_share,
        f"top-{TOP} share",
        f"share of the {TOP} largest of Σλ",
        detail=str(TOP),
        within=(0.0, 1.0),
    ),
    Summary("trace", _trace, "trace", "Σλ", null=False, compared=False, within=(0.0, math.inf)),
)


def tested() -> list[str]:
    """Return the names of the summaries that stages are compared by."""
    return [summary.name for summary in SUMMARIES if summary.null]


def range_of(quantity: str, width: float = math.inf) -> Range:
    """Return the values that a quantity can take; one that nobody has stated may take any.

    Args:
        quantity: of rows, also with its window ("alpha 10-40").
        width: number of directions of the matrices, where it is known.
    """
    # It loads sympy, which measuring does without.
    from sims.analysis.ranges import RANGES, REAL, Range

    name = quantity.partition(" ")[0]
    for summary in SUMMARIES:
        if summary.name == name:
            return Range(1.0, max(width, 1.0)) if summary.counts else Range(*summary.within)
    return RANGES.get(quantity, RANGES.get(name, REAL))


def range_in(runs: Runs, quantity: str) -> Range:
    """Return the values that a quantity, or a mean of it over batch sizes and probe bands, can take in these runs.

    What counts directions is at most the largest width of their matrices. H_peak and the peak mass of a component
    count one side of a conjugate pair: at most 1/2 where all probe bands have odd moduli (the frequency c/2 of an even
    c is its own conjugate).
    """
    from sims.analysis.ranges import ONE_SIDE, ONE_SIDED

    if quantity in ONE_SIDED and runs.once(_odd_bands):
        return ONE_SIDE
    return range_of(quantity, runs.once(_width))


def _odd_bands(runs: Runs) -> bool:
    return all(modulus(band) % 2 for band in runs.values("h_peak", "probe")["band"].unique())


def _width(runs: Runs) -> float:
    return float(runs.spectra["d"].max()) if len(runs.spectra) else math.inf


def label(quantity: str) -> str | None:
    """Return the label of a summary and its window ("alpha 10-40" → "α 10-40"); None for any other quantity."""
    name, _, window = quantity.partition(" ")
    known = next((summary.label for summary in SUMMARIES if summary.name == name), None)
    return None if known is None else f"{known} {window}".strip()


def last_summaries(runs: Runs, site: str = "final") -> pd.DataFrame:
    """Return the compared summaries of the activations at a site at the end of the runs (`last_rows`).

    Returns:
        run_id, quantity (with its window: "alpha 10-40"), value, null, status ("ok" or "flagged").
    """
    # What is measured reads the table above without pandas.
    import pandas as pd

    found = [
        own.assign(quantity=(summary.name + " " + own["window"]).str.strip())
        for summary in SUMMARIES
        if summary.compared and len(own := last_rows(runs, runs.values(summary.name, "activation", site)))
    ]
    columns = ["run_id", "quantity", "value", "null", "status"]
    return pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)


def markdown_table() -> str:
    """Return the table of docs/measurements.md."""
    lines = ["| quantity | is | in columns |", "|---|---|---|"]
    for summary in SUMMARIES:
        column = "window" if summary.windows else f"detail: {summary.detail}" if summary.detail else ""
        null = "" if summary.null else ("; " if column else "") + "no null"
        lines.append(f"| `{summary.name}` | {summary.label}: {summary.meaning} | {column}{null} |")
    return "\n".join(lines)


def last_rows(runs: Runs, rows: pd.DataFrame) -> Any:
    """Return rows at the end of the runs: at the last step after the start that all of those compared have.

    Compared are runs of one batch size that ended at one step without diverging. If each were read at its own last
    look, one that lacks it would be compared at another moment of training. Runs without a step in common are, each at
    its own last one. Every quantity, site, window and band has an end of its own: some runs may lack one of them there.

    Args:
        runs: of which the rows are.
        rows: run_id, batch_size, step, and columns that tell quantities apart.
    """
    own = runs.runs.set_index("run_id")
    ended, diverged = (rows["run_id"].map(column) for column in (own["step"], own["ended"] == "diverged"))
    names = [
        name
        for name in ("quantity", "object", "site", *WHICH)
        if name in rows and len(rows[name].unique()) > 1
    ]
    kinds = [rows[name] for name in names]
    group = rows.groupby([*kinds, rows["batch_size"], ended, diverged], dropna=False).ngroup().rename("group")
    looks = rows[["run_id", "step"]].assign(group=group).drop_duplicates()
    looks = looks.assign(all=looks.groupby("group")["run_id"].transform("nunique"))
    counted = (
        looks[looks["step"] > 0].groupby(["group", "step"]).agg(n=("run_id", "size"), all=("all", "first"))
    )
    shared = counted[counted["n"] == counted["all"]].reset_index().groupby("group")["step"].max()
    last = group.map(shared).fillna(rows.groupby([group, "run_id"])["step"].transform("max"))
    return rows[rows["step"] == last]


if __name__ == "__main__":
    print(markdown_table())
