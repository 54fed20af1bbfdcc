"""One look at anybody's model: its spectra layer by layer, each beside what noise of the same shape gives."""
