"""`speclens bridge train`: language models of the toy's stages on real text."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from sims.bridge.training.config import LmConfig, Precision
from sims.bridge.training.corpus import vocabulary_of
from sims.bridge.training.failures import stop_on_signals
from sims.bridge.training.learner import Execution
from sims.bridge.training.run import STORE_SECONDS
from sims.commands.bridge.train_session import Session, Wishes
from sims.ranks import torchrun_ranks
from sims.runner import default_device
from sims.text_config import TextMeasureConfig
from toymodel.config import NewtonSchulz


@dataclass(frozen=True)
class Settings:
    """What all runs of a grid have in common.

    Args:
        length: inputs a sequence; by default the tier's.
        tokens: of a whole run; by default the tier's. Runs of other batch sizes see as many.
        warmup, warmdown: shares of the steps over which the learning rate rises from 0 and falls to 0, linearly; it is
            constant between.
        weight_decay: of the AdamW group; by default the stage's own.
        newton_schulz: arithmetic of Muon's orthogonalisation.
        precision: by default bfloat16 on a GPU that has it, float32 otherwise.
        eval_every: steps between evaluations; by default the tier's.
        eval_tokens: validation tokens an evaluation; by default the tier's.
        target_loss: end a run whose validation loss is at or below it.
        checkpoints: shares of the run after which weights are kept, and measured.
    """

    length: int | None = None
    tokens: int | None = None
    warmup: float | None = None
    warmdown: float | None = None
    weight_decay: float | None = None
    newton_schulz: NewtonSchulz | None = None
    precision: Precision | None = None
    eval_every: int | None = None
    eval_tokens: int | None = None
    target_loss: float | None = None
    checkpoints: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Train:
    """Train language models of the toy's stages on token shards, and keep checkpoints to be measured.

    Each combination of --stage, --batch-tokens, --lr and --seeds is a run with a folder of its own below OUT; they
    train one after the other. Stopped at any time (Ctrl-C, SIGTERM, a kill, a full disk), the same command goes on from
    the last stored state, to the same bits on a processor, and leaves out what is complete. torchrun shares each step
    among several devices; the number of ranks may be another one when a run goes on.

    Examples:
        speclens bridge data --source files notes/ --merges 767 --out shards  # a small vocabulary, for tiny
        speclens bridge train --data shards --tier tiny --stage untied
        speclens bridge train --data shards --tier d12 --stage baseline rope muon untied --measure
        speclens bridge train --data shards --tier d12 --batch-tokens 131072 524288 --lr 3e-4 6e-4 --seeds 0 1
        speclens bridge train --data shards --tier d48 --stage muon --recompute --profile 3
        torchrun --nproc-per-node 8 -m sims.cli bridge train --data shards --tier d24 --stage muon --compile
    """

    data: Path
    """Folder of token shards, of training and of validation (`speclens bridge data`)."""
    tier: Literal["tiny", "d12", "d24", "d36", "d48"] = "tiny"
    """Size: tiny for a processor; d12, d24, d36, d48 for GPUs."""
    stage: tuple[str, ...] = ("muon",)
    """Stages of the toy (baseline, rope, muon, untied, value_mix, unet, …)."""
    batch_tokens: tuple[int, ...] = ()
    """Target tokens a step; by default the tier's."""
    lr: tuple[float, ...] = ()
    """Base learning rates; Muon matrices use 50 times it. By default the tier's."""
    seeds: tuple[int, ...] = (0,)
    """Of the initialisation and of the order of the data."""
    settings: Annotated[Settings, tyro.conf.arg(name="")] = field(default_factory=Settings)
    out: Path = Path("lm-runs")
    """Folder of runs."""
    measure: bool = False
    """Measure every checkpoint while training, on the validation shards."""
    measuring: TextMeasureConfig = field(default_factory=lambda: TextMeasureConfig(families=()))
    device: str | None = None
    """cpu or cuda; by default the GPU where there is one."""
    micro_batch: int | None = None
    """Sequences that a device takes at once; by default the tier's, as far as a step has them."""
    recompute: bool = False
    """Keep only the inputs of every block for the backward pass: less memory, a third more work."""
    compile: bool = False
    """Compile the model (torch.compile)."""
    store_every: float = STORE_SECONDS
    """Seconds between stored states: what a kill loses."""
    peak_tflops: float | None = None
    """Rate of one device for MFU, in 1e12 operations a second; by default measured by matrix products."""
    profile: int | None = None
    """Time so many steps of each run instead: tokens a second, MFU, memory. Nothing is stored."""

    def run(self) -> int:
        """Run it."""
        kind = self.device or default_device()
        with torchrun_ranks(kind) as ranks, stop_on_signals() as stop:
            device = torch.device(kind)
            if device.type == "cuda":
                device = torch.device("cuda", torch.cuda.current_device())
            half = device.type == "cuda" and torch.cuda.is_bf16_supported()
            configs = self.grid("bfloat16" if half else "float32")
            execution = Execution(device, self.micro_batch or 0, self.recompute, self.compile)
            peak = None if self.peak_tflops is None else 1e12 * self.peak_tflops
            measuring = self.measuring if self.measure else None
            wishes = Wishes(self.data, self.out, execution, measuring, self.store_every, peak)
            session = Session(configs, wishes, ranks, stop)
            return session.train() if self.profile is None else session.profile(self.profile)

    def grid(self, precision: Precision) -> list[LmConfig]:
        """The runs, in the order in which they train."""
        given = {name: getattr(self.settings, name) for name in self.settings.__dataclass_fields__}
        given["precision"] = given["precision"] or precision
        vocabulary = vocabulary_of(self.data)
        batches = self.batch_tokens or (None,)
        return [
            LmConfig.of_tier(self.tier, stage, vocabulary, batch_tokens=batch, lr=lr, seed=seed, **given)
            for stage, batch, lr, seed in product(self.stage, batches, self.lr or (None,), self.seeds)
        ]
