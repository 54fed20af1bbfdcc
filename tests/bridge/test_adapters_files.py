"""Files as they come: what is read, what is refused with which words, and runs of many."""

import importlib.util
import json
import os

import numpy as np
import pytest
import torch
from formats import (
    HEADS,
    LAYERS,
    LENGTH,
    VOCAB,
    WIDTH,
    modded_state,
    nanogpt_checkpoint,
    nanogpt_logits,
    nanogpt_state,
)
from formats import sequences as drawn
from safetensors.torch import save_file
from torch import nn

from sims import cli
from sims.models.checkpoint_info import CheckpointOptions
from sims.models.checkpoints import CheckpointRun, inspect, load
from sims.system.errors import MissingExtraError
from toymodel.errors import CheckpointError, ConfigError


def written(path, data, **how):
    torch.save(data, path, **how)
    return path


def changed(**entries):
    return {**nanogpt_checkpoint(), **entries}


def state_without(name, **more):
    state = nanogpt_checkpoint()["model"]
    return {**{n: t for n, t in state.items() if not n.endswith(name)}, **more}


class Runs:
    """A pickle that would call something."""

    def __reduce__(self):
        return (os.getenv, ("HOME",))


def test_place_in_training_comes_from_the_file(tmp_path):
    found = inspect(written(tmp_path / "ckpt.pt", nanogpt_checkpoint(step=250)))
    # 5 accumulated batches of 3 sequences of 12 tokens.
    assert (found.kind, found.step, found.tokens) == ("nanoGPT", 250, 250 * 5 * 3 * LENGTH)
    subject = load(found.path)
    assert (subject.step, subject.tokens) == (250, found.tokens)
    bare = changed(config={}, iter_num=7)
    assert inspect(written(tmp_path / "bare.pt", bare)).tokens is None
    assert inspect(tmp_path / "bare.pt", CheckpointOptions(tokens_per_step=100)).tokens == 700


def test_code_in_a_file_is_read_and_never_run(tmp_path):
    code = "\n".join(
        [
            "raise SystemExit('run')",
            "class GPTConfig:",
            f"    n_head : int = {HEADS} # head dim 8",
            f"    n_embd : int = {WIDTH}",
            "class Hyperparameters:",
            "    batch_size : int = 8*64 # batch size, in sequences",
            "    sequence_length : int = 1024",
        ]
    )
    data = {"step": 20, "code": code, "model": modded_state("unet"), "optimizers": []}
    subject = load(written(tmp_path / "state_step000020.pt", data))
    assert (subject.step, subject.tokens) == (20, 20 * 524_288)
    assert "U-Net skips" in subject.about["extras"]
    with pytest.raises(CheckpointError, match=f"records heads {HEADS}, and --heads is 4"):
        load(tmp_path / "state_step000020.pt", CheckpointOptions(heads=4))
    windowed = {**data, "code": code + "\nfrom torch.nn.attention.flex_attention import flex_attention"}
    with pytest.raises(CheckpointError, match="windowed attention"):
        load(written(tmp_path / "later.pt", windowed))


def test_generators_of_numpy_and_scalars_beside_the_model_are_no_obstacle(tmp_path):
    rng = {"torch": torch.random.get_rng_state(), "cuda": None, "numpy": np.random.get_state()}  # noqa: NPY002
    data = {
        "step": 4,
        "val_loss": np.float64(3.5),
        "model": modded_state("rope"),
        "optimizers": [],
        "rng": rng,
        "extra": {},
    }
    assert load(written(tmp_path / "ckpt_step_0000004.pt", data), CheckpointOptions(heads=HEADS)).step == 4


def test_old_nanogpt_had_another_activation(tmp_path):
    path = written(tmp_path / "ckpt.pt", nanogpt_checkpoint())
    logits = nanogpt_logits(nanogpt_state(), drawn()[:, :-1], gelu="tanh")
    expected = nn.functional.cross_entropy(logits.transpose(1, 2), drawn()[:, 1:], reduction="none")
    got = load(path, CheckpointOptions(activation="gelu_tanh")).losses(drawn())
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(load(path).losses(drawn()), expected, atol=1e-5)


