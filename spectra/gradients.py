"""Compute spectra of per-sample gradients, from their factors or by torch.func.

Two objects, both of the per-sample gradients G_m of one weight matrix (L_m the mean loss of sample m):

* *stacked* (`stacked_gradient_spectrum`): the M singular values of the M×P matrix with rows g_m = vec(G_m),
  uncentred;
* *each sample's own* (`sample_gradient_spectra`): the min(out, in) singular values of every G_m.

Both come from Gram matrices in float64, in which an energy below size·ε·λ₁ is rounding: singular values under
√(size·ε) ≈ 1e-7 of the largest are returned as 0. So are values that rounding of the gradients, or of their factors,
in the dtype that they were handed in explains (`covariance.rounding_floor`).

Sources: the stacked object is that of Liu, Paquette, Sous (arXiv 2605.05683); per-example gradients through layer
inputs and output gradients go back to Goodfellow (arXiv 1510.01799).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from spectra.arrays import (
    EPS,
    Numbers,
    largest,
    machine_epsilon,
    require_inner_products,
    require_squares,
    to_tensor,
    whole,
)
from spectra.capture import Capture, capture_factors
from spectra.covariance import least_length, precision_of, resolved, rounding_floor, rounding_margin
from spectra.errors import InputError, NotFiniteError
from spectra.explicit import per_sample_gradients
from spectra.factors import Factors, Inputs, OneHot, as_terms, dense_rows, triangle
from spectra.gradient_products import (
    formed,
    gradient_inner_products,
    inner_products,
    require_term_squares,
    rows_of,
    samples_at_once,
    stacked_gram,
)
from spectra.spectrum import NEGATIVE_TOLERANCE, Spectrum

__all__ = [
    "Capture",
    "Factors",
    "Inputs",
    "OneHot",
    "capture_factors",
    "gradient_inner_products",
    "gram_spectrum",
    "per_sample_gradients",
    "sample_gradient_spectra",
    "stacked_gradient_spectrum",
]

Gradients = Factors | Sequence[Factors] | Tensor | np.ndarray


def stacked_gradient_spectrum(gradients: Gradients, *, precision: float | None = None) -> Spectrum:
    """Return the singular values of all flattened per-sample gradients.

    The M×P matrix with rows g_m = vec(G_m), uncentred.

    σ² are the eigenvalues of the M×M Gram matrix ⟨g_m, g_n⟩ = Σ_{t,t'} ⟨d_t^m, d_t'^n⟩⟨a_t^m, a_t'^n⟩. For
    long samples (T² (in + out) above about in·out) the same matrix is computed from slices of rows
    of the G_m, which is cheaper.

    Args:
        gradients: `Factors`; a sequence of them whose gradients add up (tied weight); or explicit gradients, an
            array or tensor (M, *shape of the parameter), for instance from `per_sample_gradients`.
        precision: as in `covariance_spectrum`.

    Returns:
        Spectrum of kind "singular" with min(M, P) values, n = M, d = P = out·in, centred=False; units of a
        gradient.

    Raises:
        InputError: fewer than two samples, NaN or Inf, terms of different M or shape, gradients that are all zero, or
            so large or small (1e±144) that float64 cannot hold their squares.

    >>> stacked_gradient_spectrum(torch.tensor([[3.0, 0.0], [0.0, 4.0]])).values.round(6)
    array([4., 3.])
    """
    if isinstance(gradients, Tensor | np.ndarray) or hasattr(gradients, "__array__"):
        explicit = to_tensor(gradients, name="gradients")
        if explicit.ndim < 2:
            raise InputError(
                f"gradients have shape {tuple(explicit.shape)}; their first axis must be the sample"
            )
        samples, size = len(explicit), math.prod(explicit.shape[1:])
        flat = _explicit(explicit.reshape(samples, 1, size))[:, 0]
        own = precision_of(gradients, precision)
        flat = flat.double()
        gram = flat @ flat.T
    else:
        terms = as_terms(gradients)
        own = max(precision_of(None, precision), *(term.precision for term in terms))
        samples, size = terms[0].samples, math.prod(terms[0].shape)
        require_term_squares(terms)
        gram = stacked_gram(terms)
    return gram_spectrum(gram, size, precision=own)


def gram_spectrum(gram: Numbers, size: int, *, precision: float | None = None) -> Spectrum:
    """Return the stacked spectrum of gradients with known inner products.

    For inner products that were computed in blocks, for instance.

    Args:
        gram: (M, M) float64 ⟨g_m, g_n⟩, from `gradient_inner_products`.
        size: P, the entries of one gradient.
        precision: machine epsilon of the gradients that it was computed from (`Factors.precision`): values that
            rounding explains are 0. None takes the Gram matrix for all that is known.

    Raises:
        InputError: fewer than two samples, another shape, NaN or Inf, a matrix that is not symmetric or not positive
            semi-definite up to rounding, or gradients that are all zero.

    >>> gram_spectrum(torch.diag(torch.tensor([9.0, 16.0])), size=10).values.round(6)
    array([4., 3.])
    """
    matrix, size = to_tensor(gram, name="the Gram matrix"), whole(size, "size", least=1)
    samples = len(matrix) if matrix.ndim else 0
    if matrix.is_complex():
        raise InputError(f"the Gram matrix has dtype {matrix.dtype}; pass real inner products")
    if samples == 1:
        raise InputError("one sample has no spectrum across samples; pass at least two")
    if matrix.shape != (samples, samples) or samples == 0:
        raise InputError(
            f"the Gram matrix has shape {tuple(matrix.shape)}; pass the (M, M) inner products of all pairs"
        )
    if not bool(torch.isfinite(matrix).all()):
        raise NotFiniteError(
            f"a Gram matrix of shape {tuple(matrix.shape)} with {int((~torch.isfinite(matrix)).sum())} NaN or Inf has "
            "no spectrum; pass inner products of gradients whose squares float64 can hold"
        )
    epsilon = EPS if precision is None else precision_of(None, precision)
    matrix = matrix.double().cpu()
    squares, own = matrix.diagonal().numpy(), machine_epsilon(gram)
    tolerance = max(NEGATIVE_TOLERANCE, 8 * max(epsilon, own))
    require_inner_products(matrix.numpy(), tolerance, "the Gram matrix")
    energies = torch.linalg.eigvalsh(matrix)
    if float(energies[0]) < -tolerance * samples * squares.max():
        raise InputError(
            f"the Gram matrix has the eigenvalue {float(energies[0]):.3g}; inner products of vectors have none below 0"
        )
    values = _roots(energies, own)
    # Only the lengths of the gradients are known here; of columns, their mean.
    lengths = np.sort(squares)[::-1] if samples <= size else np.full(samples, squares.sum() / size)
    lengths = lengths + least_length(max(samples, size), epsilon) ** 2
    values[resolved(values, rounding_margin(epsilon) * np.sqrt(lengths)) :] = 0.0
    return Spectrum(values[: min(samples, size)], kind="singular", n=samples, d=size, centred=False)


def sample_gradient_spectra(gradients: Gradients, *, precision: float | None = None) -> np.ndarray:
    """Return the singular values of each sample's gradient.

    G_m is out × in.

    For T < min(out, in): with Aᵀ = QR, the values of G = DᵀA are those of DᵀRᵀ, hence the square roots of the
    eigenvalues of the T×T matrix R(DDᵀ)Rᵀ. For longer samples G is formed, a chunk of samples at a time,
    and its small Gram matrix taken.

    Args:
        gradients: as for `stacked_gradient_spectrum`, explicit ones of shape (M, out, in).
        precision: as in `covariance_spectrum`.

    Returns:
        (M, min(out, in)) float64, descending in each row; zeros beyond the rank. Units of a gradient.

    Raises:
        InputError: NaN or Inf, or terms of different M or shape.

    >>> sample_gradient_spectra(torch.tensor([[[3.0, 0.0], [0.0, 4.0]]])).round(6)
    array([[4., 3.]])
    """
    if isinstance(gradients, Tensor | np.ndarray) or hasattr(gradients, "__array__"):
        explicit = _explicit(to_tensor(gradients, name="gradients"))
        epsilon = precision_of(gradients, precision)
        chunks = explicit.split(samples_at_once(explicit[0].numel()))
        return np.concatenate([_own_values(chunk.double(), epsilon) for chunk in chunks])
    terms = as_terms(gradients)
    require_term_squares(terms)
    epsilon = max(precision_of(None, precision), *(term.precision for term in terms))
    out, inner = terms[0].shape
    positions = sum(term.positions for term in terms)
    if positions >= min(out, inner):
        step = samples_at_once(out * inner + positions * (out + inner))
        starts = range(0, terms[0].samples, step)
        return np.concatenate([_own_values(formed(terms, slice(s, s + step)), epsilon) for s in starts])
    values = []
    step = samples_at_once(positions * (out + inner + 3 * positions))
    for start in range(0, terms[0].samples, step):
        chosen = slice(start, start + step)
        if len(terms) == 1:
            root = terms[0].inputs.triangle[chosen]
        else:
            root = triangle(torch.cat([term.a[chosen].double() for term in terms], dim=1))
        sides = [rows_of(term.d, chosen) for term in terms]
        products = torch.cat([torch.cat([inner_products(p, q) for q in sides], -1) for p in sides], -2)
        own = _singular_values(root @ products @ root.mT)
        lengths = np.hypot(_lengths(terms, chosen, products, own), least_length(max(out, inner), epsilon))
        for sigma, floor in zip(own, rounding_margin(epsilon) * lengths, strict=True):
            sigma[resolved(sigma, floor[: len(sigma)]) :] = 0.0
        values.append(own)
    short = np.concatenate(values)
    return np.pad(short, ((0, 0), (0, min(out, inner) - short.shape[1])))


def _own_values(matrices: Tensor, precision: float) -> np.ndarray:
    """Singular values of each (out, in) float64 matrix through its smaller Gram matrix."""
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    values = _singular_values(wide @ wide.mT)
    for own, matrix in zip(values, matrices, strict=True):
        own[resolved(own, rounding_floor(matrix, precision)) :] = 0.0
    return values


def _lengths(terms: tuple[Factors, ...], chosen: slice, products: Tensor, sigma: np.ndarray) -> np.ndarray:
    """Lengths of the columns of each G = DᵀA, descending, from products DDᵀ; of rows, where longer, their mean."""
    out, inner = terms[0].shape
    if inner > out:
        return np.repeat(np.sqrt((sigma**2).sum(axis=1, keepdims=True) / out), out, axis=1)
    a = torch.cat([term.a[chosen].double() for term in terms], dim=1)
    squares = ((products.double() @ a) * a).sum(dim=1).clamp_min(0.0)
    return np.sort(np.sqrt(squares.cpu().numpy()), axis=1)[:, ::-1]


def _singular_values(gram: Tensor) -> np.ndarray:
    """Descending σ of (a batch of) Gram matrices."""
    # Solved on the CPU: a batched GPU solver loops over matrices of this size.
    return _roots(torch.linalg.eigvalsh(gram.cpu()), EPS)


def _roots(ascending: Tensor, precision: float) -> np.ndarray:
    """Descending σ = √λ; λ below size·ε·λ₁ is rounding and becomes 0."""
    energies = ascending.flip(-1).numpy()
    floor = energies.shape[-1] * precision * np.maximum(energies[..., :1], 0.0)
    return np.sqrt(np.where(energies > floor, energies, 0.0))


def _explicit(tensor: Tensor) -> Tensor:
    """Explicit gradients as checked (M, ·, ·) rows whose squares float64 holds."""
    rows = dense_rows(tensor, "gradients")
    require_squares(largest(rows))
    return rows
