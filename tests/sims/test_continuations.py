"""What followed each context of a text, against counts in plain lists."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sims.text.continuations import Continuations
from sims.text.suffix_array import suffix_array

tokens_of = st.lists(st.integers(0, 2), min_size=1, max_size=60)


@example(tokens=[0] * 40)
@example(tokens=[65535, 0, 65535])
@example(tokens=[2**31, 1])
@given(tokens=tokens_of)
def test_suffixes_are_sorted_as_lists_are(tokens):
    expected = sorted(range(len(tokens)), key=lambda i: tokens[i:])
    assert suffix_array(np.array(tokens)).tolist() == expected


@example(tokens=[0], context=[0])
@example(tokens=[0] * 30, context=[0] * 9)
@example(tokens=[0, 1, 0, 1, 0], context=[2])
@given(tokens=tokens_of, context=st.lists(st.integers(0, 3), max_size=9))
def test_small_texts_are_counted_as_in_lists(tokens, context):
    text = Continuations.of(np.array(tokens))
    size = len(context)
    expected = Counter(tokens[i + size] for i in range(len(tokens) - size) if tokens[i : i + size] == context)
    found = text.after(context)
    assert dict(zip(found.tokens.tolist(), found.counts.tolist(), strict=True)) == expected
    assert [found.of(token) for token in range(5)] == [expected[token] for token in range(5)]
    assert found.total == sum(expected.values())
    most = max(expected.values(), default=0)
    assert found.likeliest == min((t for t, n in expected.items() if n == most), default=-1)
    occur = [
        k
        for k in range(size + 1)
        if any(tokens[i : i + k] == context[size - k :] for i in range(len(tokens) - k))
    ]
    assert text.longest(context) == max(occur, default=0)


def chain(size, vocabulary, seed=0):
    """Return text of a random chain with few followers of each token."""
    rng = np.random.default_rng(seed)
    follow = rng.integers(vocabulary, size=(vocabulary, 4))
    tokens, steps = [0], rng.integers(4, size=size - 1)
    for step in steps:
        tokens.append(int(follow[tokens[-1], step]))
    return tokens


def test_a_text_of_fifty_thousand_tokens_is_counted_as_in_lists_up_to_eight_tokens():
    tokens = chain(50_000, 97)
    text = Continuations.of(np.array(tokens))
    places = np.random.default_rng(1).integers(8, len(tokens), 300)
    for n in range(1, 9):
        expected = defaultdict(Counter)
        for i in range(n - 1, len(tokens)):
            expected[tuple(tokens[i - n + 1 : i])][tokens[i]] += 1
        for place in places:
            context = tokens[place - n + 1 : place]
            found = text.after(context)
            assert dict(zip(found.tokens, found.counts, strict=True)) == expected[tuple(context)]
            assert sum(found.counts / found.total) == pytest.approx(1, abs=1e-12)


def test_no_context_crosses_the_beginning_of_a_document():
    # 9 begins a document, and its end is counted as what follows its last token.
    text = Continuations.of(np.array([9, 1, 2, 9, 1, 3, 9, 2, 9, 1]), end=9)
    assert text.within_document(np.array([1, 2, 9, 1])).tolist() == [9, 1]
    assert text.within_document(np.array([1, 2])).tolist() == [1, 2]
    first = text.after(text.within_document(np.array([2, 9, 1])))
    assert dict(zip(first.tokens.tolist(), first.counts.tolist(), strict=True)) == {2: 1, 3: 1}
    assert text.after([2]).tokens.tolist() == [9]
    assert Continuations.of(np.array([9, 1]), None).within_document(np.array([9, 1])).tolist() == [9, 1]
