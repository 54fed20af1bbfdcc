"""The stages after the core chain: what each adds, when its window opens, and that training them is exact."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from toymodel.config import RunConfig, as_dict, run_config
from toymodel.ensemble import Ensemble
from toymodel.parameters import initial_value
from toymodel.reference import ORDER
from toymodel.stages import CHAIN, STAGES, stage
from toymodel.stages.fixed_window import FixedWindow
from toymodel.stages.flex_window import OpeningWindow
from toymodel.stages.long_short import LongShortWindow
from toymodel.stages.truncated_rope import TruncatedRotary
from toymodel.training import train
from toymodel.transformer import Transformer

LATER = [name for name in CHAIN if name not in STAGES]


def strong_params(transformer):
    """One member's parameters without zeros, drawn by name: stages that share a parameter share its values."""
    return {
        s.name: initial_value(replace(s, init="normal", std=2 / math.sqrt(s.shape[-1])), 5)[None].double()
        for s in transformer.specs()
    }


def test_a_new_stage_is_one_file_and_one_line(tiny, monkeypatch):
    # The file: PARENT.then(…) with the components that change; the line: its entry in CHAIN.
    added = stage("muon").then("short_muon", "attention sees 3 positions", window=FixedWindow(3), softcap=9.0)
    monkeypatch.setitem(CHAIN, added.name, added)
    config = tiny(stage="short_muon")
    assert run_config(as_dict(config)) == config
    snapshots = list(train(Ensemble([config, replace(config, seed=1)])))
    assert [s.ended for s in snapshots][-1] == ("finished", "finished")
    assert max(snapshots[-1].val_losses) < min(snapshots[0].val_losses)
    # It is a model of its own: the parent's weights give another loss in it.
    weights = {name: p.detach() for name, p in Ensemble([tiny(stage="muon")]).params.items()}
    tokens = torch.randint(23, (1, 4, 10), generator=torch.Generator().manual_seed(3))
    own, parents = (
        Transformer(stage(name), config.sizes).losses(weights, tokens) for name in ("short_muon", "muon")
    )
    assert not torch.allclose(own, parents)


def test_the_reference_knows_the_chain():
    assert tuple(CHAIN) == ORDER


@pytest.mark.parametrize("name", LATER)
def test_the_function_differs_from_the_parents(name, tiny):
    sequences = torch.randint(23, (1, 4, 10), generator=torch.Generator().manual_seed(8))
    losses = {}
    for each in (name, CHAIN[name].parent):
        # At 6 % of the steps the opening window shows 4 positions.
        transformer = Transformer(stage(each), tiny().sizes, 0.06)
        losses[each] = transformer.losses(strong_params(transformer), sequences).item()
    own, parents = losses.values()
    assert abs(own - parents) > 1e-3


# Validation loss in float64 after four steps of the tiny configuration at seed 0, a high learning rate and no weight
# decay, while the windows of 60 steps still open. The first step moves the head alone; the third is the first to move
# everything. Update as in test_transformer.
GOLDEN = {
    "value_mix": 3.029914775215,
    "unet": 3.018433846740,
    "fixed_window": 3.028286592780,
    "flex_window": 3.015634013886,
    "value_embed": 3.046223306887,
    "sparse_embed": 3.023548564793,
    "truncated_rope": 3.021931101749,
    "softcap": 3.021946487599,
    "long_short": 3.031970290381,
    "attn_scale": 3.026793450686,
}


@pytest.mark.parametrize("name", LATER)
def test_golden_steps(name, tiny, double):
    ensemble = Ensemble([tiny(stage=name, newton_schulz="exact", steps=60, lr=0.02, weight_decay=0.0)])
    start = ensemble.weights(0)
    ensemble.advance(4)
    assert ensemble.evaluate().item() == pytest.approx(GOLDEN[name], rel=1e-9)
    assert [n for n, w in ensemble.weights(0).items() if torch.equal(w, start[n])] == []


