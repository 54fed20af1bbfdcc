"""Measuring: from a model to rows and spectra."""
