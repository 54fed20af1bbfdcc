"""Optimisers that update all members of an ensemble at once."""

from toymodel.optim.adamw import AdamW
from toymodel.optim.muon import Muon, orthogonalise

__all__ = ["AdamW", "Muon", "orthogonalise"]
