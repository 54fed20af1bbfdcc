"""Keep per-sample gradients of a weight matrix as the two factors of their product.

A layer y = x Wᵀ with input rows a_t^m and output gradients δ_t^m = ∂L_m/∂y_t^m has the per-sample gradient
G_m = Σ_t δ_t^m (a_t^m)ᵀ, of the shape (out, in) of W. The factors are T(in + out) numbers per sample instead
of in·out, and every quantity of `spectra.gradients` follows from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from spectra.arrays import Numbers, brief, machine_epsilon, to_tensor, whole
from spectra.errors import InputError, NotFiniteError
from spectra.shown import Shown


@dataclass(frozen=True, eq=False)
class OneHot(Shown):
    """Represent rows of an identity matrix by their positions.

    An embedding table is multiplied with such rows.

    Attributes:
        index: (M, T) int64 tokens.
        size: number of rows V of the table.

    >>> OneHot(torch.tensor([[0, 2, 2]]), size=5).shape
    (1, 3, 5)
    """

    index: Tensor
    size: int

    def __post_init__(self) -> None:
        index = to_tensor(self.index, name="the one-hot indices")
        if index.ndim != 2 or index.is_floating_point() or index.is_complex() or index.numel() == 0:
            raise InputError(
                f"one-hot indices have shape {tuple(index.shape)} and dtype {index.dtype}; they must be a "
                "non-empty (M, T) array of integers"
            )
        index = index.long()
        object.__setattr__(self, "size", whole(self.size, "size", least=1))
        if int(index.min()) < 0 or int(index.max()) >= self.size:
            raise InputError(
                f"one-hot indices lie in {int(index.min())}..{int(index.max())}; a table of {self.size} rows "
                f"takes 0..{self.size - 1}"
            )
        object.__setattr__(self, "index", index)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (M, T, V), the shape of the dense rows."""
        samples, positions = self.index.shape
        return samples, positions, self.size

    def compressed(self) -> OneHot:
        """Drop the columns that no row uses.

        Inner products do not change.
        """
        used, index = torch.unique(self.index, return_inverse=True)
        return OneHot(index, len(used))


class Inputs(Shown):
    """Hold the input rows (M, T, in) of one or several layers.

    Layers that share them (q, k, v) share the QR factor.

    Args:
        rows: (M, T, in) numpy or torch, any float dtype; shared, never written to.

    Raises:
        InputError: not a non-empty (M, T, in) array of finite real numbers.

    >>> Inputs(torch.ones(2, 3, 4)).triangle.shape
    torch.Size([2, 3, 3])
    """

    def __init__(self, rows: Numbers) -> None:
        self.rows = dense_rows(rows, "input rows a")
        self.precision = machine_epsilon(rows)

    def _shown(self) -> Mapping[str, object]:
        return {"rows": tuple(self.rows.shape)}

    @cached_property
    def triangle(self) -> Tensor:
        """Return R of the QR decomposition of each sample's Aᵀ.

        (M, min(in, T), T) float64, RᵀR = A Aᵀ.
        """
        return triangle(self.rows)


