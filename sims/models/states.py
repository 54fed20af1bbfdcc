"""Turn what a module puts out into states: samples, positions and width."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from sims.system.errors import MeasureError

# What comes out of modules with one of these may have its channels on the second axis.
_CHANNELS_FIRST = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.GroupNorm,
)
_CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.Embedding)


def states_of(site: str, module: nn.Module, x: Tensor, samples: int) -> Tensor:
    """Return an activation as states (samples, T, width)."""
    if x.ndim < 2 or not x.is_floating_point():
        raise MeasureError(
            f"{site}: the output has shape {tuple(x.shape)} and {x.dtype}, not (samples, …, width)"
        )
    if len(x) != samples:
        raise MeasureError(
            f"{site}: the output has shape {tuple(x.shape)} for {samples} samples; the sample must be the first axis"
        )
    if x.ndim == 2:
        return x[:, None]
    return x.flatten(2).mT if _channels_first(module, x.shape) else x.flatten(1, -2)


def _channels_first(module: nn.Module, shape: Sequence[int]) -> bool:
    """Return whether an output (samples, …) of three axes or more has its channels on the second one, not the last.

    The axis whose size is a width of the layers inside tells it. Where both are, the last layer tells it if its width
    is the last axis alone; otherwise images and what comes of convolutions alone have their channels first.

    >>> _channels_first(nn.Conv2d(3, 12, 4), (5, 12, 8, 8)), _channels_first(nn.Linear(3, 12), (5, 12, 8, 3))
    (True, False)
    """
    layers = [(inner, width) for inner in module.modules() if (width := _width(inner))]
    if not any(isinstance(inner, _CHANNELS_FIRST) for inner, _ in layers):
        return False
    widths = {width for _, width in layers}
    if (shape[1] in widths) != (shape[-1] in widths):
        return shape[1] in widths
    last, width = layers[-1]
    if isinstance(last, _CHANNELS_LAST) and width == shape[-1] != shape[1]:
        return False
    return len(shape) > 3 or not any(isinstance(inner, _CHANNELS_LAST) for inner, _ in layers)


def _width(layer: nn.Module) -> int:
    """Return the number of channels that a layer puts out; 0 where it is none whose output has channels."""
    if isinstance(layer, nn.LayerNorm):
        return layer.normalized_shape[-1] if len(layer.normalized_shape) == 1 else 0
    names = ("out_channels", "num_features", "num_channels", "out_features", "embedding_dim")
    known = (getattr(layer, name, None) for name in names)
    kinds = (*_CHANNELS_FIRST, *_CHANNELS_LAST)
    return next((n for n in known if isinstance(n, int)), 0) if isinstance(layer, kinds) else 0
