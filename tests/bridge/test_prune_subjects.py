"""Pruning of subjects of every kind: which matrices, with which inputs, and what the pruned model computes."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from families import model_of

from sims.models.module import ModuleSubject
from sims.models.parts import layout_of
from sims.models.transformer import TransformerSubject
from sims.prune.allocation import allocate
from sims.prune.inputs import block_moments, input_moments
from sims.prune.prune import METHODS, entries, prunable, prune
from sims.system.errors import MeasureError
from toymodel.sizes import Sizes
from toymodel.stages import stage
from toymodel.transformer import Transformer

VOCAB, LAYERS = 29, 2
STAGES = ("baseline", "rope", "unet", "long_short")
FAMILIES = ("GPT-2", "GPT-NeoX", "Llama", "Falcon, grouped", "Phi-3", "Mixtral")


def own(name="rope", seed=0, layers=LAYERS):
    sizes = Sizes(vocab=VOCAB, length=8, d=16, heads=2, layers=layers, mlp=32)
    config: Any = SimpleNamespace(stage=name, sizes=sizes, steps=10, tokens_per_step=8)
    draw = torch.Generator().manual_seed(seed)
    specs = Transformer(stage(name), sizes).specs()
    weights = {s.name: torch.randn(s.shape, generator=draw) / math.sqrt(s.shape[-1]) for s in specs}
    return TransformerSubject.of_weights(config, weights, 3)


def subject_of(name):
    if name in FAMILIES:
        model = model_of(name)
        return ModuleSubject.of(model, layout_of(model), step=0)
    return own(name)


def drawn(n=12, seed=1):
    return torch.randint(VOCAB, (n, 9), generator=torch.Generator().manual_seed(seed))


def uniform(subject, sparsity=0.5):
    sizes = entries(subject)
    return allocate(dict.fromkeys(sizes, 0.0), sizes, sparsity, 0.0)


@pytest.mark.parametrize("name", [*STAGES, *FAMILIES])
def test_each_method_prunes_what_it_is_told_and_nothing_else(name):
    subject, tokens = subject_of(name), drawn()
    counts = uniform(subject)
    before = {n: p.clone() for n, p in subject.parameters.items()}
    assert not {"embed", "head"} & set(counts)
    assert not [n for n in counts if "router" in n or "experts." in n]
    kinds = {n.partition(".attn.")[2] for n in counts if ".attn." in n}
    assert kinds >= {"q", "k", "v", "o"}
    for method in METHODS:
        found = prune(subject, counts, method, tokens)
        matrices = found.subject.matrices
        assert {n: int((matrices[n] == 0).sum()) for n in counts} == counts
        assert found.sparsity == pytest.approx(0.5, abs=1e-3)
        for other in set(subject.matrices) - set(counts):
            assert torch.equal(matrices[other], subject.matrices[other])
        assert torch.isfinite(found.subject.losses(tokens)).all()
        assert found.table["error"].between(0, 1).all()
    assert all(torch.equal(p, before[n]) for n, p in subject.parameters.items())


def moments(x):
    flat = x.reshape(-1, x.shape[-1]).double()
    return (flat.mT @ flat / len(flat)).numpy()


def test_inputs_of_a_stage_are_those_that_its_matrices_multiply():
    subject, tokens = own(), drawn()
    feeds = prunable(subject)
    for layer in range(LAYERS):
        block = f"blocks.{layer}"
        assert {feeds[f"{block}.attn.{m}"] for m in "qkv"} == {f"{block}.attn.in"}
        assert feeds[f"{block}.attn.o"] == f"{block}.attn.mix"
        assert feeds[f"{block}.mlp.fc"] == f"{block}.mlp.in"
        assert feeds[f"{block}.mlp.proj"] == f"{block}.mlp.act"
    seen: dict[str, torch.Tensor] = {}

    def tap(site, x):
        seen[site] = x
        return x

    subject.transformer.hidden(subject.params, tokens[None, :, :-1], tap)
    found = input_moments(subject, tokens, tuple(dict.fromkeys(feeds.values())))
    for matrix, site in feeds.items():
        x = seen[site][0]
        np.testing.assert_allclose(found[site], moments(x), rtol=1e-4, atol=1e-5)
        # The outputs that the model has are W times these inputs.
        np.testing.assert_allclose(x @ subject.matrices[matrix].T, seen[matrix][0], atol=1e-4)


@pytest.mark.parametrize(
    ("family", "linear"),
    [
        ("GPT-2", {"attn.o": "transformer.h.{}.attn.c_proj", "mlp.proj": "transformer.h.{}.mlp.c_proj"}),
        ("GPT-NeoX", {"attn.q": "gpt_neox.layers.{}.attention.query_key_value"}),
        ("Llama", {"mlp.gate": "model.layers.{}.mlp.up_proj", "mlp.proj": "model.layers.{}.mlp.down_proj"}),
    ],
)
def test_inputs_of_modules_are_those_of_their_linear_maps(family, linear):
    model, tokens = model_of(family), drawn()
    subject = ModuleSubject.of(model, layout_of(model), step=0)
    feeds = prunable(subject)
    for layer in range(LAYERS):
        for ending, module in linear.items():
            inputs = []
            handle = model.get_submodule(module.format(layer)).register_forward_hook(
                lambda _, args, __, inputs=inputs: inputs.append(args[0])
            )
            with torch.no_grad():
                model(tokens[:, :-1])
            handle.remove()
            site = feeds[f"blocks.{layer}.{ending}"]
            found = input_moments(subject, tokens, (site,))[site]
            np.testing.assert_allclose(found, moments(inputs[0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["rope", "GPT-2", "Llama"])
def test_inputs_are_those_of_the_blocks_that_are_pruned_already(name):
    subject, tokens = subject_of(name), drawn()
    counts = uniform(subject, 0.6)
    found = prune(subject, counts, "wanda", tokens).subject
    # By hand: the first block with the inputs of the model, the second with those of the model so far.
    step: Any = subject
    for layer in range(LAYERS):
        own = [n for n in counts if n.startswith(f"blocks.{layer}.")]
        grams = input_moments(step, tokens, tuple(dict.fromkeys(prunable(subject)[n] for n in own)))
        for n in own:
            step = step.with_matrix(
                n, METHODS["wanda"](subject.matrices[n], grams[prunable(subject)[n]], counts[n])
            )
    at_once = subject
    for n, site in prunable(subject).items():
        gram = input_moments(subject, tokens, (site,))[site]
        at_once = at_once.with_matrix(n, METHODS["wanda"](subject.matrices[n], gram, counts[n]))
    assert all(torch.equal(found.matrices[n], step.matrices[n]) for n in counts)
    assert any(not torch.equal(found.matrices[n], at_once.matrices[n]) for n in counts if "blocks.1" in n)


@pytest.mark.parametrize("name", [*STAGES, "muon", "untied", "Llama"])
def test_inputs_block_by_block_are_those_of_the_whole_model(name):
    subject, tokens = subject_of(name), drawn(40)
    feeds = prunable(subject)
    moments, pruned = block_moments(subject, tokens), subject
    for layer in range(LAYERS):
        block = f"blocks.{layer}."
        sites = tuple(dict.fromkeys(site for n, site in feeds.items() if n.startswith(block)))
        found, expected = moments(pruned, layer, sites), input_moments(pruned, tokens, sites)
        for site in sites:
            torch.testing.assert_close(found[site], expected[site], rtol=1e-5, atol=1e-6)
        changed = f"{block}mlp.fc"
        pruned = pruned.with_matrix(changed, -0.5 * pruned.matrices[changed])


def test_a_block_of_which_nothing_is_pruned_is_passed():
    subject, tokens = own(layers=4), drawn(40)
    moments = block_moments(subject, tokens)
    for layer in (0, 3):
        site = f"blocks.{layer}.mlp.act"
        found, expected = moments(subject, layer, (site,)), input_moments(subject, tokens, (site,))
        torch.testing.assert_close(found[site], expected[site], rtol=1e-5, atol=1e-6)


def test_fused_weights_are_pruned_part_by_part():
    model = model_of("GPT-NeoX")
    subject = ModuleSubject.of(model, layout_of(model), step=0)
    counts = {"blocks.0.attn.q": 200}
    found: Any = prune(subject, counts, "magnitude").subject
    weight = found.model.get_submodule("gpt_neox.layers.0.attention.query_key_value").weight
    # Head by head: q, k and v of each.
    parts = weight.view(4, 3, 4, 16)
    assert int((parts[:, 0] == 0).sum()) == 200
    assert int((parts[:, 1:] == 0).sum()) == 0


def test_progress_is_told_and_matrices_without_a_count_are_left_alone():
    subject, told = own(), []
    counts = {"blocks.0.attn.q": 10, "blocks.1.mlp.fc": 20}
    found = prune(subject, counts, "sparsegpt", drawn(), lambda done, of: told.append((done, of)))
    assert told == [(1, 2), (2, 2)]
    assert list(found.table["matrix"]) == list(counts)
    assert found.sparsity == pytest.approx(30 / (256 + 512))
    assert prune(subject, counts, "magnitude").table["error"].isna().all()


def test_zeros_that_are_there_count_among_those_asked_for_or_are_refused(monkeypatch):
    subject, tokens, name = own(), drawn(), "blocks.0.mlp.fc"
    old = subject.matrices[name]
    # Two columns of zeros, and a dead input before them.
    sparse = old.clone()
    sparse[:, [6, 9]] = 0.0
    some = subject.with_matrix(name, sparse)
    gram = torch.eye(16, dtype=torch.float64)
    gram[3, 3] = 0.0
    for method in METHODS.values():
        assert int((method(sparse, gram, 2 * 32) == 0).sum()) == 2 * 32
    for method in METHODS:
        assert prune(some, {name: 100}, method, tokens).table["zeros"].tolist() == [100]
    # One whole row of them: Wanda takes as many of every row.
    row = old.clone()
    row[4] = 0.0
    with pytest.raises(MeasureError, match=r"has 7\d zeros once wanda has pruned it, and 64 are asked for"):
        prune(subject.with_matrix(name, row), {name: 64}, "wanda", tokens)
    assert prune(subject.with_matrix(name, row), {name: 64}, "magnitude").table["zeros"].tolist() == [64]
    # More than asked for: refused before the inputs are looked at.
    monkeypatch.setattr("sims.prune.prune.block_moments", lambda *_: pytest.fail("worked before it refused"))
    for method in METHODS:
        with pytest.raises(MeasureError, match="has 64 zeros already, and 63 are asked for"):
            prune(some, {name: 63}, method, tokens)
    empty = subject.with_matrix(name, torch.zeros_like(old))
    with pytest.raises(MeasureError, match="has 512 zeros already, and 256 are asked for"):
        prune(empty, uniform(subject), "magnitude")


def test_refusals():
    subject = own()
    counts = uniform(subject)
    with pytest.raises(MeasureError, match="no method 'random'"):
        prune(subject, counts, "random", drawn())
    with pytest.raises(MeasureError, match="give sequences"):
        prune(subject, counts, "wanda")
    with pytest.raises(MeasureError, match="embed cannot be pruned"):
        prune(subject, {"embed": 3}, "magnitude")
    broken = subject.with_matrix("blocks.0.attn.q", torch.full((16, 16), float("nan")))
    with pytest.raises(MeasureError, match="before the run diverged"):
        prune(broken, counts, "magnitude")
    wild = subject.with_matrix("blocks.0.mlp.fc", torch.full((32, 16), 1e30))
    with pytest.raises(MeasureError, match="NaN or Inf"):
        prune(wild, counts, "wanda", drawn())
    with pytest.raises(MeasureError, match="no linear maps in blocks"):
        prunable(subject.without_blocks(range(LAYERS)))