@pytest.mark.parametrize("form", ["safetensors", "bare state", "old format", "both wrappers"])
def test_other_wrappings_of_the_same_model(tmp_path, form):
    state = modded_state("untied")
    path = tmp_path / "model_step12.pt"
    if form == "safetensors":
        path = path.with_suffix(".safetensors")
        save_file(state, path)
    elif form == "both wrappers":
        written(path, {"model": {f"module._orig_mod.{name}": t for name, t in state.items()}})
    else:
        written(path, state, _use_new_zipfile_serialization=form != "old format")
    subject = load(path, CheckpointOptions(heads=HEADS))
    reference = load(
        written(tmp_path / "reference.pt", {"step": 12, "model": state}), CheckpointOptions(heads=HEADS)
    )
    assert subject.step == 12
    assert torch.equal(subject.losses(drawn()), reference.losses(drawn()))


def test_nanogpt_in_safetensors_carries_its_sizes_as_metadata(tmp_path):
    checkpoint = nanogpt_checkpoint()
    tensors = {n: t.clone() for n, t in nanogpt_state().items()}
    metadata = {
        "model_args": str(checkpoint["model_args"]).replace("'", '"').replace("True", "true"),
        "iter_num": "9",
    }
    save_file(tensors, tmp_path / "ckpt.safetensors", metadata)
    subject = load(tmp_path / "ckpt.safetensors")
    assert (subject.about["kind"], subject.step) == ("nanoGPT", 9)
    assert torch.equal(subject.losses(drawn()), load(written(tmp_path / "c.pt", checkpoint)).losses(drawn()))


def test_bfloat16_is_measured_in_float32(tmp_path):
    state = {name: t.bfloat16() for name, t in modded_state("value_mix").items()}
    subject = load(written(tmp_path / "step1.pt", {"model": state}), CheckpointOptions(heads=HEADS))
    assert {m.dtype for m in subject.matrices.values()} == {torch.float32}
    (seen,) = subject.activations(drawn(), subject.sites)
    assert {x.dtype for x in seen.values()} == {torch.float32}
    rounded = {name: t.float() for name, t in state.items()}
    reference = load(written(tmp_path / "step2.pt", {"model": rounded}), CheckpointOptions(heads=HEADS))
    assert torch.equal(subject.losses(drawn()), reference.losses(drawn()))


def test_the_file_may_be_overwritten_while_it_is_measured(tmp_path):
    path = written(tmp_path / "ckpt.pt", nanogpt_checkpoint())
    subject = load(path)
    before = subject.losses(drawn())
    path.write_bytes(b"")
    assert torch.equal(subject.losses(drawn()), before)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (changed(model={}), "not a dictionary of tensors"),
        (changed(model={"a": 3}), "not a dictionary of tensors"),
        (changed(model=state_without("h.1.mlp.c_fc.weight")), r"lacks transformer.h.1.mlp.c_fc.weight"),
        (changed(model=state_without("wpe.weight")), r"lacks transformer.wpe.weight"),
        (changed(model=state_without("none", extra=torch.ones(2))), "does not know: extra"),
        (changed(model_args={"n_layer": LAYERS}), "lacks n_head, n_embd, block_size, vocab_size"),
        (changed(model_args={**nanogpt_checkpoint()["model_args"], "n_layer": 5}), "has 4 blocks.*says 5"),
        (
            changed(model_args={**nanogpt_checkpoint()["model_args"], "n_embd": 32}),
            r"sizes do not fit.*\(29, 16\) inst",
        ),
        (
            changed(model_args={**nanogpt_checkpoint()["model_args"], "n_head": 3}),
            "3 heads do not cut a width of 16",
        ),
        (
            {"model": {"encoder.weight": torch.ones(2, 2)}},
            r"no checkpoint that is known \(its tensors: encoder.weight\); .* `speclens look`",
        ),
        ({"encoder.weight": torch.ones(2, 2)}, r"\(its tensors: encoder.weight\)"),
        ({"weights": {"a": torch.ones(2)}, "epoch": 3}, r"known \(its keys: weights, epoch\)"),
        ({"model": nanogpt_state()}, "does not say at which step"),
        (changed(extra=Runs()), r"pickled object of os.getenv, which could run code"),
        ([torch.ones(2)], "holds a list"),
    ],
)
def test_wrong_files_are_refused_with_the_reason(tmp_path, data, says):
    with pytest.raises(CheckpointError, match=says):
        load(written(tmp_path / "ckpt.pt", data), CheckpointOptions(heads=HEADS))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"transformer.h.1.lambdas": None}, "lacks transformer.h.1.lambdas"),
        ({"skip_weights": torch.ones(3)}, "3 skip weights for 4 blocks"),
        ({"transformer.vte.weight": torch.ones(VOCAB, WIDTH)}, "does not know: transformer.vte.weight"),
        ({"transformer.h.0.attn.rotary.inv_freq": torch.ones(4)}, "not those of base 10,000"),
        (
            {"transformer.h.2.attn.c_q.weight": torch.ones(WIDTH, 3)},
            r"c_q.weight \(16, 3\) instead of \(16, 16\)",
        ),
    ],
)
def test_states_that_are_not_of_the_shape_are_refused(tmp_path, change, says):
    state = {**modded_state("unet"), **change}
    data = {"step": 1, "model": {name: t for name, t in state.items() if t is not None}}
    with pytest.raises(CheckpointError, match=says):
        load(written(tmp_path / "state.pt", data), CheckpointOptions(heads=HEADS))


