"""A flipped bit in a checkpoint of this package is found before a number of it is believed, by every reader."""

import json
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sims.models.checkpoints import load
from sims.runs.tensors import load_tensors, write_tensors
from toymodel import Ensemble, ModelConfig, RunConfig, TaskConfig
from toymodel.errors import CheckpointError

CONFIG = RunConfig(
    task=TaskConfig(vocab=24, length=8, train=100, val=16, test=16),
    model=ModelConfig(d_model=16, heads=2, layers=1),
    batch_size=4,
    lr=2e-3,
    eval_size=16,
)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "step-000000020.safetensors"
    write_tensors(path, CONFIG, 20, Ensemble([CONFIG]).weights(0))
    return path.read_bytes()


def test_every_flipped_bit_is_found(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    step, weights = load_tensors(path, CONFIG)
    assert step == 20
    assert torch.equal(load(path).matrices["embed"], weights["embed"])
    draw = np.random.default_rng(0)
    places = [*draw.integers(len(content), size=60), *draw.integers(2_000, size=40)]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(damaged)
        # Spaces that pad the header are the only bytes without a meaning.
        with pytest.raises(CheckpointError):
            load_tensors(path, CONFIG)
        with pytest.raises(CheckpointError):
            load(path)


@pytest.mark.parametrize("change", [{"step": "21"}, {"run_id": "other"}, {"more": "1"}])
def test_edited_metadata_are_found(tmp_path, content, change):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    (size,) = struct.unpack("<Q", content[:8])
    metadata = json.loads(content[8 : 8 + size])["__metadata__"]
    save_file(load_file(path), path, {**metadata, **change})
    for read in (lambda: load_tensors(path, CONFIG), lambda: load(path)):
        with pytest.raises(CheckpointError, match=r"a\.safetensors is not what was written"):
            read()


def test_files_of_earlier_versions_are_read(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    (size,) = struct.unpack("<Q", content[:8])
    metadata = json.loads(content[8 : 8 + size])["__metadata__"]
    del metadata["sha256"]
    save_file(load_file(path), path, metadata)
    assert load_tensors(path, CONFIG)[0] == load(path).step == 20
    for name in ("step", "kind", "train"):
        save_file(load_file(path), path, {k: v for k, v in metadata.items() if k != name})
        with pytest.raises(CheckpointError, match=r"a\.safetensors (names no|was written by)"):
            load(path)
