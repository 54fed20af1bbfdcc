"""Every tensor of a foreign file is used, known to carry no weight, or refused by name."""

import json
from functools import partial

import pytest
import torch
from formats import (
    CHAIN,
    HEADS,
    LAYERS,
    LENGTH,
    VOCAB,
    WIDTH,
    modded_logits,
    modded_state,
    nanogpt_checkpoint,
    nanogpt_logits,
    nanogpt_state,
)
from formats import sequences as drawn
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file, save_model

from sims.models.checkpoint_info import CheckpointOptions
from sims.models.checkpoints import load
from toymodel.errors import CheckpointError

OPTIONS = CheckpointOptions(heads=HEADS)
FORMATS = ("nanoGPT", *CHAIN)
FLOATS = ("float16", "bfloat16", "float32", "float64")


def state_of(form):
    return nanogpt_state() if form == "nanoGPT" else modded_state(form)


def read(folder, form, state, **args):
    data = {"step": 1, "model": state}
    if form == "nanoGPT":
        data = {**nanogpt_checkpoint(), "model": state}
        data["model_args"] = {**data["model_args"], **args}
    torch.save(data, folder / "ckpt_step1.pt")
    return load(folder / "ckpt_step1.pt", OPTIONS)


def read_or_why(folder, form, state):
    try:
        return read(folder, form, state), ""
    except CheckpointError as refused:
        return None, str(refused)


def losses(logits, state, tokens):
    state = {name: t.double() for name, t in state.items()}
    found = logits(state, tokens[:, :-1])
    return torch.nn.functional.cross_entropy(found.mT, tokens[:, 1:], reduction="none")


@pytest.mark.parametrize("form", ["nanoGPT", "baseline", "plain", "rope"])
def test_a_head_of_its_own_is_computed_with(tmp_path, form):
    state = state_of(form)
    draw = torch.Generator().manual_seed(5)
    state["lm_head.weight"] = torch.randn(VOCAB, WIDTH, generator=draw) * 3
    subject = read(tmp_path, form, state)
    assert subject.about["head"] == "its own"
    assert torch.equal(subject.matrices["head"], state["lm_head.weight"])
    logits = nanogpt_logits if form == "nanoGPT" else partial(modded_logits, form)
    expected = losses(logits, state, drawn()) if form != "rope" else None
    if expected is not None:
        torch.testing.assert_close(subject.losses(drawn()).double(), expected, atol=1e-5, rtol=1e-5)
    state["lm_head.weight"] = torch.randn(VOCAB + 3, WIDTH, generator=draw)
    with pytest.raises(CheckpointError, match=r"lm_head.weight \(32, 16\) instead of \(29, 16\)"):
        read(tmp_path, form, state)


@pytest.mark.parametrize("form", FORMATS)
def test_no_weight_can_change_without_the_loss(tmp_path, form):
    """Each tensor in turn is changed: the loss changes with it, or the file is refused."""
    before = read(tmp_path, form, state_of(form)).losses(drawn(length=LENGTH + 1))
    assert bool(before.isfinite().all())
    for name in state_of(form):
        state = {n: t.clone() for n, t in state_of(form).items()}
        state[name] = state[name] + 0.5 * torch.randn(
            state[name].shape, generator=torch.Generator().manual_seed(1)
        )
        subject, why = read_or_why(tmp_path, form, state)
        if subject is None:
            assert name in why
        elif name != "transformer.h.0.attn.lamb":  # the first block mixes its values with themselves
            after = subject.losses(drawn(length=LENGTH + 1))
            assert not torch.allclose(after, before, atol=1e-7), name


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_changed_file_is_read_exactly_or_refused_by_name(tmp_path_factory, data):
    form = data.draw(st.sampled_from(FORMATS), "form")
    state = {n: t.clone() for n, t in state_of(form).items()}
    name = data.draw(st.sampled_from(sorted(state)), "name")
    old = state.pop(name)
    change = data.draw(
        st.sampled_from(("lost", "added", "longer", "flat", "axes", "empty", "type")), "change"
    )
    if change == "added":
        state[name] = old
        name = data.draw(
            st.sampled_from(("lm_head.bias", "transformer.h.9.attn.x", name + ".scale", "a")), "new"
        )
        state[name] = torch.ones(2)
    elif change == "longer":
        state[name] = torch.cat([old[None] if old.ndim == 0 else old] * 2)
    elif change == "flat":
        state[name] = torch.cat([old.flatten(), old.flatten()])
    elif change == "axes":
        state[name] = old[None, None]
    elif change == "empty":
        state[name] = old.reshape(-1)[:0]
    elif change == "type":
        kinds = ("complex64", "int8", "int64", "bool", "uint8", "float8_e4m3fn", "float8_e5m2")
        state[name] = old.to(getattr(torch, data.draw(st.sampled_from(kinds), "type")))
    folder = tmp_path_factory.mktemp("changed")
    subject, why = read_or_why(folder, form, state)
    if subject is None:
        assert name in why or "block" in why or "GPT-2 shape" in why
        return
    # What is still read: a head that is not stored twice, in the forms that tie it, or another U-Net.
    assert change == "lost"
    assert name in ("lm_head.weight", "skip_weights") or name.endswith(("inv_freq",))
    assert bool(subject.losses(drawn()).isfinite().all())


