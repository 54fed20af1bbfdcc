"""Benchmarks: each fast route beside the slow one that it replaces."""
