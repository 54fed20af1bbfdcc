"""Hostile versions of an array, each with the float64 numbers that it holds, or None where it must be refused."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch


class Hostile(NamedTuple):
    """One version of an array.

    Attributes:
        name: unique.
        value: what the function is given.
        holds: the numbers it stands for, or None: it stands for none and must be refused.
        precision: machine epsilon of its dtype, which bounds what may come out as 0.
    """

    name: str
    value: Any
    holds: np.ndarray | None
    precision: float = 2.0**-52


def plain(name: str, a: np.ndarray) -> Hostile:
    """An array that holds what it shows."""
    return Hostile(name, a.copy(), a)


class ArrayLike:
    """An object that numpy can read, and nothing else can."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.array, dtype=dtype)


def layouts(a: np.ndarray) -> Iterator[Hostile]:
    """The same float64 numbers in every dress."""
    strided = np.full((2 * len(a), *a.shape[1:]), 7.0)
    strided[::2] = a
    locked = a.copy()
    locked.setflags(write=False)
    tensor = torch.tensor(a)
    yield Hostile("plain", a.copy(), a)
    yield Hostile("list", a.tolist(), a)
    yield Hostile("tuple of rows", tuple(map(tuple, a)) if a.ndim == 2 else tuple(a.tolist()), a)
    yield Hostile("fortran", np.asfortranarray(a), a)
    yield Hostile("every second row", strided[::2], a)
    yield Hostile("negative strides", a[::-1].copy()[::-1], a)
    yield Hostile("read-only", locked, a)
    yield Hostile("byte-swapped", a.astype(">f8"), a)
    yield Hostile("longdouble", a.astype(np.longdouble), a)
    yield Hostile(
        "matrix" if a.ndim == 2 else "recarray", np.asmatrix(a) if a.ndim == 2 else a.view(np.recarray), a
    )
    yield Hostile("array-like", ArrayLike(a), a)
    yield Hostile("masked without a mask", np.ma.masked_array(a), a)
    yield Hostile("tensor", tensor, a)
    if tensor.is_floating_point():
        yield Hostile("parameter", torch.nn.Parameter(tensor.clone()), a)
        yield Hostile("part of a graph", tensor.clone().requires_grad_() * 1.0, a)
        yield Hostile("lazily negated tensor", torch.complex(tensor * 0, -tensor).conj().imag, a)
        yield Hostile("list of tensors", [row.clone().requires_grad_() for row in tensor], a)
    yield Hostile("transposed tensor", tensor.T.contiguous().T if a.ndim == 2 else tensor, a)
    pandas = _pandas()
    if pandas is not None and a.ndim <= 2:
        yield Hostile("pandas", pandas.DataFrame(a) if a.ndim == 2 else pandas.Series(a), a)


def dtypes(a: np.ndarray) -> Iterator[Hostile]:
    """Narrower dtypes, holding other numbers."""
    for dtype in (np.float32, np.float16):
        narrow = a.astype(dtype)
        yield Hostile(np.dtype(dtype).name, narrow, narrow.astype(float), float(np.finfo(dtype).eps))
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        narrow = torch.tensor(a).to(dtype)
        yield Hostile(str(dtype), narrow, narrow.double().numpy(), float(torch.finfo(dtype).eps))
    for dtype in (np.int8, np.int64, np.uint16):
        whole = np.round(np.abs(a) * 9).astype(dtype)
        yield Hostile(np.dtype(dtype).name, whole, whole.astype(float))
    yield Hostile("torch int32", torch.tensor(np.round(np.abs(a) * 9)).int(), np.round(np.abs(a) * 9))
    yield Hostile("bool", a > np.median(a), (a > np.median(a)).astype(float))