class Factors(Shown):
    """Hold M per-sample gradients of a weight matrix as factors.

    G_m = Σ_t d_t^m (a_t^m)ᵀ, of shape (out, in).

    Args:
        a: (M, T, in) input rows, or `Inputs` shared with other layers.
        d: (M, T, out) output gradients ∂L_m/∂y of the loss of that sample; or `OneHot`, for an embedding
            table (out, in) = (V, dim), whose gradient is Σ_t onehot(token_t) δ_tᵀ: there a holds the δ_t.

    Set positions that do not count (padding) to zero. For a layer applied without a position axis, T = 1.

    Raises:
        InputError: not three axes, empty, NaN or Inf, or M and T that differ between a and d.

    >>> Factors(torch.ones(2, 3, 4), torch.ones(2, 3, 5))
    Factors(M=2, T=3, out×in=5×4, dense)
    """

    def __init__(self, a: Numbers | Inputs, d: Numbers | OneHot) -> None:
        self.inputs = a if isinstance(a, Inputs) else Inputs(a)
        self.d: Tensor | OneHot = d if isinstance(d, OneHot) else dense_rows(d, "output gradients d")
        self._d_precision = 0.0 if isinstance(d, OneHot) else machine_epsilon(d)
        if self.a.shape[:2] != self.d.shape[:2]:
            raise InputError(
                f"a has shape {tuple(self.a.shape)} and d {tuple(self.d.shape)}; they need the same "
                "samples M and positions T in their first two axes"
            )

    def _shown(self) -> Mapping[str, object]:
        side = "one-hot" if isinstance(self.d, OneHot) else "dense"
        return {
            "samples M": self.samples,
            "positions T": self.positions,
            "weight out×in": self.shape,
            "output gradients": side,
        }

    @property
    def a(self) -> Tensor:
        """Return the (M, T, in) input rows."""
        return self.inputs.rows

    @property
    def precision(self) -> float:
        """Return the machine epsilon of the coarser of the two dtypes that a and d were handed in."""
        return max(self.inputs.precision, self._d_precision)

    @property
    def samples(self) -> int:
        """Return M, the number of samples."""
        return self.a.shape[0]

    @property
    def positions(self) -> int:
        """Return T, the number of positions per sample."""
        return self.a.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """Return (out, in), the shape of the weight and of each gradient."""
        return self.d.shape[2], self.a.shape[2]

    def split(self, sizes: Sequence[int]) -> tuple[Factors, ...]:
        """Split the factors of a fused weight into row blocks.

        For q, k, v of a (3d, d) matrix; the parts share the inputs.

        Raises:
            InputError: sizes that do not add up to out, or one-hot d.

        >>> [part.shape for part in Factors(torch.ones(2, 3, 4), torch.ones(2, 3, 12)).split([4, 8])]
        [(4, 4), (8, 4)]
        """
        sizes = [whole(size, "a size", least=1) for size in sizes]
        if isinstance(self.d, OneHot) or sum(sizes) != self.shape[0]:
            raise InputError(
                f"a weight of shape {self.shape} cannot be split into rows {tuple(sizes)}; "
                "sizes must be positive and add up to the number of outputs"
            )
        parts = tuple(Factors(self.inputs, part) for part in self.d.split(list(sizes), dim=2))
        for part in parts:
            part._d_precision = self._d_precision
        return parts

    def __repr__(self) -> str:
        side = "one-hot" if isinstance(self.d, OneHot) else "dense"
        return (
            f"Factors(M={self.samples}, T={self.positions}, out×in={self.shape[0]}×{self.shape[1]}, {side})"
        )


def as_terms(factors: Factors | Sequence[Factors]) -> tuple[Factors, ...]:
    """Return the terms of one weight's gradient as a tuple.

    A tied weight has several terms; all have one M and one shape.

    Raises:
        InputError: no term, or terms of different M or shape.
    """
    if not isinstance(factors, Factors | list | tuple):
        raise InputError(
            f"the gradients are {brief(factors)}; pass Factors, a list of Factors that add up, or an array (M, …)"
        )
    terms = (factors,) if isinstance(factors, Factors) else tuple(factors)
    if not terms or not all(isinstance(term, Factors) for term in terms):
        raise InputError(
            "pass Factors, or a non-empty sequence of Factors that add up to one weight's gradient"
        )
    if len({(term.samples, term.shape) for term in terms}) > 1:
        raise InputError(
            f"the terms {', '.join(map(repr, terms))} differ in M or in the weight's shape; only "
            "uses of one weight on one batch add up"
        )
    return terms


def triangle(rows: Tensor) -> Tensor:
    """Return R with RᵀR = A Aᵀ for each sample.

    (M, min(in, T), T) float64, by QR of each sample's Aᵀ.

    QR and not Cholesky of A Aᵀ: repeated tokens make A Aᵀ singular.
    """
    return torch.linalg.qr(rows.mT.double(), mode="r").R


def dense_rows(x: Numbers, name: str) -> Tensor:
    """Convert x to a checked (M, T, ·) tensor without gradient history.

    On the device of x.

    Raises:
        InputError: another number of axes, empty, not floating point, NaN or Inf.
    """
    tensor = to_tensor(x, name=name)
    if tensor.ndim != 3 or tensor.numel() == 0:
        raise InputError(
            f"{name} have shape {tuple(tensor.shape)}; they must be (samples M, positions T, "
            "features), none empty (a layer without positions has T = 1)"
        )
    if not tensor.is_floating_point():
        raise InputError(f"{name} have dtype {tensor.dtype}; pass real floating-point numbers")
    # The sum is a cheap first check: it is finite only if every entry is.
    if not bool(torch.isfinite(tensor.sum())) and not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise NotFiniteError(f"{name} have {bad} NaN or Inf among {tensor.numel()}; drop these samples first")
    return tensor
