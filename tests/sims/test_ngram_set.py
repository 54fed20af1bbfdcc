"""Which n-grams occur in a text, against the counts of its sorted suffixes; documents of one kind."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sims.system.errors import StoreError
from sims.text import narrow
from sims.text.continuations import Continuations
from sims.text.narrow import Axis, Document, documents
from sims.text.ngram_set import NgramSet

END = 0
TEXTS = st.lists(st.integers(0, 3), min_size=2, max_size=60).map(np.array)


def occurs(text: Continuations, context: np.ndarray, token: int) -> bool:
    """Say whether a token follows a context, from the sorted suffixes of the text."""
    return text.after(text.within_document(context)).of(token) > 0


@settings(max_examples=200, deadline=None)
@given(
    TEXTS,
    st.lists(st.integers(0, 3), min_size=9, max_size=9),
    st.integers(2, 4),
    st.booleans(),
    st.booleans(),
)
def test_what_occurs_is_what_the_sorted_suffixes_have(tokens, row, order, apart, begins):
    # Documents begin with the token END; a text may begin in one.
    tokens = np.concatenate([[END], tokens]) if begins else tokens
    end = END if apart else None
    text = Continuations.of(tokens, end)
    grams = NgramSet.of([tokens[:5], tokens[5:]], vocabulary=4, order=order, end=end)
    row = np.array(row)
    given_ = order - 1
    expected = [occurs(text, row[t - given_ : t], int(row[t])) for t in range(given_, 9)]
    windows = np.lib.stride_tricks.sliding_window_view(row, order)
    assert grams.has(windows).tolist() == expected
    for first in range(given_, 9):
        assert grams.occur(row[None], first).tolist() == [all(expected[first - given_ :])]
    others = (row[1:] + 1) % 4
    found = grams.follow(row[None], others[None])[0]
    assert found[: order - 2].all()
    for t in range(order - 2, 8):
        assert found[t] == occurs(text, row[t - order + 2 : t + 1], int(others[t]))


def test_contexts_do_not_reach_into_the_document_before():
    text = np.array([END, 1, 2, END, 3])
    apart, together = (NgramSet.of([text], 4, 3, end) for end in (END, None))
    # After the end of any document, and at the start of the text: 3 and 1 begin documents.
    begins = np.array([[2, END, 3], [1, END, 3], [2, END, 1], [2, END, 2]])
    assert apart.has(begins).tolist() == [True, True, True, False]
    assert together.has(begins).tolist() == [True, False, False, False]
    assert not NgramSet.of([text[:2]], 4, 3).has(begins).any()


def test_documents_that_begin_early_in_a_text_without_a_first_end_are_held():
    grams = NgramSet.of([np.array([3, END, 2, END, 3, 2])], 4, 4, END)
    # After the token END alone 2 and 3 come; END and 3 are followed by 2, and not by END as at the start.
    windows = np.array([[1, END, END, 2], [1, 1, END, 3], [1, END, 3, 2], [1, END, 3, END]])
    assert grams.has(windows).tolist() == [True, True, True, False]


def test_orders_that_are_no_64_bit_numbers_are_refused():
    for order in (1, 5):
        with pytest.raises(StoreError, match="2 to 4"):
            NgramSet.of([np.arange(9)], 50_304, order)
    # 512**7 is 2**63.
    with pytest.raises(StoreError, match="2 to 6"):
        NgramSet.of([np.arange(9)], 512, 7)
    assert NgramSet.of([np.arange(9)], 512, 6).known.size == 4


def of_kinds(draws, kinds, sizes):
    """Documents of tokens around 20 times their kind, each begun by token 0; and where they are."""
    parts = [np.append(0, 1 + 20 * k + draws.integers(0, 20, n)) for k, n in zip(kinds, sizes, strict=True)]
    return np.concatenate(parts)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_documents_of_one_kind_are_found_in_both_texts(seed):
    draws = np.random.default_rng(seed)
    kinds = draws.permutation([2] * 3 + [0] * 20 + [1] * 20)
    text = of_kinds(draws, kinds, [200] * 43)
    # The rare kind is the most different from the mean: it lies furthest out on the side where it is.
    other = of_kinds(draws, [0, 1] * 5, [150] * 10)
    every = documents(text, 0)
    assert [len(own) for own in every] == [201] * 43
    axis = Axis.of(text, every, share=0.05)
    chosen = axis.furthest(text, every, share=0.3)
    found = {int(kinds[every.index(own)]) for own in chosen}
    # One side of the direction between the two frequent kinds, and never both.
    assert not {0, 1} <= found
    again = axis.furthest(other, documents(other, 0), share=0.3)
    assert len({int(other[own.start + 1] - 1) // 20 for own in again}) == 1
    assert sum(map(len, chosen)) >= 0.3 * len(text)
    assert [own.start for own in chosen] == sorted(own.start for own in chosen)


def test_the_direction_is_the_first_principal_one_of_documents_weighted_by_their_tokens():
    draws = np.random.default_rng(3)
    # A long document of a kind of its own outweighs many short ones.
    text = of_kinds(draws, [0, 1] * 6 + [2], [30] * 12 + [900])
    every = documents(text, 0)
    axis = Axis.of(text, every, share=0.1)
    counts = np.array([np.bincount(text[d.start + 1 : d.stop], minlength=61)[axis.tokens] for d in every])
    rows = np.sqrt(counts / counts.sum(axis=1, keepdims=True))
    weights = np.array([len(d) for d in every])
    covariance = np.cov(rows.T, aweights=weights)
    direction = np.linalg.eigh(covariance)[1][:, -1]
    assert abs(axis.direction[:-1] @ direction) == pytest.approx(1, abs=1e-9)


def test_documents_are_chosen_from_all_and_not_from_those_of_the_direction_alone(monkeypatch):
    monkeypatch.setattr(narrow, "DOCUMENTS", 10)
    draws = np.random.default_rng(0)
    kinds = draws.permutation([0] * 40 + [1] * 20)
    text = of_kinds(draws, kinds, [50] * 60)
    every = documents(text, 0)
    axis = Axis.of(text, every, share=0.05)
    chosen = axis.furthest(text, every, share=0.3)
    # Of ten documents 0.3 of the tokens would be 3.
    assert len(chosen) == 18
    assert len({int(kinds[every.index(own)]) for own in chosen}) == 1


def test_few_documents_have_no_kinds():
    assert documents(np.array([1, 2]), None) == []
    with pytest.raises(StoreError, match="needs 3"):
        Axis.of(np.array([0, 1, 0, 2]), [Document(0, 2), Document(2, 4)], 0.1)
