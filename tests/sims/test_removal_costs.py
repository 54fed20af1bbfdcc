"""Losses without sets of blocks: equal to those of the shorter models; and how much blocks turn the stream."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import simulated_device

from sims.analysis.removal import advantages
from sims.analysis.removal_rules import interior_sets
from sims.analysis.set_ranks import Model, pooled_rank, rank_table
from sims.measure import removal
from sims.measure.removal import block_influence, block_norms, measure_removal, removal_costs
from sims.models.transformer import TransformerSubject
from sims.system.errors import MeasureError
from toymodel.sizes import Sizes
from toymodel.stages import stage
from toymodel.transformer import Transformer

LAYERS, VOCAB = 5, 24


def subject_of(seed=0, layers=LAYERS, name="rope", scale=1.0):
    sizes = Sizes(vocab=VOCAB, length=8, d=16, heads=2, layers=layers, mlp=32)
    config: Any = SimpleNamespace(stage=name, sizes=sizes, steps=10, tokens_per_step=8)
    draw = torch.Generator().manual_seed(seed)
    weights = {
        s.name: scale * torch.randn(s.shape, generator=draw) / math.sqrt(s.shape[-1])
        for s in Transformer(stage(name), sizes).specs()
    }
    return TransformerSubject.of_weights(config, weights, 3)


def drawn(n=6, seed=1):
    return torch.randint(VOCAB, (n, 9), generator=torch.Generator().manual_seed(seed))


SUBJECT, TOKENS = subject_of(), drawn()
SETS = st.sets(st.integers(0, LAYERS - 1)).map(lambda s: tuple(sorted(s)))


@settings(max_examples=40, deadline=None)
@given(st.lists(SETS, min_size=1, max_size=12), st.randoms())
def test_losses_are_those_of_the_shorter_models_in_any_order(sets, shuffle):
    # Blocks of a set in any order, as whichever collection.
    given_sets = [shuffle.sample(s, len(s)) if shuffle.random() < 0.5 else set(s) for s in sets]
    found = removal_costs(SUBJECT, TOKENS, given_sets)
    assert found.sets == tuple(dict.fromkeys(sets))
    assert found.blocks == tuple(range(LAYERS))
    assert found.vocab == VOCAB
    whole = SUBJECT.losses(TOKENS).double().mean(dim=1).numpy()
    # Removing nothing leaves the same losses, to the last bit.
    assert np.array_equal(found.base, whole)
    for own, losses in zip(found.sets, found.losses, strict=True):
        short = SUBJECT.without_blocks(own).losses(TOKENS).double().mean(dim=1)
        np.testing.assert_allclose(losses, short.numpy(), atol=1e-6, rtol=0)
    if () in found.sets:
        assert found.cost(()) == 0
    again = removal_costs(SUBJECT, TOKENS, list(reversed(given_sets)))
    assert [again.cost(s) for s in found.sets] == [found.cost(s) for s in found.sets]


def test_by_default_each_block_is_removed_alone():
    found = removal_costs(SUBJECT, TOKENS)
    assert found.sets == tuple((block,) for block in range(LAYERS))
    base = float(SUBJECT.losses(TOKENS).double().mean())
    for block, cost in enumerate(found.importance):
        assert cost == pytest.approx(
            float(SUBJECT.without_blocks([block]).losses(TOKENS).mean()) - base, abs=1e-6
        )
    table = found.table()
    assert list(table["blocks"]) == list("01234")
    assert (table["low"] < table["high"]).all()


def test_states_that_sets_share_are_computed_once(monkeypatch):
    blocks = []
    whole = Transformer._block

    def counted(self, params, layer, *rest):
        blocks.append(layer)
        return whole(self, params, layer, *rest)

    monkeypatch.setattr(Transformer, "_block", counted)
    found = removal_costs(SUBJECT, TOKENS, interior_sets(range(LAYERS), 2))
    # Block 0 once for all; one by one the four models have 5 + 3·3 blocks.
    assert len(found.sets) == 3
    assert blocks.count(0) == 1
    assert len(blocks) < 5 + 3 * 3


def test_how_much_goes_through_at_once_does_not_matter(monkeypatch):
    together = removal_costs(SUBJECT, TOKENS, [[1], [1, 3]])
    monkeypatch.setattr(removal, "LOGITS", 2 * 8 * VOCAB)
    apart = removal_costs(SUBJECT, TOKENS, [[1], [1, 3]])
    np.testing.assert_allclose(apart.losses, together.losses, atol=1e-6)
    monkeypatch.setattr(removal, "POSITIONS", 9)
    influence = block_influence(SUBJECT, TOKENS)
    monkeypatch.undo()
    np.testing.assert_allclose(
        influence["influence"], block_influence(SUBJECT, TOKENS)["influence"], atol=1e-6
    )


def test_a_model_without_blocks_is_measured_by_its_other_numbers():
    short = SUBJECT.without_blocks([2])
    found = removal_costs(short, TOKENS, [[1], [3]])
    assert found.blocks == (0, 1, 3, 4)
    both = removal_costs(SUBJECT, TOKENS, [[2], [1, 2]])
    assert found.cost([1]) == pytest.approx(both.cost([1, 2]) - both.cost([2]), abs=1e-6)
    assert list(block_influence(short, TOKENS)["block"]) == [0, 1, 3, 4]


def test_a_diverged_model_is_refused():
    broken = subject_of().with_matrix("blocks.1.mlp.proj", torch.full((16, 32), 1e38))
    with pytest.raises(MeasureError, match="before the run diverged"):
        removal_costs(broken, TOKENS, [[2]])
    with pytest.raises(MeasureError, match="NaN or Inf"):
        block_influence(broken, TOKENS)


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        ([[5]], "the blocks of this model are 0, 1, 2, 3, 4"),
        ([[1, 1]], "named twice"),
        ([1, 2], "blocks are a int"),
        ([], "no sets of blocks"),
    ],
)
def test_sets_that_cannot_be_removed_are_refused_before_any_work(sets, says, monkeypatch):
    monkeypatch.setattr(Transformer, "hidden", lambda *_: pytest.fail("the model was run"))
    with pytest.raises(MeasureError, match=says):
        removal_costs(SUBJECT, TOKENS, sets)


def test_models_and_sequences_that_do_not_fit_are_refused_before_any_work(monkeypatch):
    monkeypatch.setattr(Transformer, "hidden", lambda *_: pytest.fail("the model was run"))
    with pytest.raises(MeasureError, match="stage unet cannot be removed"):
        removal_costs(subject_of(name="unet"), TOKENS)
    for wrong in (TOKENS[:1], TOKENS[0]):
        with pytest.raises(MeasureError, match="at least 2"):
            removal_costs(SUBJECT, wrong)
        with pytest.raises(MeasureError, match="at least 2"):
            block_influence(SUBJECT, wrong)
    with pytest.raises(MeasureError, match="this model has embed, final"):
        block_influence(SUBJECT.without_blocks(range(LAYERS)), TOKENS)


def test_block_influence_is_one_minus_the_mean_cosine():
    table = block_influence(SUBJECT, TOKENS)
    (seen,) = SUBJECT.activations(TOKENS, SUBJECT.sites)
    states = [seen["embed"], *(seen[f"blocks.{block}"] for block in range(LAYERS))]
    for block, row in enumerate(table.to_dict("records")):
        cosine = F.cosine_similarity(states[block].double(), states[block + 1].double(), dim=-1)
        assert row["influence"] == pytest.approx(1 - float(cosine.mean()), abs=1e-9)
        spread = cosine.mean(dim=1).std() / math.sqrt(len(TOKENS))
        assert row["error"] == pytest.approx(float(spread), abs=1e-9)
    assert table["influence"].between(0.01, 2).all()
    assert (table["n"] == len(TOKENS)).all()


def test_the_interval_of_an_influence_holds_influences_only():
    # Of two sequences Student's quantile is 12.7.
    table = block_influence(SUBJECT, TOKENS[:2])
    assert (table["low"] >= 0).all()
    assert (table["high"] <= 2).all()
    plain = table["influence"] - 12.706 * table["error"]
    np.testing.assert_allclose(table["low"], plain.clip(lower=0), atol=1e-4)
    assert (plain < 0).any()


def test_a_block_that_adds_nothing_has_no_influence_and_no_cost():
    silent = SUBJECT
    for part in ("attn.o", "mlp.proj"):
        silent = silent.with_matrix(f"blocks.2.{part}", torch.zeros_like(silent.matrices[f"blocks.2.{part}"]))
    table = block_influence(silent, TOKENS).set_index("block")
    assert table.loc[2, "influence"] == pytest.approx(0, abs=1e-6)
    costs = removal_costs(silent, TOKENS)
    assert costs.cost([2]) == 0
    assert np.abs(costs.importance[[0, 1, 3, 4]]).min() > 1e-3


def test_on_a_device_the_costs_are_those_of_the_processor():
    expected, turned = removal_costs(SUBJECT, TOKENS, [[1], [1, 3]]), block_influence(SUBJECT, TOKENS)
    with simulated_device():
        there = replace(SUBJECT, params={name: p.to("cuda") for name, p in SUBJECT.params.items()})
        # Sequences come from the host.
        found, influence = removal_costs(there, TOKENS, [[1], [1, 3]]), block_influence(there, TOKENS)
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-6)
    np.testing.assert_allclose(influence["influence"], turned["influence"], atol=1e-6)


def test_costs_are_in_full_precision_whatever_is_chosen_outside():
    expected, turned = removal_costs(SUBJECT, TOKENS), block_influence(SUBJECT, TOKENS)
    with torch.autocast("cpu", torch.bfloat16):
        assert np.array_equal(removal_costs(SUBJECT, TOKENS).losses, expected.losses)
        assert block_influence(SUBJECT, TOKENS).equals(turned)


def test_from_a_model_to_the_rank_of_a_rule():
    # Tied, it predicts the present token, which is the next one.
    tokens = torch.arange(6)[:, None].expand(6, 9)
    alpha = [1.0, 2.0, 3.0, 1.5, 1.0]
    costs, choices = measure_removal(
        SUBJECT, tokens, (1, 2), alpha=alpha, elsewhere=[[9.0, 3.0, 2.0, 1.0, 9.0]]
    )
    assert {
        rule: sets[1] for rule, sets in choices.items() if rule.startswith(("spec", "depth", "last"))
    } == {
        "last N": (4,),
        "last N interior": (3,),
        "spectral low": (3,),
        "spectral high": (2,),
        "depth rule": (3,),
    }
    influence = block_influence(SUBJECT, tokens)["influence"].to_numpy()
    assert choices["block influence"][1] == (1 + int(np.argmin(influence[1:4])),)
    assert choices["weight norm"][1] == (1 + int(np.argmin(block_norms(SUBJECT)[1:4])),)
    assert choices["one at a time"][1] == (1 + int(np.argmin(costs.importance[1:4])),)
    assert set(costs.sets) >= {*interior_sets(range(LAYERS), 2), (4,), (3, 4)}
    table = rank_table(costs, choices).set_index(["rule", "n"])
    # The oracle of single blocks is best for one block, by its definition.
    assert table.loc[("one at a time", 1), "rank"] == 1
    assert table.loc[("one at a time", 1), "p"] == pytest.approx(1 / 3)
    assert pooled_rank([Model(costs, choices)], "one at a time").score < 0
    assert len(advantages(costs, choices, "one at a time", "last N")) == 2


def test_norms_of_blocks_are_those_of_all_their_weights():
    for block, norm in enumerate(block_norms(SUBJECT)):
        own = [
            p.double().square().sum() for n, p in SUBJECT.params.items() if n.startswith(f"blocks.{block}.")
        ]
        assert norm == pytest.approx(math.sqrt(sum(own)))


@pytest.mark.parametrize(
    ("counts", "changes", "says"),
    [
        ((4,), {}, "4 of 5 blocks cannot be removed with both ends kept; remove 1 to 3"),
        ((1,), {"alpha": [1.0, 2.0]}, r"scores are of \[2, 5\] blocks"),
        ((1,), {"elsewhere": [[1.0]]}, "costs of another model"),
    ],
)
def test_rules_that_do_not_fit_are_refused_before_any_work(counts, changes, says, monkeypatch):
    monkeypatch.setattr(Transformer, "hidden", lambda *_: pytest.fail("the model was run"))
    with pytest.raises(MeasureError, match=says):
        measure_removal(SUBJECT, TOKENS, counts, **changes)
