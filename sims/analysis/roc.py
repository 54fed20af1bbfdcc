"""Compare a score between two classes of runs: area under the ROC curve with two intervals."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from sims.system.errors import MeasureError

RESAMPLES = 1_999
Z = float(stats.norm.ppf(0.975))
# Areas nearer to 0 or 1 are taken for these.
TINY = 1e-9


@dataclass(frozen=True)
class Auc:
    """Hold the probability that a run of the first class has the larger score, ties counted as a half.

    Attributes:
        positives, negatives: runs of each class.
        auc: the area; NaN where not resolved, as the bounds.
        low, high: 95 % interval: DeLong's on the logit scale; where its variance is 0 (classes that do not overlap, or
            scores that are all tied), Newcombe's, which has a width there.
        boot_low, boot_high: 95 % bootstrap over runs within the classes; without width where classes do not overlap.
        status: "ok" or "not resolved".
        reason: why it is not resolved.
    """

    positives: int
    negatives: int
    auc: float = math.nan
    low: float = math.nan
    high: float = math.nan
    boot_low: float = math.nan
    boot_high: float = math.nan
    status: Literal["ok", "not resolved"] = "ok"
    reason: str = ""

    @property
    def lowest(self) -> float:
        """Return the smaller of the two lower bounds."""
        return min(self.low, self.boot_low)

    @property
    def sentence(self) -> str:
        """Return the result as one sentence."""
        runs = f"{self.positives} against {self.negatives} runs"
        if self.status != "ok":
            return f"AUC not resolved, {runs} ({self.reason})."
        return f"AUC {self.auc:.2f} [{self.low:.2f}, {self.high:.2f}], {runs}."

    def row(self) -> dict[str, object]:
        """Return the fields as a row of a table."""
        return asdict(self)


def roc_auc(positive: ArrayLike, negative: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> Auc:
    """Return the area under the ROC curve of a score, with DeLong's and a bootstrap interval.

    Args:
        positive, negative: (m,) and (n,) scores, one a run.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        `Auc`, not resolved with fewer than two runs in a class.

    Raises:
        MeasureError: a score that is not finite.

    Source: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988); Newcombe, Stat. Med. 25 (2006), method 5.

    >>> round(roc_auc([2.0, 3.0, 4.0], [1.0, 2.0]).auc, 3)
    0.917
    """
    first, second = np.asarray(positive, float).ravel(), np.asarray(negative, float).ravel()
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise MeasureError("a score is not finite; leave out the runs that have none")
    m, n = len(first), len(second)
    if min(m, n) < 2:
        return Auc(m, n, status="not resolved", reason=f"{m} and {n} runs, and each class needs at least 2")
    larger = (np.sign(first[:, None] - second[None, :]) + 1) / 2
    auc = float(larger.mean())
    variance = float(larger.mean(axis=1).var(ddof=1) / m + larger.mean(axis=0).var(ddof=1) / n)
    low, high = _logit(auc, variance) if variance > 0 and 0 < auc < 1 else newcombe(auc, m, n)
    generator = np.random.default_rng(seed)
    rows, columns = generator.integers(m, size=(resamples, m)), generator.integers(n, size=(resamples, n))
    # Means over resampled rows and columns, as products with counts.
    left = np.stack([np.bincount(r, minlength=m) for r in rows])
    right = np.stack([np.bincount(c, minlength=n) for c in columns])
    drawn = ((left @ larger) * right).sum(axis=1) / (m * n)
    boot_low, boot_high = np.quantile(drawn, [0.025, 0.975])
    return Auc(m, n, auc, low, high, float(boot_low), float(boot_high))


def newcombe(auc: float, m: int, n: int) -> tuple[float, float]:
    """Return the areas that differ from the observed one by at most 1.96 of their own standard errors.

    The standard error is that of Hanley and McNeil with (m + n)/2 − 1 in place of m − 1 and n − 1.
    """
    pairs, half = m * n, (m + n) / 2 - 1

    def distance(true: float) -> float:
        spread = 1 + half * (1 - true) / (2 - true) + half * true / (1 + true)
        return (auc - true) ** 2 - Z**2 * true * (1 - true) * spread / pairs

    low = 0.0 if auc <= TINY else float(optimize.brentq(distance, 0.0, auc - TINY / 2))  # pyright: ignore
    high = 1.0 if auc >= 1 - TINY else float(optimize.brentq(distance, auc + TINY / 2, 1.0))  # pyright: ignore
    return low, high


def clopper_pearson(hits: int, trials: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a share; (0, 1) without trials."""
    if not trials:
        return 0.0, 1.0
    found = stats.binomtest(hits, trials).proportion_ci(method="exact")
    return float(found.low), float(found.high)


def _logit(auc: float, variance: float) -> tuple[float, float]:
    centre, reach = math.log(auc / (1 - auc)), Z * math.sqrt(variance) / (auc * (1 - auc))
    return 1 / (1 + math.exp(-(centre - reach))), 1 / (1 + math.exp(-(centre + reach)))
