"""Tabulate in how many starts RankMe of free features falls again: the published settings, their controls, and floors.

`python -m theory.simulate.feature_table` prints both tables of docs/theory.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from theory.simulate.features import (
    FeatureRun,
    FeatureState,
    FeatureTask,
    Loss,
    constructed_start,
    decline,
    descend,
    iid_start,
    log_looks,
)
from theory.values import Array

# A fall of RankMe that counts, as a share of the value that it falls from.
THRESHOLD = 0.001

_SKEWED, _EVEN = FeatureTask.counted((2, 2, 1, 1)), FeatureTask.counted((2, 2, 2, 2))
_LOOKS = 250
_VOCABULARY = 64


@dataclass(frozen=True, eq=False)
class Setting:
    """Hold one setting: task, starts, learning rate, length, and whether the logits have a bias.

    Attributes:
        name: the setting in words.
        task: the rows and their laws.
        start: makes the starts of some seeds.
        rate, steps: learning rate, and number of steps.
        bias, loss: see `theory.simulate.features.descend`.
        seeds: number of starts of the table.
        first: seed of the first of them.

    >>> setting = CLASSES[0]
    >>> setting.name, setting.rate, setting.steps
    ('clusters, jitter 0.1', 0.25, 300)
    """

    name: str
    task: FeatureTask
    start: Callable[[FeatureTask, Sequence[int]], FeatureState]
    rate: float
    steps: int
    bias: bool = False
    loss: Loss = "cross-entropy"
    seeds: int = 10
    first: int = 0

    def run(self, seeds: int | None = None) -> FeatureRun:
        """Run the starts with the seeds from `first` on; by default as many as the table has."""
        count = self.seeds if seeds is None else seeds
        start = self.start(self.task, range(self.first, self.first + count))
        return descend(
            self.task, start, self.rate, log_looks(self.steps, _LOOKS), bias=self.bias, loss=self.loss
        )


@dataclass(frozen=True, eq=False)
class Falls:
    """Hold the falls of RankMe of one setting, over its starts.

    Attributes:
        largest: (S,) largest falls after the minimum, made up for later or not; centred, weighted by frequency.
        last: (S,) falls from the peak after the minimum to the end; centred, weighted.
        unweighted, uncentred: (S,) the same as ``last`` with each row once, and without removing the mean.

    >>> CLASSES[0].seeds, falls_of(CLASSES[0], seeds=2).last.shape
    (200, (2,))
    """

    largest: Array
    last: Array
    unweighted: Array
    uncentred: Array


def falls_of(setting: Setting, seeds: int | None = None) -> Falls:
    """Run a setting and measure the falls of RankMe after its minimum.

    >>> float(falls_of(CLASSES[2], seeds=3).largest.min()) > THRESHOLD
    True
    """
    ranks = setting.run(seeds).ranks
    weighted = decline(ranks["weighted"])
    return Falls(
        weighted.largest,
        weighted.last,
        decline(ranks["unweighted"]).last,
        decline(ranks["weighted, uncentred"]).last,
    )


def rate_interval(falls: Array) -> tuple[int, float, float]:
    """Count the falls above the threshold, with the 95 % interval of Wilson of their rate.

    >>> hits, low, high = rate_interval(np.array([0.0, 0.002, 0.0, 0.0]))
    >>> hits, round(low, 3), round(high, 3)
    (1, 0.046, 0.699)
    """
    hits = int((falls > THRESHOLD).sum())
    found = stats.binomtest(hits, len(falls)).proportion_ci(method="wilson")
    return hits, float(found.low), float(found.high)


def _clusters(jitter: float, steps: int = 300) -> Setting:
    name = f"clusters, jitter {jitter:g}" + (f", {steps:,} steps" if steps != 300 else "")
    return Setting(
        name, _SKEWED, lambda task, seeds: constructed_start(task, jitter, seeds), 0.25, steps, seeds=200
    )


def _drawn(
    name: str,
    task: FeatureTask,
    width: int = 2,
    std: float = 0.3,
    loss: Loss = "cross-entropy",
    first: int = 0,
) -> Setting:
    return Setting(
        name,
        task,
        lambda task, seeds: iid_start(task, width, std, seeds),
        0.25,
        3_000,
        loss=loss,
        seeds=200,
        first=first,
    )


# The setting that the controls are compared with. Fisher's test is one of independent starts: it has others than they.
REFERENCE = "drawn, std 0.3"
# Classes of 2, 2, 1, 1 rows (or 2, 2, 2, 2) at d = 2 unless the name says otherwise.
CLASSES: tuple[Setting, ...] = (
    *(_clusters(jitter) for jitter in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)),
    _clusters(1e-5, 3_000),
    *(_drawn(f"drawn, std {std:g}", _SKEWED, std=std) for std in (0.01, 0.1)),
    _drawn(REFERENCE, _SKEWED, first=200),
    _drawn("drawn, d = 3", _SKEWED, width=3),
    _drawn("drawn, d = 4: no bottleneck", _SKEWED, width=4),
    _drawn("drawn, equal classes", _EVEN),
    _drawn("drawn, squared error", _SKEWED, loss="squared"),
    _drawn("drawn, squared error, equal classes", _EVEN, loss="squared"),
)
CONTROLS = tuple(setting.name for setting in CLASSES[-5:])


def _dirichlet() -> Array:
    return np.random.default_rng(0).dirichlet(np.ones(_VOCABULARY), _VOCABULARY)


def _zipf(
    name: str,
    floor: float,
    law: Array | None = None,
    exponent: float = 1.0,
    width: int = 8,
    bias: bool = False,
    loss: Loss = "cross-entropy",
) -> Setting:
    task = FeatureTask.zipf(_VOCABULARY, exponent).with_floor(floor, law)
    return Setting(
        name, task, lambda task, seeds: iid_start(task, width, 0.1, seeds), 1.0, 20_000, bias=bias, loss=loss
    )


# V = 64 tokens with Zipf frequencies, d = 8, unless the name says otherwise.
FLOORS: tuple[Setting, ...] = (
    _zipf("one-hot labels", 0.0),
    *(_zipf(f"{share:.0%} unigram", share) for share in (0.05, 0.3, 0.6)),
    _zipf("30% unigram, bias", 0.3, bias=True),
    _zipf("30% unigram, equal frequencies", 0.3, exponent=0.0),
    _zipf("30% unigram, d = 63: no bottleneck", 0.3, width=63),
    _zipf("30% unigram, squared error", 0.3, loss="squared"),
    _zipf("30% uniform law", 0.3, law=np.full(_VOCABULARY, 1 / _VOCABULARY)),
    _zipf("30% Dirichlet laws", 0.3, law=_dirichlet()),
)


def _against(controls: Sequence[Array], reference: Array) -> list[float]:
    """Return the p-values of Fisher's exact test of each control against the reference, adjusted by Holm."""
    counts = [(int((x > THRESHOLD).sum()), len(x)) for x in (*controls, reference)]
    rows = [[hits, total - hits] for hits, total in counts]
    values = np.array([stats.fisher_exact([row, rows[-1]])[1] for row in rows[:-1]])
    order = np.argsort(values)
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    return np.minimum(steps, 1.0)[np.argsort(order)].tolist()


