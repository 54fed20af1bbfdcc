"""The protocol of a task: sequences in three splits, the targets that count, and accuracy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import Field, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from toymodel.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

# A field added later is left out of the canonical JSON at its default, so that the ids of earlier runs stay.
OMIT_DEFAULT = {"omit": "default"}


@dataclass(frozen=True, eq=False)
class Split:
    """Hold n sequences, the hidden variables that made them, and which targets count.

    Args:
        tokens: (n, T+1) integers, read-only.
        latents: hidden variables of the n sequences, in the form of their task; None where there are none.
        mask: (n, T) True at the targets that count in losses and accuracies; None counts all.
        labels: (n, T) classes 0..V−1 to predict at each position, read-only, where they are not the next tokens; the
            last token of a sequence is then read by nobody. None takes the next tokens.

    Raises:
        ConfigError: a mask or labels of another shape or type, or a sequence without any target that counts.

    >>> split = Split(np.array([[1, 2, 3]]), None, mask=np.array([[False, True]]))
    >>> split.inputs.tolist(), split.targets[split.mask].tolist()
    ([[1, 2]], [3])
    """

    tokens: np.ndarray
    latents: Any
    mask: np.ndarray | None = field(default=None, kw_only=True)
    labels: np.ndarray | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        expected = self.tokens[:, 1:].shape
        if self.labels is not None and (
            self.labels.shape != expected or not np.issubdtype(self.labels.dtype, np.integer)
        ):
            raise ConfigError(
                f"the labels are {self.labels.dtype} of shape {self.labels.shape}; pass integers of shape {expected}"
            )
        if self.mask is None:
            return
        if self.mask.dtype != bool or self.mask.shape != self.targets.shape:
            raise ConfigError(
                f"the mask is {self.mask.dtype} of shape {self.mask.shape}; pass booleans of the targets' shape "
                f"{self.targets.shape}"
            )
        empty = np.flatnonzero(~self.mask.any(axis=1))
        if len(empty):
            raise ConfigError(f"the mask leaves sequence {empty[0]} without a target; let one count at least")

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def inputs(self) -> np.ndarray:
        """Return what the model reads, (n, T): t_0..t_{T-1}, a view."""
        return self.tokens[:, :-1]

    @property
    def targets(self) -> np.ndarray:
        """Return what it predicts at each position, (n, T): the labels, or t_1..t_T, a view."""
        return self.tokens[:, 1:] if self.labels is None else self.labels


class Task(ABC):
    """Describe a data set completely: a frozen dataclass of plain values that validates itself.

    A new task is one file in `toymodel/tasks/` with a subclass, and one line in its registry. Values that follow from
    others are fields with `init=False`, set in `__post_init__`; they do not enter the run's identity.

    Attributes:
        kind: name in the registry.
        vocab: V, number of token ids.
        length: T, tokens that a model reads; a sequence has T+1 of them, so that every input has a target.
        train, val, test: number of sequences in each split.
        seed: seed of the data; members of one ensemble may differ in it.
    """

    kind: ClassVar[str]
    vocab: int
    length: int
    train: int
    val: int
    test: int
    seed: int
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @abstractmethod
    def splits(self) -> tuple[Split, Split, Split]:
        """Draw the training, validation and test split; the same task always gives the same data."""

    def accuracy(self, predicted: Tensor, targets: Tensor, mask: Tensor | None) -> float:
        """Return the share of the counted targets that are predicted; a task may define it otherwise.

        Args:
            predicted, targets: (n, T) tokens.
            mask: (n, T) True at the targets that count; None counts all.
        """
        right = predicted == targets
        return float((right if mask is None else right[mask]).double().mean())

    def exact(self, predicted: Tensor, targets: Tensor, mask: Tensor | None) -> float:
        """Return the share of sequences with all counted targets predicted; arguments as `accuracy`.

        With targets of one sequence it equals the exact match of greedy decoding: where every prediction from the true
        beginning is right, decoding follows the same path.
        """
        right = predicted == targets
        return float((right if mask is None else right | ~mask).all(dim=1).double().mean())
