"""Modular walks whose tokens are permuted: the frequencies of the toy's tokens without its contexts, as a control."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from toymodel.task import Split, Task
from toymodel.tasks.modular_walks import ModularWalks

_STREAM = 3


@dataclass(frozen=True)
class ShuffledWalks(Task):
    """Set the modular walks of which all tokens of each split are permuted, over sequences and positions.

    Every token keeps its count in each split, and nothing before a token says anything about it: the best loss is that
    of the token frequencies. There are no bands and no exact law; the settings are those of `ModularWalks` with one
    walk a sequence and no noise.

    Args:
        vocab, length, train, val, test, modulus_min, modulus_power, offset_power, step_fraction, noncoprime: as in
            `ModularWalks`.
        seed: of the walks and of the permutations.

    Raises:
        ConfigError: as `ModularWalks`.

    >>> task = ShuffledWalks(vocab=16, length=4, train=20, val=5, test=5)
    >>> shuffled, plain = task.splits()[0].tokens, task.walks.splits()[0].tokens
    >>> bool((np.bincount(shuffled.ravel()) == np.bincount(plain.ravel())).all()), bool((shuffled == plain).all())
    (True, False)
    """

    kind = "shuffled_walks"

    vocab: int = 1024
    length: int = 64
    train: int = 32_000
    val: int = 2_048
    test: int = 4_096
    modulus_min: int = 5
    modulus_power: float = 1.3
    offset_power: float = 1.2
    step_fraction: float = 0.125
    noncoprime: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        # The walks check the settings, and give equal ones one form.
        for name, value in asdict(self.walks).items():
            if name in self.__dataclass_fields__:
                object.__setattr__(self, name, value)

    @property
    def walks(self) -> ModularWalks:
        """Return the walks whose tokens are permuted."""
        return ModularWalks(**asdict(self))

    def splits(self) -> tuple[Split, Split, Split]:
        """Draw the three splits of the walks, and permute the tokens of each."""
        train, val, test = (
            _permuted(split, np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(_STREAM, i))))
            for i, split in enumerate(self.walks.splits())
        )
        return train, val, test


def _permuted(split: Split, rng: np.random.Generator) -> Split:
    tokens = rng.permutation(split.tokens.ravel()).reshape(split.tokens.shape)
    tokens.flags.writeable = False
    return Split(tokens, None)
