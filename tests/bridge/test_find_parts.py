"""What is found in modules of any kind, and what layouts are refused."""

import doctest
import importlib
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from formats import sequences as drawn
from plain_modules import Block, Decoder, Mixture, Patches, Stages
from torch import nn

from sims.models.layout import watch
from sims.models.module import ModuleSubject
from sims.models.parts import find_parts, layout_of, unwrapped
from sims.models.stored import stored_weights
from sims.system.errors import MeasureError

MODULES = (
    "names",
    "cuts",
    "layout",
    "structure",
    "parts",
    "decoder",
    "on_disk",
    "stored",
    "checkpoint_info",
    "formats.hf_files",
)


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module):
    assert doctest.testmod(importlib.import_module(f"sims.models.{module}")).failed == 0


def seen_at(model, sites, *inputs):
    found = {}
    handles = [
        watch(model, at, lambda x, site=site: found.setdefault(site, x.detach()))
        for site, at in sites.items()
    ]
    with torch.no_grad():
        model(*inputs)
    for handle in handles:
        handle.remove()
    assert not any(module._forward_hooks for module in model.modules())
    return found


def test_a_decoder_of_ones_own():
    model = Decoder()
    parts = find_parts(model)
    assert (parts.embed, parts.blocks, parts.head) == ("tokens", "tower", "readout")
    assert parts.sites == {
        "embed": "input of tower.0",
        **{f"blocks.{i}": f"tower.{i}" for i in range(3)},
        "final": "ln_f",
    }
    names = [
        f"blocks.{i}.{n}"
        for i in range(3)
        for n in ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.fc", "mlp.proj")
    ]
    assert list(parts.matrices) == ["embed", "positions", *names, "head"]
    seen = seen_at(model, parts.sites, drawn()[:, :-1])
    expected = model.tokens(drawn()[:, :-1]) + model.positions(torch.arange(8))
    assert torch.equal(seen["embed"], expected)
    torch.testing.assert_close(model.readout(seen["final"]), model(drawn()[:, :-1]))


def test_a_tied_head_is_no_matrix_of_its_own():
    parts = find_parts(Decoder(tied=True))
    assert parts.head == "readout"
    assert "head" not in parts.matrices
    assert "embed" in parts.matrices


def test_a_vision_transformer():
    model = Patches()
    parts = find_parts(model)
    assert (parts.embed, parts.blocks, parts.head) == (None, "blocks", "head")
    assert list(parts.sites) == ["blocks.0", "blocks.1", "blocks.2", "blocks.3", "final"]
    assert parts.matrices["patch_embed"].of(model).shape == (16, 3 * 4 * 4)
    assert parts.matrices["pos_embed"].of(model).shape == (5, 16)
    assert "cls_token" in parts.notes[0]
    seen = seen_at(model, parts.sites, torch.randn(2, 3, 8, 8))
    assert {x.shape for x in seen.values()} == {(2, 5, 16)}


def test_a_network_in_stages():
    model = Stages()
    parts = find_parts(model)
    assert (parts.embed, parts.blocks) == (None, None)
    assert list(parts.sites) == ["layer1.0", "layer1.1", "layer2.0", "layer2.1"]
    assert parts.matrices["layer2.0.conv1"].of(model).shape == (12, 8 * 3 * 3)
    assert set(seen_at(model, parts.sites, torch.randn(2, 3, 8, 8))) == set(parts.sites)


@pytest.mark.parametrize(
    ("model", "sites", "matrices"),
    [
        (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), ["0", "2"], ["0", "2"]),
        (nn.Linear(4, 3), [], ["weight"]),
        (nn.GRU(4, 5, num_layers=2), [], ["weight_ih_l0", "weight_hh_l0", "weight_ih_l1", "weight_hh_l1"]),
        (
            nn.Sequential(nn.Embedding(9, 4), nn.LSTM(4, 5)),
            ["0", "1"],
            ["embed", "1.weight_ih_l0", "1.weight_hh_l0"],
        ),
        (nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Conv3d(4, 4, 2)), ["0", "2"], ["0", "2"]),
    ],
)
def test_small_modules(model, sites, matrices):
    parts = find_parts(model)
    assert list(parts.sites) == sites
    assert list(parts.matrices) == matrices
    assert all(place.of(model).ndim == 2 for place in parts.matrices.values())


def test_an_encoder_of_torch():
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    model = nn.ModuleDict(
        {"embed": nn.Embedding(29, 16), "encoder": nn.TransformerEncoder(layer, 3), "head": nn.Linear(16, 29)}
    )
    parts = find_parts(model)
    assert (parts.embed, parts.blocks, parts.head) == ("embed", "encoder.layers", "head")
    assert [n for n in parts.matrices if n.startswith("blocks.1.")] == [
        f"blocks.1.{n}" for n in ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.fc", "mlp.proj")
    ]
    attention = model["encoder"].layers[1].self_attn
    assert torch.equal(parts.matrices["blocks.1.attn.v"].of(model), attention.in_proj_weight[32:].detach())


