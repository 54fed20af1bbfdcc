"""Language models of the toy's stages, trained on real text (see `docs/bridge-training.md`)."""
