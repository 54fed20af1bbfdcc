"""What the removal of blocks costs, and how much cheaper one rule is than another.

A set of blocks is a tuple of their numbers in rising order. The cost of a set is C = L(without it) − L, in nats per
token, L the mean cross-entropy over the same sequences; e^C is the ratio of perplexities.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sims.analysis.intervals import LEVEL, student
from sims.system.errors import MeasureError
from theory.decision import side

Blocks = tuple[int, ...]
# Rule → number of removed blocks → set.
Choices = Mapping[str, Mapping[int, Blocks]]

# Fewer sequences have no bootstrap interval.
LEAST_SEQUENCES = 10
RESAMPLES = 1_999
# Costs that differ by less are tied, in nats.
TIE = 1e-9


@dataclass(frozen=True, eq=False)
class RemovalCosts:
    """Hold the losses of one model without sets of its blocks, all over the same sequences.

    Attributes:
        blocks: numbers of the model's blocks, in the order of the forward pass.
        vocab: number of tokens that the model can predict.
        base: (n,) loss of each sequence with all blocks, nats per token.
        sets: the removed sets.
        losses: (S, n) loss of each sequence without the blocks of each set.

    Raises:
        MeasureError: fewer than two sequences, losses with all blocks that are not finite, arrays that do not belong
            together, or sets that are repeated or have other blocks.
    """

    blocks: Blocks
    vocab: int
    base: np.ndarray
    sets: tuple[Blocks, ...]
    losses: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.base)
        if n < 2:
            raise MeasureError(f"{n} sequences have no standard error of a cost; pass at least 2, better 48")
        if self.base.shape != (n,) or self.losses.shape != (len(self.sets), n):
            raise MeasureError(
                f"losses are {self.losses.shape} for {len(self.sets)} sets and base losses {self.base.shape}; they "
                "must be (sets, sequences) and (sequences,)"
            )
        if not np.isfinite(self.base).all():
            raise MeasureError(
                "losses with all blocks are not finite; take a checkpoint before the run diverged"
            )
        if len(set(self.sets)) < len(self.sets):
            raise MeasureError("a set of blocks is there twice; measure each once")
        if odd := [s for s in self.sets if list(s) != sorted(set(s) & set(self.blocks))]:
            raise MeasureError(f"{odd[0]} is no rising set of the blocks {self.blocks}")

    @property
    def costs(self) -> np.ndarray:
        """Return the cost (S,) of each set in nats per token; infinite where a loss is not finite."""
        return np.array([self._mean(row) for row in self.losses])

    @property
    def importance(self) -> np.ndarray:
        """Return the cost (L,) of the removal of each block alone.

        Raises:
            MeasureError: it was not measured for every block.
        """
        return np.array([self.cost((block,)) for block in self.blocks])

    @property
    def limit(self) -> float:
        """Return ln V, the loss of a model that knows nothing."""
        return math.log(self.vocab)

    def cost(self, blocks: Collection[int]) -> float:
        """Return the cost of a set.

        Raises:
            MeasureError: it was not measured.
        """
        return self._mean(self.losses[self._place(blocks)])

    def loss(self, blocks: Collection[int]) -> float:
        """Return the mean loss without a set, nats per token."""
        return float(self.base.mean()) + self.cost(blocks)

    def differences(self, blocks: Collection[int]) -> np.ndarray:
        """Return the cost (n,) of a set in each sequence."""
        return self.losses[self._place(blocks)] - self.base

    def joined(self, other: RemovalCosts) -> RemovalCosts:
        """Return the costs of the sets of both, measured of one model on the same sequences.

        Raises:
            MeasureError: their losses with all blocks differ.
        """
        same = self.blocks == other.blocks and self.base.shape == other.base.shape
        if not same or not np.array_equal(self.base, other.base):
            raise MeasureError(
                "the losses with all blocks differ; join costs of one model on the same sequences"
            )
        new = [i for i, blocks in enumerate(other.sets) if blocks not in set(self.sets)]
        sets = (*self.sets, *(other.sets[i] for i in new))
        return RemovalCosts(
            self.blocks, self.vocab, self.base, sets, np.concatenate((self.losses, other.losses[new]))
        )

    def table(self) -> pd.DataFrame:
        """Return one row a set: blocks, n (removed blocks), loss, cost, error, low, high, ratio, status, reason.

        The interval is Student's over sequences, ratio = e^cost. Where the losses are not finite, cost and ratio are
        infinite, error and interval NaN, and the status is "not finite".
        """
        return pd.DataFrame([self.row(blocks) for blocks in self.sets])

    def row(self, blocks: Collection[int]) -> dict[str, object]:
        """Return the row of one set (see `table`)."""
        found, n = self.differences(blocks), len(self.base)
        cost = self._mean(self.losses[self._place(blocks)])
        finite = math.isfinite(cost)
        error = float(found.std(ddof=1)) / math.sqrt(n) if finite else math.nan
        reach = student(n - 1) * error
        return {
            "blocks": _name(blocks),
            "n": len(blocks),
            "loss": float(self.base.mean()) + cost,
            "cost": cost,
            "error": error,
            "low": cost - reach if finite else math.nan,
            "high": cost + reach if finite else math.nan,
            "ratio": _exp(cost),
            "status": "ok" if finite else "not finite",
            "reason": "" if finite else "the losses without these blocks are not finite",
        }

    def _mean(self, losses: np.ndarray) -> float:
        return float((losses - self.base).mean()) if np.isfinite(losses).all() else math.inf

    def _place(self, blocks: Collection[int]) -> int:
        wanted = tuple(sorted(blocks))
        places = self._places
        if wanted not in places:
            raise MeasureError(f"the removal of {wanted} was not measured; {len(self.sets)} other sets were")
        return places[wanted]

    @property
    def _places(self) -> Mapping[Blocks, int]:
        if "_known" not in self.__dict__:
            object.__setattr__(self, "_known", {blocks: i for i, blocks in enumerate(self.sets)})
        return self.__dict__["_known"]


def broken(costs: RemovalCosts, choices: Choices) -> dict[int, str]:
    """Return the numbers N at which every rule breaks the model, with the reason.

    The loss without the blocks then exceeds ln V for each rule: the model is worse than one that knows nothing, and
    which rule is best is luck.
    """
    found = {}
    for n in sorted({n for sets in choices.values() for n in sets}):
        least = min(costs.loss(sets[n]) for sets in choices.values() if n in sets)
        if least > costs.limit:
            found[n] = (
                f"without {n} of {len(costs.blocks)} blocks the loss exceeds ln V = {costs.limit:.2f} for every rule "
                f"(the least is {least:.2f}): the models know nothing, and their order is luck"
            )
    return found


def cost_table(costs: RemovalCosts, choices: Choices) -> pd.DataFrame:
    """Return one row for each rule and N: rule, and the columns of `RemovalCosts.table`.

    Rows of an N at which every rule breaks the model have the status "skipped" and the reason; their numbers are shown
    and not compared.
    """
    skipped = broken(costs, choices)
    rows = []
    for rule, sets in choices.items():
        for n, blocks in sets.items():
            row = {"rule": rule, **costs.row(blocks)}
            rows.append({**row, "status": "skipped", "reason": skipped[n]} if n in skipped else row)
    return pd.DataFrame(rows)


def advantages(costs: RemovalCosts, choices: Choices, rule: str, against: str, seed: int = 0) -> pd.DataFrame:
    """Return by how much a rule is cheaper than another, with 95 % bootstrap intervals over the same sequences.

    Args:
        costs: of one model.
        choices: with both rules.
        rule, against: the rules.
        seed: of the resamples.

    Returns:
        One row for each N of both: n, rule, against, cost, cost_against; factor = C(against)/C(rule) with low, high;
        ratio = e^(C(against) − C(rule)), the factor of perplexity, with ratio_low, ratio_high; status, reason. The
        factor is "not resolved", and NaN, where the interval of C(rule) does not lie above 0, a loss is not finite, or
        there are fewer than ten sequences; "skipped" where every rule breaks the model (`broken`).

    Raises:
        MeasureError: an unknown rule.
    """
    for name in (rule, against):
        if name not in choices:
            raise MeasureError(f"no rule {name!r}; the rules are {', '.join(choices)}")
    skipped = broken(costs, choices)
    size = len(costs.base)
    draws = np.random.default_rng(seed).integers(size, size=(RESAMPLES, size))
    rows = []
    for n in [n for n in choices[rule] if n in choices[against]]:
        own, other = choices[rule][n], choices[against][n]
        row = {
            "n": n,
            "rule": rule,
            "against": against,
            "cost": costs.cost(own),
            "cost_against": costs.cost(other),
        }
        found = _factors(costs.differences(own), costs.differences(other), draws)
        if n in skipped:
            found |= {"status": "skipped", "reason": skipped[n]}
        rows.append({**row, **found})
    return pd.DataFrame(rows)


def worst_to_best(costs: RemovalCosts, counts: Sequence[int], seed: int = 0) -> pd.DataFrame:
    """Return how much dearer the worst measured set of N blocks is than the best.

    With the ends among the sets this says mostly that the first block matters. The interval is that of the two sets
    as if they had been fixed before: the choice of extremes among many makes the factor larger than it is.

    Args:
        costs: of one model.
        counts: the numbers N.
        seed: of the resamples.

    Returns:
        One row for each N and kind of sets: n, of ("interior" or "all measured"), number (of sets), best, worst, and
        the columns of `advantages` from factor on. Kinds with fewer than two sets have no row.
    """
    size = len(costs.base)
    draws = np.random.default_rng(seed).integers(size, size=(RESAMPLES, size))
    inner, rows = set(costs.blocks[1:-1]), []
    for n in counts:
        every = [own for own in costs.sets if len(own) == n]
        for kind, sets in (("interior", [s for s in every if set(s) <= inner]), ("all measured", every)):
            if len(sets) < 2:
                continue
            best, worst = min(sets, key=costs.cost), max(sets, key=costs.cost)
            found = _factors(costs.differences(best), costs.differences(worst), draws)
            row = {"n": n, "of": kind, "number": len(sets), "best": _name(best), "worst": _name(worst)}
            rows.append({**row, **found})
    return pd.DataFrame(rows)


def _factors(own: np.ndarray, other: np.ndarray, draws: np.ndarray) -> dict[str, object]:
    """Return the factors of one N, of costs (n,) in each sequence and resamples of the sequences."""
    names = ("factor", "low", "high", "ratio", "ratio_low", "ratio_high")
    if not (np.isfinite(own).all() and np.isfinite(other).all()):
        return {**dict.fromkeys(names, math.nan), "status": "not resolved", "reason": "a loss is not finite"}
    if len(own) < LEAST_SEQUENCES:
        reason = f"{len(own)} sequences are too few for a bootstrap; pass at least {LEAST_SEQUENCES}"
        return {**dict.fromkeys(names, math.nan), "status": "not resolved", "reason": reason}
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    a, b = own[draws].mean(axis=1), other[draws].mean(axis=1)
    low, high = np.quantile(b - a, tails)
    found: dict[str, object] = {
        "ratio": _exp(float(other.mean() - own.mean())),
        "ratio_low": _exp(float(low)),
        "ratio_high": _exp(float(high)),
    }
    least, most = np.quantile(a, tails)
    if side(float(least), float(most)) < 1:
        reason = f"the cost of this rule is {own.mean():.3g} [{least:.3g}, {most:.3g}]: a factor of it has no meaning"
        return {**dict.fromkeys(names, math.nan), **found, "status": "not resolved", "reason": reason}
    low, high = np.quantile(b[a > 0] / a[a > 0], tails)
    factor = float(other.mean() / own.mean())
    return {"factor": factor, "low": float(low), "high": float(high), **found, "status": "ok", "reason": ""}


def _name(blocks: Collection[int]) -> str:
    return ",".join(map(str, sorted(blocks)))


def _exp(x: float) -> float:
    """Return e^x, infinite where it cannot be written."""
    return math.exp(x) if x < 700 else math.inf
