"""The figures of the paper, drawn from tables."""
