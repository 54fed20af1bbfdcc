"""Set how the learning rates of the matrices of one run differ: settings, checked before any work. Loads no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal, get_args

from toymodel.errors import ConfigError
from toymodel.limits import plain_numbers

Map = Literal["linear", "sqrt", "log2", "step", "sigmoid"]
Unit = Literal["matrix", "block"]
Mean = Literal["one", "free"]

UNIFORM = "uniform"
REVERSED, SHUFFLED = "reversed-", "shuffled-"
# Scores of weight matrices, by which rates (and zeros, in pruning) are shared.
SCORES = ("alpha", "alpha-z", "farms", "farms-z", "depth")
# Exponents of densities, which are above 1; the other scores may be zero or negative.
POSITIVE = ("alpha", "farms")
# Which settings each map reads besides those that all read.
_READ: dict[Map, tuple[str, ...]] = {
    "linear": ("low", "high"),
    "step": ("low", "high"),
    "sigmoid": ("strength", "tau"),
    "sqrt": (),
    "log2": (),
}
# Types of the settings, and what messages call them; of all others a number.
_TYPES: dict[str, tuple[type, str]] = {
    **dict.fromkeys(("by", "map", "unit", "mean"), (str, "a name")),
    "every": (Integral, "a whole number, or left out for 1 % of the run"),
    "seed": (Integral, "a whole number"),
    "first_last": (bool, "true or false"),
}
_NUMBER = (Real, "a number")
_BLOCK = re.compile(r"blocks\.\d+(?=\.)")


def base_of(name: str) -> str:
    """Return the score that a control is made from; other names are returned as they are.

    >>> base_of("shuffled-farms-z"), base_of("depth")
    ('farms-z', 'depth')
    """
    return re.sub(f"^({REVERSED}|{SHUFFLED})", "", name)


def block_of(matrix: str) -> str | None:
    """Return the name of the block of a matrix; None for one in no block.

    >>> block_of("blocks.12.attn.q"), block_of("embed")
    ('blocks.12', None)
    """
    found = _BLOCK.match(matrix)
    return found and found[0]


def blocks_of(matrices: Sequence[str]) -> list[str]:
    """Return the names of the blocks of matrices, in the order of their numbers.

    >>> blocks_of(["blocks.10.attn.q", "embed", "blocks.2.attn.q", "blocks.2.mlp.fc"])
    ['blocks.2', 'blocks.10']
    """
    found = {block for name in matrices if (block := block_of(name))}
    return sorted(found, key=lambda block: int(block.removeprefix("blocks.")))


@dataclass(frozen=True)
class Rates:
    """Set a learning rate for each matrix of the blocks: η_i(t) = η(t)·m_i, η(t) the schedule of the run.

    The multipliers m_i follow from a score of each matrix (`toymodel.controllers.multipliers`). They are chosen anew
    every few steps. A higher score, for the exponents a lighter tail, gives a higher rate. Everything that is no matrix
    of a block (embedding, head, norms) keeps η(t). Decoupled weight decay uses η_i(t), as param groups of torch do.

    Args:
        by: score of a matrix. "uniform": none, one rate for all. "alpha": Hill exponent of its squared singular values.
            "farms": the same of square tiles of one size for all matrices. "alpha-z", "farms-z": how many standard
            deviations above the mean of Gaussian matrices of its shape (its tiles). "depth": number of its block.
            "reversed-NAME": the highest and the lowest score of NAME change places, as do those between.
            "shuffled-NAME": the multipliers of NAME, given to other matrices, up to one common factor.
            `--rates NAME` is short for it.
        map: from scores to multipliers. linear: m = low + (high − low)(α − min)/(max − min). step: the same of ranks,
            low + (high − low)·rank/L, rank = 0 … L−1. sqrt, log2: in proportion to √α or log₂ α, with mean 1.
            sigmoid: m = 10^φ, φ = strength·(1/(1 + exp(−tau·(α − mean))) − ½).
        low: of the maps linear and step, the multiplier of the least score.
        high: of the maps linear and step, that of the highest score (of step: of rank L).
        strength: of the map sigmoid: all multipliers lie within a factor 10^strength.
        tau: of the map sigmoid: its steepness.
        unit: "matrix": each matrix has a multiplier; "block": all matrices of a block have that of their mean score.
        every: steps between two choices; None takes 1 % of the run.
        mean: "one": multipliers are divided by their mean over all weights that take part, so that the mean rate of no
            run is higher; "free": they are not.
        seed: number of the shuffle.
        first_last: whether the first and the last block take part.

    Raises:
        ConfigError: a value outside its range, or a setting that would not be read.

    >>> Rates("farms", low=0.1, high=1.9).period(2_000)
    20
    """

    by: str = UNIFORM
    map: Map = "linear"
    low: float = 0.5
    high: float = 1.5
    strength: float = 1.0
    tau: float = 10.0
    unit: Unit = "matrix"
    every: int | None = None
    mean: Mean = "one"
    seed: int = 0
    first_last: bool = True

    def __post_init__(self) -> None:
        self._check_types()
        plain_numbers(self)
        if self.by != UNIFORM and (base_of(self.by) not in SCORES):
            raise ConfigError(
                f"rates.by is {self.by!r}; rates are {UNIFORM}, or by {', '.join(SCORES)}, and {REVERSED}NAME and "
                f"{SHUFFLED}NAME of these"
            )
        for name, known in (("map", Map), ("unit", Unit), ("mean", Mean)):
            if getattr(self, name) not in get_args(known):
                raise ConfigError(
                    f"rates.{name} is {getattr(self, name)!r}; choose {', '.join(get_args(known))}"
                )
        self._check_unread()
        if not 0 <= self.low < float("inf") or not 0 < self.high < float("inf"):
            raise ConfigError(
                f"rates.low is {self.low} and rates.high {self.high}; multipliers of a learning rate are finite, not "
                "negative, and the highest is above 0"
            )
        if self.low > self.high:
            raise ConfigError(
                f"rates.low is {self.low} and rates.high {self.high}; low is at most high: to turn the order of the "
                f"scores around, take rates.by {REVERSED}{base_of(self.by)}"
            )
        if not 0 <= self.strength <= 10 or not 0 < self.tau < float("inf"):
            raise ConfigError(
                f"rates.strength is {self.strength} and rates.tau {self.tau}; strength lies in 0 … 10 (10 is "
                "multipliers from 10⁻⁵ to 10⁵), and tau is a positive number"
            )
        if self.every is not None and self.every < 1:
            raise ConfigError(
                f"rates.every is {self.every}; it must be at least 1, or left out for 1 % of the run"
            )
        if self.seed < 0:
            raise ConfigError(f"rates.seed is {self.seed}; it must be 0 or positive")
        if self.map in ("sqrt", "log2") and self.by != UNIFORM and base_of(self.by) not in POSITIVE:
            raise ConfigError(
                f"rates.map is {self.map}, and scores by {base_of(self.by)} may be zero or negative; choose linear, "
                f"step or sigmoid, or rates.by {' or '.join(POSITIVE)}"
            )

    def _check_types(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            kinds, wanted = _TYPES.get(name, _NUMBER)
            if name == "every" and value is None:
                continue
            if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
                raise ConfigError(f"rates.{name} is {value!r}; it must be {wanted}")

    def _check_unread(self) -> None:
        """Refuse settings that would change nothing but the identity of the run."""
        if self.by == UNIFORM:
            reason, read = "one rate for all (rates.by uniform)", ("by",)
        else:
            reason = f"the map {self.map}"
            shuffle = ("seed",) if self.by.startswith(SHUFFLED) else ()
            read = ("by", "map", "unit", "every", "mean", "first_last", *shuffle, *_READ[self.map])
        for name, spec in self.__dataclass_fields__.items():
            if name not in read and getattr(self, name) != spec.default:
                remedy = f"a rates.by {'that is shuffled' if name == 'seed' else 'other than uniform'}"
                if self.by != UNIFORM:
                    reason = "rates that are not shuffled" if name == "seed" else reason
                    remedy = (
                        f"rates.by {SHUFFLED}{base_of(self.by)}" if name == "seed" else "another rates.map"
                    )
                raise ConfigError(
                    f"rates.{name} is {getattr(self, name)}, which {reason} would not read; leave it out, or choose "
                    f"{remedy}"
                )

    @property
    def uniform(self) -> bool:
        """Return whether all matrices of an optimiser have one rate."""
        return self.by == UNIFORM

    @property
    def in_words(self) -> str:
        """Return the settings that are not at their defaults.

        >>> Rates("farms", low=0.2).in_words
        'by farms, low 0.2'
        """
        own = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return ", ".join(f"{k} {v}" for k, v in own.items() if v != self.__dataclass_fields__[k].default)

    def period(self, steps: int) -> int:
        """Return the steps between two choices in a run of so many steps."""
        return max(1, round(steps / 100)) if self.every is None else self.every

    def taking_part(self, matrices: Sequence[str]) -> tuple[str, ...]:
        """Return the matrices that get a multiplier, in their order.

        >>> names = ["embed", "blocks.0.attn.q", "blocks.1.attn.q", "blocks.2.attn.q"]
        >>> Rates("farms", first_last=False).taking_part(names)
        ('blocks.1.attn.q',)
        """
        blocks = blocks_of(matrices)
        chosen = set(blocks if self.first_last else blocks[1:-1])
        return tuple(name for name in matrices if block_of(name) in chosen)

    def check(self, blocks: int, stage: str) -> None:
        """Refuse rates that would do nothing in a run.

        Args:
            blocks: of the network, 0 for one without.
            stage: name of its stage.

        Raises:
            ConfigError: no block takes part, or one alone where blocks are compared.
        """
        if self.uniform:
            return
        if not blocks:
            raise ConfigError(f"rates.by is {self.by}, and stage {stage} has no blocks; leave it out")
        apart = self.unit == "block" or base_of(self.by) == "depth"
        count = blocks if self.first_last else max(0, blocks - 2)
        if count < (2 if apart else 1):
            raise ConfigError(
                f"rates.by is {self.by}, and of {blocks} blocks {count} take part; "
                f"{'blocks are compared: at least 2' if apart else 'at least 1'} must. Take more blocks"
                f"{'' if self.first_last else ', or let the first and the last take part'}"
            )


ONE_RATE = Rates()
