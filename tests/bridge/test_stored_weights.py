"""Weights of files and folders of any kind, read without building the model."""

import json

import pytest
import torch
from formats import LAYERS, modded_state, nanogpt_checkpoint, nanogpt_state
from plain_modules import Decoder, Stages
from safetensors.torch import save_file, save_model

from sims import look
from sims.models.checkpoints import CheckpointRun, inspect
from sims.models.stored import stored_weights
from sims.runs.tensors import write_tensors
from toymodel import TaskConfig
from toymodel.config import ModelConfig, RunConfig
from toymodel.ensemble import Ensemble
from toymodel.errors import CheckpointError

BLOCK = ["attn.q", "attn.k", "attn.v", "attn.o", "mlp.fc", "mlp.proj"]
GPT = {"embed", "positions", *(f"blocks.{i}.{n}" for i in range(LAYERS) for n in BLOCK)}


def read(path):
    return {m.name: m.tensor for m in stored_weights(path)}


def test_nanogpt(tmp_path):
    torch.save(nanogpt_checkpoint(step=250), tmp_path / "ckpt.pt")
    found = stored_weights(tmp_path / "ckpt.pt")
    assert (found.kind, found.step) == ("nanoGPT", 250)
    assert set(found.names) == GPT
    assert found.skipped == {
        "_orig_mod.lm_head.weight": "the same numbers as _orig_mod.transformer.wte.weight"
    }
    state = nanogpt_state()
    fused = state["transformer.h.1.attn.c_attn.weight"]
    tensors = {m.name: m for m in found}
    assert torch.equal(tensors["blocks.1.attn.k"].tensor, fused.chunk(3)[1])
    assert tensors["blocks.1.attn.k"].source == "_orig_mod.transformer.h.1.attn.c_attn.weight"
    assert torch.equal(tensors["blocks.2.mlp.proj"].tensor, state["transformer.h.2.mlp.c_proj.weight"])
    assert stored_weights(tmp_path).step == 250


@pytest.mark.parametrize("stage", ["rope", "untied", "unet"])
def test_modded_nanogpt(tmp_path, stage):
    torch.save(
        {"step": 40, "code": "", "model": modded_state(stage), "optimizers": []},
        tmp_path / "state_step000040.pt",
    )
    torch.save(
        {"step": 8, "code": "", "model": modded_state(stage), "optimizers": []},
        tmp_path / "state_step000008.pt",
    )
    found = stored_weights(tmp_path)
    assert (found.kind, found.step) == ("GPT-2-shaped state", 40)
    assert ("head" in found.names) == (stage != "rope")
    assert set(found.names) - {"head"} == GPT - {"positions"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("form", ["safetensors", "pt", "old pt", "lightning", "deepspeed", "bare", "shared"])
def test_any_state_of_a_module(tmp_path, form, dtype):
    model = Decoder(tied=True).to(dtype)
    state = model.state_dict()
    path = tmp_path / ("weights.safetensors" if form in ("safetensors", "shared") else "weights.pt")
    if form == "safetensors":
        save_file({n: t.clone() for n, t in state.items() if n != "readout.weight"}, path)
    elif form == "shared":
        save_model(model, str(path))
    elif form == "old pt":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    else:
        torch.save(
            {"lightning": {"state_dict": state, "epoch": 3}, "deepspeed": {"module": state}}.get(form, state),
            path,
        )
    found = read(path)
    expected = {n: t for n, t in state.items() if t.ndim > 1}
    assert len(found) == len(expected) - 1 + 2 * 3
    # Of tied weights save_model keeps one name, which need not be the embedding's.
    assert form == "shared" or torch.equal(found["embed"], state["tokens.weight"])
    assert torch.equal(found["blocks.2.attn.q"], state["tower.2.attn.c_attn.weight"][:16])
    assert {t.dtype for t in found.values()} == {dtype}


def test_kernels_and_vectors(tmp_path):
    state = Stages().state_dict()
    state["position_ids"] = torch.arange(12)[None]
    state["temperature"] = torch.ones(1, 5)
    torch.save(state, tmp_path / "net.pt")
    found = stored_weights(tmp_path / "net.pt")
    assert read(tmp_path / "net.pt")["layer2.0.conv1"].shape == (12, 8 * 9)
    assert found.skipped == {"position_ids": "of int64", "temperature": "one row or column: a vector"}


def test_files_and_run_folders_of_this_package(tmp_path):
    task = TaskConfig(vocab=24, length=8, train=400, val=64, test=8)
    sizes = ModelConfig(d_model=16, heads=2, layers=2)
    config = RunConfig(stage="untied", task=task, model=sizes, batch_size=8, eval_size=16)
    ensemble = Ensemble([config])
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "run.json").write_text("{}")
    for step in (9, 10):
        weights = ensemble.weights(0)
        write_tensors(tmp_path / "checkpoints" / f"step{step}.safetensors", config, step, weights)
        ensemble.advance(1)
    found = stored_weights(tmp_path)
    assert (found.kind, found.step) == ("spectral-lens", 10)
    assert set(found.names) == {"embed", "head", *(f"blocks.{i}.{n}" for i in (0, 1) for n in BLOCK)}
    tensors = {m.name: m.tensor for m in found}
    assert torch.equal(tensors["blocks.1.attn.v"], weights["blocks.1.attn.qkv"][2])
    assert torch.equal(tensors["head"], weights["head"])
    file = found.path
    damaged = bytearray(file.read_bytes())
    damaged[-9] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(CheckpointError, match="is not what was written"):
        stored_weights(tmp_path)
    file.unlink()
    assert stored_weights(tmp_path).step == 9


