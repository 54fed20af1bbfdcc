"""Slow oracles: each quantity straight from its definition, for the tests of the fast routes."""
