"""Optimisers that update all members of an ensemble at once."""

from toymodel.optim.adamw import AdamW
from toymodel.optim.muon import Muon, Orthogonalise, Share, alone, orthogonalise

__all__ = ["AdamW", "Muon", "Orthogonalise", "Share", "alone", "orthogonalise"]
