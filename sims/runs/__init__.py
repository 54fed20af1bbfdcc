"""Runs: what a run is, where it lies, how folders of runs are listed and exported."""
