"""The law of n-grams: against a dictionary of counts, and on text of a known chain."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sims.text.ngram import NgramLaw

V = 4


def slow(rows, context, vocabulary, order):
    """Return the law after a context from lists and dictionaries."""
    rows, context = [[int(w) for w in row] for row in rows], [int(w) for w in context]
    singles = Counter(w for row in rows for w in row[1:])
    total = sum(singles.values())
    law = [(singles[w] + len(singles) / vocabulary) / (total + len(singles)) for w in range(vocabulary)]
    for length in range(1, order):
        history = context[len(context) - length :] if length <= len(context) else [-1]
        after = Counter(
            row[i + length]
            for row in rows
            for i in range(len(row) - length)
            if row[i : i + length] == history
        )
        n, t = sum(after.values()), len(after)
        if n:
            law = [(after[w] + t * law[w]) / (n + t) for w in range(vocabulary)]
    return law


def chain(length, seed=0, vocabulary=V):
    """Return a random transition matrix and text drawn from it."""
    rng = np.random.default_rng(seed)
    matrix = rng.dirichlet(np.full(vocabulary, 0.5), vocabulary)
    tokens = [0]
    for _ in range(length):
        tokens.append(int(rng.choice(vocabulary, p=matrix[tokens[-1]])))
    return matrix, np.array([tokens])


@example(rows=np.array([[0, 1]]), context=[0, 1, 2], order=3)
@given(
    rows=arrays.arrays(
        np.int64, st.tuples(st.integers(1, 3), st.integers(2, 12)), elements=st.integers(0, V - 1)
    ),
    context=st.lists(st.integers(0, V - 1), min_size=1, max_size=3),
    order=st.sampled_from([2, 3]),
)
def test_counts_are_those_of_a_dictionary(rows, context, order):
    found = NgramLaw.of(rows, V, order).next_tokens(np.array([context]))
    np.testing.assert_allclose(found, [slow(rows, context, V, order)], rtol=1e-12)
    assert found.sum() == pytest.approx(1, abs=1e-12)
    assert found.min() > 0


def test_a_context_that_begins_in_a_sequence_has_fewer_tokens():
    law = NgramLaw.of(np.array([[0, 1, 2, 3, 0, 1, 3]]), V, 3)
    np.testing.assert_array_equal(law.next_tokens(np.array([[-1, 1]])), law.next_tokens(np.array([[1]])))
    assert not np.array_equal(law.next_tokens(np.array([[0, 1]])), law.next_tokens(np.array([[1]])))


@pytest.mark.parametrize("order", [2, 3])
def test_the_law_goes_to_that_of_the_chain(order):
    matrix, rows = chain(30_000)
    contexts = np.stack(np.divmod(np.arange(V * V), V), axis=1)
    common = np.bincount(rows[0, :-1] * V + rows[0, 1:], minlength=V * V) / rows.size
    errors = []
    for length in (300, 30_000):
        law = NgramLaw.of(rows[:, : length + 1], V, order).next_tokens(contexts)
        errors.append(common @ np.abs(law - matrix[contexts[:, 1]]).sum(axis=1) / 2)
    # A hundred times the text: about a tenth of the distance.
    assert errors[1] < 0.02
    assert errors[1] < errors[0] / 4
