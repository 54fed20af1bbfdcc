"""Adapters: one file for each kind of model that can be measured."""

from sims.bridge.toy import ToySubject

__all__ = ["ToySubject"]