@pytest.mark.parametrize("form", ["nanoGPT", "baseline", "early"])
def test_buffers_without_weights_are_left_out_where_they_are_what_they_seem(tmp_path, form):
    state = state_of(form)
    before = read(tmp_path, form, state).losses(drawn())
    mask = torch.ones(1, 1, LENGTH, LENGTH).tril()
    masks = {f"transformer.h.{i}.attn.bias": mask.bool() if i else mask for i in range(LAYERS)}
    extra = {"transformer.h.0.attn.masked_bias": torch.tensor(-1e4)}
    assert torch.equal(read(tmp_path, form, {**state, **masks, **extra}).losses(drawn()), before)
    windowed = mask - torch.ones(LENGTH, LENGTH).tril(-4)
    for odd in (windowed, torch.ones(1, 1, LENGTH, LENGTH), torch.ones(3 * WIDTH)):
        with pytest.raises(CheckpointError, match=r"transformer.h.1.attn.bias .*is not the causal mask"):
            read(tmp_path, form, {**state, "transformer.h.1.attn.bias": odd})


def test_rotary_buffers_of_every_block_are_compared(tmp_path):
    state = modded_state("early")
    for name, odd in (
        ("transformer.h.2.attn.rotary.inv_freq", torch.ones(4)),
        ("a.attn.rotary.inv_freq", torch.ones(3)),
    ):
        with pytest.raises(CheckpointError, match=rf"{name}.* are not those of base 10,000"):
            read(tmp_path, "early", {**state, name: odd})
    three = {n: 10_000.0 ** (-torch.arange(3.0) / 3) if "inv_freq" in n else t for n, t in state.items()}
    with pytest.raises(CheckpointError, match="6 columns a head, which do not divide a width of 16"):
        read(tmp_path, "early", three)
    learned = {
        **modded_state("plain"),
        "transformer.h.0.attn.rotary.inv_freq": state["transformer.h.0.attn.rotary.inv_freq"],
    }
    with pytest.raises(CheckpointError, match="both learned and rotary positions"):
        read(tmp_path, "plain", learned)


@pytest.mark.parametrize("said", [True, False])
def test_model_args_that_lie_about_biases(tmp_path, said):
    with pytest.raises(CheckpointError, match=rf"where model_args says bias = {said}; it is cut or mixed up"):
        read(tmp_path, "nanoGPT", nanogpt_state(bias=not said), bias=said)


@pytest.mark.parametrize(
    "args",
    [
        {"n_layer": 10**12},
        {"n_embd": 10**12},
        {"vocab_size": 10**30},
        {"n_head": 0},
        {"block_size": -1},
        {"n_head": 0.5},
    ],
)
def test_model_args_that_lie_about_sizes(tmp_path, args):
    with pytest.raises(CheckpointError, match=r"says|do not (fit|cut)|lacks"):
        read(tmp_path, "nanoGPT", nanogpt_state(), **args)


