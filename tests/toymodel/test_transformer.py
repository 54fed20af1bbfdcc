"""The transformer and its stages: sizes, starting losses, causality, positions, and agreement with plain code."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.func import vmap

from toymodel.config import RunConfig
from toymodel.cross_entropy import CHUNK, head_cross_entropy, position_losses
from toymodel.ensemble import Ensemble
from toymodel.errors import ConfigError
from toymodel.parameters import initial_value
from toymodel.reference import PlainNetwork
from toymodel.stages import CHAIN, STAGES, stage
from toymodel.stages.rope import Rotary
from toymodel.transformer import Transformer, matrices

PUBLISHED_COUNTS = {"baseline": 401_408, "rope": 393_216, "muon": 393_216, "untied": 524_288}


def random_params(transformer, members, seed=0, dtype=torch.float64):
    """Parameters without zeros, so that every path carries signal."""
    generator = torch.Generator().manual_seed(seed)
    return {
        s.name: torch.randn(members, *s.shape, generator=generator, dtype=dtype) / math.sqrt(s.shape[-1])
        for s in transformer.specs()
    }


@pytest.mark.parametrize("name", STAGES)
def test_published_parameter_counts(name):
    assert Transformer(stage(name), RunConfig().sizes).parameter_count() == PUBLISHED_COUNTS[name]


@pytest.mark.parametrize("name", STAGES)
def test_loss_before_training(name):
    losses = Ensemble([RunConfig(stage=name, eval_size=64, seed=seed) for seed in range(8)]).evaluate()
    if name == "untied":
        torch.testing.assert_close(losses, torch.full((8,), math.log(1024)))
    else:
        # Tied N(0,1) embeddings: the logit of the present token is ‖e‖·√d ≈ d, that of the next one ≈ 0. A few
        # tokens make up most of the data, so one seed scatters by about 1.7; the mean of eight by 0.6.
        assert losses.mean().item() == pytest.approx(128, abs=2)
        assert losses.std().item() < 4


def assert_members_equal_plain_code(transformer, params, sequences):
    """Losses and gradients, to the precision of rotations by float32 angles."""
    tolerance = {"rtol": 1e-5, "atol": 1e-6}
    params = {k: v.requires_grad_() for k, v in params.items()}
    losses = transformer.losses(params, sequences)
    grads = torch.autograd.grad(losses.sum(), list(params.values()))
    for k in range(len(sequences)):
        own = {n: p[k].detach().requires_grad_() for n, p in params.items()}
        plain = PlainNetwork(transformer.stage.name, transformer.sizes, own, transformer.progress)
        expected = plain.loss(sequences[k])
        torch.testing.assert_close(losses[k], expected, **tolerance)
        for got, want in zip(grads, torch.autograd.grad(expected, list(own.values())), strict=True):
            torch.testing.assert_close(got[k], want, **tolerance)


# At 12 % of the steps the opening window shows 8 positions of 9, at the end all.
@pytest.mark.parametrize("progress", [0.0, 0.12, 1.0])
@pytest.mark.parametrize("name", CHAIN)
def test_members_and_gradients_equal_plain_code(name, progress, tiny):
    transformer = Transformer(stage(name), tiny().sizes, progress)
    sequences = torch.randint(23, (3, 5, 10), generator=torch.Generator().manual_seed(1))
    assert_members_equal_plain_code(transformer, random_params(transformer, 3), sequences)


# Skips past a block, blocks without a table and short windows between long ones only exist in deeper networks.
@pytest.mark.parametrize("layers", [1, 3, 5, 8])
@pytest.mark.parametrize("name", ["unet", "value_embed", "attn_scale"])
def test_other_depths_equal_plain_code(name, layers, tiny):
    transformer = Transformer(stage(name), replace(tiny().sizes, layers=layers), 0.12)
    sequences = torch.randint(23, (2, 3, 10), generator=torch.Generator().manual_seed(7))
    assert_members_equal_plain_code(transformer, random_params(transformer, 2), sequences)


def test_members_equal_vmap(tiny):
    transformer = Transformer(stage("untied"), tiny().sizes)
    params = random_params(transformer, 4)
    sequences = torch.randint(23, (4, 3, 10), generator=torch.Generator().manual_seed(2))
    by_vmap = vmap(lambda p, s: PlainNetwork("untied", tiny().sizes, p).loss(s))(params, sequences)
    torch.testing.assert_close(transformer.losses(params, sequences), by_vmap, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CHAIN)
def test_causality(name, tiny):
    transformer = Transformer(stage(name), tiny().sizes, 0.12)
    params = random_params(transformer, 1)
    tokens = torch.randint(23, (1, 2, 9), generator=torch.Generator().manual_seed(3))
    for changed in range(9):
        other = tokens.clone()
        other[..., changed] = (other[..., changed] + 1) % 23
        before, after = transformer.hidden(params, tokens), transformer.hidden(params, other)
        assert torch.equal(before[:, :, :changed], after[:, :, :changed])
        assert not torch.allclose(before[:, :, changed], after[:, :, changed])


def test_rope_scores_depend_on_relative_position_only():
    generator = torch.Generator().manual_seed(4)
    q, k = torch.randn(2, 1, 1, 1, 8, generator=generator, dtype=torch.float64)
    rotated_q, rotated_k = Rotary().rotate(q.expand(1, 1, 12, 8), k.expand(1, 1, 12, 8))
    scores = (rotated_q @ rotated_k.transpose(-1, -2))[0, 0]
    for shift in range(-11, 12):
        diagonal = scores.diagonal(shift)
        torch.testing.assert_close(
            diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-5
        )  # float32 angles
    assert (scores.diagonal(1)[0] - scores.diagonal(2)[0]).abs() > 1e-3


def test_baseline_tells_positions_apart_and_rope_alone_does_not_shift(tiny):
    # The same token everywhere: without absolute positions every hidden state is the same.
    tokens = torch.full((1, 1, 9), 5)
    for name, varies in [("baseline", True), ("rope", False)]:
        transformer = Transformer(stage(name), tiny().sizes)
        hidden = transformer.hidden(random_params(transformer, 1), tokens)[0, 0]
        assert (
            (hidden - hidden[0]).abs().max().item() > 1e-3 if varies else torch.allclose(hidden, hidden[:1])
        )


def test_each_stage_changes_what_it_names():
    changed = {s.name: s.differs_from(CHAIN[s.parent]) for s in CHAIN.values() if s.parent}
    assert changed == {
        "rope": ("positions",),
        "muon": ("routing",),
        "untied": ("head", "embedding_norm"),
        "value_mix": ("stream", "values", "softcap"),
        "unet": ("stream",),
        "fixed_window": ("window",),
        "flex_window": ("window",),
        "value_embed": ("values",),
        "sparse_embed": ("values",),
        "truncated_rope": ("positions",),
        "softcap": ("softcap",),
        "long_short": ("window",),
        "attn_scale": ("attention_scale",),
    }
    assert [s.parent for s in CHAIN.values()] == [None, *list(CHAIN)[:-1]]
    assert list(STAGES) == list(CHAIN)[:4]


def test_stages_share_starting_values_by_seed():
    specs = {name: Transformer(stage(name), RunConfig().sizes).specs() for name in CHAIN}
    for other in list(CHAIN)[1:]:
        own, first = ({s.name: s for s in specs[name]} for name in (other, "baseline"))
        assert len(own.keys() & first.keys()) == 9
        before = {s.name: s for s in specs[CHAIN[other].parent]}
        assert all(own[name] == before[name] for name in own.keys() & before.keys())
    embed = specs["baseline"][0]
    assert torch.equal(initial_value(embed, 3), initial_value(specs["untied"][0], 3))
    assert not torch.equal(initial_value(embed, 3), initial_value(embed, 4))


def test_initialisation_follows_its_laws():
    specs = {s.name: s for s in Transformer(stage("baseline"), RunConfig().sizes).specs()}
    embed = initial_value(specs["embed"], 0)
    # 131,072 draws: standard errors 0.0028 and 0.0020.
    assert abs(embed.mean()) < 0.014
    assert abs(embed.std() - 1) < 0.010
    assert initial_value(specs["positions"], 0).std() == pytest.approx(0.02, rel=0.05)
    fc = initial_value(specs["blocks.0.mlp.fc"], 0)
    assert fc.abs().max() <= 1 / math.sqrt(128)
    assert fc.std() == pytest.approx(1 / math.sqrt(3 * 128), rel=0.02)
    assert not initial_value(specs["blocks.0.mlp.proj"], 0).any()
    assert not initial_value(specs["blocks.0.attn.o"], 0).any()


# One optimiser step of the tiny configuration at seed 0 in float64: validation loss before and after. Update these
# values only together with a change of the model, the task or an optimiser that is meant to change training, and say so
# under "Numbers changed" in the CHANGELOG.
GOLDEN = {
    "baseline": (10.936254695850, 10.845692938203),
    "rope": (10.939383474630, 10.852780828011),
    "muon": (10.939383474630, 10.150885988682),
    "untied": (3.135494215929, 3.131650721279),
}


@pytest.mark.parametrize("name", STAGES)
def test_golden_first_step(name, tiny, double):
    ensemble = Ensemble([tiny(stage=name, newton_schulz="exact")])
    before = ensemble.evaluate().item()
    ensemble.advance(1)
    after = ensemble.evaluate().item()
    assert (before, after) == pytest.approx(GOLDEN[name], rel=1e-9)
    assert before != after


def test_untied_moves_only_the_head_in_its_first_step(tiny):
    ensemble = Ensemble([tiny(stage="untied", weight_decay=0.0)])
    before = ensemble.weights(0)
    ensemble.advance(1)
    after = ensemble.weights(0)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"head"}


@pytest.mark.parametrize("cap", [None, 15.0])
@pytest.mark.parametrize("n", [1, CHUNK, CHUNK + 1, 2 * CHUNK + 7])
def test_head_cross_entropy_equals_torch(n, cap):
    generator = torch.Generator().manual_seed(n)
    hidden = torch.randn(2, n, 6, generator=generator, dtype=torch.float64).requires_grad_()
    # Logits near 128 and beyond, as a tied head gives them before training.
    weight = (30 * torch.randn(2, 11, 6, generator=generator, dtype=torch.float64)).requires_grad_()
    targets = torch.randint(11, (2, n), generator=generator)
    scale = torch.tensor([1.0, -2.5], dtype=torch.float64)
    ours = head_cross_entropy(hidden, weight, targets, cap)
    logits = hidden @ weight.transpose(1, 2)
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    theirs = torch.stack([F.cross_entropy(lg, y) for lg, y in zip(logits, targets, strict=True)])
    torch.testing.assert_close(ours, theirs)
    ours_grad = torch.autograd.grad((ours * scale).sum(), [hidden, weight])
    theirs_grad = torch.autograd.grad((theirs * scale).sum(), [hidden, weight])
    torch.testing.assert_close(ours_grad, theirs_grad)


def test_head_cross_entropy_survives_underflow():
    hidden = torch.tensor([[[200.0]]])
    weight = torch.tensor([[[1.0], [-1.0]]])
    loss = head_cross_entropy(hidden, weight, torch.tensor([[1]]))
    assert loss.item() == pytest.approx(400.0)


@pytest.mark.parametrize("offset", [0.0, 20.0, 128.0])
def test_losses_of_a_sure_network_are_not_lost_beside_its_logits(offset):
    """Down to 2e-6, where a float32 of the size of the logits has steps of 1e-5."""
    margins = torch.linspace(5.0, 13.0, 33)
    # One member for each margin: logit offset + margin of the target, and offset of two others.
    weight = torch.stack([offset + margins, *[torch.full_like(margins, offset)] * 2], dim=1).unsqueeze(-1)
    targets = torch.zeros(33, 1, dtype=torch.long)
    loss = head_cross_entropy(torch.ones(33, 1, 1), weight, targets)
    exact = -weight.double()[..., 0].log_softmax(dim=1)[:, 0]
    torch.testing.assert_close(loss.double(), exact, atol=2.5e-7, rtol=1e-6)


def test_head_cross_entropy_makes_no_denormal_numbers():
    """They cost a CPU several times the time of ordinary ones, and tied heads start among them."""
    generator = torch.Generator().manual_seed(1)
    # Logits 0 and from −60 to −120: probabilities down to e^−120, which float32 cannot hold.
    hidden = torch.ones(1, 64, 1)
    weight = torch.cat([torch.zeros(1, 1, 1), -60 - 60 * torch.rand(1, 99, 1, generator=generator)], dim=1)
    hidden.requires_grad_()
    weight.requires_grad_()
    loss = head_cross_entropy(hidden, weight, torch.zeros(1, 64, dtype=torch.long))
    for grad in torch.autograd.grad(loss.sum(), (hidden, weight)):
        assert bool(((grad == 0) | (grad.abs() > torch.finfo(torch.float32).tiny)).all())
    exact = torch.log_softmax(weight.double()[0, :, 0], 0)[0]
    torch.testing.assert_close(loss[0].double(), -exact, atol=1e-7, rtol=0)


def test_position_losses_average_to_the_loss(tiny):
    transformer = Transformer(stage("rope"), tiny().sizes)
    params = random_params(transformer, 2)
    sequences = torch.randint(23, (2, 4, 10), generator=torch.Generator().manual_seed(6))
    each = position_losses(
        transformer.logits(params, transformer.hidden(params, sequences[..., :-1])), sequences[..., 1:]
    )
    assert each.shape == (2, 4, 9)
    torch.testing.assert_close(each.mean((1, 2)), transformer.losses(params, sequences))


def test_matrices_are_views_with_q_k_v_apart(tiny):
    transformer = Transformer(stage("untied"), tiny().sizes)
    params = random_params(transformer, 2)
    named = matrices(params)
    assert set(named) == {"embed", "head"} | {
        f"blocks.{layer}.{m}"
        for layer in range(2)
        for m in ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.fc", "mlp.proj")
    }
    assert torch.equal(named["blocks.1.attn.k"], params["blocks.1.attn.qkv"][:, 1])
    later = Transformer(stage("attn_scale"), tiny().sizes)
    # Learned scalars are no matrices; the table of token values is one.
    assert set(matrices(random_params(later, 1))) == {*named, "value_embed.0"}


def test_a_tap_sees_and_replaces(tiny):
    transformer = Transformer(stage("rope"), tiny().sizes)
    params = random_params(transformer, 1)
    tokens = torch.zeros(1, 2, 9, dtype=torch.long)
    seen = {}

    def record(site, x):
        seen[site] = tuple(x.shape)
        return torch.zeros_like(x) if site == "final" else x

    assert not transformer.hidden(params, tokens, record).any()
    assert seen["blocks.1.mlp.act"] == (1, 2, 9, 24)
    assert seen["blocks.0.attn.q"] == (1, 2, 9, 12)
    assert next(iter(seen)) == "embed"
    assert list(seen)[-1] == "final"


def test_weights_are_copies(tiny):
    ensemble = Ensemble([tiny()])
    weights = ensemble.weights(0)
    weights["embed"].zero_()
    assert ensemble.params["embed"].abs().sum() > 0


def test_odd_head_width_is_refused(tiny):
    with pytest.raises(ConfigError, match="multiple of 8"):
        replace(tiny().model, d_model=12, heads=4)
