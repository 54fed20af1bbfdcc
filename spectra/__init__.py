"""The instrument: spectral estimators under one convention, knowing no model and no task."""

from spectra.bands import closed_set, task_band, task_kernel
from spectra.errors import InputError
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
from spectra.results import Estimate
from spectra.spectrum import Spectrum
from spectra.subspaces import control_subspace, drop_frequencies, frequency_subspace, keep_frequencies

__all__ = [
    "ClassMeans",
    "ComponentFrequencies",
    "Estimate",
    "InputError",
    "Spectrum",
    "band_energies",
    "band_masses",
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
    "task_band",
    "task_kernel",
    "top_k_band",
]
