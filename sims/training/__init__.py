"""Training: the toy's ensembles and language models, what is stored of them, and who is told."""
