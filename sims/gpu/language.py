"""Language models: the time of a step, and the memory of the largest ones."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from sims.gpu.lines import Facts, Line, Part
from sims.gpu.setting import Setting
from sims.runs.lm_config import LmConfig
from sims.system.process_group import ProcessGroup
from sims.text.corpus import Corpus
from sims.text.shards import GPT2_VOCABULARY, write_shard
from sims.training.execution import Execution
from sims.training.language_model import LanguageModel, gradient_vectors
from sims.training.memory import step_memory
from sims.training.throughput import flops_per_token, measured_rate
from sims.training.trainer import Trainer, profile
from toymodel.trainable import Trainable

STEPS = 5
LARGE = (("d36", 4, False), ("d48", 2, False), ("d36", 16, True), ("d48", 8, True))
# Of the estimate; the allocator leaves gaps, and kernels take workspaces.
MEMORY_OFF = 0.2


def _speed(setting: Setting) -> Iterator[Line]:
    tier, micro, batch = ("tiny", 4, 512) if setting.small else ("d12", 64, 131_072)
    for compiled in (False,) if setting.small else (False, True):
        for stage in ("untied", "baseline"):
            name = f"{tier} {stage}, {'compiled' if compiled else 'eager'}"
            work = partial(_step, setting, tier, stage, micro, batch, compiled)
            yield Line(name, work, 60 if compiled else 15)


def _step(setting: Setting, tier: str, stage: str, micro: int, batch: int, compiled: bool) -> Facts:
    """Time steps on random tokens, which cost what text costs."""
    device = torch.device(setting.device)
    vocabulary = 500 if setting.small else GPT2_VOCABULARY
    config = LmConfig.of_tier(tier, stage, vocabulary, batch_tokens=batch, tokens=100 * batch)
    with tempfile.TemporaryDirectory() as folder:
        _write_shards(Path(folder), vocabulary, 2 * batch)
        corpus = Corpus(Path(folder), config.length)
        trainer = Trainer(config, Execution(device, micro, compile=compiled), corpus, ProcessGroup())
        began = setting.now()
        loss = trainer.gradients()
        trainer.update()
        first = setting.now() - began
        times: list[float] = []
        peak = setting.peak_gib(lambda: times.extend(profile(trainer, 1 if setting.small else STEPS)))
    seconds = statistics.median(times)
    flops, rate = flops_per_token(config.transformer()), measured_rate(device, torch.bfloat16)
    facts = {
        "step_ms": seconds * 1e3,
        "tokens_s": batch / seconds,
        "mfu": batch / seconds * flops / rate,
        "rate_tflops": rate / 1e12,
        "first_s": first,
        "first_loss": loss,
    }
    if peak is not None:
        facts |= {"peak_gib": peak, "estimated_gib": step_memory(config, micro, False).peak / 2**30}
    return facts


def _write_shards(folder: Path, vocabulary: int, tokens: int) -> None:
    generator = np.random.default_rng(0)
    for split, count in (("train", 2 * tokens), ("val", tokens)):
        write_shard(folder / f"text_{split}_000.bin", generator.integers(0, vocabulary, count))


def _memory(setting: Setting) -> Iterator[Line]:
    for tier, micro, recompute in (("tiny", 2, False),) if setting.small else LARGE:
        name = f"{tier} untied, {micro} sequences at once{', blocks recomputed' if recompute else ''}"
        yield Line(name, partial(_large, setting, tier, micro, recompute), 15)


def _large(setting: Setting, tier: str, micro: int, recompute: bool) -> Facts:
    """Take steps of a large model and compare its memory with the estimate."""
    config = LmConfig.of_tier(tier, "untied", 500 if setting.small else GPT2_VOCABULARY)
    times: list[float] = []
    peak = setting.peak_gib(lambda: times.extend(_large_steps(setting, config, micro, recompute)))
    facts: Facts = {"step_ms": 1e3 * times[-1]}
    if peak is None:
        return facts
    estimate = step_memory(config, micro, recompute).peak / 2**30
    fits = abs(peak - estimate) <= MEMORY_OFF * estimate
    return {**facts, "peak_gib": peak, "estimated_gib": estimate, "ok": fits}


def _large_steps(setting: Setting, config: LmConfig, micro: int, recompute: bool) -> list[float]:
    transformer = config.transformer(recompute)
    trainable = Trainable(
        transformer, torch.tensor([config.lr]), [None], config.newton_schulz, setting.device
    )
    for bank in trainable.banks:
        # Drawn on the device: the initial values of a run come from the CPU, which takes longer than the steps.
        bank.vector.normal_(0, 0.02)
    model = LanguageModel(transformer, trainable.params)
    grads = gradient_vectors(trainable, model)
    times = []
    for step in range(3):
        began = setting.now()
        tokens = torch.randint(0, 500, (micro, config.length + 1), device=setting.device)
        with torch.autocast(setting.device, torch.bfloat16):
            loss = model(tokens)
        loss.backward()
        trainable.step(grads, step + 1)
        times.append(setting.now() - began)
    return times


LANGUAGE = Part("language", "A step of a language model", 110, _speed)
MEMORY = Part("memory", "Memory of large language models", 50, _memory)
