"""Test whether a rule removes cheaper blocks than chance: ranks among all sets of interior blocks.

The null of a rule exchanges the interior blocks of its sets. Its sets of different N lie within each other, so that
they are no independent draws: all of them are exchanged alike. Seeds are no replicates of blocks: what is particular to
a block is so in all seeds. Blocks are therefore exchanged in all models of one number of blocks together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from sims.analysis.removal import TIE, Blocks, Choices, RemovalCosts, broken
from sims.analysis.removal_rules import INFLUENCE, SPECTRAL, countable, interior_sets
from sims.analysis.resampling import DRAWS, EXACT_UNITS, holm, holm_attainable, orders
from sims.analysis.verdicts import Verdict
from sims.system.errors import MeasureError

SIGNIFICANT = 0.01
# A claim over models needs so many.
LEAST_MODELS = 3


@dataclass(frozen=True)
class SetRank:
    """Hold the place of a set among all sets.

    Attributes:
        rank: how many sets cost as much or less, itself included; ties count against the set.
        number: of all sets.
        p: rank/number: the probability that a random set is as cheap; exact.
        score: Φ⁻¹((r − ½)/number), r the mean rank of the set and those tied with it; below 0 for a cheap set.
    """

    rank: int
    number: int
    p: float
    score: float


class Model(NamedTuple):
    """The costs of one model, and the sets that the rules choose in it."""

    costs: RemovalCosts
    choices: Choices


def set_rank(costs: Sequence[float] | np.ndarray, chosen: int) -> SetRank:
    """Return the exact rank of one set among all.

    Args:
        costs: of all sets; infinite ones are the worst.
        chosen: index of the set.

    Raises:
        MeasureError: no costs, NaN among them, or an index outside.

    >>> set_rank([0.3, 0.1, 0.2, 0.3], 2)
    SetRank(rank=2, number=4, p=0.5, score=-0.3186393639643752)
    """
    own = np.asarray(costs, float)
    if own.ndim != 1 or not len(own) or np.isnan(own).any():
        raise MeasureError(
            f"costs of sets are {own.shape} with {int(np.isnan(own).sum())} NaN; pass one number each"
        )
    if not 0 <= chosen < len(own):
        raise MeasureError(f"no set {chosen} among {len(own)}")
    ranks, scores = _ranks(own)
    rank = int(ranks[chosen])
    return SetRank(rank, len(own), rank / len(own), float(scores[chosen]))


def rank_table(costs: RemovalCosts, choices: Choices, rules: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the exact rank of the set of each rule and N among all interior sets.

    Args:
        costs: of one model.
        choices: of all rules.
        rules: those to rank; all by default.

    Returns:
        One row for each rule and N: rule, n, blocks, cost, rank, number, p, score, status, reason. "not ranked" where
        there are too many sets or only one, they were not measured, or the rule removes a block at an end; "skipped"
        where every rule breaks the model. Their rank, number, p and score are missing.
    """
    skipped, rows = broken(costs, choices), []
    for rule in choices if rules is None else rules:
        for n, blocks in _of(rule, choices).items():
            row = {"rule": rule, "n": n, "blocks": ",".join(map(str, blocks)), "cost": costs.cost(blocks)}
            reason = skipped.get(n) or _unranked(costs, n, blocks)
            if reason:
                status = "skipped" if n in skipped else "not ranked"
                rows.append({**row, "status": status, "reason": reason})
                continue
            every = interior_sets(costs.blocks, n)
            found = set_rank([costs.cost(own) for own in every], every.index(blocks))
            rows.append({**row, **asdict(found), "status": "ok", "reason": ""})
    columns = ["rule", "n", "blocks", "cost", "rank", "number", "p", "score", "status", "reason"]
    return pd.DataFrame(rows, columns=pd.Index(columns)).astype({"rank": "Int64", "number": "Int64"})


@dataclass(frozen=True)
class PooledRank:
    """Hold the mean normal score of a rule over models and N, with its test.

    Attributes:
        rule: the rule.
        models: number of models with a rank.
        cells: ranks, one for each model and N.
        score: their mean normal score; below 0 for cheap sets. NaN where not resolved, as p and p_min.
        p: one-sided, that the sets are as cheap where the interior blocks are exchanged.
        p_min: the smallest that is possible with these models.
        exact: whether all exchanges were counted (models of one number of blocks, at most nine); drawn else.
        status: "ok" or "not resolved".
        reason: why it is not resolved.
    """

    rule: str
    models: int = 0
    cells: int = 0
    score: float = math.nan
    p: float = math.nan
    p_min: float = math.nan
    exact: bool = False
    status: Literal["ok", "not resolved"] = "ok"
    reason: str = ""


