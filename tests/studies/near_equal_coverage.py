"""Measure how often the intervals of RankMe and participation ratio hold the truth near equal eigenvalues.

    python tests/studies/near_equal_coverage.py

prints the table of docs/coverage.md#near-equal-eigenvalues (two minutes): Gaussian rows, eigenvalues r^−α.
"""

from __future__ import annotations

import numpy as np

from spectra.intervals import participation_ratio_interval, rankme_interval

# Seeds of no other test or study.
FIRST_SEED = 910_000
EXPONENTS = (0.0, 0.1, 0.2, 0.3, 0.5)
# Width, samples, data sets.
SIZES = ((6, 400, 100), (32, 512, 24))


def truths(eigenvalues: np.ndarray) -> tuple[float, float]:
    """Return RankMe and participation ratio of a population."""
    shares = eigenvalues / eigenvalues.sum()
    return float(np.exp(-(shares * np.log(shares)).sum())), float(1 / (shares**2).sum())


def main() -> None:
    """Print one row a size and exponent: intervals that hold the truth, and those of them with status "ok"."""
    for width, samples, sets in SIZES:
        for exponent in EXPONENTS:
            eigenvalues = np.arange(1.0, width + 1) ** -exponent
            held: list[list[tuple[bool, bool]]] = [[], []]
            for k in range(sets):
                seed = FIRST_SEED + 1000 * int(10 * exponent) + k
                x = np.random.default_rng(seed).standard_normal((samples, width)) * np.sqrt(eigenvalues)
                both = (rankme_interval, participation_ratio_interval)
                for own, interval, truth in zip(held, both, truths(eigenvalues), strict=True):
                    found = interval(x, np.random.default_rng(k), draws=40)
                    inside = found.low <= truth * (1 + 1e-12) and truth * (1 - 1e-12) <= found.high
                    own.append((inside, found.status == "ok"))
            texts = [
                f"{sum(i for i, _ in own)} of {sets} ({sum(i and ok for i, ok in own)} of {sum(ok for _, ok in own)})"
                for own in held
            ]
            print(f"| {width}, {samples} | {exponent:g} | {' | '.join(texts)} |", flush=True)


if __name__ == "__main__":
    main()
