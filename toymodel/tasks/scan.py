"""SCAN: commands of a small grammar, and the actions that they mean (Lake & Baroni, arXiv 1711.00350)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import Literal, NamedTuple

import numpy as np

from toymodel.data import split_generators
from toymodel.errors import ConfigError
from toymodel.limits import whole
from toymodel.task import OMIT_DEFAULT, Split, Task

VERBS = ("walk", "look", "run", "jump")
SIDES = ("left", "right")
COMMAND_WORDS = (*VERBS, "turn", *SIDES, "opposite", "around", "twice", "thrice", "and", "after")
ACTIONS = (*(f"I_{verb.upper()}" for verb in VERBS), "I_TURN_LEFT", "I_TURN_RIGHT")
PAD, SOS, EOS = "<pad>", "<sos>", "<eos>"
SYMBOLS = (PAD, SOS, EOS, *COMMAND_WORDS, *ACTIONS)
# Actions of the longest command.
MOST_ACTIONS = 48
# Most actions of a command to train on in the split by length; longer ones have 24 or more.
SHORT = 22
SplitKind = Literal["simple", "length"]
# Commands to train on, and all others, of each split of the source.
PUBLISHED: dict[SplitKind, tuple[int, int]] = {"simple": (16_728, 4_182), "length": (16_990, 3_920)}


class Pair(NamedTuple):
    """Hold a command and its actions, as words."""

    command: tuple[str, ...]
    actions: tuple[str, ...]


@lru_cache(maxsize=1)
def pairs() -> tuple[Pair, ...]:
    """Return all 20,910 commands with their actions.

    34 directed actions, each alone, twice or thrice: 102 phrases x; then x, "x and y" and "x after y".

    >>> len(pairs())
    20910
    >>> found = dict(pairs())
    >>> found["jump", "opposite", "left", "after", "walk", "twice"]
    ('I_WALK', 'I_WALK', 'I_TURN_LEFT', 'I_TURN_LEFT', 'I_JUMP')
    """
    phrases = [
        Pair((*p.command, *word), p.actions * times)
        for p in _directed()
        for word, times in (((), 1), (("twice",), 2), (("thrice",), 3))
    ]
    both = list(product(phrases, repeat=2))
    return (
        *phrases,
        *(Pair((*x.command, "and", *y.command), x.actions + y.actions) for x, y in both),
        *(Pair((*x.command, "after", *y.command), y.actions + x.actions) for x, y in both),
    )


def _directed() -> list[Pair]:
    """Return the verbs alone, and verbs and turns in their directions."""
    found = [Pair((verb,), (f"I_{verb.upper()}",)) for verb in VERBS]
    for verb, side in product((*VERBS, "turn"), SIDES):
        turn = (f"I_TURN_{side.upper()}",)
        act = () if verb == "turn" else (f"I_{verb.upper()}",)
        found.append(Pair((verb, side), turn + act))
        found.append(Pair((verb, "opposite", side), 2 * turn + act))
        found.append(Pair((verb, "around", side), 4 * (turn + act)))
    return found


@dataclass(frozen=True)
class Scan(Task):
    """Set the size of the commands, the sizes of the splits and the seed of SCAN for a decoder.

    A sequence is the command, <sos>, its actions, <eos> and padding, over the 22 `SYMBOLS`; only the actions and <eos>
    count. A command is in one split alone. The models of the source were encoder-decoders.

    Args:
        longest: most actions of a command. 8 keeps 6,268 commands (a model reads at most 18 symbols), 48 keeps all
            20,910 (at most 58).
        train: commands to train on.
        val: commands of the validation split.
        test: commands of the test split.
        seed: of the splits.
        split: how training differs from the other two: "simple", all three random, or "length", commands of at most 22
            actions to train on, and longer ones (24 to 48) in the others. They are the first two experiments of the
            source.

    Raises:
        ConfigError: a value out of its range, or more commands than there are.

    >>> task = Scan(train=6, val=2, test=2)
    >>> task.vocab, task.length
    (22, 18)
    >>> train, val, test = task.splits()
    >>> sequence = [SYMBOLS[t] for t in train.tokens[0]]
    >>> answer = [SYMBOLS[t] for t in train.targets[0][train.mask[0]]]
    >>> sequence[sequence.index("<sos>") + 1 :][: len(answer)] == answer, answer[-1]
    (True, '<eos>')
    """

    kind = "scan"

    longest: int = 8
    train: int = 1_024
    val: int = 1_000
    test: int = 1_000
    seed: int = 0
    split: SplitKind = field(default="simple", metadata=OMIT_DEFAULT)
    vocab: int = field(init=False)
    length: int = field(init=False)

    def __post_init__(self) -> None:
        lowest = {"longest": 1, "train": 1, "val": 1, "test": 1, "seed": 0}
        for name, low in lowest.items():
            object.__setattr__(self, name, whole(name, getattr(self, name), low))
        if self.longest > MOST_ACTIONS:
            raise ConfigError(f"longest is {self.longest}; no command has more than {MOST_ACTIONS} actions")
        _check_split(self.split)
        self._check_counts()
        object.__setattr__(self, "vocab", len(SYMBOLS))
        object.__setattr__(self, "length", _table(self.longest).shape[1] - 1)

    @classmethod
    def published(cls, split: SplitKind = "simple", seed: int = 0) -> Scan:
        """Return the full form: all commands, as many to train on as in the source, the others halved for val and test.

        Raises:
            ConfigError: an unknown split.

        >>> Scan.published("length")
        Scan(longest=48, train=16990, val=1960, test=1960, seed=0, split='length', vocab=22, length=58)
        """
        _check_split(split)
        train, others = PUBLISHED[split]
        return cls(MOST_ACTIONS, train, others // 2, others - others // 2, seed, split)

    def _check_counts(self) -> None:
        """Refuse more commands than there are."""
        most, held_out = self.longest, self.val + self.test
        if self.split == "simple":
            wanted, count = self.train + held_out, len(_chosen(most))
            if wanted > count:
                raise ConfigError(
                    f"train, val and test are {wanted} commands together, and {count} have at most {most} actions; "
                    "lower them or raise longest"
                )
            return
        short = len(_chosen(min(SHORT, most)))
        if self.train > short:
            raise ConfigError(
                f"train is {self.train}, and {short} commands have at most {SHORT} actions; lower it"
            )
        if held_out > (long := len(_chosen(most)) - short):
            raise ConfigError(
                f"val and test are {held_out} commands together, and {long} have more than {SHORT} and at most {most} "
                "actions; lower them or raise longest"
            )

    def splits(self) -> tuple[Split, Split, Split]:
        """Return disjoint random parts of the commands, or of the short and the long ones; latents are none."""
        table = _table(self.longest)
        order = split_generators(self.seed)[0].permutation(len(table))
        if self.split == "length":
            counts = np.array([len(pair.actions) for pair in _chosen(self.longest)])[order]
            short, long = order[counts <= SHORT], order[counts > SHORT]
            order = np.concatenate([short[: self.train], long])
        ends = np.cumsum([self.train, self.val, self.test])
        train, val, test = (_split(table[rows]) for rows in np.split(order, ends)[:3])
        return train, val, test


def _check_split(split: object) -> None:
    if not isinstance(split, str) or split not in PUBLISHED:
        raise ConfigError(f"split is {split!r}; choose {' or '.join(PUBLISHED)}")


@lru_cache(maxsize=8)
def _chosen(longest: int) -> tuple[Pair, ...]:
    return tuple(pair for pair in pairs() if len(pair.actions) <= longest)


@lru_cache(maxsize=8)
def _table(longest: int) -> np.ndarray:
    """Return the padded sequences (n, T+1) int16 of all commands with at most so many actions."""
    number = {symbol: i for i, symbol in enumerate(SYMBOLS)}
    rows = [(*pair.command, SOS, *pair.actions, EOS) for pair in _chosen(longest)]
    width = max(map(len, rows))
    return np.array([[number[s] for s in row] + [0] * (width - len(row)) for row in rows], np.int16)


def _split(tokens: np.ndarray) -> Split:
    tokens.flags.writeable = False
    started = np.cumsum(tokens == SYMBOLS.index(SOS), axis=1)[:, :-1] > 0
    return Split(tokens, None, mask=started & (tokens[:, 1:] != SYMBOLS.index(PAD)))
