"""Blocks removed from the transformers of this package: equal to a shorter model that is built directly."""

import math
import re
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import pytest
import torch

from sims.models.transformer import TransformerStack, TransformerSubject
from sims.system.errors import MeasureError
from toymodel import TaskConfig
from toymodel.config import ModelConfig, RunConfig
from toymodel.errors import ConfigError
from toymodel.stages import CHAIN, STAGES, stage
from toymodel.transformer import Transformer

LAYERS = 4
SUBSETS = [s for n in range(LAYERS + 1) for s in combinations(range(LAYERS), n)]


def config_of(name, seed=0):
    task = TaskConfig(vocab=24, length=8, train=400, val=64, test=8)
    model = ModelConfig(d_model=16, heads=2, layers=LAYERS)
    return RunConfig(
        stage=name, task=task, model=model, batch_size=8, lr=0.02, steps=4, eval_size=16, seed=seed
    )


def subject_of(name="rope", seed=0):
    """A transformer without zeros, so that every block changes the stream."""
    config = config_of(name, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    weights = {
        s.name: torch.randn(s.shape, generator=draw) / math.sqrt(s.shape[-1])
        for s in Transformer(stage(name), config.sizes).specs()
    }
    return TransformerSubject.of_weights(config, weights, 3)


def shorter(subject, removed):
    """The model with fewer blocks, whose parameters are renumbered."""
    kept = [layer for layer in range(LAYERS) if layer not in removed]
    params = {n: p for n, p in subject.params.items() if not n.startswith("blocks.")}
    for new, old in enumerate(kept):
        own = f"blocks.{old}."
        params |= {
            f"blocks.{new}.{n.removeprefix(own)}": p for n, p in subject.params.items() if n.startswith(own)
        }
    own = subject.config
    # A configuration needs a block, the model does not.
    config = SimpleNamespace(stage=own.stage, steps=own.steps, sizes=replace(own.sizes, layers=len(kept)))
    return replace(subject, config=config, params=params), kept


def drawn(n=6, seed=1):
    return torch.randint(24, (n, 9), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", STAGES)
def test_every_subset_equals_the_shorter_model(name):
    subject, tokens = subject_of(name), drawn()
    before = subject.losses(tokens)
    for removed in SUBSETS:
        short, (direct, kept) = subject.without_blocks(removed), shorter(subject, removed)
        torch.testing.assert_close(short.losses(tokens), direct.losses(tokens), atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(short.log_probs(tokens), direct.log_probs(tokens), atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(
            short.last_states(tokens), direct.last_states(tokens), atol=1e-6, rtol=1e-6
        )
        assert short.sites == ("embed", *(f"blocks.{layer}" for layer in kept), "final")
        (seen,), (other,) = (s.activations(tokens, s.sites) for s in (short, direct))
        for site, x in zip(short.sites, other.values(), strict=True):
            torch.testing.assert_close(seen[site], x, atol=1e-6, rtol=1e-6)
    assert torch.equal(subject.losses(tokens), before)
    assert torch.equal(subject.without_blocks([]).losses(tokens), before)


def test_matrices_and_gradients_of_the_blocks_that_are_left():
    subject, tokens = subject_of("untied"), drawn(3)
    short, (direct, kept) = subject.without_blocks([0, 2]), shorter(subject, (0, 2))
    names = [n for n in short.matrices if n.startswith("blocks.")]
    assert {n.split(".")[1] for n in names} == {"1", "3"}
    assert {n for n in short.input_sites if n != "head"} == set(names)
    assert short.matrices["blocks.3.attn.q"].data_ptr() == subject.matrices["blocks.3.attn.q"].data_ptr()
    own = short.gradient_factors(tokens, names)
    for name in names:
        number = name.split(".")[1]
        other = name.replace(f".{number}.", f".{kept.index(int(number))}.")
        expected = direct.gradient_factors(tokens, [other])[other]
        torch.testing.assert_close(own[name].a, expected.a, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(own[name].d, expected.d, atol=1e-6, rtol=1e-5)
    assert short.transformer.parameter_count() == direct.transformer.parameter_count()
    assert {s.name for s in short.transformer.specs()} == set(short.params)


def test_order_and_repetition_of_removals():
    subject, tokens = subject_of(), drawn()
    together = subject.without_blocks([3, 1]).losses(tokens)
    assert torch.equal(subject.without_blocks({1, 3}).losses(tokens), together)
    assert torch.equal(subject.without_blocks([3]).without_blocks([1]).losses(tokens), together)
    with pytest.raises(
        MeasureError, match=re.escape("no block 3 to remove; the blocks of this model are 0, 1, 2")
    ):
        subject.without_blocks([3]).without_blocks([3])


def test_an_edited_model_stays_without_its_blocks():
    subject, tokens = subject_of(), drawn()
    short = subject.without_blocks([1])
    value = torch.zeros_like(short.matrices["blocks.2.attn.o"])
    edited = short.with_matrix("blocks.2.attn.o", value)
    other = subject.with_matrix("blocks.2.attn.o", value).without_blocks([1])
    assert torch.equal(edited.losses(tokens), other.losses(tokens))
    with pytest.raises(MeasureError, match=r"blocks\.1\.attn\.o"):
        short.with_matrix("blocks.1.attn.o", value)


@pytest.mark.parametrize("removed", SUBSETS, ids=str)
def test_the_last_position_alone_is_that_of_all(removed):
    short = subject_of().without_blocks(removed)
    every = short.transformer.hidden(short.params, drawn()[None, :, :-1])
    last = short.transformer.hidden(short.params, drawn()[None, :, :-1], last=True)
    torch.testing.assert_close(last, every[:, :, -1:])


def test_members_of_a_stack_have_the_same_blocks():
    members = [subject_of(seed=seed) for seed in (0, 1)]
    params = {name: torch.cat([m.params[name] for m in members]) for name in members[0].params}
    stack = TransformerStack([m.config for m in members], params, 3, removed=frozenset({2}))
    for own, alone in zip(stack.members, members, strict=True):
        assert torch.equal(own.losses(drawn()), alone.without_blocks([2]).losses(drawn()))
    values = torch.randn(24, 16, generator=torch.Generator().manual_seed(9)).expand(2, 3, 24, 16)
    for own, alone in zip(stack.edited("embed", values).members[::3], members, strict=True):
        edited = alone.without_blocks([2]).with_matrix("embed", values[0, 0])
        assert torch.equal(own.losses(drawn()), edited.losses(drawn()))


@pytest.mark.parametrize("name", [n for n in CHAIN if n not in STAGES])
def test_stages_with_values_or_skips_between_blocks_are_refused(name):
    subject = subject_of(name)
    with pytest.raises(
        MeasureError, match=f"blocks of stage {name} cannot be removed: later blocks read more"
    ):
        subject.without_blocks([1])
    assert subject.without_blocks([]) is subject


def test_networks_without_blocks_and_numbers_that_are_no_blocks_are_refused():
    config = replace(config_of("mlp"), model=ModelConfig(d_model=16, heads=1, layers=1))
    with pytest.raises(MeasureError, match="no block 0 to remove"):
        TransformerSubject(config, {}, 0).without_blocks([0])
    for blocks, says in (
        ([4], "the blocks of this model are 0, 1, 2, 3"),
        ([-1], "-1"),
        ([2, 2], "named twice"),
    ):
        with pytest.raises(MeasureError, match=says):
            subject_of().without_blocks(blocks)
    with pytest.raises(ConfigError, match="the blocks are 0 to 3"):
        Transformer(stage("rope"), config_of("rope").sizes, removed=frozenset({4}))
