"""Predict what each measure returns for noise; draw these levels next to every measurement."""

from spectra.nulls.concentration import (
    BetaNull,
    SampledNull,
    effective_dimension,
    h_peak_null,
    h_s_null,
    h_top_k_null,
)
from spectra.nulls.edge import EdgeNull, edge_null
from spectra.nulls.exponents import noise_exponent
from spectra.nulls.marchenko_pastur import (
    MarchenkoPastur,
    bbp_overlap,
    bbp_position,
    bbp_threshold,
    gradient_mean_position,
)
from spectra.nulls.tracy_widom import (
    EdgeTest,
    tracy_widom_cdf,
    tracy_widom_quantile,
    tracy_widom_sf,
    tracy_widom_test,
)

__all__ = [
    "BetaNull",
    "EdgeNull",
    "EdgeTest",
    "MarchenkoPastur",
    "SampledNull",
    "bbp_overlap",
    "bbp_position",
    "bbp_threshold",
    "edge_null",
    "effective_dimension",
    "gradient_mean_position",
    "h_peak_null",
    "h_s_null",
    "h_top_k_null",
    "noise_exponent",
    "tracy_widom_cdf",
    "tracy_widom_quantile",
    "tracy_widom_sf",
    "tracy_widom_test",
]
