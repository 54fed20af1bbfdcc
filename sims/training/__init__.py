"""Training: train toy ensembles and language models, record and store their runs."""