def _rate(falls: Array) -> str:
    hits, low, high = rate_interval(falls)
    return f"{hits} / {len(falls)} [{low:.3f}, {high:.3f}]"


def _middle(falls: Array) -> str:
    return f"{np.median(falls):.4f} ({falls.min():.4f}–{falls.max():.4f})"


def _classes_table(seeds: int | None = None) -> str:
    """Return the table of `CLASSES` in Markdown, with the p-value of Fisher's test of each control, Holm-adjusted."""
    found = {setting.name: falls_of(setting, seeds) for setting in CLASSES}
    adjusted = dict(
        zip(CONTROLS, _against([found[name].last for name in CONTROLS], found[REFERENCE].last), strict=True)
    )
    lines = [
        f"| start | falls at some time | still at the end | largest fall (median) | p against {REFERENCE} (Holm) |",
        "|---|---|---|---|---|",
    ]
    for name, falls in found.items():
        p = f"{adjusted[name]:.2g}" if name in adjusted else ""
        lines.append(
            f"| {name} | {_rate(falls.largest)} | {_rate(falls.last)} | {np.median(falls.largest):.4f} | {p} |"
        )
    return "\n".join(lines)


def _floors_table() -> str:
    """Return the table of `FLOORS` in Markdown."""
    lines = [
        "| targets | still at the end | fall at the end | each row once | uncentred |",
        "|---|---|---|---|---|",
    ]
    for setting in FLOORS:
        falls = falls_of(setting)
        columns = (falls.last, falls.unweighted, falls.uncentred)
        lines.append(
            f"| {setting.name} | {_rate(falls.last)} | " + " | ".join(_middle(x) for x in columns) + " |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(_classes_table(), _floors_table(), sep="\n\n")
