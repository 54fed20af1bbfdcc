"""A transformer small enough that a test may train it."""

from dataclasses import replace

import pytest
import torch
from tiny_toy import TINY


@pytest.fixture
def tiny():
    """tiny(stage=…, lr=…, …): a RunConfig of a few thousand parameters."""
    return lambda **changes: replace(TINY, **changes)


@pytest.fixture
def double():
    """Parameters, optimisers and data-free constants of an ensemble in float64.

    Float32 steps differ between processors from the seventh digit on (vector width decides the order of sums, and how
    normal numbers are drawn), and training multiplies that difference. In float64 they agree to twelve digits.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
