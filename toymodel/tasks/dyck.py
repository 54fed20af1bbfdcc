"""Balanced brackets of one kind: the depth after each token of a string, from few training strings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from toymodel.data import sequence_keys, split_generators
from toymodel.errors import ConfigError
from toymodel.limits import whole
from toymodel.task import Split, Task

PAD, OPEN, CLOSE = 0, 1, 2
MOST_PAIRS = 64
# Redrawing gives up after this many times the wanted number of strings.
_REDRAWS = 64


@dataclass(frozen=True)
class DyckDepth(Task):
    """Set the law, the sizes and the seed of bracket strings whose depth is predicted.

    A string has n pairs, n uniform on 1..pairs. Where both brackets are legal, "(" comes with probability `rise`. The
    tokens are 0 for padding, 1 for "(" and 2 for ")". The class at each token is the number of open brackets after it;
    padding does not count. A sequence has 2·pairs tokens to read, and one more, padding, that is not read. Validation
    and test strings do not occur in training.

    Args:
        pairs: most pairs of a string, 2 to 64.
        rise: probability of "(" where both brackets are legal, between 0 and 1.
        train: strings to train on, drawn independently, so that short ones repeat.
        val: strings of the validation split.
        test: strings of the test split.
        seed: of the independent streams of the three splits.

    Raises:
        ConfigError: a value out of its range.

    >>> task = DyckDepth(pairs=3, train=4, val=2, test=2)
    >>> task.vocab, task.length
    (4, 6)
    >>> train, val, test = task.splits()
    >>> row = int(train.mask.sum(axis=1).argmax())
    >>> spelled = "".join("_()"[t] for t in train.inputs[row])
    >>> [spelled[: i + 1].count("(") - spelled[: i + 1].count(")") for i in range(6)] == train.targets[row].tolist()
    True
    """

    kind = "dyck_depth"

    pairs: int = 12
    rise: float = 0.55
    train: int = 50
    val: int = 1_000
    test: int = 5_000
    seed: int = 0
    vocab: int = field(init=False)
    length: int = field(init=False)

    def __post_init__(self) -> None:
        ranges = {
            "pairs": (2, MOST_PAIRS),
            "train": (1, None),
            "val": (1, None),
            "test": (1, None),
            "seed": (0, None),
        }
        for name, (low, high) in ranges.items():
            object.__setattr__(self, name, whole(name, getattr(self, name), low, high))
        if (
            isinstance(self.rise, bool)
            or not isinstance(self.rise, int | float | np.integer | np.floating)
            or not 0 < self.rise < 1
        ):
            raise ConfigError(f"rise is {self.rise!r}; it is a probability between 0 and 1")
        object.__setattr__(self, "rise", float(self.rise))
        object.__setattr__(self, "vocab", max(self.pairs + 1, 3))
        object.__setattr__(self, "length", 2 * self.pairs)

    def splits(self) -> tuple[Split, Split, Split]:
        """Draw the three splits; latents are none.

        Raises:
            ConfigError: hardly any string is outside training.
        """
        for_train, for_val, for_test = split_generators(self.seed)
        train = draw_strings(for_train, self.train, self.pairs, self.rise)
        seen = set(sequence_keys(train))

        def unseen(rng: np.random.Generator, n: int, name: str) -> Split:
            return _split(_draw_unseen(lambda: draw_strings(rng, n, self.pairs, self.rise), n, seen, name))

        return _split(train), unseen(for_val, self.val, "validation"), unseen(for_test, self.test, "test")


def draw_strings(rng: np.random.Generator, n: int, pairs: int, rise: float) -> np.ndarray:
    """Draw n strings of up to `pairs` pairs, padded, (n, 2·pairs + 1) int16 (see `DyckDepth`).

    >>> draw_strings(np.random.default_rng(0), 2, 1, 0.5).tolist()
    [[1, 2, 0], [1, 2, 0]]
    """
    tokens = np.full((n, 2 * pairs + 1), PAD, np.int16)
    size = rng.integers(1, pairs + 1, size=n)
    opened, closed = np.zeros(n, int), np.zeros(n, int)
    for place, chance in enumerate(rng.random((2 * pairs, n))):
        may_open, may_close = opened < size, closed < opened
        opens = may_open & (~may_close | (chance < rise))
        closes = may_close & ~opens
        tokens[opens, place], tokens[closes, place] = OPEN, CLOSE
        opened += opens
        closed += closes
    return tokens


def _draw_unseen(draw: Callable[[], np.ndarray], n: int, seen: set[bytes], name: str) -> np.ndarray:
    parts: list[np.ndarray] = []
    for _ in range(_REDRAWS):
        drawn = draw()
        parts.append(drawn[[key not in seen for key in sequence_keys(drawn)]])
        if sum(map(len, parts)) >= n:
            return np.concatenate(parts)[:n].copy()
    raise ConfigError(
        f"{_REDRAWS * n} draws gave only {sum(map(len, parts))} of {n} {name} strings outside training; raise pairs or "
        "lower train"
    )


def _split(tokens: np.ndarray) -> Split:
    read = tokens[:, :-1]
    steps = (read == OPEN).astype(np.int16) - (read == CLOSE)
    labels = np.cumsum(steps, axis=1, dtype=np.int16)
    for array in (tokens, labels):
        array.flags.writeable = False
    return Split(tokens, None, mask=read != PAD, labels=labels)
