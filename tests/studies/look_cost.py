"""Seconds of CPU and peak memory of one look at weights, beside WeightWatcher on the same files in the same run.

    python tests/studies/look_cost.py                                  # 124 M parameters, GPT-2's shape
    python tests/studies/look_cost.py --weightwatcher VENV/bin/python  # that has weightwatcher and transformers
    python tests/studies/look_cost.py --size 1.3b                      # Llama's shape, bfloat16, four shards; alone

Weights are random. Each is measured in a process of its own with one thread, in turns; seconds are those of the process
while it measures, memory is the largest of its whole life (VmHWM: ru_maxrss begins
with that of the parent). Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

OURS = """
import json, sys, time
import torch
torch.set_num_threads(1)
from sims import look
look(torch.nn.Linear(64, 64))  # what is imported late is imported now
before = time.process_time()
found = look(sys.argv[1], layers=sys.argv[2:])
spent, peak = time.process_time() - before, int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1e6
print(json.dumps({"matrices": int(found.table()["rankme"].notna().sum()), "CPU s": spent, "GB": peak}))
"""
THEIRS = """
import json, logging, sys, time
logging.getLogger("weightwatcher").setLevel(logging.ERROR)
import torch
torch.set_num_threads(1)
from transformers import AutoModelForCausalLM
import weightwatcher
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
before = time.process_time()
found = weightwatcher.WeightWatcher(model=model).analyze()
spent, peak = time.process_time() - before, int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1e6
print(json.dumps({"matrices": len(found), "CPU s": spent, "GB": peak}))
"""


def gpt2(folder: Path) -> None:
    """Write a folder of GPT-2's shape: 12 blocks of width 768, float32 (498 MB)."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return 0.02 * torch.randn(*shape, generator=generator)

    tensors = {"transformer.wte.weight": draw(50257, 768), "transformer.wpe.weight": draw(1024, 768)}
    ones, zeros = torch.ones, torch.zeros
    for k in range(12):
        block = f"transformer.h.{k}"
        shapes = {"attn.c_attn": 2304, "attn.c_proj": 768, "mlp.c_fc": 3072, "mlp.c_proj": 768}
        for name, out in shapes.items():
            tensors[f"{block}.{name}.weight"] = draw(3072 if name == "mlp.c_proj" else 768, out)
            tensors[f"{block}.{name}.bias"] = zeros(out)
        for name in ("ln_1", "ln_2"):
            tensors |= {f"{block}.{name}.weight": ones(768), f"{block}.{name}.bias": zeros(768)}
    tensors |= {"transformer.ln_f.weight": ones(768), "transformer.ln_f.bias": zeros(768)}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(
        json.dumps({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]})
    )


def llama(folder: Path, width: int = 2048, hidden: int = 5504, blocks: int = 24, shards: int = 4) -> None:
    """Write a sharded folder of Llama's shape in bfloat16: 1.3 billion parameters (2.7 GB)."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"model.embed_tokens.weight": (32000, width), "lm_head.weight": (32000, width)}
    for k in range(blocks):
        block = f"model.layers.{k}"
        shapes |= {f"{block}.self_attn.{m}_proj.weight": (width, width) for m in "qkvo"}
        shapes |= {f"{block}.mlp.{m}_proj.weight": (hidden, width) for m in ("gate", "up")}
        shapes[f"{block}.mlp.down_proj.weight"] = (width, hidden)
    names, placed = list(shapes), {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        own = names[i::shards]
        tensors = {n: 0.02 * torch.randn(*shapes[n], generator=generator).bfloat16() for n in own}
        save_file(tensors, folder / file, {"format": "pt"})
        placed |= dict.fromkeys(own, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    config = {
        "model_type": "llama",
        "hidden_size": width,
        "num_attention_heads": 16,
        "num_hidden_layers": blocks,
    }
    (folder / "config.json").write_text(json.dumps(config))


def measured(python: str, code: str, *arguments: str) -> dict[str, float]:
    """Return what one process reports on its last line."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    run = [python, "-c", code, *arguments]
    found = subprocess.run(run, env=os.environ | one, capture_output=True, text=True, check=True)
    return json.loads(found.stdout.splitlines()[-1])


def main() -> None:
    """Print one line a process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=("124m", "1.3b"), default="124m")
    parser.add_argument("--weightwatcher", metavar="PYTHON")
    parser.add_argument("--turns", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (gpt2 if given.size == "124m" else llama)(folder)
        for _ in range(given.turns):
            for name, python, code, *layers in (
                ("look", sys.executable, OURS),
                ("look without the embedding", sys.executable, OURS, "blocks.*", "positions"),
                ("WeightWatcher", given.weightwatcher, THEIRS),
            ):
                if python is not None and (given.size == "124m" or name == "look"):
                    found = measured(python, code, place, *layers)
                    print(name, {key: round(value, 2) for key, value in found.items()}, flush=True)


if __name__ == "__main__":
    main()