def test_a_list_of_experts():
    model = nn.ModuleDict({"layers": nn.ModuleList([Mixture(), Mixture()])})
    parts = find_parts(model)
    assert parts.blocks == "layers"
    assert list(parts.sites) == ["blocks.0", "blocks.1", "final"]
    experts = [f"mlp.experts.{e}.{n}" for e in range(3) for n in ("gate", "proj", "fc")]
    own = [*(f"attn.{n}" for n in "qkvo"), "mlp.router", *experts]
    assert list(parts.matrices) == [f"blocks.{i}.{n}" for i in (0, 1) for n in own]


def test_a_gate_with_the_name_of_a_router_is_none(tmp_path):
    """A gated MLP in plain words: gate, up and down."""
    sizes = {"gate": (16, 40), "up": (16, 40), "down": (40, 16)}
    blocks = (
        nn.ModuleDict({"mlp": nn.ModuleDict({n: nn.Linear(*own) for n, own in sizes.items()})})
        for _ in range(2)
    )
    model = nn.ModuleDict({"layers": nn.ModuleList(blocks)})
    parts = find_parts(model)
    names = [f"blocks.{i}.mlp.{n}" for i in (0, 1) for n in ("gate", "fc", "proj")]
    assert list(parts.matrices) == names
    assert all(place.has_factors(name, model) for name, place in parts.matrices.items())
    torch.save(model.state_dict(), tmp_path / "model.pt")
    assert list(stored_weights(tmp_path / "model.pt").names) == names


def test_an_encoder_and_a_decoder_keep_their_own_names():
    model = nn.Transformer(16, 2, 2, 2, 32, batch_first=True)
    parts = find_parts(model)
    assert parts.blocks is None
    assert list(parts.sites) == [f"{side}.layers.{i}" for side in ("encoder", "decoder") for i in (0, 1)]
    assert len(parts.matrices) == len(set(parts.matrices)) == 2 * (4 + 2) + 2 * (8 + 2)
    assert "decoder.layers.1.multihead_attn.v" in parts.matrices


@pytest.mark.parametrize(
    ("layers", "sites", "matrices"),
    [
        (["blocks.1"], ["blocks.1"], []),
        (["blocks.*.attn.q"], [], ["blocks.0.attn.q", "blocks.1.attn.q", "blocks.2.attn.q"]),
        (["tower.2.mlp.c_fc"], [], ["blocks.2.mlp.fc"]),
        (["1"], ["blocks.1"], []),
        (["?.attn.q"], [], ["blocks.0.attn.q", "blocks.1.attn.q", "blocks.2.attn.q"]),
        (["final", "head"], ["final"], ["head"]),
        (["blocks.[02]", "embed"], ["embed", "blocks.0", "blocks.2"], ["embed"]),
        (["tower.0.ln_1"], ["tower.0.ln_1"], []),
    ],
)
def test_parts_are_chosen_by_name_or_pattern(layers, sites, matrices):
    parts = find_parts(Decoder(), layers)
    assert list(parts.sites) == sites
    assert [m for m in parts.matrices if m in matrices] == matrices
    assert all(
        any(m.startswith(s) for s in (*sites, *matrices)) or "tower" in layers[0] for m in parts.matrices
    )


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(MeasureError, match=r"'blocks.7' names no part.*embed, blocks.0.*attn.q.*tower"):
        find_parts(Decoder(), ["blocks.7"])


def test_wrappers_are_taken_off(monkeypatch):
    model = Decoder()
    compiled = torch.compile(model, backend="eager")
    assert unwrapped(compiled) is model
    assert unwrapped(nn.DataParallel(compiled)) is model
    assert find_parts(compiled).sites == find_parts(model).sites
    subject = ModuleSubject.of(compiled, layout_of(compiled), 0)
    torch.testing.assert_close(
        subject.losses(drawn()), ModuleSubject.of(model, layout_of(model), 0).losses(drawn())
    )

    class FSDPDecoder(Decoder):
        pass

    with pytest.raises(MeasureError, match="FSDPDecoder, whose weights are spread over processes"):
        find_parts(FSDPDecoder())


