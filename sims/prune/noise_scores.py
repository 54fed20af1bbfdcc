"""Exponents of Gaussian matrices with the shapes of a model: what shapes alone do to a score."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch

from sims.measure.weight_tails import farms_of, tile_of
from sims.system.errors import MeasureError
from spectra import hill
from spectra.nulls import noise_energies

Shapes = tuple[tuple[str, tuple[int, int]], ...]
# Scores that have such a level, and models that are drawn.
OF_NOISE = ("alpha", "farms")
# Of 20 models of noise each is as likely as any other to have the lowest value.
DRAWS = 19


def noise_scores(
    by: str, shapes: Mapping[str, tuple[int, int]], draws: int = DRAWS
) -> list[dict[str, float]]:
    """Return the exponents of models whose matrices have independent Gaussian entries.

    Args:
        by: alpha or farms.
        shapes: (rows, columns) by matrix.
        draws: number of models.

    Raises:
        MeasureError: another score.

    >>> found = noise_scores("alpha", {"blocks.0.attn.q": (32, 32), "blocks.0.mlp.fc": (128, 32)}, draws=2)
    >>> [own["blocks.0.mlp.fc"] > own["blocks.0.attn.q"] for own in found]
    [True, True]
    """
    if by not in OF_NOISE:
        raise MeasureError(
            f"no level of noise of the score {by!r}; scores with one are {', '.join(OF_NOISE)}"
        )
    return [dict(values) for values in _noise_scores(by, tuple(shapes.items()), draws)]


@lru_cache(maxsize=8)
def _noise_scores(by: str, shapes: Shapes, draws: int) -> tuple[dict[str, float], ...]:
    found: tuple[dict[str, float], ...] = tuple({} for _ in range(draws))
    tile = tile_of({name: torch.empty(1).expand(shape) for name, shape in shapes})
    for number, (name, (rows, columns)) in enumerate(shapes):
        generator = np.random.default_rng([number, rows, columns])
        for own in found:
            if by == "alpha":
                tail = hill(noise_energies(rows, columns, generator)[0], tests=False)
            else:
                tail = farms_of(
                    torch.from_numpy(generator.standard_normal((rows, columns))), tile, tests=False
                )
            own[name] = tail.value
    return found