def numberless(a: np.ndarray) -> Iterator[Hostile]:
    """What holds no real numbers of this shape."""
    a = a.astype(float)
    rows = a.tolist()
    masked = np.ma.masked_array(a, mask=np.arange(a.size).reshape(a.shape) == 1)
    tensor = torch.tensor(a)
    matrix = a.reshape(len(a), -1)
    yield Hostile("None", None, None)
    yield Hostile("string", "activations.npy", None)
    yield Hostile("bytes", b"12", None)
    yield Hostile("number", 3.0, None)
    yield Hostile("0-d", np.float64(2.0), None)
    yield Hostile("0-d tensor", torch.tensor(2.0), None)
    yield Hostile("dict", {"weight": tensor}, None)
    yield Hostile("state dict", torch.nn.Linear(3, 2).state_dict(), None)
    yield Hostile("module", torch.nn.Linear(3, 2), None)
    yield Hostile("generator", (row for row in rows), None)
    yield Hostile("range of rows", iter(rows), None)
    yield Hostile("set", {1.0, 2.0, 3.0}, None)
    yield Hostile("function", np.mean, None)
    yield Hostile("object", object(), None)
    yield Hostile("object array", a.astype(object), None)
    yield Hostile("strings", a.astype(str), None)
    yield Hostile("dates", np.zeros(a.shape, "datetime64[s]"), None)
    yield Hostile("structured", np.zeros(a.shape, [("a", float), ("b", float)]), None)
    yield Hostile("complex", a + 0j, None)
    yield Hostile("complex tensor", tensor + 0j, None)
    yield Hostile("masked", masked, None)
    yield Hostile("list of masked rows", list(masked) if a.ndim == 2 else [masked], None)
    yield Hostile("ragged", [*rows[:-1], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]], None)
    yield Hostile("ragged tensors", [torch.ones(3), torch.ones(4)], None)
    yield Hostile("list with None", [*rows[:-1], None], None)
    yield Hostile("scipy sparse", scipy.sparse.csr_array(matrix), None)
    yield Hostile("torch sparse", torch.tensor(matrix).to_sparse(), None)
    yield Hostile("torch sparse rows", torch.tensor(matrix).to_sparse_csr(), None)
    yield Hostile("meta", torch.empty(a.shape, device="meta"), None)
    yield Hostile("nested", torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), None)
    yield Hostile("quantised", torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8), None)
    yield Hostile("4-d", np.ones((2, 2, 2, 2)), None)
    yield Hostile("0 entries", np.zeros((0, *a.shape[1:])), None)
    yield Hostile("0 columns", np.zeros((*a.shape[:1], 0)), None)
    yield Hostile("empty list", [], None)
    yield Hostile("empty tensor", torch.zeros(0), None)
    for bad in (np.nan, np.inf, -np.inf):
        poisoned = a.copy()
        poisoned.flat[-1] = bad
        yield Hostile(f"with {bad}", poisoned, None)
        yield Hostile(f"float16 with {bad}", poisoned.astype(np.float16), None)
        yield Hostile(f"bfloat16 with {bad}", torch.tensor(poisoned).bfloat16(), None)
        yield Hostile(f"all {bad}", np.full_like(a, bad), None)
    yield Hostile("beyond float64", (a + 1).astype(np.longdouble) * np.longdouble("1e4000"), None)


def degenerate(a: np.ndarray) -> Iterator[Hostile]:
    """Numbers without variation, rank or size; each is a value or a refusal, never NaN."""
    a = a.astype(float)
    yield Hostile("zeros", np.zeros_like(a), np.zeros_like(a))
    yield Hostile("ones", np.ones_like(a), np.ones_like(a))
    yield Hostile("a tenth", np.full_like(a, 0.1), np.full_like(a, 0.1))
    yield Hostile("one row", a[:1], a[:1])
    yield Hostile("two rows", a[:2], a[:2])
    yield Hostile("duplicates", np.repeat(a[:2], 4, axis=0), np.repeat(a[:2], 4, axis=0))
    yield Hostile("negative", -np.abs(a), -np.abs(a))
    yield plain("one spike", np.where(np.arange(a.size).reshape(a.shape) == 0, 1.0, 0.0))
    yield plain("subnormal", np.round(np.abs(a) * 9) * 5e-324)
    yield plain("largest floats", np.sign(a) * np.finfo(float).max)
    yield plain("float64 range", np.where(np.arange(a.size).reshape(a.shape) % 2, a * 1e-300, a * 1e300))
    if a.ndim == 2:
        yield plain("constant column", np.column_stack([a[:, 1:], np.full(len(a), 3.0)]))
        yield plain("rank one", np.outer(a[:, 0], a[0]))
        yield plain("fewer rows than columns", a[:3])
        yield plain("one column", a[:, :1])
        yield plain("huge mean", a + 1e15)


# Powers of two, so that a scaled array is exact.
SCALES = (2.0**-1000, 2.0**-664, 2.0**-300, 2.0**-100, 2.0**100, 2.0**300, 2.0**664, 2.0**1000)


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        return None
    return pandas
