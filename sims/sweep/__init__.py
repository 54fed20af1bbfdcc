"""Sweeps: plan many runs in one folder, distribute, follow and resume them."""
