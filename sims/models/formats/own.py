"""Checkpoints that this package has written: of `speclens bridge train`, and of the toy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sims.models.checkpoint_info import CheckpointInfo
from sims.models.transformer import Described, TransformerSubject
from sims.runs.layout import TOY, WRITER
from sims.runs.lm_config import lm_config
from toymodel.config import run_config
from toymodel.errors import CheckpointError
from toymodel.stages import stage
from toymodel.transformer import Transformer

KIND = WRITER


def recognises(data: Mapping[str, Any]) -> bool:
    """Whether the metadata name this package."""
    return data.get("writer") == WRITER


def look(data: Mapping[str, Any], path: Path) -> CheckpointInfo:
    """Step and tokens, from the metadata.

    Raises:
        CheckpointError: it was written by another version.
    """
    step = int(data["step"])
    return CheckpointInfo(path, KIND, step, step * _config(data, path).tokens_per_step)


def load(data: Mapping[str, Any], path: Path, device: torch.device | str) -> TransformerSubject:
    """The model of a checkpoint.

    Raises:
        CheckpointError: it was written by another version, holds a state to go on from instead of weights, or tensors
            that are not those of its configuration.
    """
    config, weights = _config(data, path), data["model"]
    specs = Transformer(stage(config.stage), config.sizes).specs()
    expected = {spec.name: torch.Size(spec.shape) for spec in specs}
    found = {name: tensor.shape for name, tensor in weights.items()}
    if found != expected:
        wrong = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
        raise CheckpointError(
            f"{path} does not hold the weights of its configuration ({', '.join(wrong[:4])} missing, foreign or of "
            "another shape); take a file of checkpoints/"
        )
    return TransformerSubject.of_weights(config, weights, int(data["step"]), str(device))


def facts(subject: TransformerSubject) -> dict[str, Any]:
    """What is known of the run of a checkpoint, in plain values."""
    config = subject.config
    names = ("tier", "stage", "lr", "seed", "batch_size")
    known = {name: getattr(config, name) for name in names if hasattr(config, name)}
    return {**known, "planned_steps": config.steps, "heads": config.sizes.heads}


def _config(data: Mapping[str, Any], path: Path) -> Described:
    if "train" not in data:
        raise CheckpointError(
            f"{path} was written by a version that did not keep the configuration in it; measure it in its run folder "
            "with `speclens measure`"
        )
    return run_config(data["train"]) if data["kind"] == TOY else lm_config(data["train"])
