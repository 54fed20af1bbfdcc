"""Pruned models are written in the format of their checkpoint, and read back as they were pruned."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from families import model_of
from formats import modded_state, nanogpt_checkpoint, sequences
from safetensors.torch import load_file

from sims.models.checkpoint_info import CheckpointOptions
from sims.models.checkpoints import inspect, load
from sims.prune.allocation import allocate
from sims.prune.prune import entries, prune
from sims.prune.writing import write_pruned, written_path
from sims.runs.tensors import write_tensors
from sims.system.errors import MeasureError
from toymodel.config import ModelConfig, RunConfig
from toymodel.network import network_of
from toymodel.stages import stage

pytest.importorskip("transformers", reason="adapters of Hugging Face need the extra hf")
HEADS = CheckpointOptions(heads=2, activation="relu2", tokens_per_step=16)
NONE = CheckpointOptions()


def own(folder):
    config = RunConfig(
        stage="rope",
        model=ModelConfig(d_model=16, heads=2, layers=2),
        task=replace(RunConfig().task, vocab=29, length=8),
        steps=4,
    )
    draw = torch.Generator().manual_seed(0)
    specs = network_of(stage("rope"), config.sizes).specs()
    weights = {s.name: torch.randn(s.shape, generator=draw) * 0.3 for s in specs}
    write_tensors(folder / "step-000000004.safetensors", config, 4, weights)
    return folder / "step-000000004.safetensors", NONE


def hugging(family, **how):
    def make(folder):
        model_of(family).save_pretrained(folder / "step8", **how)
        return folder / "step8", NONE

    return make


def nanogpt(folder):
    torch.save(nanogpt_checkpoint(), folder / "ckpt.pt")
    return folder / "ckpt.pt", NONE


def modded(folder):
    torch.save({"step": 5, "model": modded_state("rope")}, folder / "state_step000005.pt")
    return folder / "state_step000005.pt", HEADS


def half(folder):
    model_of("Llama").to(torch.bfloat16).save_pretrained(folder / "step8")
    return folder / "step8", NONE


CASES = {
    "own": own,
    "GPT-2": hugging("GPT-2"),
    "GPT-NeoX, in shards": hugging("GPT-NeoX", max_shard_size="5KB"),
    "Llama, tied": hugging("Llama, tied"),
    "Falcon": hugging("Falcon, grouped"),
    "half": half,
    "nanoGPT": nanogpt,
    "modded": modded,
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_is_the_pruned_model(name, tmp_path):
    path, options = CASES[name](tmp_path)
    before, info = load(path, options), inspect(path, options)
    sizes = entries(before)
    counts = allocate(dict.fromkeys(sizes, 0.0), sizes, 0.5, 0.0)
    pruned = prune(before, counts, "sparsegpt", sequences()).subject
    to = written_path(info, tmp_path / "out", "wanda-0.5-farms")
    write_pruned(info, before, pruned, list(counts), to)
    assert to.is_dir() == path.is_dir()
    after = load(to, options)
    assert (after.step, inspect(to, options).kind) == (before.step, info.kind)
    if name == "half":
        assert {t.dtype for f in to.glob("*.safetensors") for t in load_file(f).values()} == {torch.bfloat16}
        torch.testing.assert_close(after.losses(sequences()), pruned.losses(sequences()), atol=0.1, rtol=0.1)
    else:
        assert torch.equal(after.losses(sequences()), pruned.losses(sequences()))
    assert {n: int((after.matrices[n] == 0).sum()) for n in counts} == counts
    assert all(torch.equal(after.matrices[n], before.matrices[n]) for n in set(before.matrices) - set(counts))
    # The original is as it was, and nothing is left behind.
    assert torch.equal(load(path, options).losses(sequences()), before.losses(sequences()))
    assert [p.name for p in (tmp_path / "out").iterdir()] == [to.name]
    write_pruned(info, before, pruned, list(counts), to)


def test_a_file_of_other_weights_is_refused_and_nothing_is_left(tmp_path):
    path, options = hugging("GPT-2")(tmp_path)
    before, info = load(path, options), inspect(path, options)
    pruned = prune(before, {"blocks.0.attn.q": 100}, "magnitude").subject
    other = before.with_matrix("blocks.0.attn.q", 2 * before.matrices["blocks.0.attn.q"])
    out = tmp_path / "out"
    with pytest.raises(MeasureError, match=r"is not blocks\.0\.attn\.q of the model"):
        write_pruned(info, other, pruned, ["blocks.0.attn.q"], out / "a")
    assert list(Path(out).iterdir()) == []
