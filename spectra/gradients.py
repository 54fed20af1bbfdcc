"""Compute spectra of per-sample gradients, from their factors or by torch.func.

Two objects, both of the per-sample gradients G_m of one weight matrix (L_m the mean loss of sample m):

* *stacked* (`stacked_gradient_spectrum`): the M singular values of the M×P matrix with rows g_m = vec(G_m),
  uncentred;
* *each sample's own* (`sample_gradient_spectra`): the min(out, in) singular values of every G_m.

Both come from Gram matrices in float64, in which an energy below size·ε·λ₁ is rounding: singular values under
√(size·ε) ≈ 1e-7 of the largest are returned as 0.

Sources: the stacked object is that of Liu, Paquette, Sous (arXiv 2605.05683); per-example gradients through layer
inputs and output gradients go back to Goodfellow (arXiv 1510.01799).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from spectra.capture import Capture, capture_factors
from spectra.errors import InputError
from spectra.factors import Factors, Inputs, OneHot, as_terms, dense_rows, triangle
from spectra.spectrum import Spectrum

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

# Float64 numbers that chunked loops may allocate at once (128 MB), inputs and results not counted.
WORKING_SET = 2**24

Gradients = Factors | Sequence[Factors] | Tensor | np.ndarray


def stacked_gradient_spectrum(gradients: Gradients) -> Spectrum:
    """Return the singular values of all flattened per-sample gradients.

    The M×P matrix with rows g_m = vec(G_m), uncentred.

    σ² are the eigenvalues of the M×M Gram matrix ⟨g_m, g_n⟩ = Σ_{t,t'} ⟨d_t^m, d_t'^n⟩⟨a_t^m, a_t'^n⟩. For
    long samples (T² (in + out) above about in·out) the same matrix is computed from slices of rows
    of the G_m, which is cheaper.

    Args:
        gradients: `Factors`; a sequence of them whose gradients add up (tied weight); or explicit gradients, an
            array or tensor (M, *shape of the parameter), for instance from `per_sample_gradients`.

    Returns:
        Spectrum of kind "singular" with min(M, P) values, n = M, d = P = out·in, centred=False; units of a
        gradient.

    Raises:
        InputError: fewer than two samples, NaN or Inf, terms of different M or shape, or gradients that are all zero.

    >>> stacked_gradient_spectrum(torch.tensor([[3.0, 0.0], [0.0, 4.0]])).values.round(6)
    array([4., 3.])
    """
    if isinstance(gradients, Tensor | np.ndarray):
        if gradients.ndim < 2:
            raise InputError(
                f"gradients have shape {tuple(gradients.shape)}; their first axis must be the sample"
            )
        samples, size = len(gradients), math.prod(gradients.shape[1:])
        flat = dense_rows(gradients.reshape(samples, 1, size), "gradients")[:, 0].double()
        gram = flat @ flat.T
    else:
        terms = as_terms(gradients)
        samples, size = terms[0].samples, math.prod(terms[0].shape)
        gram = _stacked_gram(terms)
    return gram_spectrum(gram, size)


def gram_spectrum(gram: Tensor, size: int) -> Spectrum:
    """Return the stacked spectrum of gradients with known inner products.

    For inner products that were computed in blocks, for instance.

    Args:
        gram: (M, M) float64 ⟨g_m, g_n⟩, from `gradient_inner_products`.
        size: P, the entries of one gradient.

    Raises:
        InputError: fewer than two samples, another shape, NaN or Inf, or gradients that are all zero.

    >>> gram_spectrum(torch.diag(torch.tensor([9.0, 16.0])), size=10).values.round(6)
    array([4., 3.])
    """
    samples = len(gram)
    if samples < 2:
        raise InputError("one sample has no spectrum across samples; pass at least two")
    if gram.shape != (samples, samples) or not bool(torch.isfinite(gram).all()):
        raise InputError(
            f"a Gram matrix of shape {tuple(gram.shape)} with {int((~torch.isfinite(gram)).sum())} NaN or Inf has no "
            "spectrum; pass the (M, M) inner products of all pairs"
        )
    values = _singular_values(gram.double())[: min(samples, size)]
    return Spectrum(values, kind="singular", n=samples, d=size, centred=False)


def gradient_inner_products(first: Factors, second: Factors) -> Tensor:
    """Return inner products between two sets of per-sample gradients.

    (M, N) float64 ⟨g_m, g'_n⟩ of one weight matrix.

    Samples that do not fit in memory together can be compared in blocks; `gram_spectrum` takes the assembled matrix.
    Only slices of rows of the gradients are formed, never all rows; short samples are compared through their factors,
    as in `stacked_gradient_spectrum`.

    Raises:
        InputError: weights of different shapes.

    >>> factors = Factors(torch.ones(2, 1, 3), torch.ones(2, 1, 4))
    >>> gradient_inner_products(factors, factors).tolist()
    [[12.0, 12.0], [12.0, 12.0]]
    """
    if first.shape != second.shape:
        raise InputError(
            f"gradients of {first!r} and {second!r} are of different weights; their inner products mean nothing"
        )
    out, inner = first.shape
    m, n = first.samples, second.samples
    by_factors = m * first.positions * n * second.positions * (out + inner)
    by_rows = (m * first.positions + n * second.positions + m * n) * out * inner
    products = first.a.new_zeros(m, n, dtype=torch.float64)
    if by_factors < by_rows:
        step = max(1, WORKING_SET // (n * first.positions * second.positions))
        a, d = second.a.flatten(0, 1).double(), _rows(second.d, slice(None)).flatten(0, 1)
        for start in range(0, m, step):
            chosen = slice(start, start + step)
            product = first.a[chosen].flatten(0, 1).double() @ a.T
            product *= _inner(_rows(first.d, chosen).flatten(0, 1), d)
            blocks = product.unflatten(1, (n, -1)).unflatten(0, (-1, first.positions))
            products[chosen] = blocks.sum((1, 3))
        return products
    step = max(1, WORKING_SET // ((m + n) * inner))
    for start in range(0, out, step):
        stop = min(start + step, out)
        left, right = (_slices(side, start, stop) for side in (first, second))
        products += left @ right.T
    return products


def sample_gradient_spectra(gradients: Gradients) -> np.ndarray:
    """Return the singular values of each sample's gradient.

    G_m is out × in.

    For T < min(out, in): with Aᵀ = QR, the values of G = DᵀA are those of DᵀRᵀ, hence the square roots of the
    eigenvalues of the T×T matrix R(DDᵀ)Rᵀ. For longer samples G is formed, a chunk of samples at a time,
    and its small Gram matrix taken.

    Args:
        gradients: as for `stacked_gradient_spectrum`, explicit ones of shape (M, out, in).

    Returns:
        (M, min(out, in)) float64, descending in each row; zeros beyond the rank. Units of a gradient.

    Raises:
        InputError: NaN or Inf, or terms of different M or shape.

    >>> sample_gradient_spectra(torch.tensor([[[3.0, 0.0], [0.0, 4.0]]])).round(6)
    array([[4., 3.]])
    """
    if isinstance(gradients, Tensor | np.ndarray):
        explicit = dense_rows(gradients, "gradients")
        chunks = explicit.split(_chunk(explicit[0].numel()))
        return np.concatenate([_own_values(chunk.double()) for chunk in chunks])
    terms = as_terms(gradients)
    out, inner = terms[0].shape
    positions = sum(term.positions for term in terms)
    if positions >= min(out, inner):
        step = _chunk(out * inner + positions * (out + inner))
        starts = range(0, terms[0].samples, step)
        return np.concatenate([_own_values(_formed(terms, slice(s, s + step))) for s in starts])
    values = []
    step = _chunk(positions * (out + inner + 3 * positions))
    for start in range(0, terms[0].samples, step):
        chosen = slice(start, start + step)
        if len(terms) == 1:
            root = terms[0].inputs.triangle[chosen]
        else:
            root = triangle(torch.cat([term.a[chosen].double() for term in terms], dim=1))
        sides = [_rows(term.d, chosen) for term in terms]
        inner_products = torch.cat([torch.cat([_inner(p, q) for q in sides], -1) for p in sides], -2)
        values.append(_singular_values(root @ inner_products @ root.mT))
    short = np.concatenate(values)
    return np.pad(short, ((0, 0), (0, min(out, inner) - short.shape[1])))


def per_sample_gradients(
    model: nn.Module,
    parameter: str,
    loss: Callable[..., Tensor],
    *batch: Tensor,
    chunk_size: int | None = None,
) -> Tensor:
    """Compute each sample's gradient of a parameter by torch.func.

    (M, *shape of the parameter); works for any module that vmap can trace.

    Args:
        model: any module that vmap can trace; its parameters and their .grad do not change. Put it
            in eval mode if it draws random numbers.
        parameter: name as in ``model.named_parameters()``; a tied parameter collects all its uses.
        loss: ``loss(predict, *sample)`` → scalar, where predict calls the model and the sample is a
            batch of one.
        batch: tensors whose first axis is the sample.
        chunk_size: samples per vectorised chunk, all when None; memory grows with chunk_size × parameter.

    Raises:
        InputError: unknown parameter, no batch, or batch tensors of different length.

    >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> model = nn.Linear(2, 1, bias=False)
    >>> per_sample_gradients(model, "weight", lambda predict, x: predict(x).sum(), x)
    tensor([[[1., 2.]],
    <BLANKLINE>
            [[3., 4.]]])
    """
    parameters = dict(model.named_parameters())
    if parameter not in parameters:
        raise InputError(
            f"the model has no parameter {parameter!r}; it has {', '.join(list(parameters)[:12])}, …"
        )
    if not batch or len({len(x) for x in batch}) != 1:
        raise InputError(
            f"batch tensors have lengths {[len(x) for x in batch]}; they need one common sample axis"
        )

    def sample_loss(weight: Tensor, *sample: Tensor) -> Tensor:
        def predict(*args: Any, **kwargs: Any) -> Any:
            return functional_call(model, {parameter: weight}, args, kwargs)

        return loss(predict, *(x.unsqueeze(0) for x in sample))

    per_sample = vmap(grad(sample_loss), in_dims=(None, *[0] * len(batch)), chunk_size=chunk_size)
    return per_sample(parameters[parameter].detach(), *batch).detach()


def _stacked_gram(terms: tuple[Factors, ...]) -> Tensor:
    """(M, M) float64 Gram matrix of the flattened gradients, by the cheaper of the two routes."""
    samples = terms[0].samples
    if all(isinstance(term.d, OneHot) for term in terms):
        # A table's unused rows have no gradient: a vocabulary costs what the batch uses of it.
        joined = OneHot(torch.cat([_indices(term) for term in terms], dim=1), terms[0].shape[0]).compressed()
        terms = (Factors(torch.cat([term.a for term in terms], dim=1), joined),)
    out, inner = terms[0].shape
    positions = sum(term.positions for term in terms)
    by_factors = 0.5 * (samples * positions) ** 2 * (out + inner)
    by_rows = samples * (positions + 0.5 * samples) * out * inner
    return _gram_of_factors(terms) if by_factors < by_rows else _gram_of_rows(terms)


def _gram_of_factors(terms: tuple[Factors, ...]) -> Tensor:
    """Σ over pairs of terms and positions of ⟨d, d'⟩⟨a, a'⟩, in blocks of samples."""
    samples = terms[0].samples
    longest = max(term.positions for term in terms)
    step = max(1, int(WORKING_SET**0.5) // (2 * longest))
    gram = terms[0].a.new_zeros(samples, samples, dtype=torch.float64)
    for i in range(0, samples, step):
        rows = slice(i, i + step)
        for j in range(i, samples, step):
            columns = slice(j, j + step)
            for p in terms:
                for q in terms:
                    product = p.a[rows].flatten(0, 1).double() @ q.a[columns].flatten(0, 1).double().T
                    product *= _inner(_rows(p.d, rows).flatten(0, 1), _rows(q.d, columns).flatten(0, 1))
                    blocks = product.unflatten(1, (-1, q.positions)).unflatten(0, (-1, p.positions))
                    gram[rows, columns] += blocks.sum((1, 3))
            gram[columns, rows] = gram[rows, columns].T.clone()
    return gram


def _gram_of_rows(terms: tuple[Factors, ...]) -> Tensor:
    """Sum over slices of the weight's rows of the Gram matrix of the gradients' slices."""
    samples, (out, inner) = terms[0].samples, terms[0].shape
    gram = terms[0].a.new_zeros(samples, samples, dtype=torch.float64)
    step = max(1, WORKING_SET // (samples * inner))
    for start in range(0, out, step):
        flat = _slices(terms, start, min(start + step, out))
        gram += flat @ flat.T
    return gram


def _slices(terms: Factors | tuple[Factors, ...], start: int, stop: int) -> Tensor:
    """(M, (stop − start)·in) float64 rows start..stop of every gradient, formed a group of samples at a time."""
    terms = as_terms(terms)
    positions = sum(term.positions for term in terms)
    group = _chunk(positions * (stop - start + terms[0].shape[1]))
    pieces = [
        _formed(terms, slice(s, s + group), start, stop).flatten(1) for s in range(0, terms[0].samples, group)
    ]
    return torch.cat(pieces) if len(pieces) > 1 else pieces[0]


def _formed(terms: tuple[Factors, ...], chosen: slice, start: int = 0, stop: int | None = None) -> Tensor:
    """(chosen, stop − start, in) float64 rows start..stop of the gradients of the chosen samples."""
    stop = terms[0].shape[0] if stop is None else stop
    total: Tensor | None = None
    for term in terms:
        a = term.a[chosen].double()
        if isinstance(term.d, OneHot):
            index = term.d.index[chosen]
            inside = (index >= start) & (index < stop)
            # Tokens of other slices go to an extra last row, which is dropped afterwards.
            row = torch.where(inside, index - start, stop - start)
            piece = a.new_zeros(len(a), stop - start + 1, a.shape[2])
            piece.scatter_add_(1, row.unsqueeze(-1).expand_as(a), a)
            piece = piece[:, :-1]
        else:
            piece = term.d[chosen, :, start:stop].double().mT @ a
        total = piece if total is None else total + piece
    assert total is not None  # as_terms rejects an empty sequence
    return total


def _inner(p: Tensor, q: Tensor) -> Tensor:
    """(…, n, n') inner products of rows p and q, where integer rows represent one-hot vectors."""
    p_dense, q_dense = p.is_floating_point(), q.is_floating_point()
    if p_dense and q_dense:
        return p @ q.mT
    if p_dense:
        return p.gather(-1, q.unsqueeze(-2).expand(*p.shape[:-1], q.shape[-1]))
    if q_dense:
        return _inner(q, p).mT
    return (p.unsqueeze(-1) == q.unsqueeze(-2)).double()


def _rows(d: Tensor | OneHot, chosen: slice) -> Tensor:
    """The chosen samples' d: float64 rows (·, T, out), or indices (·, T) for one-hot rows."""
    return d.index[chosen] if isinstance(d, OneHot) else d[chosen].double()


def _indices(term: Factors) -> Tensor:
    assert isinstance(term.d, OneHot)
    return term.d.index


def _own_values(matrices: Tensor) -> np.ndarray:
    """Singular values of each (out, in) float64 matrix through its smaller Gram matrix."""
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    return _singular_values(wide @ wide.mT)


def _singular_values(gram: Tensor) -> np.ndarray:
    """Descending σ = √λ of (a batch of) Gram matrices; λ below size·ε·λ₁ is rounding and becomes 0."""
    # Solved on the CPU: a batched GPU solver loops over matrices of this size.
    energies = torch.linalg.eigvalsh(gram.cpu()).flip(-1).numpy()
    floor = gram.shape[-1] * np.finfo(np.float64).eps * np.maximum(energies[..., :1], 0.0)
    return np.sqrt(np.where(energies > floor, energies, 0.0))


def _chunk(per_sample: int) -> int:
    """Return how many samples fit the working set."""
    return max(1, WORKING_SET // per_sample)
