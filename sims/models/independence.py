"""See whether each sample of a batch has states and a loss of its own, whatever the other samples are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor


def dependent(run: Callable[[Sequence[int]], Mapping[str, Tensor]], tolerance: float) -> tuple[str, ...]:
    """Return the names of values of a sample that change with the other sample of a pair.

    Args:
        run: maps the indices of two samples to name → values (2, …), with the same random numbers at each call.
        tolerance: largest difference that is rounding, as a share of the largest value.

    >>> import torch
    >>> x = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    >>> dependent(lambda pair: {"own": x[list(pair)], "mixed": x[list(pair)].cumsum(0)}, 1e-3)
    ('mixed',)
    """
    both, first, second = run((0, 1)), run((0, 0)), run((1, 1))
    return tuple(
        name
        for name, values in both.items()
        if _differ(values[0], first[name][0], tolerance) or _differ(values[1], second[name][1], tolerance)
    )


def _differ(one: Tensor, other: Tensor, tolerance: float) -> bool:
    if one.shape != other.shape:
        return True
    one, other = one.double(), other.double()
    scale = float(one.abs().nan_to_num().max()) if one.numel() else 0.0
    return not one.isclose(other, rtol=0, atol=tolerance * scale, equal_nan=True).all()
