"""Blocks removed from modules: equal to the module without them, and refused where that has no meaning."""

import copy
import re
from itertools import combinations
from typing import Any, NamedTuple

import formats
import numpy as np
import pytest
import torch
from families import model_of
from formats import HEADS, LAYERS, VOCAB, WIDTH, modded_logits, modded_state
from formats import sequences as drawn
from torch import nn

from sims.measure.removal import measure_removal, removal_costs
from sims.models.checkpoint_info import CheckpointOptions
from sims.models.checkpoints import load
from sims.models.layout import Layout, Projection
from sims.models.module import ModuleSubject
from sims.models.parts import layout_of
from sims.models.probe import Probe
from sims.models.watched import WatchedSubject
from sims.system.errors import MeasureError

SUBSETS = [set(s) for n in range(LAYERS + 1) for s in combinations(range(LAYERS), n)]


class Block(nn.Module):
    """A causal block with a long way to say what it returns."""

    def __init__(self, out=WIDTH):
        super().__init__()
        self.attn = nn.ModuleDict({name: nn.Linear(WIDTH, WIDTH) for name in ("wq", "wk", "wv", "wo")})
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 24), nn.Tanh(), nn.Linear(24, out))
        self.kind = "causal"

    def forward(self, x):
        mixed = self.attn["wo"](self.attn["wv"](x).cumsum(1))
        y = self.mlp(x + mixed)
        return x + mixed + y if y.shape == x.shape else y


