"""How the spectra of weights develop over training and depth (arXiv 2604.22778)."""
