"""A flipped bit in a checkpoint of this package is found before a number of it is believed, by every reader."""

import io
import json
import struct

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from sims.measure.remeasure import remeasure
from sims.models.checkpoints import load
from sims.runs.measure_config import MeasureChanges, MeasureConfig
from sims.runs.store import RunFolder
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
    # The order of the metadata differs from file to file.
    name = content.index(b'"sha256"')
    places = [*draw.integers(len(content), size=60), *draw.integers(2_000, size=40), *range(name, name + 8)]
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


def test_a_stored_step_without_numbers_has_its_row_and_the_others_are_measured(tmp_path):
    folder = RunFolder(tmp_path / CONFIG.run_id)
    measured = MeasureConfig(
        sequences=16,
        bands=((5, 1),),
        windows=((1, 8),),
        probe_sequences=60,
        training_bands=0,
        gradient_sequences=4,
        causal_sequences=0,
    )
    folder.start(CONFIG, measured, {})
    weights = Ensemble([CONFIG]).weights(0)
    for step in (10, 20, 30):
        own = {name: w.clone() for name, w in weights.items()}
        if step == 20:
            own["embed"][2, 3] = torch.inf
        folder.keep_checkpoint(CONFIG, step, own)
    said = io.StringIO()
    _, rows = remeasure(folder.path, MeasureChanges(), "cpu", Console(file=said, width=200))
    (row,) = rows[rows["step"] == 20].to_dict("records")
    expected = f"step 20: embed has 1 Inf of {24 * 16}"
    assert (row["status"], row["reason"]) == ("diverged", expected)
    assert set(rows["step"]) == {10, 20, 30}
    assert f"note: {expected}" in said.getvalue()