def plain(path, **more):
    save_file({"transformer.h.0.attn.c_attn.weight": torch.randn(12, 4), **more}, path)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            {"h.0.mlp.c_fc.qweight": torch.ones(4, 4, dtype=torch.int32)},
            r"quantised weights \(GPTQ or AWQ: h.0.mlp",
        ),
        (
            {"h.0.mlp.c_fc.weight": torch.ones(4, 4, dtype=torch.int8)},
            r"quantised weights \(int8: h.0.mlp.c_fc.weight",
        ),
        (
            {
                "h.0.mlp.c_fc.weight": torch.ones(4, 4, dtype=torch.uint32),
                "h.0.mlp.c_fc.scales": torch.ones(4, 2),
            },
            r"quantised weights \(uint32: h.0.mlp.c_fc.weight",
        ),
        ({"h.0.mlp.c_fc.weight.absmax": torch.ones(4)}, r"quantised weights \(bitsandbytes"),
        ({"h.0.mlp.c_fc.weight": torch.ones(4, 4).to(torch.float8_e4m3fn)}, r"quantised weights \(F8_E4M3"),
        ({"h.0.mlp.c_fc.weight_scale_inv": torch.ones(1)}, r"quantised weights \(scaled"),
        (
            {"h.0.mlp.experts.gate_up_proj_blocks": torch.ones(4, 4, dtype=torch.uint8)},
            r"quantised weights \(MXFP4",
        ),
    ],
)
def test_quantised_weights_are_refused_by_name(tmp_path, more, says):
    plain(tmp_path / "model.safetensors", **more)
    with pytest.raises(CheckpointError, match=says):
        stored_weights(tmp_path / "model.safetensors")


def test_scales_and_blocks_of_a_model_of_ones_own_are_weights(tmp_path):
    plain(tmp_path / "model.safetensors", layer_scales=torch.ones(4), mix_blocks=torch.randn(3, 4))
    assert "mix_blocks" in stored_weights(tmp_path / "model.safetensors").names


@pytest.mark.parametrize("entry", ["quantization_config", "compression_config", "quantization"])
def test_quantised_folders_are_refused_by_the_name_of_the_method(tmp_path, entry):
    plain(tmp_path / "model.safetensors")
    for config in ({entry: {"quant_method": "awq"}}, {"text_config": {entry: {"quant_method": "awq"}}}):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
        with pytest.raises(CheckpointError, match=r"quantised weights .*awq"):
            stored_weights(tmp_path)


