"""Costs of removed blocks, as given or drawn."""

from itertools import combinations

import numpy as np

from sims.analysis.removal import RemovalCosts
from sims.analysis.removal_rules import (
    choose,
)
from sims.analysis.set_ranks import (
    Model,
)

VOCAB = 256


def costs_of(costs, layers, n=12, noise=0.0, seed=0, vocab=VOCAB):
    """Costs as given, on sequences that differ."""
    draw = np.random.default_rng(seed)
    base = 2 + 0.3 * draw.standard_normal(n)
    shift = noise * draw.standard_normal((len(costs), n))
    values = np.array(list(costs.values()), float)[:, None]
    losses = base + values + shift - shift.mean(axis=1, keepdims=True)
    return RemovalCosts(tuple(range(layers)), vocab, base, tuple(costs), losses)


def rows_of(table):
    return {(row["rule"], row["n"]): row for row in table.to_dict("records")}


def every_set(layers):
    inner = range(1, layers - 1)
    ends = [tuple(range(layers - n, layers)) for n in range(1, layers - 1)]
    return dict.fromkeys([s for n in range(1, layers - 1) for s in combinations(inner, n)] + ends)


def drawn_model(rule_score, seed, layers=7, counts=(1, 2, 3), follows=0.0):
    """A model with random costs, in which cheap sets have low scores by a share."""
    draw = np.random.default_rng(seed)
    costs = {
        s: 0.2 + 0.1 * len(s) + (1 - follows) * draw.random() + follows * sum(rule_score[list(s)])
        for s in every_set(layers)
    }
    scores = {"ours": rule_score, "block influence": draw.random(layers)}
    return Model(costs_of(costs, layers, seed=seed), choose(range(layers), counts, scores, seed))
