"""Scale learning rates with the batch size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Rule = Literal["sqrt", "linear"]

# The published factors around a central learning rate, and the batch size to which a base learning rate refers.
FACTORS = (0.5, 0.707, 1.0, 1.414, 2.0)
BASE_BATCH = 32


def learning_rates(
    base: float,
    batch_size: int,
    rules: Sequence[Rule] = ("sqrt",),
    factors: Sequence[float] = FACTORS,
    base_batch: float = BASE_BATCH,
) -> list[float]:
    """Return the learning rates to try at a batch size.

    Args:
        base: the learning rate at the base batch size B₀.
        batch_size: where to scale it to, B.
        rules: "sqrt": base·√(B/B₀); "linear": base·B/B₀; both: the union.
        factors: multiples of each centre.
        base_batch: B₀.

    Returns:
        Learning rates in ascending order, each once.
    """
    ratio = batch_size / base_batch
    centres = [base * (ratio**0.5 if rule == "sqrt" else ratio) for rule in rules]
    # Six digits: rates that differ only by rounding become one, and run names stay readable.
    return sorted({float(f"{centre * factor:.6g}") for centre in centres for factor in factors})
