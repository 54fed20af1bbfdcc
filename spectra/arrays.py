"""Convert numpy arrays and torch tensors to checked float64 arrays.

What is refused is named: the message says what came, why it holds no numbers of its own, and what to pass instead.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike

from spectra.errors import InputError, NotFiniteError

# What public functions take as real numbers: arrays, tensors, tables, nested sequences of numbers, lists of tensors.
Numbers: TypeAlias = ArrayLike | torch.Tensor | Sequence[torch.Tensor]

EPS = float(np.finfo(np.float64).eps)
# Rounding turns a leading subspace by about ε over the relative distance of the singular values at its border.
TIED = 1e-6

# Entries beyond 2^±480 (about 1e±144) have squares, or sums of squares, outside the range of float64.
EXPONENT_LIMIT = 480

# The same for sums of fourth powers.
FOURTH_LIMIT = 220

# Arrays of numpy have at most so many axes.
_DEEPEST = 64


def to_float64(x: Any, *, name: str, ndim: int | None = None) -> np.ndarray:
    """Convert real numbers to a finite float64 numpy array.

    The result may share memory with the input, which is never written to.

    Args:
        x: numpy array, torch tensor (any device, any real dtype, bfloat16 included) or nested sequence.
        name: name of x in error messages.
        ndim: required number of axes, or None for any.

    Raises:
        InputError: complex, non-numeric, masked, sparse, ragged, NaN or Inf entries, or the wrong number of axes.

    >>> to_float64([1, 2], name="x")
    array([1., 2.])
    """
    array = to_real(x, name=name)
    if ndim is not None and array.ndim != ndim:
        raise InputError(f"{name} has shape {array.shape}; it must have {ndim} axes")
    require_finite(array, name)
    return array


def to_real(x: Any, *, name: str) -> np.ndarray:
    """Convert real numbers to a float64 numpy array, NaN and Inf included.

    Raises:
        InputError: complex, non-numeric, masked, sparse or ragged.

    >>> to_real([1, float("inf")], name="x")
    array([ 1., inf])
    """
    if isinstance(x, torch.Tensor):
        require_strided(x, name)
        if x.is_complex():
            raise InputError(f"{name} has dtype {x.dtype}; pass real numbers")
        return x.detach().to("cpu", torch.float64).resolve_neg().numpy()
    raw = _as_array(x, name)
    if raw.dtype.kind not in "fiub":
        raise InputError(f"{name} has dtype {raw.dtype}; pass real numbers")
    with np.errstate(over="ignore"):
        return raw.astype(np.float64, copy=False)


def to_tensor(x: Any, *, name: str) -> torch.Tensor:
    """Convert an array to a tensor without gradient history.

    Dtype and device are those of x; float8, in which torch has no arithmetic, becomes float32.

    A numpy array that no tensor can wrap (reversed, write-protected, byte-swapped, wider than 64 bits) is copied; any
    other is shared, and must not be written to.

    Raises:
        InputError: non-numeric, masked, sparse or ragged.

    >>> to_tensor(np.ones(2, np.float32), name="x")
    tensor([1., 1.])
    """
    if isinstance(x, torch.Tensor):
        require_strided(x, name)
        x = x.detach().resolve_neg()
        return x.float() if x.is_floating_point() and x.itemsize == 1 else x
    raw = _as_array(x, name)
    if raw.dtype.kind not in "fiubc":
        raise InputError(f"{name} has dtype {raw.dtype}; pass real numbers")
    wide = {"f": (8, np.float64), "c": (16, np.complex128)}.get(raw.dtype.kind)
    native = wide[1] if wide and raw.itemsize > wide[0] else raw.dtype.newbyteorder("=")
    return torch.from_numpy(np.require(raw, native, requirements=("C", "W")))


def machine_epsilon(x: Any, _depth: int = 0) -> float:
    """Return the machine epsilon of the dtype that numbers were handed in.

    The coarsest where the parts of a list or the columns of a table differ; that of float64 for whole numbers, which
    are exact, and for Python's own numbers.

    >>> machine_epsilon(torch.ones(2, dtype=torch.bfloat16)), machine_epsilon([1, 2]) == machine_epsilon(np.ones(2))
    (0.0078125, True)
    """
    dtype = getattr(x, "dtype", None)
    if isinstance(dtype, torch.dtype):
        return max(float(torch.finfo(dtype).eps), EPS) if dtype.is_floating_point else EPS
    if isinstance(x, list | tuple):
        if _depth > _DEEPEST or set(map(type, x)) <= {float, int, bool}:
            return EPS
        return max((machine_epsilon(part, _depth + 1) for part in x), default=EPS)
    held = [dtype]
    if not isinstance(dtype, np.dtype) and hasattr(x, "__array__"):
        # A table of narrow and wide columns is read as a wide array.
        held = [np.asarray(x).dtype, *getattr(x, "dtypes", ())]
    narrow = (float(np.finfo(d).eps) for d in held if isinstance(d, np.dtype) and d.kind == "f")
    return max((EPS, *narrow))


def stored_precision(x: torch.Tensor) -> float:
    """Return the machine epsilon of the narrowest dtype that holds every entry exactly.

    Weights of a bfloat16 checkpoint keep its precision when they are loaded as float32. Of numbers that were never
    rounded (whole numbers, say) it tells nothing.

    >>> stored_precision(torch.tensor([1 / 3]).bfloat16().float()), stored_precision(torch.tensor([1 / 3]))
    (0.0078125, 1.1920928955078125e-07)
    """
    return stored_precisions(x[None])[0]


def stored_precisions(x: torch.Tensor) -> list[float]:
    """Return `stored_precision` of each tensor x[0], x[1], …, with one question to the device.

    >>> stored_precisions(torch.tensor([[0.5, 0.25], [0.1, 0.25]]))
    [0.0078125, 1.1920928955078125e-07]
    """
    narrower = (torch.bfloat16, torch.float16, torch.float32)
    held = torch.stack([(x.to(kind).to(x.dtype) == x).flatten(1).all(dim=1) for kind in narrower], dim=1)
    sizes = [machine_epsilon(x.new_empty(0, dtype=kind)) for kind in narrower]
    own = machine_epsilon(x)
    return [next((eps for eps, fits in zip(sizes, row, strict=True) if fits), own) for row in held.tolist()]


def require_strided(x: torch.Tensor, name: str) -> None:
    """Raise InputError for a tensor that holds no plain numbers: sparse, nested, distributed, quantised or meta."""
    shape = "" if x.is_nested else f" of shape {tuple(x.shape)}"
    if x.is_nested:
        raise InputError(f"{name} is a nested tensor; pass one plain tensor")
    if hasattr(type(x), "__tensor_flatten__"):
        raise InputError(
            f"{name} is a {type(x).__name__}{shape}, which keeps its numbers in other tensors; pass its full_tensor() "
            "where it is distributed, its dequantize() where it is quantised"
        )
    if isinstance(x, torch.nn.Parameter) and not (x.is_floating_point() or x.is_complex()):
        raise InputError(
            f"{name} is a parameter{shape} of {x.dtype}, the codes of a quantised weight; pass the weight that they "
            "stand for"
        )
    if x.layout != torch.strided:
        raise InputError(
            f"{name} is a sparse tensor{shape} ({str(x.layout).removeprefix('torch.')}); pass its to_dense()"
        )
    if x.is_quantized:
        raise InputError(f"{name} is a quantised tensor{shape}; pass its dequantize()")
    if x.is_meta:
        raise InputError(
            f"{name} is a tensor{shape} on the meta device, which holds no numbers; load it first"
        )


def require_finite(array: np.ndarray, name: str) -> None:
    """Raise InputError, with count and first position, when an entry is NaN or Inf."""
    # One pass over the data in the common case: a sum is finite only if every entry is (or it overflows).
    with np.errstate(over="ignore", invalid="ignore"):
        clean = array.size == 0 or bool(np.isfinite(array.sum()))
    if clean:
        return
    bad = ~np.isfinite(array)
    if not bad.any():
        return
    first = tuple(int(i) for i in np.argwhere(bad)[0])
    raise NotFiniteError(
        f"{name} has {int(bad.sum())} NaN or Inf among {array.size} entries (first at {first}); "
        "a spectrum of such data is meaningless: drop or repair these samples first"
    )


def largest(x: Any) -> float:
    """Return max |x| without copying x; 0 where there are no entries.

    >>> largest(np.array([1.0, -3.0]))
    3.0
    """
    return max(float(x.max()), -float(x.min())) if math.prod(x.shape) else 0.0


def require_squares(magnitude: float, what: str = "the largest entry") -> None:
    """Raise InputError where float64 cannot hold the square of a number."""
    if magnitude and not abs(math.frexp(magnitude)[1]) <= EXPONENT_LIMIT:
        raise InputError(
            f"{what} is {magnitude:.3g} in size, and float64 cannot hold its energy; divide the data by it"
        )


def require_inner_products(gram: np.ndarray, tolerance: float, name: str) -> None:
    """Raise InputError for a square matrix that no vectors have as inner products, up to a share of the largest."""
    squares = np.diag(gram)
    slack = tolerance * np.abs(squares).max()
    norms = np.sqrt(np.maximum(squares, 0.0))
    bound = np.outer(norms, norms) + slack
    if squares.min() < 0 or (np.abs(gram - gram.T) > slack).any() or (np.abs(gram) > bound).any():
        raise InputError(
            f"{name} is not symmetric, has a negative square, or an entry is larger than the product of the two norms; "
            "pass inner products of the same vectors, in the same order, along both axes"
        )


def unit_of(*arrays: Any) -> float:
    """Return a power of two near the largest entry, or 1 where fourth powers of the entries fit into float64 anyway.

    Division by it is exact, and keeps sums of fourth powers within float64.

    >>> unit_of(np.array([3.0, -5.0])), unit_of(np.array([2.0**700, 0.0])) == 2.0**700
    (1.0, True)
    """
    size = unit(max(largest(array) for array in arrays))
    return size if abs(math.frexp(size)[1]) > FOURTH_LIMIT else 1.0


def unit(magnitude: float) -> float:
    """Return the largest power of two up to a magnitude, 1 for 0.

    >>> unit(5.0), unit(0.0)
    (4.0, 1.0)
    """
    # The smallest normal number bounds it: the inverse of a smaller one overflows.
    return math.ldexp(1.0, max(math.frexp(magnitude)[1] - 1, -1022)) if magnitude else 1.0


def whole(value: Any, name: str, *, least: int | None = None, most: int | None = None) -> int:
    """Return a whole number within its bounds.

    Raises:
        InputError: not a whole number, or out of bounds.

    >>> whole(np.int64(3), "k", least=1)
    3
    """
    try:
        number = operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{name} is {brief(value)}; pass a whole number") from None
    if (least is not None and number < least) or (most is not None and number > most):
        bounds = f"at least {least}" if most is None else f"{least} to {most}"
        raise InputError(f"{name} is {number}; it must be {bounds}")
    return number


def real(value: Any, name: str) -> float:
    """Return a real number as a float; NaN and Inf pass, for the caller's own rule to judge.

    Raises:
        InputError: not one real number.

    >>> real(2, "alpha")
    2.0
    """
    if isinstance(value, bool | int | float | np.generic | np.ndarray | torch.Tensor):
        array = to_real(value, name=name)
        if array.ndim == 0:
            return float(array)
    raise InputError(f"{name} is {brief(value)}; pass one real number")


def choice(value: Any, name: str, options: tuple[str, ...]) -> str:
    """Return one of several names.

    Raises:
        InputError: anything else.

    >>> choice("ols", "method", ("ols", "theil-sen"))
    'ols'
    """
    if not isinstance(value, str) or value not in options:
        *first, last = (repr(option) for option in options)
        raise InputError(f"{name} is {brief(value)}; it must be {', '.join(first)} or {last}")
    return value


def flag(value: Any, name: str) -> bool:
    """Return True or False.

    Raises:
        InputError: anything else.

    >>> flag(np.bool_(True), "center")
    True
    """
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} is {brief(value)}; it must be True or False")
    return bool(value)


def require_generator(rng: Any) -> None:
    """Raise InputError unless this is a numpy generator."""
    if not isinstance(rng, np.random.Generator):
        raise InputError(f"rng is {brief(rng)}; pass a generator, for instance np.random.default_rng(0)")


def brief(value: Any) -> str:
    """Describe a value in a few words for an error message.

    >>> brief({"a": 1}), brief(2.5), brief(np.ones(3))
    ('a dict', '2.5', 'an array of shape (3,)')
    """
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if value is None or isinstance(value, bool | int | float | complex | np.generic):
        return f"{value}"
    if isinstance(value, str | bytes):
        return repr(value[:40])
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _as_array(x: Any, name: str) -> np.ndarray:
    """Return a numpy array of any dtype, or refuse what numpy would read as an object, a scalar or unmasked data."""
    if isinstance(x, np.ndarray) and not isinstance(x, np.ma.MaskedArray):
        return np.asarray(x)
    if _masked(x):
        raise InputError(
            f"{name} has masked entries, whose numbers mean nothing; drop those rows, or pass x.filled(value)"
        )
    if isinstance(x, Mapping):
        raise InputError(f"{name} is {brief(x)} of {len(x)} entries; pass one of its arrays")
    if isinstance(x, list | tuple) and any(isinstance(part, torch.Tensor) for part in x):
        return np.stack([to_real(part, name=f"{name}[{i}]") for i, part in _same_shapes(x, name)])
    if hasattr(x, "toarray"):
        raise InputError(f"{name} is a sparse {type(x).__name__}; pass its toarray()")
    wanted = "pass a numpy array, a torch tensor or nested lists of numbers"
    if not hasattr(x, "__array__") and not isinstance(x, list | tuple | bool | int | float | complex):
        raise InputError(f"{name} is {brief(x)}; {wanted}")
    try:
        return np.asarray(x)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        reason = (str(error).splitlines() or [""])[0][:100]
        raise InputError(f"{name} is {brief(x)} that is no array ({reason}); {wanted}") from None


def _masked(x: Any, depth: int = 0) -> bool:
    """Return whether a masked array, or a list with masked arrays in it, hides an entry."""
    if isinstance(x, np.ma.MaskedArray):
        return bool(np.ma.getmaskarray(x).any())
    return _has_parts(x, depth, np.ma.MaskedArray) and any(_masked(part, depth + 1) for part in x)


def _has_parts(x: Any, depth: int, *kinds: type) -> bool:
    """Return whether a list has lists or entries of these types in it, without a look at each of many numbers.

    Lists deeper than any array (or that hold themselves) are left to numpy, which refuses them.
    """
    if not isinstance(x, list | tuple) or depth > _DEEPEST:
        return False
    return any(issubclass(kind, (list, tuple, *kinds)) for kind in set(map(type, x)))


def _same_shapes(parts: list[Any] | tuple[Any, ...], name: str) -> list[tuple[int, Any]]:
    shapes = {np.shape(part) for part in parts}
    if len(shapes) > 1:
        listed = ", ".join(str(shape) for shape in sorted(shapes, key=str)[:4])
        raise InputError(f"{name} is a list of parts of shapes {listed}; an array needs one shape")
    return list(enumerate(parts))
