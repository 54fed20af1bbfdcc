"""Figures of the claims, and of their outcomes on trained runs."""
