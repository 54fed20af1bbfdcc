"""Do learning rates by the spectra of weights lower the loss (arXiv 2312.00359, 2506.06280)?"""
