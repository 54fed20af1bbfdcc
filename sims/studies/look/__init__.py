"""One look at any model: its spectra layer by layer, each beside what noise of the same shape gives."""
