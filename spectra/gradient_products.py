"""Inner products of per-sample gradients from their factors, in blocks: gradients are never all formed at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spectra.arrays import EXPONENT_LIMIT, brief, largest
from spectra.errors import InputError
from spectra.factors import Factors, OneHot, as_terms

# Float64 numbers that chunked loops may allocate at once (128 MB), inputs and results not counted.
WORKING_SET = 2**24


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
    for factors in (first, second):
        if not isinstance(factors, Factors):
            raise InputError(f"{brief(factors)} is no set of gradients; pass two Factors of one weight")
    require_term_squares((first, second))
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
        a, d = second.a.flatten(0, 1).double(), rows_of(second.d, slice(None)).flatten(0, 1)
        for start in range(0, m, step):
            chosen = slice(start, start + step)
            product = first.a[chosen].flatten(0, 1).double() @ a.T
            product *= inner_products(rows_of(first.d, chosen).flatten(0, 1), d)
            blocks = product.unflatten(1, (n, -1)).unflatten(0, (-1, first.positions))
            products[chosen] = blocks.sum((1, 3))
        return products
    step = max(1, WORKING_SET // ((m + n) * inner))
    for start in range(0, out, step):
        stop = min(start + step, out)
        left, right = (_slices(side, start, stop) for side in (first, second))
        products += left @ right.T
    return products


def stacked_gram(terms: tuple[Factors, ...]) -> Tensor:
    """Return the (M, M) float64 Gram matrix of the flattened gradients, by the cheaper of the two routes."""
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
                    product *= inner_products(
                        rows_of(p.d, rows).flatten(0, 1), rows_of(q.d, columns).flatten(0, 1)
                    )
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
    group = samples_at_once(positions * (stop - start + terms[0].shape[1]))
    pieces = [
        formed(terms, slice(s, s + group), start, stop).flatten(1) for s in range(0, terms[0].samples, group)
    ]
    return torch.cat(pieces) if len(pieces) > 1 else pieces[0]


def formed(terms: tuple[Factors, ...], chosen: slice, start: int = 0, stop: int | None = None) -> Tensor:
    """Return (chosen, stop − start, in) float64 rows start..stop of the gradients of the chosen samples."""
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


def inner_products(p: Tensor, q: Tensor) -> Tensor:
    """Return (…, n, n') inner products of rows p and q, where integer rows represent one-hot vectors."""
    p_dense, q_dense = p.is_floating_point(), q.is_floating_point()
    if p_dense and q_dense:
        return p @ q.mT
    if p_dense:
        return p.gather(-1, q.unsqueeze(-2).expand(*p.shape[:-1], q.shape[-1]))
    if q_dense:
        return inner_products(q, p).mT
    return (p.unsqueeze(-1) == q.unsqueeze(-2)).double()


def rows_of(d: Tensor | OneHot, chosen: slice) -> Tensor:
    """Return the chosen samples' d: float64 rows (·, T, out), or indices (·, T) for one-hot rows."""
    return d.index[chosen] if isinstance(d, OneHot) else d[chosen].double()


def _indices(term: Factors) -> Tensor:
    assert isinstance(term.d, OneHot)
    return term.d.index


def require_term_squares(terms: tuple[Factors, ...]) -> None:
    """Raise InputError where float64 cannot hold the squares of the gradients."""
    for term in terms:
        sides = [largest(term.a), 1.0 if isinstance(term.d, OneHot) else largest(term.d)]
        # Exponents, because the product itself may leave float64.
        exponents = [math.frexp(side)[1] for side in sides]
        if all(sides) and abs(sum(exponents)) > EXPONENT_LIMIT - 32:
            raise InputError(
                f"{term!r} has inputs up to {sides[0]:.3g} and output gradients up to {sides[1]:.3g}: float64 cannot "
                "hold the squares of their products; divide the losses, or the inputs, first"
            )


def samples_at_once(per_sample: int) -> int:
    """Return how many samples fit the working set."""
    return max(1, WORKING_SET // per_sample)
