"""Compute tables from the tables of runs; each function serves two studies or more."""
