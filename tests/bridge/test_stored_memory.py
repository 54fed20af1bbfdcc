"""A folder of 1.3 billion parameters is read with the memory of one matrix."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

WIDTH, INNER, LAYERS, VOCAB = 2048, 5504, 24, 32_000
# Beside the matrix in hand: headers, allocator, the copy that was read.
FIXED = 64
PEAK = """
import re
import torch
from spectra import weight_spectrum
from sims.models.stored import stored_weights
from pathlib import Path

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

torch.set_num_threads(1)
"""
ALL = """
count = 0
for i, matrix in enumerate(stored_weights(FOLDER)):
    count += matrix.tensor.numel()
    assert bool(torch.isfinite(matrix.tensor.sum()))
    if i % 56 == 0:
        assert len(weight_spectrum(matrix.tensor)) == 2048
print(count, peak())
"""
ONE = """
assert len(weight_spectrum(torch.randn(VOCAB, WIDTH).to(torch.bfloat16))) == 2048
print(peak())
"""


def written(folder):
    """Write shards of three blocks, of numbers that repeat."""
    draw = torch.Generator().manual_seed(0)
    numbers = torch.randn(INNER * WIDTH + 2**16, generator=draw).to(torch.bfloat16)

    def matrix(rows, columns, start):
        repeated = numbers.repeat(1 + rows * columns // len(numbers))
        return repeated[start : start + rows * columns].view(rows, columns).clone()

    placed = {}
    for shard in range(LAYERS // 3 + 1):
        tensors = {}
        if shard == 0:
            tensors["model.embed_tokens.weight"] = matrix(VOCAB, WIDTH, 1)
            tensors["lm_head.weight"] = matrix(VOCAB, WIDTH, 2)
        for layer in range(3 * shard - 3, 3 * shard) if shard else ():
            own = f"model.layers.{layer}"
            for i, part in enumerate("qkvo"):
                tensors[f"{own}.self_attn.{part}_proj.weight"] = matrix(WIDTH, WIDTH, 97 * layer + i)
            for i, part in enumerate(("gate", "up")):
                tensors[f"{own}.mlp.{part}_proj.weight"] = matrix(INNER, WIDTH, 97 * layer + 10 + i)
            tensors[f"{own}.mlp.down_proj.weight"] = matrix(WIDTH, INNER, 97 * layer + 20)
        name = f"model-{shard + 1:05d}-of-{LAYERS // 3 + 1:05d}.safetensors"
        save_file(tensors, folder / name, {"format": "pt"})
        placed |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "num_attention_heads": 16}))


def printed(code, **values):
    given = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    done = subprocess.run(
        [sys.executable, "-c", PEAK + given + code], capture_output=True, text=True, check=True
    )
    return [float(word) for word in done.stdout.split()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_memory_is_that_of_one_matrix(tmp_path):
    written(tmp_path)
    (one,) = printed(ONE, VOCAB=VOCAB, WIDTH=WIDTH)
    count, together = printed(ALL, FOLDER=str(tmp_path))
    assert count > 1.3e9
    print(f"{count / 1e9:.2f} B parameters: {together:.0f} MB, the largest matrix alone {one:.0f} MB")
    assert together < one + FIXED
