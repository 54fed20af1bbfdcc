"""Compute each quantity slowly, straight from its definition, to test the fast functions."""
