"""Format the values that laws are tested on: exact where short, marked ≈ where rounded."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch

# Arrays up to this many entries are shown whole; larger ones by shape and range.
_WHOLE = 48
# A float whose exact decimal is longer than this is rounded for display.
_DIGITS = 8


def short(value: Any) -> str:
    """Format one value as short text.

    Whole numbers without a point, small arrays in full, large ones by shape and range.
    """
    if isinstance(value, torch.Tensor):
        host = value.detach().cpu()
        return short(
            (host.float() if host.dtype == torch.bfloat16 else host).resolve_conj().resolve_neg().numpy()
        )
    if isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray):
        return _array(value)
    if isinstance(value, float | np.floating):
        return _number(float(value))[0]
    if isinstance(value, tuple | list) and any(isinstance(v, np.ndarray) for v in value):
        return "(" + ", ".join(short(v) for v in value) + ")"
    # An address differs from run to run.
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(value))
    return text if len(text) <= 120 else text[:117] + "..."


def lines(case: dict[str, Any], indent: str) -> str:
    """Format named arguments, one per line.

    `name = value`, with continuation rows of arrays aligned.
    """
    width = max((len(name) for name in case), default=0)
    rows = []
    for name, value in case.items():
        head = f"{indent}{name:<{width}} = "
        rows.append(head + short(value).replace("\n", "\n" + " " * len(head)))
    return "\n".join(rows)


def size(case: dict[str, Any]) -> int:
    """Count the characters of the numbers of a case.

    Written out exactly: the length of what a reader must look at.
    """
    return sum(_length(value) for value in case.values())


def _length(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return sum(len(f"{float(v):.17g}") for v in value.ravel())
    if isinstance(value, tuple | list):
        return sum(_length(v) for v in value)
    return len(str(value)) if not isinstance(value, str) else 0


def _number(value: float) -> tuple[str, bool]:
    """The text of a float and whether it is exact."""
    if value == int(value) if np.isfinite(value) and abs(value) < 1e7 else False:
        return str(int(value)), True
    exact = repr(value)
    return (exact, True) if len(exact) <= _DIGITS else (f"{value:.6g}", False)


def _array(values: np.ndarray) -> str:
    if values.dtype.kind not in "fiub":
        return f"array of {values.dtype}, shape {values.shape}"
    note = "" if values.dtype == np.float64 else f" ({values.dtype})"
    if values.size == 0:
        return f"empty array of shape {values.shape}{note}"
    if values.size > _WHOLE or values.ndim > 2:
        finite = values[np.isfinite(values)]
        span = f"{finite.min():.4g} to {finite.max():.4g}" if finite.size else "no finite value"
        return f"array of shape {values.shape}, {span}{note}"
    texts = [_number(float(v)) for v in values.ravel()]
    exact = all(flag for _, flag in texts)
    width = max(len(text) for text, _ in texts) if values.ndim == 2 else 0
    cells = np.array([f"{text:>{width}}" for text, _ in texts], dtype=object).reshape(values.shape)
    if values.ndim == 2:
        body = "[" + ",\n ".join("[" + ", ".join(row) + "]" for row in cells) + "]"
    else:
        body = "[" + ", ".join(cells.ravel()) + "]"
    if values.ndim == 0:
        body = str(texts[0][0])
    return body + ("" if exact else " ≈") + note
