"""Simulators of each claim's own assumptions: vectorised, explicit generators, error bars where they sample."""
