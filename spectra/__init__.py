"""The instrument: spectral estimators under one convention, knowing no model and no task."""

from spectra.bands import closed_set, task_band, task_kernel
from spectra.capture import Capture, capture_factors
from spectra.errors import InputError
from spectra.factors import Factors, Inputs, OneHot
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
from spectra.gradients import per_sample_gradients, sample_gradient_spectra, stacked_gradient_spectrum
from spectra.results import Estimate
from spectra.spectrum import Spectrum
from spectra.subspaces import control_subspace, drop_frequencies, frequency_subspace, keep_frequencies

__all__ = [
    "Capture",
    "ClassMeans",
    "ComponentFrequencies",
    "Estimate",
    "Factors",
    "InputError",
    "Inputs",
    "OneHot",
    "Spectrum",
    "band_energies",
    "band_masses",
    "capture_factors",
    "class_means",
    "closed_set",
    "component_frequencies",
    "control_subspace",
    "dominant_frequency",
    "drop_frequencies",
    "frequency_subspace",
    "gini",
    "h_peak",
    "h_s",
    "h_s_debiased",
    "keep_frequencies",
    "peak_band",
    "per_sample_gradients",
    "sample_gradient_spectra",
    "stacked_gradient_spectrum",
    "task_band",
    "task_kernel",
    "top_k_band",
]