@pytest.mark.parametrize("name", LATER)
def test_muon_has_the_matrices_of_the_blocks_and_nothing_else(name, tiny):
    ensemble = Ensemble([tiny(stage=name)])
    hidden = {s.name for s in ensemble.trainable.muon_bank.specs}
    assert hidden == {n for n in ensemble.params if n.endswith(("attn.qkv", "attn.o", "mlp.fc", "mlp.proj"))}
    assert {s.name for s in ensemble.trainable.adamw_bank.specs} == ensemble.params.keys() - hidden


@pytest.mark.parametrize(
    ("name", "added"),
    [
        ("value_mix", 2 * 2 + 1),
        ("unet", 1),
        ("fixed_window", 0),
        ("flex_window", 0),
        ("value_embed", 2 * 1_024 * 128 + 1),
        ("sparse_embed", 2 - 1_024 * 128),
        ("truncated_rope", 0),
        ("softcap", 0),
        ("long_short", 0),
        ("attn_scale", 0),
    ],
)
def test_parameters_added_at_the_published_size(name, added):
    own, parent = (Transformer(stage(s), RunConfig().sizes) for s in (name, CHAIN[name].parent))
    assert own.parameter_count() - parent.parameter_count() == added


def test_a_fixed_window_of_8_reaches_14_positions_through_two_blocks(tiny):
    transformer = Transformer(stage("fixed_window"), replace(tiny().sizes, length=20))
    params = strong_params(transformer)
    tokens = torch.randint(23, (1, 1, 20), generator=torch.Generator().manual_seed(9))
    other = tokens.clone()
    other[..., 2] = (other[..., 2] + 1) % 23
    before, after = transformer.hidden(params, tokens), transformer.hidden(params, other)
    moved = (before != after).any(dim=-1)[0, 0]
    assert moved.nonzero().flatten().tolist() == list(range(2, 17))


def test_the_window_opens_by_twos_over_a_fifth_of_the_steps():
    window, steps = OpeningWindow(), 1_000
    sizes = [window.size(0, step / steps) for step in range(steps + 1)]
    assert sorted(set(sizes)) == [2, 4, 6, 8, 10, 12, 14]
    assert all(a <= b for a, b in pairwise(sizes))
    assert [sizes[s] for s in (0, 30, 40, 199, 201, 1_000)] == [2, 2, 4, 12, 14, 14]


def test_short_windows_are_half_of_the_long_ones():
    window = LongShortWindow()
    assert [window.size(layer, 1.0) for layer in range(6)] == [14, 7, 7, 7, 14, 7]
    assert [window.size(layer, 0.0) for layer in range(2)] == [2, 2]


@pytest.mark.parametrize("name", ["flex_window", "attn_scale"])
def test_a_run_resumed_while_its_window_opens_goes_on_exactly(name, tiny):
    config = tiny(stage=name, steps=60)
    whole = Ensemble([config])
    whole.advance(4)
    saved, seen = whole.state(0), whole.evaluate()
    resumed = Ensemble.from_states([config], [saved], step=4)
    assert torch.equal(resumed.evaluate(), seen)
    # The same weights at another step see through another window.
    late = Ensemble.from_states([config], [saved], step=60)
    assert not torch.allclose(late.evaluate(), seen, rtol=1e-6)
    whole.advance(4)
    resumed.advance(4)
    state = whole.state(0)
    assert all(torch.equal(value, state[key]) for key, value in resumed.state(0).items())


def test_half_of_the_pairs_stand_still():
    angles = TruncatedRotary().frequencies(8, torch.device("cpu"))
    torch.testing.assert_close(angles[:4], 1_024.0 ** -(torch.arange(4) / 3))
    assert not angles[4:].any()
    assert TruncatedRotary().frequencies(1, torch.device("cpu")).tolist() == [1.0]


@pytest.mark.parametrize(("name", "bound"), [("value_mix", 30), ("softcap", 15), ("untied", None)])
def test_logits_keep_their_bound(name, bound, tiny):
    transformer = Transformer(stage(name), tiny().sizes)
    hidden = torch.randn(1, 2, 9, 12, generator=torch.Generator().manual_seed(10))
    params = {"head": 50 * torch.randn(1, 23, 12, generator=torch.Generator().manual_seed(11))}
    largest = transformer.logits(params, hidden).abs().max()
    assert largest == pytest.approx(bound, rel=1e-3) if bound else largest > 100
