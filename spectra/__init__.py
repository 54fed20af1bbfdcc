"""The instrument: spectral estimators under one convention, knowing no model and no task."""

from spectra.errors import InputError
from spectra.results import Estimate
from spectra.spectrum import Spectrum

__all__ = ["Estimate", "InputError", "Spectrum"]
