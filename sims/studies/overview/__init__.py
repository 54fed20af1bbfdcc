"""The overview of a folder of runs: losses, concentration, spectra (report.html)."""
