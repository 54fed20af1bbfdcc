"""Checkpoints that this package writes: of toy runs and of language models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sims.models.checkpoint_info import CheckpointInfo, CheckpointOptions, check_recorded
from sims.models.formats.format import Format
from sims.models.reading import CheckpointSource, checkpoint_files, read_metadata, whole_number
from sims.models.run_network import OwnRun, network_of_run
from sims.models.subject import EMBED, HEAD
from sims.models.transformer import TransformerSubject
from sims.runs.kinds import run_spec
from sims.runs.layout import WRITER
from sims.runs.lm_config import LmConfig
from sims.runs.tensors import check_digest
from toymodel.config import RunConfig
from toymodel.errors import CheckpointError, ConfigError

_AGAIN = "copy it again from where it came from"


@dataclass(frozen=True, eq=False)
class LoadedTransformer:
    """A `LoadedModel` of this package.

    Args:
        config: of the run.
        weights: name → tensor.
        step: optimiser steps so far.
    """

    config: OwnRun
    weights: Mapping[str, Tensor]
    step: int

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the configuration says of the run."""
        return self._subject.about

    @property
    def shapes(self) -> Mapping[str, tuple[int, int]]:
        """Matrix → (rows, cols)."""
        return {name: (len(matrix), matrix.shape[1]) for name, matrix in self._subject.matrices.items()}

    @property
    def gradients(self) -> list[str]:
        """Names of the matrices with per-sample gradients: not embedding and head."""
        return [name for name in self.shapes if name not in (EMBED, HEAD)]

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites."""
        return self._subject.sites

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return self._subject.transformer.parameter_count()

    @property
    def longest(self) -> int:
        """Longest input: that of training."""
        return self._subject.longest

    def subject(self, info: CheckpointInfo, device: torch.device | str | None) -> TransformerSubject:
        """Return the subject on the device, by default the CPU."""
        return TransformerSubject.of_weights(self.config, self.weights, self.step, str(device or "cpu"))

    @property
    def _subject(self) -> TransformerSubject:
        return TransformerSubject.of_weights(self.config, self.weights, self.step)


class Own:
    """Safetensors files whose metadata name this package, and run folders with such files in checkpoints/."""

    looks_like = "files of this package"

    def recognises(self, source: CheckpointSource) -> bool:
        """Return whether the metadata name this package."""
        return source.metadata.get("writer") == WRITER

    def inspect(self, source: CheckpointSource, options: CheckpointOptions) -> CheckpointInfo:
        """Read step and tokens from the metadata.

        Raises:
            CheckpointError: a file of a version that did not keep the configuration.
        """
        data = source.metadata
        step = _step(data, source.path)
        return CheckpointInfo(source.path, WRITER, step, step * _config(data, source.path).tokens_per_step)

    def load(self, source: CheckpointSource, options: CheckpointOptions) -> LoadedTransformer:
        """Load the weights.

        Raises:
            CheckpointError: as `inspect`; content that is not what was written; or tensors that are not the weights of
                the configuration, such as a state for resuming.
        """
        data, path = source.content, source.path
        config, weights, step = _config(data, path), data["model"], _step(data, path)
        specs = network_of_run(config).specs()
        expected = {spec.name: torch.Size(spec.shape) for spec in specs}
        found = {name: tensor.shape for name, tensor in weights.items()}
        if found != expected:
            wrong = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
            raise CheckpointError(
                f"{path} does not hold the weights of its configuration ({', '.join(wrong[:4])} missing, foreign or of "
                "another shape); take a file of checkpoints/"
            )
        check_recorded(options, {"heads": config.sizes.heads, "activation": "of its stage"}, path)
        check_digest(path, read_metadata(path), weights)
        return LoadedTransformer(config, weights, step)

    def checkpoints(self, folder: Path) -> list[Path]:
        """List the checkpoints of a run folder; files elsewhere are listed by their endings."""
        inside = folder / "checkpoints"
        return checkpoint_files(inside) if (folder / "run.json").exists() and inside.is_dir() else []


def _config(data: Mapping[str, Any], path: Path) -> OwnRun:
    if "train" not in data:
        raise CheckpointError(
            f"{path} was written by a version that did not keep the configuration in it; measure it in its run folder "
            "with `speclens measure`"
        )
    try:
        spec = run_spec(data["kind"], data["train"])
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} names no run in its metadata ({error}); it is damaged: {_AGAIN}"
        ) from error
    if not isinstance(spec, RunConfig | LmConfig):
        raise CheckpointError(f"{path} names a run that has no weights of its own in its metadata; {_AGAIN}")
    return spec


def _step(data: Mapping[str, Any], path: Path) -> int:
    step = whole_number(data, "step")
    if step is None:
        raise CheckpointError(f"{path} names no step in its metadata; it is damaged: {_AGAIN}")
    return step


FORMAT: Format = Own()