def test_what_no_shape_shows_must_be_said(tmp_path):
    path = written(tmp_path / "state_step1.pt", {"model": modded_state("untied")})
    with pytest.raises(CheckpointError, match=r"how many attention heads.*pass heads"):
        load(path)
    with pytest.raises(CheckpointError, match="do not cut"):
        load(path, CheckpointOptions(heads=16))
    with pytest.raises(ConfigError, match="heads is 0"):
        CheckpointOptions(heads=0)
    turned = {n: t.T.contiguous() if t.ndim == 2 and ".h." in n else t for n, t in nanogpt_state().items()}
    with pytest.raises(CheckpointError, match="the other way round"):
        load(written(tmp_path / "turned_step1.pt", turned), CheckpointOptions(heads=HEADS))


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "foreign zip", "missing", "ending"])
def test_damaged_files_are_refused(tmp_path, damage):
    path = written(tmp_path / "ckpt.pt", nanogpt_checkpoint())
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        weight = nanogpt_state()["transformer.wte.weight"].numpy().tobytes()
        content[content.index(weight) + 5] ^= 0xFF
        path.write_bytes(content)
    elif damage in ("empty", "text"):
        path.write_text("" if damage == "empty" else "a page that says the file was not found")
    elif damage == "foreign zip":
        np.savez(path.with_suffix(".npz"), a=np.ones(3))
        path.with_suffix(".npz").rename(path)
    elif damage == "missing":
        path.unlink()
    else:
        path = path.rename(tmp_path / "ckpt.msgpack")
    says = {"missing": "does not exist", "ending": "ends in '.msgpack'", "flipped": "fails its checksum"}
    with pytest.raises(CheckpointError, match=says.get(damage, r"cannot be read|damaged")) as refused:
        load(path)
    # Torch advises to load such files with their code; that advice goes no further.
    assert "weights_only" not in str(refused.value)


def test_cut_safetensors_are_refused(tmp_path):
    path = tmp_path / "model_step1.safetensors"
    save_file({n: t.clone() for n, t in modded_state("rope").items()}, path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match="truncated, damaged or not safetensors"):
        load(path, CheckpointOptions(heads=HEADS))


def test_a_folder_is_a_run_in_the_order_of_steps(tmp_path):
    for step in (300, 0, 100, 200, 500, 700):
        written(
            tmp_path / f"state_step{step:06d}.pt", {"step": step, "model": modded_state("rope", seed=step)}
        )
    (tmp_path / "fineweb_val_000000.bin").write_bytes(b"tokens")
    run = CheckpointRun.of(tmp_path, CheckpointOptions(heads=HEADS, tokens_per_step=64))
    assert run.steps == (0, 100, 200, 300, 500, 700)
    assert run.gaps == ((300, 500), (500, 700))
    assert [s.tokens for s in run] == [64 * step for step in run.steps]
    assert len(run) == 6
    alone = load(tmp_path / "state_step000500.pt", CheckpointOptions(heads=HEADS))
    assert torch.equal(run[4].losses(drawn()), alone.losses(drawn()))
    some = CheckpointRun.of(
        [tmp_path / f"state_step{s:06d}.pt" for s in (200, 0)], CheckpointOptions(heads=HEADS)
    )
    assert (some.steps, some.gaps) == ((0, 200), ())


def test_tokens_place_a_checkpoint_that_says_no_step(tmp_path):
    folders = [tmp_path / f"tokens{n}K" for n in (30, 4, 12)]
    for folder in folders:
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "olmo2"}')
        (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="tokens_per_step where tokens are known"):
        CheckpointRun.of(folders)
    assert CheckpointRun.of(folders, CheckpointOptions(tokens_per_step=2_000)).steps == (2, 6, 15)


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"transformers is not installed.*spectral-lens\[hf\]"):
        load(tmp_path, CheckpointOptions(step=0))


