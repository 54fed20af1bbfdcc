"""Compute how far weights have moved from their initial values, where these are known: in runs of this package."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from sims.models.run_network import network_of_run
from sims.models.subject import Subject
from sims.models.transformer import TransformerSubject
from sims.runs.lm_config import LmConfig
from spectra import Estimate
from toymodel.config import RunConfig
from toymodel.parameter_spec import ParameterSpec
from toymodel.parameters import initial_value
from toymodel.transformer import matrices

# Numbers of a model whose initial weights are kept beside those of others, on the host; of larger models the last.
SMALL = 2**20


def initial_distances(subject: Subject) -> Tensor | None:
    """Return ‖W − W₀‖_F/‖W₀‖_F of every matrix, W₀ its initial values; None where these are not known.

    The initial weights of a run belong to its seed and are drawn again; they are kept for the next look.

    Args:
        subject: any model; known are those of runs of this package, which begin with their own weights.

    Returns:
        (matrices,) float64 in the order of `subject.matrices`, on their device; NaN where W₀ is zero.
    """
    config = subject.config if isinstance(subject, TransformerSubject) else None
    if not isinstance(config, RunConfig | LmConfig):
        return None
    start = _initial(config)
    own = {name: (matrix, *start[name]) for name, matrix in subject.matrices.items()}
    moved = [(matrix - first.to(matrix)).norm(dtype=torch.float64) for matrix, first, _ in own.values()]
    sizes = torch.tensor([size for *_, size in own.values()], dtype=torch.float64)
    # 0/0, or ∞ where it has moved.
    ratio = torch.stack(moved) / sizes.to(moved[0].device)
    return torch.where(ratio.isfinite(), ratio, math.nan)


def distance(value: float) -> Estimate:
    """Return a distance as an estimate.

    >>> distance(math.nan).reason
    'the initial matrix is zero'
    """
    return Estimate.not_fitted("the initial matrix is zero") if math.isnan(value) else Estimate(value)


def _initial(config: RunConfig | LmConfig) -> Mapping[str, tuple[Tensor, float]]:
    return (_few if sum(math.prod(spec.shape) for spec in _specs(config)) <= SMALL else _last)(config)


def _drawn(config: RunConfig | LmConfig) -> Mapping[str, tuple[Tensor, float]]:
    """Return the initial matrices (rows, columns) of a run, on the host, and their norms."""
    params = {spec.name: initial_value(spec, config.seed)[None] for spec in _specs(config)}
    return {
        name: (values[0], float(values[0].norm(dtype=torch.float64)))
        for name, values in matrices(params).items()
    }


_few = lru_cache(maxsize=32)(_drawn)
_last = lru_cache(maxsize=1)(_drawn)


def _specs(config: RunConfig | LmConfig) -> tuple[ParameterSpec, ...]:
    network = config.transformer() if isinstance(config, LmConfig) else network_of_run(config)
    return network.specs()
