"""Which allocation of zeros over layers costs a model least (arXiv 2506.06280)."""