def test_quantised_modules_are_refused():
    model = Decoder()
    narrow = nn.Parameter(torch.ones(64, 1, dtype=torch.uint8), requires_grad=False)
    model.tower[1].mlp["c_fc"].weight = narrow
    with pytest.raises(MeasureError, match=r"tower.1.mlp.c_fc.weight is of uint8"):
        find_parts(model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_layouts_of_models_in_other_types(dtype):
    model = Decoder().to(dtype)
    layout = layout_of(model)
    assert (layout.scale, layout.softcap, layout.trunk) == (1.0, None, "")
    assert {p.dtype for p in model.parameters()} == {dtype}
    expected = F.cross_entropy(model.float()(drawn()[:, :-1]).mT, drawn()[:, 1:], reduction="none")
    torch.testing.assert_close(ModuleSubject.of(model, layout, 0).losses(drawn()), expected.detach())


@pytest.mark.parametrize("nothing", [nn.ReLU(), nn.BatchNorm1d(3)])
def test_modules_without_matrices_are_refused(nothing):
    with pytest.raises(MeasureError, match="has no weight matrix"):
        find_parts(nothing)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("ending", ["norm", "function", "scaled", "none"])
def test_losses_are_those_of_the_model_whatever_its_head_reads(ending, tied, last):
    torch.manual_seed(0)
    model = Decoder(ending, last=last, tied=tied)
    if last and ending in ("function", "scaled"):
        with pytest.raises(MeasureError, match="reads only some positions"):
            layout_of(model)
        return
    layout = layout_of(model)
    expected = F.cross_entropy(
        (model(drawn()[:, :-1], drawn()) if last else model(drawn()[:, :-1])).mT,
        drawn()[:, 1:],
        reduction="none",
    )
    subject = ModuleSubject.of(model, layout, 0)
    torch.testing.assert_close(subject.losses(drawn()), expected.detach())
    assert layout.sites["final"] == {"norm": "ln_f", "none": "tower.2"}.get(ending, "input of readout")
    assert layout.length == 12


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize(
    "logits",
    [lambda z: 30 * torch.tanh(z / 30), lambda z: 0.5 * z, lambda z: z + 1, lambda z: z.clamp(-4, 4)],
)
def test_other_losses_are_refused(logits, scale):
    model = Decoder(logits=logits)
    model.readout.weight.data *= scale
    with pytest.raises(MeasureError, match="logits of a Decoder are not those of its head readout"):
        layout_of(model)


@pytest.mark.parametrize("start", ["as drawn", "zero"])
def test_before_training_too(start):
    """Weights that start at zero hide what they multiply: the bound of logits, and that attention looks ahead."""
    bounded = Decoder(logits=lambda z: 30 * torch.tanh(z / 30))
    ahead = Decoder(causal=False)
    if start == "zero":
        bounded.readout.weight.data.zero_()
        for block in ahead.tower:
            block.attn["c_proj"].weight.data.zero_()
    with pytest.raises(MeasureError, match="not those of its head"):
        layout_of(bounded)
    with pytest.raises(MeasureError, match="is not causal"):
        layout_of(ahead)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e38])
def test_a_run_that_diverged_has_the_layout_of_its_earlier_steps(value):
    """Numbers that are none are told of the weights that have them, not of how the model is built."""
    model = Decoder(logits=lambda z: 30 * torch.tanh(z / 30))
    model.config = {"final_logit_softcapping": 30.0}
    before = layout_of(model)
    assert before.softcap == 30.0
    for weight in (model.tower[1].attn["c_proj"].weight, model.tokens.weight):
        weight.data[0, 1:3] = value
    after = layout_of(model)
    assert replace(after, matrices={}) == replace(before, matrices={})
    assert list(after.matrices) == list(before.matrices)
    ahead = Decoder(causal=False)
    ahead.tower[0].attn["c_proj"].weight.data[0, 0] = value
    with pytest.raises(MeasureError, match="is not causal"):
        layout_of(ahead)


def test_a_decoder_of_one_position():
    model = Decoder()
    model.config = {"block_size": 1}
    assert layout_of(model).length == 1


def test_layouts_leave_the_model_as_it_was():
    model = Decoder().train()
    model.tower[0].attn["c_proj"].weight.data.zero_()
    before = {name: (p.data_ptr(), p.clone()) for name, p in model.named_parameters()}
    layout_of(model)
    assert model.training
    assert all(
        p.data_ptr() == before[n][0] and torch.equal(p, before[n][1]) for n, p in model.named_parameters()
    )
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Patches(), "no token embedding"),
        (Stages(), "no token embedding and no list of blocks"),
        (nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9)), "no list of blocks"),
        (nn.ModuleDict({"embed": nn.Embedding(9, 16), "h": nn.ModuleList([Block()])}), "no linear head"),
    ],
)
def test_what_is_no_decoder_is_refused(model, says):
    with pytest.raises(MeasureError, match=says):
        layout_of(model)
