"""Predict what each measure returns for noise; draw these levels next to every measurement."""

from spectra.nulls.concentration import (
    BetaNull,
    SampledNull,
    effective_dimension,
    h_peak_null,
    h_s_null,
    h_top_k_null,
)
from spectra.nulls.edge import EdgeNull, edge_null, edge_p_range
from spectra.nulls.exponents import noise_exponent
from spectra.nulls.marchenko_pastur import (
    MarchenkoPastur,
    bbp_overlap,
    bbp_position,
    bbp_threshold,
    gradient_mean_position,
)
from spectra.nulls.noise import noise_energies, noise_quantiles
from spectra.nulls.sketch import SketchError, sketch_error
from spectra.nulls.tails import hill_null, hill_z
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
    "SketchError",
    "bbp_overlap",
    "bbp_position",
    "bbp_threshold",
    "edge_null",
    "edge_p_range",
    "effective_dimension",
    "gradient_mean_position",
    "h_peak_null",
    "h_s_null",
    "h_top_k_null",
    "hill_null",
    "hill_z",
    "noise_energies",
    "noise_exponent",
    "noise_quantiles",
    "sketch_error",
    "tracy_widom_cdf",
    "tracy_widom_quantile",
    "tracy_widom_sf",
    "tracy_widom_test",
]
