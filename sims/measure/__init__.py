"""Measuring a subject: rows and spectra out, nothing of the model's kind in."""

from sims.measure.measure import Instruments, Measurement, measure, prepare

__all__ = ["Instruments", "Measurement", "measure", "prepare"]
