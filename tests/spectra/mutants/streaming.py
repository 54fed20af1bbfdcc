"""Accumulators of moments: one that is right, and others that differ from it by their defect."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from spectra.arrays import to_float64
from spectra.errors import InputError

from .mutant import Mutant
from .parts import descending_eigenvalues

KIND = "streaming moments"


class Streaming:
    """Correct accumulator: count, mean and centred scatter, merged by the pairwise formula."""

    def __init__(self) -> None:
        self.n, self.mean, self.scatter = 0, np.zeros(0), np.zeros((0, 0))

    def update(self, x: Any) -> None:
        data = to_float64(x, name="x", ndim=2)
        if data.size == 0:
            raise InputError("x is empty")
        part = type(self)()
        part.n, part.mean = len(data), data.mean(axis=0)
        part.scatter = (data - part.mean).T @ (data - part.mean)
        self.merge(part)

    def merge(self, other: Streaming) -> None:
        if self.n == 0:
            self.n, self.mean, self.scatter = other.n, other.mean.copy(), other.scatter.copy()
            return
        n, step = self.n + other.n, other.mean - self.mean
        self.scatter = self.scatter + other.scatter + self.between(other, step, n)
        self.mean, self.n = self.mean + step * other.n / n, n

    def between(self, other: Streaming, step: np.ndarray, n: int) -> np.ndarray:
        return np.outer(step, step) * (self.n * other.n / n)

    def spectrum(self) -> np.ndarray:
        if self.n < 2:
            raise InputError(f"{self.n} rows; two are needed")
        return descending_eigenvalues(self.scatter / (self.n - 1))


class ForgetsTheMeans(Streaming):
    """Scatter is added without the term between the two means."""

    def between(self, other: Streaming, step: np.ndarray, n: int) -> np.ndarray:
        return np.zeros_like(self.scatter)


class UnweightedMeans(Streaming):
    """The merged mean is the plain average of the two, whatever their counts: wrong from the third chunk on."""

    def merge(self, other: Streaming) -> None:
        first, middle = self.n == 0, (self.mean + other.mean) / 2 if self.n else other.mean
        super().merge(other)
        if not first:
            self.mean = middle


class RawSums(Streaming):
    """Keeps Σx and Σxxᵀ in float32 and subtracts at the end."""

    def update(self, x: Any) -> None:
        data = to_float64(x, name="x", ndim=2)
        if data.size == 0:
            raise InputError("x is empty")
        data = data.astype(np.float32)
        part = type(self)()
        part.n, part.mean, part.scatter = len(data), data.sum(axis=0), data.T @ data
        self.merge(part)

    def merge(self, other: Streaming) -> None:
        if self.n:
            self.n, self.mean, self.scatter = (
                self.n + other.n,
                self.mean + other.mean,
                self.scatter + other.scatter,
            )
        else:
            self.n, self.mean, self.scatter = other.n, other.mean, other.scatter

    def spectrum(self) -> np.ndarray:
        if self.n < 2:
            raise InputError(f"{self.n} rows; two are needed")
        return descending_eigenvalues((self.scatter - np.outer(self.mean, self.mean) / self.n) / (self.n - 1))


class EmptiesOther(Streaming):
    """merge takes over the other accumulator's buffers and then writes into them."""

    def merge(self, other: Streaming) -> None:
        if self.n == 0:
            super().merge(other)
            return
        merged = copy.deepcopy(self)
        Streaming.merge(merged, other)
        self.n, self.mean, self.scatter = merged.n, merged.mean, merged.scatter
        other.scatter *= 0.0


MUTANTS = (
    Mutant(ForgetsTheMeans, KIND, ("streaming = batch", "merge order")),
    Mutant(UnweightedMeans, KIND, ("streaming = batch", "merge order")),
    Mutant(RawSums, KIND, ("streaming = batch",)),
    Mutant(EmptiesOther, KIND, ("merge leaves other",)),
)