def test_what_cannot_be_read_is_refused(tmp_path):
    torch.save({"state": {0: {"exp_avg": torch.ones(3, 3)}}, "param_groups": []}, tmp_path / "optimizer.pt")
    torch.save({"epoch": 3, "loss": 1.0}, tmp_path / "log.pt")
    torch.save({"w": torch.nn.Linear(2, 2)}, tmp_path / "code.pt")
    torch.save({"bias": torch.ones(3)}, tmp_path / "vectors.pt")
    torch.save({"w": torch.randn(3, 0), "v": torch.randn(2, 3).to_sparse()}, tmp_path / "odd.pt")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "cut.safetensors").write_bytes(b"\0" * 40)
    whole = tmp_path / "whole.pt"
    torch.save({"w": torch.randn(64, 64)}, whole)
    (tmp_path / "cut.pt").write_bytes(whole.read_bytes()[:-700])
    flipped = bytearray(whole.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    (tmp_path / "flipped.pt").write_bytes(flipped)
    (tmp_path / "empty").mkdir()
    for name, says in {
        "optimizer.pt": "state of an optimiser alone",
        "log.pt": r"no state of a model that is known \(its keys: epoch, loss\)",
        "code.pt": "could run code",
        "vectors.pt": "no weight matrix; it has vectors alone",
        "odd.pt": "v is sparse_coo",
        "notes.txt": "ends in .txt; files of weights end in .safetensors, .pt",
        "cut.safetensors": "truncated, damaged or not safetensors",
        "cut.pt": "truncated, damaged or not a torch checkpoint",
        "flipped.pt": "fails its checksum",
        "empty": "holds no weights that are read",
        "gone": "does not exist",
        ".": "10 checkpoints, and nothing says which is the last|nothing says which is the last",
    }.items():
        with pytest.raises(CheckpointError, match=says):
            list(stored_weights(tmp_path / name))


def test_the_file_of_gpt2_alone_is_read_as_with_its_configuration(tmp_path):
    state = {name.removeprefix("transformer."): t for name, t in nanogpt_state().items()}
    state = {name: t for name, t in state.items() if "lm_head" not in name}
    turned = {n: t.T.contiguous() if ".c_" in n and t.ndim == 2 else t for n, t in state.items()}
    save_file(turned, tmp_path / "model.safetensors")
    alone = read(tmp_path / "model.safetensors")
    assert stored_weights(tmp_path).kind == "Hugging Face files without a configuration"
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_head": 2}))
    whole = read(tmp_path)
    assert alone.keys() == whole.keys() == GPT
    assert all(torch.equal(alone[name], whole[name]) for name in GPT)
    assert torch.equal(alone["blocks.0.mlp.fc"], state["h.0.mlp.c_fc.weight"])
    assert torch.equal(alone["blocks.1.attn.o"], state["h.1.attn.c_proj.weight"])


def test_shards_without_their_index_are_no_checkpoints_of_a_run(tmp_path):
    for i in (1, 2):
        save_file({f"layers.{i}.w": torch.randn(4, 4)}, tmp_path / f"model-0000{i}-of-00002.safetensors")
    with pytest.raises(CheckpointError, match=r"holds shards \(model-00001.*without the index"):
        stored_weights(tmp_path)
    (note,) = look(tmp_path / "model-00001-of-00002.safetensors").notes
    assert "shard 1 of 2" in note


def test_the_last_of_several_files_is_that_of_the_highest_step_inside(tmp_path):
    for step in (300, 9, 100):
        torch.save(nanogpt_checkpoint(step=step), tmp_path / f"ckpt{chr(97 + step % 7)}.pt")
    assert stored_weights(tmp_path).step == 300


@pytest.mark.parametrize(
    ("name", "more", "step"),
    [
        ("state_step000250.pt", {}, 250),
        ("checkpoint-500.pt", {}, 500),
        ("step10k.pt", {}, None),
        ("step1e5.pt", {}, None),
        ("last.pt", {"step": torch.tensor(250)}, 250),
    ],
)
def test_both_ways_to_read_a_file_find_the_same_step(tmp_path, name, more, step):
    torch.save({"model": modded_state("rope"), **more}, tmp_path / name)
    assert (inspect(tmp_path / name).step, stored_weights(tmp_path / name).step) == (step, step)


@pytest.mark.parametrize("said", ["n_kv_head", "n_kv_heads", "n_query_groups", "num_key_value_heads"])
def test_fused_weights_whose_heads_share_keys_and_values_are_cut_where_their_number_is_known(tmp_path, said):
    fused = torch.randn(12 * 4, 32)
    state = {"transformer.wte.weight": torch.randn(29, 32), "transformer.h.0.attn.c_attn.weight": fused}
    args = {"n_head": 8, "n_embd": 32}
    torch.save({"model": state, "model_args": {**args, said: 2}}, tmp_path / "known.pt")
    torch.save({"model": state, "model_args": args}, tmp_path / "unknown.pt")
    save_file(state, tmp_path / "state.safetensors")
    found = read(tmp_path / "known.pt")
    assert {name: len(tensor) for name, tensor in found.items() if "attn" in name} == {
        "blocks.0.attn.q": 32,
        "blocks.0.attn.k": 8,
        "blocks.0.attn.v": 8,
    }
    assert torch.equal(found["blocks.0.attn.v"], fused[40:])
    for file in ("unknown.pt", "state.safetensors"):
        assert set(read(tmp_path / file)) == {"embed", "blocks.0.attn.qkv"}


def test_folders_of_runs_are_refused_with_their_runs(tmp_path):
    (tmp_path / "rope-b8").mkdir()
    (tmp_path / "rope-b8" / "run.json").write_text("{}")
    for read_it in (stored_weights, CheckpointRun.of):
        with pytest.raises(CheckpointError, match=r"folder of runs.* name one of them.*rope-b8"):
            read_it(tmp_path)


def test_folders_of_several_files(tmp_path):
    state = {
        f"model.layers.{i}.self_attn.{p}_proj.weight": torch.randn(4, 4) for i in range(3) for p in "qkvo"
    }
    names = sorted(state)
    shards = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for file, own in shards.items():
        save_file({n: state[n] for n in own}, tmp_path / file)
    index = {"weight_map": {n: file for file, own in shards.items() for n in own}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text('{"model_type": "llama", "num_attention_heads": 2}')
    found = read(tmp_path)
    assert set(found) == {f"blocks.{i}.attn.{p}" for i in range(3) for p in "qkvo"}
    index["weight_map"]["model.norm.weight"] = next(iter(shards))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"00001-of-00002.safetensors lacks model.norm.weight"):
        stored_weights(tmp_path)
    (tmp_path / next(iter(shards))).unlink()
    with pytest.raises(CheckpointError, match=r"lacks model-00001-of-00002.safetensors of 2 shards"):
        stored_weights(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="weights of an adapter"):
        stored_weights(tmp_path)


def test_low_rank_updates_beside_the_weights_of_gpt2_are_not_turned(tmp_path):
    """Weights of transformers' GPT-2 are (in, out), and those of the linear modules beside them are not."""
    drawn = {
        "attn.c_attn.base_layer.weight": (8, 24),
        "attn.c_attn.lora_A.default.weight": (2, 8),
        "attn.c_attn.lora_B.default.weight": (24, 2),
        "mlp.c_fc.weight": (8, 32),
    }
    state = {f"base_model.model.transformer.h.0.{name}": torch.randn(shape) for name, shape in drawn.items()}
    torch.save(state, tmp_path / "state.pt")
    shapes = {matrix.name: tuple(matrix.tensor.shape) for matrix in stored_weights(tmp_path / "state.pt")}
    assert shapes["blocks.0.mlp.fc"] == (32, 8)
    assert shapes["blocks.0.attn.q"] == (8, 8)
    assert sorted(shape for name, shape in shapes.items() if "lora" in name) == [(2, 8), (24, 2)]