def pooled_rank(models: Sequence[Model], rule: str, seed: int = 0) -> PooledRank:
    """Test whether a rule chooses cheaper sets than a random order of the interior blocks.

    The statistic is the mean over models and N of the normal score of the set's rank. Under the null the blocks of its
    sets are exchanged, in all models of one number of blocks alike: an exponent that falls over depth in one seed does
    so in the others, and blocks that are cheap in one are cheap in the others. So more seeds make the mean less noisy,
    and the smallest p no smaller. Models of unequal depth count as independent.

    Args:
        models: with all interior sets measured; an N that cannot be ranked, or at which every rule breaks the model,
            does not count.
        rule: its name.
        seed: of the drawn exchanges.
    """
    observed, cells, reasons = 0.0, 0, {}
    # By the number of interior blocks.
    known: dict[int, list[tuple[RemovalCosts, list[Blocks]]]] = {}
    for costs, choices in models:
        own = rank_table(costs, choices, [rule])
        ranked = own[own["status"] == "ok"]
        if ranked.empty:
            reasons |= dict.fromkeys(own["reason"].astype(str))
            continue
        sets = [choices[rule][int(n)] for n in ranked["n"]]
        known.setdefault(len(costs.blocks) - 2, []).append((costs, sets))
        observed += float(ranked["score"].sum())
        cells += len(ranked)
    if not cells:
        return PooledRank(rule, status="not resolved", reason="; ".join(reasons) or "there are no models")
    generator, exact = np.random.default_rng(seed), len(known) == 1 and max(known) <= EXACT_UNITS
    null = []
    for inner in sorted(known):
        chosen = orders(inner)[0] if exact else _drawn(generator, inner)
        null.append(np.sum([_null(costs, sets, chosen) for costs, sets in known[inner]], axis=0))
    total, extra = np.sum(null, axis=0), 0 if exact else 1

    def share(most: float) -> float:
        return (extra + int((total <= most + TIE).sum())) / (extra + len(total))

    best, used = sum(float(own.min()) for own in null), sum(len(own) for own in known.values())
    return PooledRank(rule, used, cells, observed / cells, share(observed), share(best), exact)


def pooled_ranks(models: Sequence[Model], rules: Sequence[str], seed: int = 0) -> pd.DataFrame:
    """Return the pooled test of several rules: the fields of `PooledRank`, and p_holm over these rules."""
    table = pd.DataFrame([asdict(pooled_rank(models, rule, seed)) for rule in rules])
    return table.assign(p_holm=holm(table["p"].to_numpy(float)))


@dataclass(frozen=True)
class SignTest:
    """Hold in how many models a rule is cheaper than another.

    Attributes:
        rule, against: the rules.
        wins, losses, ties: models in which the first is cheaper, dearer, or the same.
        p: two-sided exact binomial test of the models that differ; 1 where none does.
        left_out: models in which every N breaks the model or is not in both.
    """

    rule: str
    against: str
    wins: int
    losses: int
    ties: int
    p: float
    left_out: int = 0


def sign_test(models: Sequence[Model], rule: str, against: str) -> SignTest:
    """Compare two rules over models, each of which counts once.

    A model's difference is the mean over N of (C(rule) − C(against)) / max(|C(rule)|, |C(against)|), so that large N do
    not outweigh the others. An N at which every rule breaks the model does not count.

    Raises:
        MeasureError: an unknown rule.
    """
    found = []
    for costs, choices in models:
        own, other = _of(rule, choices), _of(against, choices)
        skipped = broken(costs, choices)
        if both := [n for n in own if n in other and n not in skipped]:
            found.append(np.mean([_share(costs, own[n], other[n]) for n in both]))
    values = np.array(found)
    wins, losses = int((values < -TIE).sum()), int((values > TIE).sum())
    p = float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    return SignTest(rule, against, wins, losses, len(values) - wins - losses, p, len(models) - len(values))