def test_runs_that_are_none_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoints were named"):
        CheckpointRun.of([])
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        CheckpointRun.of(tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        CheckpointRun.of(tmp_path / "nowhere")
    for name in ("a", "b"):
        written(tmp_path / f"{name}.pt", {"step": 5, "model": modded_state("rope")})
    with pytest.raises(CheckpointError, match=r"a.pt and .*b.pt are both of step 5"):
        CheckpointRun.of(tmp_path)
    written(tmp_path / "b.pt", {"model": modded_state("rope")})
    with pytest.raises(CheckpointError, match=r"which step .*b.pt were taken"):
        CheckpointRun.of(tmp_path)
    with pytest.raises(CheckpointError, match="step is one number"):
        CheckpointRun.of(tmp_path, CheckpointOptions(step=3))
    assert CheckpointRun.of(tmp_path / "b.pt", CheckpointOptions(step=3)).steps == (3,)
    written(tmp_path / "b.pt", nanogpt_checkpoint())
    with pytest.raises(CheckpointError, match=r"one run is of one format.*GPT-2-shaped state, nanoGPT"):
        CheckpointRun.of(tmp_path)
    wider = {n: torch.cat([t, t]) if "c_fc" in n else t for n, t in modded_state("rope").items()}
    wider |= {n: torch.cat([t, t], 1) for n, t in wider.items() if "mlp.c_proj" in n}
    written(tmp_path / "b.pt", {"step": 6, "model": wider})
    with pytest.raises(CheckpointError, match="other matrices than"):
        list(CheckpointRun.of(tmp_path, CheckpointOptions(heads=HEADS)))


def test_inspect_says_what_can_be_measured(tmp_path, capsys):
    for step in (0, 100, 200, 400):
        written(tmp_path / f"state_step{step:06d}.pt", {"step": step, "model": modded_state("unet")})
    call = ["bridge", "inspect", str(tmp_path), "--heads", "2", "--tokens-per-step", "64"]
    assert cli.main([*call, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = {"kind": "GPT-2-shaped state", "step": 400, "tokens": 25_600, "layers": LAYERS, "width": WIDTH}
    assert {name: found[name] for name in expected} == expected
    assert (found["steps"], found["gaps"]) == ([0, 100, 200, 400], [[200, 400]])
    assert found["parameters"] == sum(t.numel() for t in modded_state("unet").values())
    assert list(found["sites"]) == ["embed", *(f"blocks.{layer}" for layer in range(LAYERS)), "final"]
    assert found["matrices"]["blocks.2.mlp.fc"] == [4 * WIDTH, WIDTH]
    assert "head" in found["matrices"]
    assert not {"head", "embed"} & set(found["gradients"])
    assert [w["window"] for w in found["windows"] if w["fits"]] == [[1, 10]]
    assert cli.main(call) == 0
    shown = capsys.readouterr().out
    assert "blocks.0–3.attn.q\t16 × 16\tyes" in shown
    assert "200–400" in shown


def test_inspect_does_not_need_a_step_and_counts_a_tied_head_once(tmp_path, capsys):
    path = written(tmp_path / "weights.pt", modded_state("rope"))
    assert cli.main(["bridge", "inspect", str(path), "--heads", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["step"], found["tokens"]) == (None, None)
    state = modded_state("rope")
    assert found["parameters"] == sum(t.numel() for n, t in state.items() if n != "lm_head.weight")


@pytest.mark.parametrize("what", ["nothing", "text", "empty folder"])
def test_inspect_of_nothing_known_is_one_line_and_status_2(tmp_path, capsys, what):
    path = tmp_path / "model.pt"
    if what == "text":
        path.write_text("no model")
    elif what == "empty folder":
        path.mkdir()
    assert cli.main(["bridge", "inspect", str(path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert str(path) in printed.err


@pytest.mark.parametrize("stage", ["value_mix", "unet"])
def test_a_state_whose_head_is_cut_off_is_not_a_tied_one(tmp_path, stage):
    """It was read as tied, with the loss of the embedding."""
    state = {name: tensor for name, tensor in modded_state(stage).items() if name != "lm_head.weight"}
    path = written(tmp_path / "state_step000010.pt", {"step": 10, "model": state})
    with pytest.raises(CheckpointError, match=r"lacks lm_head\.weight"):
        load(path, CheckpointOptions(heads=HEADS))
