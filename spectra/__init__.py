"""Estimate spectra of activations, gradients, updates and weights, with null laws and intervals.

The package knows no model and no task: every function takes numpy arrays or torch tensors.
"""

from spectra.bands import closed_set, task_band, task_kernel
from spectra.capture import Capture, capture_factors, capture_moments
from spectra.covariance import covariance_spectrum
from spectra.defects import Defect, commutator_defect
from spectra.divergence import js_divergence, js_excess, js_floor
from spectra.errors import InputError
from spectra.exponents import alpha_req, convert_exponent, window_exponent
from spectra.factors import Factors, Inputs, OneHot
from spectra.finite_sample import BiasPrediction, Verdict, predict_bias, reliability
from spectra.fourier import (
    ClassMeans,
    ComponentFrequencies,
    band_energies,
    band_masses,
    class_means,
    component_frequencies,
    dominant_frequency,
    gini,
    h_peak,
    h_s,
    h_s_debiased,
    peak_band,
    top_k_band,
)
from spectra.gradients import (
    gradient_inner_products,
    gram_spectrum,
    per_sample_gradients,
    sample_gradient_spectra,
    stacked_gradient_spectrum,
)
from spectra.intervals import participation_ratio_interval, rankme_interval, window_exponent_interval
from spectra.moments import Moments
from spectra.nulls import (
    BetaNull,
    EdgeNull,
    EdgeTest,
    MarchenkoPastur,
    SampledNull,
    SketchError,
    bbp_overlap,
    bbp_position,
    bbp_threshold,
    edge_null,
    edge_p_range,
    effective_dimension,
    gradient_mean_position,
    h_peak_null,
    h_s_null,
    h_top_k_null,
    hill_null,
    hill_z,
    noise_exponent,
    noise_quantiles,
    sketch_error,
    tracy_widom_cdf,
    tracy_widom_quantile,
    tracy_widom_sf,
    tracy_widom_test,
)
from spectra.powerlaw import clauset, hill
from spectra.results import Estimate
from spectra.shrinkage import debiased_participation_ratio, nonlinear_shrinkage
from spectra.spectrum import Spectrum
from spectra.subspaces import control_subspace, drop_frequencies, frequency_subspace, keep_frequencies
from spectra.summaries import participation_ratio, rank, rankme, stable_rank, top_share
from spectra.tiles import farms
from spectra.uncertainty import bootstrap, jackknife, window_exponent_bootstrap
from spectra.update_windows import SketchedWindow, UpdateWindow
from spectra.updates import SpectralEdge, spectral_edge
from spectra.weights import product_spectra, product_spectrum, weight_spectra, weight_spectrum
from spectra.window_edges import WindowEdges, window_edges
from spectra.window_gram import WindowGram
from spectral_lens import __version__ as __version__

__all__ = [
    "BetaNull",
    "BiasPrediction",
    "Capture",
    "ClassMeans",
    "ComponentFrequencies",
    "Defect",
    "EdgeNull",
    "EdgeTest",
    "Estimate",
    "Factors",
    "InputError",
    "Inputs",
    "MarchenkoPastur",
    "Moments",
    "OneHot",
    "SampledNull",
    "SketchError",
    "SketchedWindow",
    "SpectralEdge",
    "Spectrum",
    "UpdateWindow",
    "Verdict",
    "WindowEdges",
    "WindowGram",
    "alpha_req",
    "band_energies",
    "band_masses",
    "bbp_overlap",
    "bbp_position",
    "bbp_threshold",
    "bootstrap",
    "capture_factors",
    "capture_moments",
    "class_means",
    "clauset",
    "closed_set",
    "commutator_defect",
    "component_frequencies",
    "control_subspace",
    "convert_exponent",
    "covariance_spectrum",
    "debiased_participation_ratio",
    "dominant_frequency",
    "drop_frequencies",
    "edge_null",
    "edge_p_range",
    "effective_dimension",
    "farms",
    "frequency_subspace",
    "gini",
    "gradient_inner_products",
    "gradient_mean_position",
    "gram_spectrum",
    "h_peak",
    "h_peak_null",
    "h_s",
    "h_s_debiased",
    "h_s_null",
    "h_top_k_null",
    "hill",
    "hill_null",
    "hill_z",
    "jackknife",
    "js_divergence",
    "js_excess",
    "js_floor",
    "keep_frequencies",
    "noise_exponent",
    "noise_quantiles",
    "nonlinear_shrinkage",
    "participation_ratio",
    "participation_ratio_interval",
    "peak_band",
    "per_sample_gradients",
    "predict_bias",
    "product_spectra",
    "product_spectrum",
    "rank",
    "rankme",
    "rankme_interval",
    "reliability",
    "sample_gradient_spectra",
    "sketch_error",
    "spectral_edge",
    "stable_rank",
    "stacked_gradient_spectrum",
    "task_band",
    "task_kernel",
    "top_k_band",
    "top_share",
    "tracy_widom_cdf",
    "tracy_widom_quantile",
    "tracy_widom_sf",
    "tracy_widom_test",
    "weight_spectra",
    "weight_spectrum",
    "window_edges",
    "window_exponent",
    "window_exponent_bootstrap",
    "window_exponent_interval",
]