class Chain(nn.Module):
    """A decoder of somebody's own; subclasses change how its blocks are connected."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(VOCAB, WIDTH)
        self.h = nn.ModuleList([Block() for _ in range(LAYERS)])
        self.norm = nn.LayerNorm(WIDTH)
        self.out = nn.Linear(WIDTH, VOCAB)

    def between(self, x):
        for block in self.h:
            assert block.kind == "causal"
            x = block(x)
        return x

    def forward(self, tokens):
        return self.out(self.norm(self.between(self.table(tokens))))


class Skips(Chain):
    def between(self, x):
        seen = []
        for i, block in enumerate(self.h):
            x = block(x if i < 2 else x + 0.5 * seen[LAYERS - 1 - i])
            seen.append(x)
        return x


class Giving(Block):
    def forward(self, x, first=None):
        return super().forward(x) + (0 if first is None else first), x.square()


class Values(Chain):
    """Blocks return a tensor that all later ones read."""

    def __init__(self):
        super().__init__()
        self.h = nn.ModuleList([Giving() for _ in range(LAYERS)])

    def between(self, x):
        first = None
        for block in self.h:
            x, own = block(x, first)
            first = own if first is None else first
        return x


class Hidden(Values):
    """Values that are passed on inside the blocks, which no output shows."""

    def between(self, x):
        self.kept = None
        for block in self.h:
            x, own = block(x, None)
            self.kept = own if self.kept is None else self.kept
        return x + self.kept


class Widens(Chain):
    def __init__(self):
        super().__init__()
        self.h[-1] = Block(out=WIDTH // 2)
        self.norm, self.out = nn.LayerNorm(WIDTH // 2), nn.Linear(WIDTH // 2, VOCAB)


class Twice(Chain):
    def between(self, x):
        return self.h[1](super().between(x))


class Reads(Chain):
    """The end of the model reads an inner block."""

    def between(self, x):
        seen = [x]
        for block in self.h:
            seen.append(block(seen[-1]))
        return seen[-1] + 0.1 * seen[2]


class Inside(Chain):
    """The model looks into its blocks."""

    def between(self, x):
        blocks: Any = self.h
        for block in blocks:
            x = block(x) if len(block.mlp) else block(2 * x)
        return x


def layout(**changes):
    sites = {"embed": "table", **{f"blocks.{i}": f"h.{i}" for i in range(LAYERS)}, "final": "norm"}
    matrices = {"embed": Projection("table")}
    matrices |= {f"blocks.{i}.mlp.proj": Projection(f"h.{i}.mlp.2") for i in range(LAYERS)}
    return Layout(**{"sites": sites, "matrices": matrices, "head": "out", **changes})


def subject_of(kind=Chain, own=None, seed=0) -> Any:
    torch.manual_seed(seed)
    return ModuleSubject.of(kind(), own or layout(), step=7)


def deleted(model, removed):
    """The module with the blocks taken out of its list."""
    short: Any = copy.deepcopy(model)
    for name, module in list(short.named_modules()):
        if isinstance(module, nn.ModuleList) and len(module) == LAYERS:
            parent, _, leaf = name.rpartition(".")
            kept = nn.ModuleList([block for i, block in enumerate(module) if i not in removed])
            setattr(short.get_submodule(parent), leaf, kept)
    config = getattr(short, "config", None)
    if config is not None:
        config.num_hidden_layers = LAYERS - len(removed)
        config.use_cache = False
    return short


def direct(model, tokens):
    with torch.no_grad():
        logits = model(tokens[:, :-1])
        logits = getattr(logits, "logits", logits)
    return nn.functional.cross_entropy(logits.mT, tokens[:, 1:], reduction="none")


@pytest.mark.parametrize("family", ["GPT-2", "GPT-NeoX", "Llama", "Llama, tied", "BLOOM", "Falcon"])
def test_every_subset_equals_the_model_with_the_blocks_deleted(family):
    pytest.importorskip("transformers", reason="models of Hugging Face need the extra hf")
    depth = "n_layer" if family in ("GPT-2", "BLOOM") else "num_hidden_layers"
    model = model_of(family, **{depth: LAYERS})
    assert model.config.use_cache
    subject, tokens = ModuleSubject.of(model, layout_of(model), step=3), drawn()
    found = {tuple(s): subject.without_blocks(s).losses(tokens) for s in SUBSETS}
    for removed in SUBSETS:
        expected = direct(deleted(model, removed), tokens)
        torch.testing.assert_close(found[tuple(removed)], expected, atol=1e-6, rtol=1e-6, msg=str(removed))
    assert len({round(float(x.sum()), 4) for x in found.values()}) == 2**LAYERS
    assert model.config.use_cache


def test_blocks_keep_their_numbers_and_with_them_their_windows():
    pytest.importorskip("transformers", reason="models of Hugging Face need the extra hf")
    kinds = ["sliding_attention", "full_attention"] * 2
    settings = {"num_hidden_layers": LAYERS, "layer_types": kinds, "sliding_window": 2}
    model = model_of("Gemma 3", **settings)
    subject = ModuleSubject.of(model, layout_of(model), step=3)
    # Without block 0 the model begins with full attention.
    short, tokens = deleted(model, {0}), drawn()
    short.config.layer_types = kinds[1:]
    torch.testing.assert_close(subject.without_blocks([0]).losses(tokens), direct(short, tokens))
    short.config.layer_types = kinds[:3]
    assert not torch.allclose(subject.without_blocks([0]).losses(tokens), direct(short, tokens))


@pytest.mark.parametrize("removed", SUBSETS, ids=str)
def test_any_module_by_naming_its_blocks(removed):
    subject, tokens = subject_of(), drawn()
    expected = direct(deleted(subject.model, removed), tokens)
    torch.testing.assert_close(subject.without_blocks(removed).losses(tokens), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("stage", ["plain", "baseline", "rope", "untied"])
def test_stages_of_the_records_without_skips(stage, tmp_path, monkeypatch):
    state = modded_state(stage)
    subject = modded(tmp_path, stage, state)
    tokens = drawn()
    for removed in ({1}, {0, 3}, {0, 1, 2, 3}):
        kept = [i for i in range(LAYERS) if i not in removed]
        short = {name: x for name, x in state.items() if ".h." not in name}
        for new, old in enumerate(kept):
            own = f"transformer.h.{old}."
            short |= {
                f"transformer.h.{new}.{n.removeprefix(own)}": x for n, x in state.items() if n.startswith(own)
            }
        with monkeypatch.context() as patch:
            patch.setattr(formats, "LAYERS", len(kept))
            logits = modded_logits(stage, short, tokens[:, :-1])
        expected = nn.functional.cross_entropy(logits.mT, tokens[:, 1:], reduction="none")
        found = subject.without_blocks(removed).losses(tokens)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("stage", "says"),
    [("value_mix", "reads more of block 0"), ("unet", "reads more of block 0|does not read exactly")],
)
def test_stages_of_the_records_with_skips_are_refused(stage, says, tmp_path):
    subject = modded(tmp_path, stage, modded_state(stage))
    with pytest.raises(MeasureError, match=says):
        subject.without_blocks([3])
    assert subject.without_blocks([]) is subject


def modded(folder, stage, state):
    path = folder / "state_step000250.pt"
    torch.save({"step": 250, "code": "", "model": state, "optimizers": []}, path)
    return load(path, CheckpointOptions(heads=HEADS))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (Skips, r"block 2 \(h.2\) does not read exactly what block 1 returns"),
        (Values, "reads more of block 0 than the residual stream"),
        (Hidden, r"cannot be run on the stream after its last block \(TypeError"),
        (Widens, r"takes states \(2, 4, 16\) and returns \(2, 4, 8\)"),
        (Twice, "is called 2 times"),
        (Reads, "what follows the blocks of a Reads reads more of them"),
        (Inside, "cannot be run on the stream .*mlp"),
    ],
)
def test_models_whose_blocks_are_no_chain_are_refused(kind, says):
    subject = subject_of(kind)
    before = subject.losses(drawn())
    with pytest.raises(MeasureError, match=says):
        subject.without_blocks([1])
    assert torch.equal(subject.losses(drawn()), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in subject.model.modules())


def test_layouts_that_do_not_name_the_blocks_are_refused():
    unnamed = subject_of(own=layout(sites={"embed": "table", "middle": "h.1", "final": "norm"}))
    with pytest.raises(MeasureError, match=r"no block 1 .* none: no sites"):
        unnamed.without_blocks([1])
    inputs = subject_of(own=layout(sites={"blocks.0": "input of h.1", "final": "norm"}))
    with pytest.raises(MeasureError, match=r"'input of h.1'; name the module"):
        inputs.without_blocks([0])
    some = {"embed": "table", "blocks.0": "h.0", "blocks.2": "h.2", "final": "norm"}
    with pytest.raises(MeasureError, match=r"block 2 .* does not read exactly what block 0"):
        subject_of(own=layout(sites=some)).without_blocks([0])


@pytest.mark.parametrize(
    ("blocks", "says"),
    [
        ([4], "no block 4 to remove; the blocks of this model are 0, 1, 2, 3"),
        ([-1], "no block -1"),
        ([1, 1], "block 1 is named twice"),
        ([1.0], "1.0 is a float"),
        ([True], "True is a bool"),
        ("1", "blocks are a str"),
        (1, "blocks are a int"),
    ],
)
def test_numbers_that_are_no_blocks_are_refused(blocks, says):
    with pytest.raises(MeasureError, match=re.escape(says)):
        subject_of().without_blocks(blocks)


def test_names_weights_and_gradients_of_what_is_left():
    subject, tokens = subject_of(), drawn()
    before, own = subject.losses(tokens), dict(subject.parameters)
    short = subject.without_blocks([0, 2])
    assert short.sites == ("embed", "blocks.1", "blocks.3", "final")
    assert list(short.matrices) == ["embed", "blocks.1.mlp.proj", "blocks.3.mlp.proj"]
    assert short.step == 7
    left = dict(short.parameters)
    assert left.keys() == {name for name in own if not name.startswith(("h.0.", "h.2."))}
    # On the same weights; the original is as it was.
    assert all(left[name] is own[name] for name in left)
    assert torch.equal(subject.losses(tokens), before)
    (seen,) = short.activations(tokens, ("embed", "blocks.1", "final"))
    torch.testing.assert_close(seen["blocks.1"], subject.model.h[1](seen["embed"]).detach())
    factors = short.gradient_factors(tokens, ["blocks.3.mlp.proj"])["blocks.3.mlp.proj"]
    whole = deleted(subject.model, {0, 2}).requires_grad_(True)
    nn.functional.cross_entropy(whole(tokens[:, :-1]).mT, tokens[:, 1:]).backward()
    mean = torch.einsum("mto,mti->oi", factors.d, factors.a) / len(tokens)
    torch.testing.assert_close(mean, whole.h[1].mlp[2].weight.grad, atol=1e-6, rtol=1e-4)
    changed = short.with_matrix("blocks.1.mlp.proj", torch.zeros(WIDTH, 24))
    assert not torch.allclose(changed.losses(tokens), short.losses(tokens))


def test_removing_one_by_one_is_removing_together_in_any_order():
    subject, tokens = subject_of(), drawn()
    together = subject.without_blocks([3, 1]).losses(tokens)
    assert torch.equal(subject.without_blocks((1, 3)).losses(tokens), together)
    assert torch.equal(subject.without_blocks({1}).without_blocks({3}).losses(tokens), together)
    with pytest.raises(MeasureError, match="no block 1 to remove; the blocks of this model are 0, 2, 3"):
        subject.without_blocks({1}).without_blocks({1})
    assert torch.equal(subject.without_blocks(()).losses(tokens), subject.losses(tokens))


def test_blocks_of_a_model_in_training():
    torch.manual_seed(0)
    model, tokens = Chain().train(), drawn()
    subject = WatchedSubject.of(model, Probe(tokens))
    short = subject.without_blocks([1, 2])
    assert short.sites == ("embed", "blocks.0", "blocks.3", "final")
    assert not [name for name in short.matrices if name.startswith(("blocks.1", "blocks.2"))]
    assert set(short.with_gradients) == {n for n in subject.with_gradients if n in short.matrices}
    (seen,) = short.activations(short.samples(), ("loss",))
    expected = direct(deleted(model, {1, 2}), tokens).mean(dim=1)
    torch.testing.assert_close(seen["loss"].flatten(), expected)
    assert model.training
    assert len(model.h) == LAYERS
    assert all(isinstance(block, Block) for block in model.h)
    with pytest.raises(MeasureError, match="pass a probe"):
        WatchedSubject.of(model).without_blocks([1])


def test_costs_of_a_decoder_in_memory():
    pytest.importorskip("transformers", reason="models of Hugging Face need the extra hf")
    model, tokens = model_of("GPT-2", n_layer=LAYERS), drawn()
    found = removal_costs(model, tokens, [[1], [1, 2]])
    whole = direct(model, tokens).double().mean(dim=1).numpy()
    np.testing.assert_allclose(found.base, whole, atol=1e-5)
    for own, losses in zip(found.sets, found.losses, strict=True):
        expected = direct(deleted(model, own), tokens).double().mean(dim=1).numpy()
        np.testing.assert_allclose(losses, expected, atol=1e-5)
    assert found.vocab == VOCAB


def test_everything_about_the_blocks_of_any_module():
    subject, tokens = subject_of(), drawn()
    costs, choices = measure_removal(subject, tokens, [1, 2], alpha=[1.0, 2.0, 3.0, 4.0])
    assert (choices["spectral low"][1], choices["spectral high"][1]) == ((1,), (2,))
    base = subject.losses(tokens).mean()
    for own in costs.sets:
        expected = float(subject.without_blocks(own).losses(tokens).mean() - base)
        assert costs.cost(own) == pytest.approx(expected, abs=1e-5)


def test_a_model_whose_blocks_are_no_chain_is_refused_before_its_losses_are_measured(monkeypatch):
    monkeypatch.setattr(ModuleSubject, "losses", lambda *_: pytest.fail("losses were measured"))
    with pytest.raises(MeasureError, match="does not read exactly what block 1 returns"):
        removal_costs(subject_of(Skips), drawn())


class Pair(NamedTuple):
    stream: torch.Tensor
    more: object = None


@pytest.mark.parametrize("form", [lambda x: x, lambda x: (x,), lambda x: [x, x], lambda x: (x, None), Pair])
def test_blocks_that_return_the_stream_in_any_form(form):
    class Formed(Chain):
        def __init__(self):
            super().__init__()
            for block in self.h:
                block.register_forward_hook(lambda module, args, output: form(output))

        def between(self, x):
            for block in self.h:
                out = block(x)
                assert isinstance(out, type(form(x)))
                x = out if isinstance(out, torch.Tensor) else out[0]
            return x

    found = subject_of(Formed).without_blocks([1, 3]).losses(drawn())
    assert torch.equal(found, subject_of().without_blocks([1, 3]).losses(drawn()))
