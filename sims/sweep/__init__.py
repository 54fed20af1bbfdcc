"""Sweeps: many runs in one folder, planned, distributed over processes, watched and resumable."""