def guidance(models: Sequence[Model], rules: Sequence[str] = SPECTRAL, against: str = INFLUENCE) -> Verdict:
    """Say whether a spectral rule chooses the blocks to remove better than chance and than block influence.

    Shown if for one rule the pooled p against interior sets, adjusted by Holm over the rules, is below 0.01, and the
    rule is cheaper than `against` in more models than not. Not resolved with fewer than three models, or where no p
    below 0.01 is possible.
    """
    claim = f"Spectra say which blocks can be removed, better than chance and than {against}"
    table = pooled_ranks(models, rules)
    ranked = table[table["status"] == "ok"]
    if ranked.empty:
        return Verdict(claim, "not resolved", str(table["reason"].iloc[0]))
    if int(ranked["models"].max()) < LEAST_MODELS:
        return Verdict(
            claim, "not resolved", f"{ranked['models'].max()} models; the rule needs {LEAST_MODELS}"
        )
    best = holm_attainable(ranked["p"].to_numpy(float), ranked["p_min"].to_numpy(float))
    if best.min() >= SIGNIFICANT:
        reason = f"no p below {best.min():.3g} is possible with these models and {len(ranked)} rules"
        return Verdict(claim, "not resolved", reason)
    told, passed = [], False
    for row in ranked.itertuples():
        test = sign_test(models, str(row.rule), against)
        passed = passed or (float(row.p_holm) < SIGNIFICANT and test.wins > test.losses)  # pyright: ignore
        told.append(
            f"{row.rule}: mean normal score {row.score:.2f} over {row.cells} ranks in {row.models} models, p = "
            f"{row.p_holm:.3g}; cheaper than {against} in {test.wins}, dearer in {test.losses} (sign test p = "
            f"{test.p:.2g})"
        )
    return Verdict(claim, "shown" if passed else "not shown", "; ".join(told))


def _of(rule: str, choices: Choices) -> Mapping[int, Blocks]:
    """Return the sets of a rule, or refuse an unknown one."""
    if rule not in choices:
        raise MeasureError(f"no rule {rule!r}; the rules are {', '.join(choices)}")
    return choices[rule]


def _unranked(costs: RemovalCosts, n: int, blocks: Blocks) -> str:
    """Return why a set has no rank; "" if it has one."""
    if not countable(len(costs.blocks), n):
        return f"{math.comb(len(costs.blocks), n)} sets of {n} blocks are too many to measure all"
    if not set(blocks) <= set(costs.blocks[1:-1]):
        return "the set contains the first or the last block, and is compared with sets that keep both"
    every = interior_sets(costs.blocks, n)
    if len(every) == 1:
        return "only one set of so many interior blocks exists, which leaves nothing to choose"
    known = set(costs.sets)
    missing = sum(own not in known for own in every)
    return f"{missing} of the {len(every)} interior sets were not measured" if missing else ""


def _ranks(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many costs are as low as each or lower, and the normal score of each."""
    rising = np.sort(costs)
    less = np.searchsorted(rising, costs - TIE, "left")
    until = np.searchsorted(rising, costs + TIE, "right")
    return until, stats.norm.ppf((less + until) / 2 / len(costs))


def _drawn(generator: np.random.Generator, n: int) -> np.ndarray:
    return generator.permuted(np.tile(np.arange(n), (DRAWS, 1)), axis=1)


def _null(costs: RemovalCosts, sets: Sequence[Blocks], chosen: np.ndarray) -> np.ndarray:
    """Return the sum over sets of their normal scores for each exchange (rows) of the interior blocks."""
    inner = costs.blocks[1:-1]
    # A set as the sum of random numbers of its blocks.
    names = np.random.default_rng(0).integers(2**62, size=len(inner))
    name_of = dict(zip(inner, names, strict=True))
    total = np.zeros(len(chosen))
    for own in sets:
        every = interior_sets(costs.blocks, len(own))
        keys = np.array([np.sum([name_of[block] for block in other]) for other in every])
        assert len(np.unique(keys)) == len(keys)
        order = np.argsort(keys)
        _, scores = _ranks(np.array([costs.cost(other) for other in every]))
        places = [inner.index(block) for block in own]
        moved = np.sum(names[chosen[:, places]], axis=1)
        total += scores[order][np.searchsorted(keys[order], moved)]
    return total


def _share(costs: RemovalCosts, own: Blocks, other: Blocks) -> float:
    """Return the difference of two costs as a share of the larger; infinite costs are the worst."""
    a, b = costs.cost(own), costs.cost(other)
    if abs(a - b) <= TIE or a == b:
        return 0.0
    if math.isinf(a) or math.isinf(b):
        return 1.0 if a > b else -1.0
    return (a - b) / max(abs(a), abs(b))
