"""Modular arithmetic: pairs of residues and the result of an operation, of which a part is trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from toymodel.data import split_generators
from toymodel.errors import ConfigError
from toymodel.limits import whole
from toymodel.task import Split, Task

Operation = Literal["add", "sub", "mul", "x2+y2", "x2+xy+y2", "x3+xy"]
Labels = Literal["true", "random"]

_OPERATIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "x2+y2": lambda a, b: a**2 + b**2,
    "x2+xy+y2": lambda a, b: a**2 + a * b + b**2,
    "x3+xy": lambda a, b: a**3 + a * b,
}
# A table of all pairs has a million rows at this modulus, and x³ still fits in 64 bits.
LARGEST_MODULUS = 1_009


@dataclass(frozen=True)
class ModularArithmetic(Task):
    """Set the operation, the modulus and the share of pairs to train on.

    A sequence is (a, b, c) with c = a ∘ b mod p; only c counts. The pairs are all ordered ones: (a, b) and (b, a) are
    two of them, and may fall on both sides of the split. Validation and test are the same sequences, in the same
    order: all pairs outside training, which leaves no others. Source of the task: Power et al., "Grokking"
    (arXiv 2201.02177).

    Args:
        p: prime modulus; the vocabulary is 0..p−1.
        op: "add", "sub", "mul" (of the residues 1..p−1 only), "x2+y2", "x2+xy+y2" or "x3+xy".
        fraction: share of all pairs to train on, between 0 and 1.
        labels: "true", or "random": the results are permuted over all pairs, so that they keep their frequencies but
            can only be memorised.
        seed: of the split, and of the permutation of random labels.

    Raises:
        ConfigError: p is not prime or out of range, an unknown operation or kind of labels, or a fraction that leaves
            no pair to train or to validate on.

    >>> task = ModularArithmetic(p=5, op="sub", fraction=0.6)
    >>> task.train, task.val, task.test, task.vocab, task.length
    (15, 10, 10, 5, 2)
    >>> train, val, test = task.splits()
    >>> bool(((train.tokens[:, 0] - train.tokens[:, 1]) % 5 == train.tokens[:, 2]).all())
    True
    """

    kind = "modular_arithmetic"

    p: int = 97
    op: Operation = "add"
    fraction: float = 0.5
    labels: Labels = "true"
    seed: int = 0
    vocab: int = field(init=False)
    length: int = field(init=False)
    train: int = field(init=False)
    val: int = field(init=False)
    test: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", whole("p", self.p))
        object.__setattr__(self, "seed", whole("seed", self.seed, 0))
        if not 3 <= self.p <= LARGEST_MODULUS or not _is_prime(self.p):
            raise ConfigError(f"p is {self.p}; pass a prime number from 3 to {LARGEST_MODULUS:,}")
        if self.op not in get_args(Operation):
            raise ConfigError(f"op is {self.op!r}; choose from {', '.join(get_args(Operation))}")
        if self.labels not in get_args(Labels):
            raise ConfigError(f"labels is {self.labels!r}; choose 'true' or 'random'")
        self._set_sizes()

    def _set_sizes(self) -> None:
        if isinstance(self.fraction, bool) or not isinstance(
            self.fraction, int | float | np.integer | np.floating
        ):
            raise ConfigError(f"fraction is {self.fraction!r}; pass a number between 0 and 1")
        object.__setattr__(self, "fraction", float(self.fraction))
        pairs = len(_pairs(self.op, self.p))
        if not 0 < self.fraction < 1 or not 1 <= round(self.fraction * pairs) < pairs:
            raise ConfigError(
                f"fraction is {self.fraction}; it must lie between 0 and 1 and leave at least one of the {pairs} pairs "
                "on each side"
            )
        train = round(self.fraction * pairs)
        sizes = {"vocab": self.p, "length": 2, "train": train, "val": pairs - train, "test": pairs - train}
        for name, value in sizes.items():
            object.__setattr__(self, name, value)

    def splits(self) -> tuple[Split, Split, Split]:
        """Return the training pairs in random order, and twice the remaining ones; latents are none."""
        for_split, for_labels, _ = split_generators(self.seed)
        table = equations(self.op, self.p)
        if self.labels == "random":
            table[:, 2] = for_labels.permutation(table[:, 2])
        table = for_split.permutation(table)
        table.flags.writeable = False
        train, rest = (_split(part) for part in (table[: self.train], table[self.train :]))
        return train, rest, rest


def equations(op: Operation, p: int) -> np.ndarray:
    """Return the rows (a, b, a ∘ b mod p) of all ordered pairs, (n, 3) int16, by a and then b.

    >>> equations("mul", 3).tolist()
    [[1, 1, 1], [1, 2, 2], [2, 1, 2], [2, 2, 1]]
    """
    a, b = _pairs(op, p).T
    return np.stack([a, b, _OPERATIONS[op](a, b) % p], axis=1).astype(np.int16)


def _pairs(op: Operation, p: int) -> np.ndarray:
    values = np.arange(1 if op == "mul" else 0, p)
    return np.stack(np.meshgrid(values, values, indexing="ij"), axis=-1).reshape(-1, 2)


def _split(tokens: np.ndarray) -> Split:
    mask = np.zeros((len(tokens), 2), bool)
    mask[:, 1] = True
    return Split(tokens, None, mask=mask)


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))