@pytest.mark.parametrize(
    ("wrapper", "at"),
    [
        *((w, "") for w in ("_orig_mod.", "module.", "module._orig_mod.", "_fsdp_wrapped_module.")),
        ("_fsdp_wrapped_module.", "transformer."),
        ("_checkpoint_wrapped_module.", "transformer.h.1."),
    ],
)
@pytest.mark.parametrize("form", ["nanoGPT", "rope"])
def test_names_of_wrapped_models_are_read(tmp_path, form, wrapper, at):
    plain = state_of(form)
    wrapped = {n.replace(at, at + wrapper, 1) if at else wrapper + n: t for n, t in plain.items()}
    assert wrapped.keys() != plain.keys()
    expected = read(tmp_path, form, plain).losses(drawn())
    assert torch.equal(read(tmp_path, form, wrapped).losses(drawn()), expected)


def test_one_weight_under_two_names_is_refused(tmp_path):
    state = {**nanogpt_state(), "module.transformer.wpe.weight": torch.ones(LENGTH, WIDTH)}
    with pytest.raises(CheckpointError, match=r"has transformer.wpe.weight twice"):
        read(tmp_path, "nanoGPT", state)


def test_a_tied_weight_with_nan_is_tied(tmp_path):
    state = modded_state("rope")
    state["transformer.wte.weight"][3, 2] = torch.nan
    assert read(tmp_path, "rope", state).about["head"] == "tied"


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("odd", "what"),
    [
        (lambda: torch.eye(WIDTH).to_sparse(), "sparse_coo"),
        (lambda: torch.eye(WIDTH).to_sparse_csr(), "sparse_csr"),
        (lambda: torch.empty(WIDTH, WIDTH, device="meta"), "on the meta device"),
        (lambda: torch.quantize_per_tensor(torch.eye(WIDTH), 0.1, 0, torch.qint8), "qint8"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "nested"),
        (lambda: torch.ones(1).expand(10**6, 10**6), r"expanded: \(1000000, 1000000\)"),
        (lambda: [1.0], "a list"),
        (lambda: None, "a NoneType"),
    ],
)
def test_entries_that_are_no_dense_tensors(tmp_path, odd, what):
    name = "transformer.h.0.attn.c_proj.weight"
    with pytest.raises(CheckpointError, match=rf"{name} is .*{what}"):
        read(tmp_path, "rope", {**modded_state("rope"), name: odd()})


@pytest.mark.parametrize("kind", FLOATS)
def test_every_real_type_is_read(tmp_path, kind):
    state = {name: t.to(getattr(torch, kind)) for name, t in nanogpt_state().items()}
    expected = losses(nanogpt_logits, state, drawn())
    torch.testing.assert_close(
        read(tmp_path, "nanoGPT", state).losses(drawn()).double(), expected, atol=1e-5, rtol=1e-5
    )


def test_a_tied_weight_that_safetensors_keep_under_one_name(tmp_path):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            state = nanogpt_state()
            for name, tensor in state.items():
                at = self
                *path, last = name.split(".")
                for part in path:
                    if not hasattr(at, part):
                        at.add_module(part, torch.nn.Module())
                    at = getattr(at, part)
                setattr(at, last, torch.nn.Parameter(tensor))
            self.lm_head.weight = self.transformer.wte.weight

    args = {k: v for k, v in nanogpt_checkpoint()["model_args"].items() if k != "dropout"}
    metadata = {"model_args": json.dumps(args), "iter_num": "9"}
    save_model(Model(), str(tmp_path / "a.safetensors"), metadata)
    save_file({n: t.clone() for n, t in nanogpt_state().items()}, tmp_path / "b.safetensors", metadata)
    a, b = load(tmp_path / "a.safetensors"), load(tmp_path / "b.safetensors")
    assert torch.equal(a.losses(drawn()), b.losses(drawn()))
