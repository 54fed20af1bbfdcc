"""Small folders of all the names that the documented commands use."""

import re
import shutil
from pathlib import Path

import torch
from formats import nanogpt_checkpoint
from made_up import text_runs
from training_runs import make_shards

from sims import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SIZES = {
    "--steps": "8",
    "--eval-every": "2",
    "--eval-size": "32",
    "--task.vocab": "64",
    "--task.length": "8",
    "--task.train": "400",
    "--task.val": "1024",
    "--task.test": "16",
    "--model.d-model": "48",
    "--model.heads": "2",
    "--model.layers": "1",
    "--measure.every": "2",
    "--measure.sequences": "64",
    "--measure.windows": "1 10 10 40",
    "--measure.bands": "31 20",
    "--measure.training-bands": "0",
    "--measure.probe-sequences": "320",
    "--measure.causal-sequences": "16",
    "--measure.gradient-sequences": "8",
    "--workers": "1",
}
TINY = [word for name, value in SIZES.items() for word in (name, *value.split())]


def make(out):
    """Make the folders demo, runs, sweep, other, chain, seeds, quick, lm-runs, lm-chain, shards, out."""
    grid = ["sweep", "small", *TINY, "--stages", "rope", "muon", "untied", "--lrs", "1e-3"]
    assert (
        cli.main([*grid, "--batch-sizes", "32", "128", "--seeds", "0", "1", "--out", str(out / "demo")]) == 0
    )
    single = ["train", "small", *TINY, "--stage", "rope", "--seeds", "0", "1", "--eval-every", "1"]
    windows = "--measure.updates 1 --measure.update-windows 3 6 --measure.update-groups trunk --measure.update-draws 99"
    assert cli.main([*single, *windows.split(), "--out", str(out / "edge")]) == 0
    again = [*grid, "--batch-sizes", "32", "--seeds", "0", "--task.seed", "5"]
    assert cli.main([*again, "--out", str(out / "other")]) == 0
    for name in ("runs", "sweep", "chain", "seeds", "quick", "TOY", "watched"):
        shutil.copytree(out / "demo", out / name)
    for name in ("lm-runs", "lm-chain"):
        text_runs(out / name, sizes=(8, 16, 32), sites=("blocks.0", "final"))
    make_shards(out / "shards")
    (out / "out").mkdir()
    torch.save(nanogpt_checkpoint(), out / "out" / "ckpt.pt")
    # Imported here: it takes seconds.
    from transformers import GPT2Config, GPT2LMHeadModel

    for name, depth in (("gpt2", 2), ("gpt2-xl", 3)):
        small = GPT2Config(n_layer=depth, n_head=2, n_embd=16, n_positions=64)
        GPT2LMHeadModel(small).save_pretrained(out / name)
    for page in PAGES:
        # Files of options, named in their first line.
        for name, text in re.findall(
            r"```(?:yaml|toml)\n# (\S+)\n(.*?)```", page.read_text("utf-8"), re.DOTALL
        ):
            (out / name).write_text(text, "utf-8")
    (out / "essay.txt").write_text("The spectra of a model, layer by layer. " * 40, "utf-8")
