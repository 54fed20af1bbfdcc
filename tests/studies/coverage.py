"""Coverage of the 95 % intervals of α, RankMe and the participation ratio over synthetic populations.

    python tests/studies/coverage.py --populations 500

writes docs/coverage.md. Each cell draws that many data sets (n rows in 32 dimensions, random mean and scale) whose
covariance has the stated eigenvalues, asks the three interval functions, and counts how often the truth lies inside,
separately where the status is "ok" and where it is not. Each cell has its
own seed. About 40 minutes on one core at 500; 50 take four.
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


def table(rows: list[tuple[float, str, dict[str, float]]], populations: int) -> str:
    """The page."""
    least = max(populations // 5, 1)
    lines = [
        "# Coverage of the 95 % intervals",
        "",
        f"`python tests/studies/coverage.py --populations {populations}`: {populations} data sets a cell, "
        f"d = {DIMENSION}, α over ranks {WINDOW[0]}–{WINDOW[1]}, {DRAWS} simulated draws a point, seed {SEED}. "
        f"With {populations} data sets a true coverage of 95 % reads within "
        f"±{196 * (0.95 * 0.05 / populations) ** 0.5:.1f} points in 19 cells of 20.",
        "",
        "*raw* is the mean uncorrected reading, *estimate* the mean corrected one, *ok* the share of results whose "
        f'status is "ok". Coverage is given where at least {least} results stand behind it; the intervals of '
        "flagged results are shown to be judged, not trusted.",
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
    lines += ["", *verdict(rows, least), ""]
    return "\n".join(lines)


def verdict(rows: list[tuple[float, str, dict[str, float]]], least: int) -> list[str]:
    """What the table says about the promise, counted."""
    judged = [(ratio, law, r, r["covered_ok"] / r["ok"]) for ratio, law, r in rows if r["ok"] >= least]
    if not judged:
        return ["No cell has enough reliable results to judge."]
    inside = [c for c in judged if 0.93 <= c[3] <= 0.97]
    pooled = sum(c[2]["covered_ok"] for c in judged) / sum(c[2]["ok"] for c in judged)
    outside = "; ".join(f"{r['name']}, n/d = {ratio:g}, {law}: {100 * c:.1f} %" for ratio, law, r, c in judged
                        if not 0.93 <= c <= 0.97)  # fmt: skip
    counts = np.array([c[2]["ok"] for c in judged])
    chance = binom.cdf(np.ceil(0.93 * counts) - 1, counts, pooled) + binom.sf(
        np.floor(0.97 * counts), counts, pooled
    )
    return [
        f"Cells judged reliable often enough to count: {len(judged)} of {len(rows)}, of which {len(inside)} cover "
        f"93–97 %; pooled over them {100 * pooled:.1f} %. If every one of them covered exactly that, chance alone "
        f"would put {chance.sum():.1f} outside." + (f" Outside: {outside}." if outside else "")
    ]


def main() -> None:
    """Run every cell and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--populations", type=int, default=500, help="data sets in each cell")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "coverage.md", help="page to write")
    parser.add_argument(
        "--partial", type=Path, help="file of finished cells: read first, appended to, so a run can stop"
    )
    options = parser.parse_args()
    finished = read_finished(options.partial, options.populations)
    rows = []
    for i, ratio in enumerate(RATIOS):
        for j, cell in enumerate(cells()):
            key, seed = f"{ratio:g} {cell.name}", SEED + 100 * i + j
            figures = finished.get(key) or run_cell(cell, round(ratio * DIMENSION), options.populations, seed)
            if options.partial and key not in finished:
                entry = {"key": key, "populations": options.populations, "figures": figures}
                with options.partial.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(entry) + "\n")
            rows += [(ratio, cell.name, row) for row in figures]
            print(f"n/d = {ratio:g}, {cell.name}: done", flush=True)
            options.out.write_text(table(rows, options.populations), encoding="utf-8")


def read_finished(path: Path | None, populations: int) -> dict[str, list[dict[str, float]]]:
    """Cells that an earlier run of the same size left in its partial file."""
    if path is None or not path.exists():
        return {}
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {e["key"]: e["figures"] for e in entries if e["populations"] == populations}


if __name__ == "__main__":
    main()
