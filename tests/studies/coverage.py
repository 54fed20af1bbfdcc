"""Coverage of the 95 % intervals of α, RankMe and the participation ratio over synthetic populations.

    python tests/studies/coverage.py --populations 500

writes docs/coverage.md. Each cell draws that many data sets (n rows in 32 dimensions, random mean and scale) whose
covariance has the stated eigenvalues, asks the three interval functions, and counts how often the truth lies inside,
separately where the status is "ok" and where it is not. Each cell has its own seed. A cell that reads outside
93–97 % is drawn anew, four times as often and with another seed, so that chance and a defect can be told apart. About
an hour on one core at 500; 50 take six minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from scipy.stats import binom

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from spectra.exponents import window_exponent  # noqa: E402
from spectra.intervals import (  # noqa: E402
    participation_ratio_interval,
    rankme_interval,
    window_exponent_interval,
)
from spectra.results import Estimate  # noqa: E402
from spectra.summaries import participation_ratio, rankme  # noqa: E402

DIMENSION = 32
WINDOW = (4, 15)
RATIOS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
ALPHAS = (0.5, 1.0, 1.5, 2.0, 3.0)
DRAWS = 50
SEED = 20_260_101
# Cells outside the promised range are drawn anew, this many times as often, from a seed of their own.
AGAIN, AGAIN_SEED = 4, 20_270_101
PROMISED = (0.93, 0.97)

Rows = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class Cell:
    """One population law: its name, its eigenvalues, and how rows are drawn before scaling."""

    name: str
    eigenvalues: np.ndarray
    rows: Rows


def gaussian(rng: np.random.Generator, n: int) -> np.ndarray:
    """(n, d) standard normal rows."""
    return rng.standard_normal((n, DIMENSION))


def student(rng: np.random.Generator, n: int) -> np.ndarray:
    """(n, d) rows with one common Student-t factor (7 degrees of freedom) and unit variance."""
    return rng.standard_normal((n, DIMENSION)) * np.sqrt(5.0 / rng.chisquare(7, (n, 1)))


def cells() -> list[Cell]:
    """Power laws, and laws that violate what the intervals assume."""
    ranks = np.arange(1, DIMENSION + 1, dtype=float)
    laws = [Cell(f"α = {alpha:g}", ranks**-alpha, gaussian) for alpha in ALPHAS]
    broken = np.where(ranks <= 8, ranks**-0.5, 8**-0.5 * (ranks / 8) ** -2)
    step = np.where(ranks <= 4, 100.0, 1.0)
    return [
        *laws,
        Cell("broken (½ then 2)", broken, gaussian),
        Cell("step (4 of 32)", step, gaussian),
        Cell("α = 1, t₇ rows", ranks**-1.0, student),
    ]


def run_cell(cell: Cell, n: int, populations: int, seed: int) -> list[dict[str, float]]:
    """One row of figures per statistic."""
    rng = np.random.default_rng(seed)
    truths = {
        "α": window_exponent(cell.eigenvalues, *WINDOW).value,
        "RankMe": rankme(cell.eigenvalues),
        "PR": participation_ratio(cell.eigenvalues),
    }
    results: dict[str, list[Estimate]] = {name: [] for name in truths}
    for _ in range(populations):
        mean, scale = 10 * rng.standard_normal(DIMENSION), np.exp(rng.standard_normal())
        x = scale * (mean + cell.rows(rng, n) * np.sqrt(cell.eigenvalues))
        results["α"].append(window_exponent_interval(x, *WINDOW, rng, draws=DRAWS))
        results["RankMe"].append(rankme_interval(x, rng, draws=DRAWS))
        results["PR"].append(participation_ratio_interval(x, rng, draws=DRAWS))
    return [summarise(name, truth, results[name]) for name, truth in truths.items()]


def summarise(name: str, truth: float, results: list[Estimate]) -> dict[str, float]:
    """Truth, mean raw reading, mean estimate, share and coverage of "ok", coverage of the rest."""
    fitted = [r for r in results if r.status != "not fitted"]
    covered = np.array([r.low <= truth <= r.high for r in fitted], dtype=float)
    ok = np.array([r.ok for r in fitted], dtype=bool)
    nan = float("nan")
    return {
        "name": name,  # pyright: ignore[reportReturnType]
        "truth": truth,
        "raw": float(np.mean([r.details["raw"] for r in fitted])) if fitted else nan,
        "estimate": float(np.mean([r.value for r in fitted])) if fitted else nan,
        "ok": int(ok.sum()),
        "covered_ok": float(covered[ok].sum()),
        "rest": int((~ok).sum()),
        "covered_rest": float(covered[~ok].sum()),
    }


def share(covered: float, count: float, least: int) -> str:
    """A percentage, or a dash where too few results stand behind it."""
    return f"{100 * covered / count:.1f} %" if count >= least else "–"


Row = tuple[float, str, dict[str, float]]


def table(rows: list[Row], again: list[Row], populations: int) -> str:
    """The page."""
    least = enough(populations)
    lines = [
        "# Coverage of the 95 % intervals",
        "",
        "For people who want to know how often the intervals of `spectra` contain the true value, by samples per "
        "dimension (n/d), population and statistic.",
        "",
        f"Measured by `python tests/studies/coverage.py --populations {populations}`: {populations} data sets per "
        f"cell, d = {DIMENSION}, α over ranks {WINDOW[0]}–{WINDOW[1]}, {DRAWS} simulated draws per point, seed {SEED}. "
        f"With {populations} data sets, a true coverage of 95 % is measured within "
        f"±{196 * (0.95 * 0.05 / populations) ** 0.5:.1f} points in 19 cells of 20.",
        "",
        "*raw* is the mean uncorrected estimate, *estimate* the mean corrected one, *ok* the share of results with "
        f'status "ok". Coverage is given for at least {least} results. The coverage of flagged results is shown for '
        "information; their intervals are not reliable.",
        "",
        "| n/d | population | statistic | truth | raw | estimate | ok | coverage where ok | coverage where flagged |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for ratio, law, r in rows:
        lines.append(
            f"| {ratio:g} | {law} | {r['name']} | {r['truth']:.3g} | {r['raw']:.3g} | {r['estimate']:.3g} "
            f"| {share(r['ok'], populations, 1)} | {share(r['covered_ok'], r['ok'], least)} "
            f"| {share(r['covered_rest'], r['rest'], least)} |"
        )
    lines += ["", *verdict(rows, again, least), ""]
    return "\n".join(lines)


def enough(populations: int) -> int:
    """Results that have to stand behind a coverage."""
    return max(populations // 5, 1)


def outside(rows: list[Row], least: int) -> list[Row]:
    """Rows whose reliable results cover the truth more or less often than promised."""
    low, high = PROMISED
    return [row for row in rows if row[2]["ok"] >= least and not low <= coverage(row) <= high]


def coverage(row: Row) -> float:
    """Share of the reliable results that cover the truth."""
    return row[2]["covered_ok"] / row[2]["ok"]


def verdict(rows: list[Row], again: list[Row], least: int) -> list[str]:
    """What the table says about the promise, counted."""
    judged = [row for row in rows if row[2]["ok"] >= least]
    if not judged:
        return ["No cell has enough reliable results to judge."]
    strays = outside(rows, least)
    pooled = sum(r["covered_ok"] for *_, r in judged) / sum(r["ok"] for *_, r in judged)
    counts, (low, high) = np.array([r["ok"] for *_, r in judged]), PROMISED
    chance = binom.cdf(np.ceil(low * counts) - 1, counts, pooled) + binom.sf(
        np.floor(high * counts), counts, pooled
    )
    lines = [
        f'Cells with enough results that are "ok": {len(judged)} of {len(rows)}. Of these, '
        f"{len(judged) - len(strays)} cover 93–97 %; the pooled coverage is {100 * pooled:.1f} %. If every cell had "
        f"exactly this coverage, {chance.sum():.1f} cells would be outside 93–97 % by chance."
    ]
    if strays and again:
        lines += ["", f"The other cells, measured again with {AGAIN} times as many data sets:", ""]
        lines += ["| n/d | population | statistic | first | second | results |", "|---|---|---|---|---|---|"]
        fresh = {(ratio, law, r["name"]): r for ratio, law, r in again}
        for ratio, law, r in strays:
            second = fresh[ratio, law, r["name"]]
            lines.append(
                f"| {ratio:g} | {law} | {r['name']} | {share(r['covered_ok'], r['ok'], 1)} "
                f"| {share(second['covered_ok'], second['ok'], 1)} | {second['ok']} |"
            )
    return lines


def main() -> None:
    """Run every cell and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--populations", type=int, default=500, help="data sets in each cell")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "coverage.md", help="page to write")
    parser.add_argument(
        "--partial", type=Path, help="file of finished cells: read first, appended to, so a run can stop"
    )
    options = parser.parse_args()
    keys = [(ratio, cell) for ratio in RATIOS for cell in cells()]
    seeds = {
        (ratio, cell.name): 100 * i + j for i, ratio in enumerate(RATIOS) for j, cell in enumerate(cells())
    }

    def figures(ratio: float, cell: Cell, populations: int, seed: int) -> list[Row]:
        found = finished_cell(options.partial, f"{ratio:g} {cell.name}", populations, seed)
        if found is None:
            found = run_cell(cell, round(ratio * DIMENSION), populations, seed)
            keep_cell(options.partial, f"{ratio:g} {cell.name}", populations, seed, found)
        print(f"n/d = {ratio:g}, {cell.name}, {populations}: done", flush=True)
        return [(ratio, cell.name, row) for row in found]

    # A section of another script (near_equal_coverage.py) stays.
    page = options.out.read_text(encoding="utf-8") if options.out.exists() else ""
    kept = "".join(page.partition("\n## Near equal eigenvalues")[1:])
    rows, again = [], []
    for ratio, cell in keys:
        rows += figures(ratio, cell, options.populations, SEED + seeds[ratio, cell.name])
        options.out.write_text(table(rows, [], options.populations) + kept, encoding="utf-8")
    strays = {row[:2] for row in outside(rows, enough(options.populations))}
    for ratio, cell in keys:
        if (ratio, cell.name) in strays:
            again += figures(ratio, cell, AGAIN * options.populations, AGAIN_SEED + seeds[ratio, cell.name])
    options.out.write_text(table(rows, again, options.populations) + kept, encoding="utf-8")


def keep_cell(
    path: Path | None, key: str, populations: int, seed: int, figures: list[dict[str, float]]
) -> None:
    """Add a finished cell to the partial file."""
    if path is not None:
        entry = {"key": key, "populations": populations, "seed": seed, "figures": figures}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def finished_cell(path: Path | None, key: str, populations: int, seed: int) -> list[dict[str, float]] | None:
    """The cell as an earlier run left it in its partial file."""
    if path is None or not path.exists():
        return None
    wanted = {"key": key, "populations": populations, "seed": seed}
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry.items() >= wanted.items():
            return entry["figures"]
    return None


if __name__ == "__main__":
    main()
