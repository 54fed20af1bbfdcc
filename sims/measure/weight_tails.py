"""Exponents of weight matrices by rank, by Hill and by FARMS, and spectra of the products of single attention heads.

The exponents are no estimates of one number: a steeper decay with rank raises the first and lowers the density
exponents. Beside each stands its mean over Gaussian matrices of the same shape, whose spectra spread by their shape
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sims.measure.noise_levels import NONE, Level, farms_level, hill_level, product_level, summary_level
from sims.measure.rows import MeasurementRows
from sims.models.heads import HeadProduct, Heads, head_products
from sims.runs.rank_windows import window_name
from spectra import (
    Estimate,
    Spectrum,
    farms,
    hill,
    product_spectra,
    rankme,
    stable_rank,
    window_exponent,
)
from spectra.arrays import stored_precision

WEIGHT, FOLDED, PRODUCT = "weight", "folded", "product"
# Ranks of the decay of singular values: the first half, which rounding leaves alone, and all.
HALF, ALL = "half", "all"
# FARMS: square tiles, of one size for all matrices of a model; how many of a matrix at most, and the least size.
TILE, TILES, FEWEST = 128, 16, 3
# Matrices whose shorter side is below this share of the longest such side do not make the tiles of a model small.
THIN = 1 / 8
Leveller = Callable[[Callable[..., float | Estimate], tuple[Any, ...]], Level]


class ProductSpectrum(NamedTuple):
    """Hold the spectrum of a product (n, r) times (r, d) of one head, and the width r of the head."""

    spectrum: Spectrum
    inner: int


def tile_of(matrices: Mapping[str, Tensor]) -> int:
    """Return the size of the FARMS tiles of a model: one for all its blocks, so that their exponents compare.

    Thin matrices beside them (routers, low-rank updates) have tiles of their own shorter side.

    Args:
        matrices: (…, rows, columns) by name.

    >>> import torch
    >>> tile_of({"embed": torch.ones(300, 16), "blocks.0.attn.k": torch.ones(24, 96)})
    24
    >>> tile_of({"blocks.0.attn.q": torch.ones(64, 64), "blocks.0.mlp.router": torch.ones(4, 64)})
    64
    """
    inside = [m for name, m in matrices.items() if name.startswith("blocks.")] or list(matrices.values())
    sides = [min(TILE, *matrix.shape[-2:]) for matrix in inside]
    return min((side for side in sides if side >= THIN * max(sides)), default=TILE)


def farms_of(matrix: Tensor, tile: int, precision: float | None = None, *, tests: bool = True) -> Estimate:
    """Return the FARMS exponent of a matrix, with tiles of a size or of its short side where that is smaller.

    Args:
        matrix: (rows, columns).
        tile: size of the tiles.
        precision, tests: as in `spectra.farms`.
    """
    size = min(tile, *matrix.shape)
    if size < FEWEST:
        return Estimate.not_fitted(f"a tile needs {FEWEST} rows and columns, and the shorter side has {size}")
    return farms(matrix, size=size, tiles=TILES, precision=precision, tests=tests)


def farms_value(matrix: Tensor, tile: int, precision: float, spectrum: Spectrum) -> Estimate:
    """Return `farms_of` without interval and tests, from the spectrum of the matrix where that is its only tile."""
    if min(matrix.shape) < FEWEST or matrix.shape != (tile, tile):
        return farms_of(matrix, tile, precision, tests=False)
    whole = hill(spectrum, tests=False, precision=precision)
    sides = {"tiles": 1, "tile_short": tile, "tile_long": tile}
    return Estimate(whole.value, status=whole.status, reason=whole.reason, details={**whole.details, **sides})


def products_of(matrices: Mapping[str, Tensor], heads: Heads) -> dict[str, ProductSpectrum | None]:
    """Return the spectra of the products of all heads by site; None where one is still zero."""
    # A model is stored in one precision: the coarsest of its matrices of attention is that of all.
    own = max(
        [stored_precision(m) for name, m in matrices.items() if ".attn." in name and m.any()], default=None
    )
    products = list(head_products(matrices, heads))
    found: dict[str, ProductSpectrum | None] = dict.fromkeys(product.site for product in products)
    shapes: dict[object, list[HeadProduct]] = {}
    for product in products:
        shapes.setdefault((product.left.shape, product.right.shape), []).append(product)
    for alike in shapes.values():
        left, right = torch.stack([p.left for p in alike]), torch.stack([p.right for p in alike])
        moved = left.flatten(1).any(dim=1) & right.flatten(1).any(dim=1)
        if not bool(moved.any()):
            continue
        sites = [p.site for p, kept in zip(alike, moved.tolist(), strict=True) if kept]
        spectra = product_spectra(left[moved], right[moved], precision=own)
        inner = left.shape[2]
        found.update((site, ProductSpectrum(one, inner)) for site, one in zip(sites, spectra, strict=True))
    return found


def tail_rows(
    sheet: MeasurementRows,
    name: str,
    spectrum: Spectrum,
    tail: Estimate,
    object_: str = WEIGHT,
    precision: float | None = None,
) -> None:
    """Add the exponents of one matrix: values beside those of noise, without intervals and tests of a misfit.

    Args:
        sheet: where rows are added.
        name: of the matrix.
        spectrum: its singular values.
        tail: its FARMS exponent.
        object_: column "object" of the rows.
        precision: as in `spectra.hill`.
    """
    n, d = _sides(spectrum)
    _decay_rows(sheet, object_, name, spectrum, lambda of, arguments: summary_level(of, arguments, n, d))
    value = hill(spectrum, tests=False, precision=precision)
    _row(sheet, "hill", object_, name, value, hill_level(n, d))
    if tail.status == "not fitted":
        _row(sheet, "farms", object_, name, tail, NONE)
        return
    size, count = int(tail.details["tile_short"]), int(tail.details["tiles"])
    _row(sheet, "farms", object_, name, tail, farms_level(size, count), detail=f"{count} tiles of {size}")


def product_rows(sheet: MeasurementRows, site: str, product: ProductSpectrum | None) -> None:
    """Add the spectrum of the product of one head, its ranks and its exponents."""
    if product is None:
        _row(sheet, "stable_rank", PRODUCT, site, Estimate.not_fitted("a factor is still zero"), NONE)
        return
    spectrum = product.spectrum
    sheet.spectrum(PRODUCT, site, spectrum)
    n, d = _sides(spectrum)

    def level(of: Callable[..., float | Estimate], arguments: tuple[Any, ...]) -> Level:
        return product_level(of, arguments, n, product.inner, d)

    for name, of in (("stable_rank", stable_rank), ("rankme", rankme)):
        _row(sheet, name, PRODUCT, site, of(spectrum), level(of, ()))
    _decay_rows(sheet, PRODUCT, site, spectrum, level)


def heads_unknown(sheet: MeasurementRows) -> None:
    """Say that the products of heads are missing, and why."""
    reason = "the number of attention heads is not known"
    _row(sheet, "stable_rank", PRODUCT, "blocks", Estimate.not_fitted(reason), NONE)


def _decay_rows(sheet: MeasurementRows, object_: str, site: str, spectrum: Spectrum, level: Leveller) -> None:
    """Add −(slope of ln σ_j on ln j) over the first half of the ranks and over all."""
    for detail, last in ((HALF, len(spectrum) // 2), (ALL, len(spectrum))):
        if last < FEWEST:
            few = Estimate.not_fitted(f"ranks 1–{last} are too few for a slope, which needs three")
            _row(sheet, "alpha_singular", object_, site, few, NONE, detail=detail)
            continue
        arguments = (1, last, "ols", "singular")
        found = window_exponent(spectrum, *arguments)
        null = level(window_exponent, arguments)
        window = window_name((1, last))
        _row(sheet, "alpha_singular", object_, site, found, null, detail=detail, window=window)


def _sides(spectrum: Spectrum) -> tuple[int, int]:
    return spectrum.n or len(spectrum), spectrum.d or len(spectrum)


def _row(
    sheet: MeasurementRows,
    quantity: str,
    object_: str,
    site: str,
    value: float | Estimate,
    level: Level,
    **which: Any,
) -> None:
    sheet.row(quantity, object_, site, value, null=level.mean, null_high=level.high, **which)
