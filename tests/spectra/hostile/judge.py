"""Judge one call: a value near the right one, or an InputError; never NaN that says "ok", never a crash."""

import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from spectra import Estimate, InputError, Spectrum, Verdict

from .corpus import Hostile

TOLERANCE = 1e-7


@dataclasses.dataclass
class Count:
    """How many cells ended how."""

    values: int = 0
    refusals: int = 0
    compared: int = 0
    faults: list[str] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        cells = self.values + self.refusals + len(self.faults)
        return (
            f"{cells} cells: {self.values} values ({self.compared} against an independent one), "
            f"{self.refusals} refusals, {len(self.faults)} faults"
        )


def numbers(result: Any) -> np.ndarray | None:
    """The numbers of a result, or None where it says that there are none."""
    if isinstance(result, Estimate):
        if result.status == "not fitted":
            assert result.reason
            return None
        assert not math.isnan(result.value), "an Estimate of NaN"
        return np.array([result.value])
    if isinstance(result, Verdict) and math.isnan(result.bias):
        assert result.reason
        assert not result.reliable
        return None
    if isinstance(result, Spectrum):
        return np.asarray(result.values)
    if isinstance(result, torch.Tensor):
        return result.detach().double().cpu().numpy().ravel()
    if dataclasses.is_dataclass(result):
        result = tuple(getattr(result, field.name) for field in dataclasses.fields(result))
    if isinstance(result, dict):
        result = tuple(result.values())
    if isinstance(result, list | tuple):
        parts = [numbers(part) for part in result if not isinstance(part, str)]
        return np.concatenate([part for part in parts if part is not None] or [np.zeros(0)])
    return np.atleast_1d(np.asarray(result, dtype=float)).ravel()


def judge(
    count: Count, where: str, call: Callable[[], Any], hostile: Hostile, want: Any, *, exact: bool = False
) -> None:
    """Count one cell; a fault is noted with what was found.

    Args:
        count: where it is counted.
        where: function and input, for the note.
        call: the call.
        hostile: what was handed over.
        want: the right numbers, or None where nothing independent is known.
        exact: whether a value that ``want`` does not hold (None) is a fault although the input holds numbers.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = numbers(call())
    except InputError as error:
        count.refusals += 1
        if len(str(error)) < 15:
            count.faults.append(f"{where}: refused without a reason: {error}")
        return
    except Exception as error:  # anything else is a crash
        count.faults.append(f"{where}: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]}")
        return
    if found is None:
        count.refusals += 1
        return
    if hostile.holds is None:
        count.faults.append(f"{where}: accepted as {found[:3]}")
        return
    if np.isnan(found).any():
        count.faults.append(f"{where}: NaN in {found[:3]}")
        return
    if want is None:
        if exact:
            count.faults.append(f"{where}: {found[:3]}, which float64 cannot hold")
        else:
            count.values += 1
        return
    count.values += 1
    count.compared += 1
    expected = np.atleast_1d(np.asarray(want, dtype=float)).ravel()
    size = max(len(found), len(expected))
    padded = [np.pad(part, (0, size - len(part))) for part in (found, expected)]
    allowed = (TOLERANCE + 40 * hostile.precision) * max(float(np.abs(expected).max(initial=0.0)), 1e-300)
    if not np.abs(padded[0] - padded[1]).max(initial=0.0) <= allowed:
        count.faults.append(f"{where}: {found[:3]} and not {expected[:3]}")
