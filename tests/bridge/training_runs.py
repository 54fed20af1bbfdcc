"""What the tests of training have in common: small shards, small runs, and what is left of them."""

import json
import os
from dataclasses import dataclass, replace

import numpy as np
import torch
from safetensors.torch import load_file

from sims import cli
from sims.runs.lm_config import LmConfig
from sims.runs.store import RunFolder
from sims.runs.tensors import load_tensors
from sims.system.process_group import ProcessGroup
from sims.text.corpus import Corpus
from sims.text.shards import write_shard
from sims.training.execution import Execution
from sims.training.lm_runner import LmSetup, train_run
from sims.training.trainer import Trainer

SIZES = "--length 16 --batch-tokens 128 --tokens 1280 --eval-every 4 --eval-tokens 320 --lr 2e-3"
HERE = ("--device", "cpu", "--workers", "1")
VOCABULARY = 100
CPU = torch.device("cpu")
SMALL = {"length": 16, "batch_tokens": 128, "tokens": 1_280, "eval_every": 4, "eval_tokens": 320}


def make_shards(folder, train=2_000, val=600, seed=0):
    """A walk that mostly goes on by one, in two shards of training and one of validation."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    sizes = (("train_000001", train), ("train_000002", train // 2), ("val_000000", val))
    for name, n in sizes:
        moves = np.where(generator.random(n) < 0.9, 1, generator.integers(0, VOCABULARY, n))
        write_shard(folder / f"text_{name}.bin", np.cumsum(moves) % VOCABULARY)
    (folder / "data.json").write_text(json.dumps({"tokenizer": {"vocabulary": VOCABULARY}}))
    return folder


def small_config(stage="untied", **given):
    return LmConfig.of_tier(
        "tiny", stage, VOCABULARY, **{**SMALL, "precision": "float32", "lr": 2e-3, **given}
    )


def learner_of(config, shards, micro_batch=8, recompute=False, corpus=None):
    corpus = corpus or Corpus(shards, config.length, config.seed)
    return Trainer(config, Execution(CPU, micro_batch, recompute), corpus, ProcessGroup())


@dataclass
class Run:
    """A run in its folder, trained as the command trains it."""

    config: LmConfig
    folder: RunFolder
    setup: LmSetup
    stopped: object
    store_every: float

    def go(self):
        left = train_run(
            self.config, self.folder, self.setup, stopped=self.stopped, store_every=self.store_every
        )
        return left if left == "stopped" else self.folder.outcome["ended"]

    @property
    def state(self):
        """Step and tensors of the stored state."""
        return load_tensors(self.folder.path / "state.safetensors", self.config)


def run_of(config, shards, out, stopped=lambda: False, store_every=1e9, measuring=None):
    setup = LmSetup(shards, micro_batch=8, peak=1.0, measuring=measuring)
    config = replace(config, data=setup.corpus(config).digest)
    return Run(config, RunFolder(out / config.run_id), setup, stopped, store_every)


def after(calls):
    """A question that is answered with yes from the given call on."""
    asked = iter(range(10**9))
    return lambda: next(asked) >= calls - 1


def last_weights(folder, config):
    step, weights = load_tensors(folder.checkpoints()[-1], config)
    return step, weights


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def arguments(shards, out, *more):
    return ["bridge", "train", "--data", str(shards), "--out", str(out), *SIZES.split(), *HERE, *more]


def with_hook(hook, args):
    """The command, with a hook that is called after every step with its number."""
    update = Trainer.update

    def hooked(self):
        update(self)
        hook(self.step)

    Trainer.update = hooked  # in a forked process
    return cli.main(args)


def kill_at(step, number):
    def hook(now):
        print("after step", now, flush=True)
        if now == step:
            os.kill(os.getpid(), number)

    return hook


def checkpoints(folder):
    return {file.name: load_file(file) for file in folder.checkpoints()}


def assert_equal_runs(folder, other):
    mine, theirs = checkpoints(folder), checkpoints(other)
    assert mine.keys() == theirs.keys()
    assert all(same(mine[name], theirs[name]) for name in mine)
    columns = ["step", "tokens", "quantity", "value"]
    assert folder.rows()[columns].equals(other.rows()[columns])
