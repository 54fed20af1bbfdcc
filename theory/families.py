"""Say in plain words what each family of claims is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Name a family of claims, and say in one plain sentence what its claims say together.

    >>> FAMILIES["T5"].title
    'H_S during training'
    """

    title: str
    sentence: str


# The id of a family is what its claims' ids begin with, up to the dot.
FAMILIES: Mapping[str, Family] = {
    "T1": Family(
        "Shifts and Fourier modes",
        "Going a fixed number of steps along a circle of tokens only turns the phase of each Fourier mode.",
    ),
    "T2": Family(
        "H_S and the head of the spectrum",
        "What lies on the task’s frequencies shows in the first eigenvalues of the activations; a large first "
        "eigenvalue alone does not show the task.",
    ),
    "T3": Family(
        "H_S of noise",
        "Noise has an H_S of its own, whose distribution is known; only a value beyond it is a finding.",
    ),
    "T4": Family(
        "H_S from few samples",
        "Few samples per state pull H_S towards the level of noise, by an amount that can be taken off again.",
    ),
    "T5": Family(
        "H_S during training",
        "H_S rises exactly while the task’s modes grow relatively faster than the rest, and may rise and fall "
        "without anything being forgotten.",
    ),
    "T6": Family(
        "Spectra and training time",
        "If every direction is learned at least as fast, a target loss is reached no later; the slope of a "
        "spectrum alone does not tell who is faster.",
    ),
    "T7": Family(
        "Reading tail exponents",
        "An exponent fitted to a spectrum ignores its scale, falls when the tail gains on the head, and under "
        "RMSNorm head and tail trade energy.",
    ),
    "T8": Family(
        "Batch size",
        "In a linear model at equal loss, larger batches give steeper or equal tails, the opposite of what the "
        "paper’s figure shows.",
    ),
    "T9": Family(
        "Gradient descent and Muon",
        "Gradient descent learns modes at a pace set by their curvature, Muon at nearly one speed for all.",
    ),
    "T10": Family(
        "Tied and untied heads",
        "A head tied to the embedding cannot shift tokens by itself and starts at a high loss; a zero head starts "
        "by guessing uniformly.",
    ),
    "T11": Family(
        "Frequencies that the task favours",
        "While the step is unknown, neighbouring tokens favour low frequencies; once it is known, none.",
    ),
    "T12": Family(
        "What stands out of noise",
        "A signal below a threshold leaves no trace in the first eigenvalue, and noise alone already reads as a "
        "power law.",
    ),
    "T13": Family(
        "Features and their head",
        "Representations and the head that reads them grow in step, and each direction at a rate of its own.",
    ),
    "T14": Family(
        "What moves the effective rank",
        "How the effective rank changes follows exactly from which directions grow, and can be split over them.",
    ),
    "T15": Family(
        "A direction for token frequencies",
        "A model without a bias in its logits spends a direction of its states on token frequencies, and its "
        "effective rank falls late for this reason alone.",
    ),
    "T16": Family(
        "The exact law of the task",
        "The task’s next token can be predicted as well as possible by an exact formula, which gives "
        "the lowest possible loss at every position.",
    ),
    "T17": Family(
        "Kinds of entropy",
        "Several measures of how uncertain a prediction is come from one construction, a token compared "
        "with its own copy.",
    ),
    "T18": Family(
        "Entropy of model and task",
        "The loss above the floor bounds how much more or less certain than the task a model can be.",
    ),
    "T19": Family(
        "What the head reads",
        "A metric that follows from the head alone says which small changes of a state matter for the "
        "prediction.",
    ),
    "T20": Family(
        "Close states, close predictions",
        "The way between two states, measured as the head sees it, is at least as long as that between "
        "their predictions.",
    ),
    "T21": Family(
        "What a small excess loss means",
        "A loss near the floor means predictions near the true ones, in every distance considered here.",
    ),
    "T22": Family(
        "Loss and spectral objective",
        "The spectral objective that a paper derives from the loss sees which directions a state has, "
        "and the loss sees also how they are turned.",
    ),
}
