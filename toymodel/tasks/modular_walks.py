"""Modular walks, the toy task of the paper: settings and splits (laws and probes in the files `modular_walk_*`)."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from toymodel.data import sequence_keys, split_generators
from toymodel.errors import ConfigError
from toymodel.task import Split, Task
from toymodel.tasks.modular_walk_laws import concatenate, draw_latents, render

INT16_MAX = 32_767
INT32_MAX = 2_147_483_647
# Redrawing gives up after this many times the wanted number of sequences.
_REDRAW_LIMIT = 64
# A weight 1 + Lomax(α) is beyond 1e308 with a chance of 1e-15 here, of one half at α = 0.001.
_LEAST_PARETO = 0.05


@dataclass(frozen=True)
class ModularWalks(Task):
    """Set the laws, sizes and seed of modular walks; the defaults are the published values.

    Args:
        vocab: V, number of token ids.
        length: T, tokens a model reads; a sequence has T+1 of them, so that every input has a target.
        train: sequences to train on.
        val: sequences of the validation split.
        test: sequences of the test split.
        modulus_min: smallest modulus c; the largest is V.
        modulus_power: p(c) ∝ c^-modulus_power.
        offset_power: p(o | c) ∝ (o+1)^-offset_power on {0..V-c}.
        step_fraction: smallest step as a share of c; d starts at max(1, ⌊c·step_fraction⌋).
        noncoprime: probability that d is rounded down to a multiple of a divisor of c.
        components_min: fewest averaged walks of a sequence; their number is uniform between the two, inclusive.
        components_max: most averaged walks of a sequence.
        pareto: 0 for equal weights, else α of the weights 1 + Lomax(α), a Pareto law with minimum 1.
        noise: standard deviation of the token noise, in tokens.
        noise_df: 0 for Gaussian noise, else degrees of freedom (> 2) of Student-t noise of unit variance.
        unique_val: redraw validation and test sequences that occur in training.
        seed: seed of the three splits' independent streams.

    Raises:
        ConfigError: a value outside its range; the message names value, rule and remedy.

    >>> walks = ModularWalks(vocab=16, length=4, train=20, val=5, test=5)
    >>> train, val, test = walks.splits()
    >>> train.inputs.shape, bool((train.latents.modulus <= 16).all())
    ((20, 4), True)
    """

    kind = "modular_walks"

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
    components_min: int = 1
    components_max: int = 1
    pareto: float = 0.0
    noise: float = 0.0
    noise_df: float = 0.0
    unique_val: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        # Equal configs must also print equally (the run id is a hash): 1, 1.0 and numpy's 1 become one value.
        lowest = {"vocab": 2, "modulus_min": 2, "seed": 0}
        for spec in fields(self):
            value = getattr(self, spec.name)
            if spec.type == "int":
                high = INT32_MAX if spec.name == "vocab" else None
                object.__setattr__(self, spec.name, _as_int(spec.name, value, lowest.get(spec.name, 1), high))
            elif spec.type == "float":
                object.__setattr__(self, spec.name, _as_float(spec.name, value))
        if not isinstance(self.unique_val, bool | np.bool_):
            raise ConfigError(f"unique_val is {self.unique_val!r}; it must be True or False")
        object.__setattr__(self, "unique_val", bool(self.unique_val))
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.vocab < self.modulus_min:
            raise ConfigError(
                f"vocab is {self.vocab} but the smallest modulus is {self.modulus_min}; no walk fits: "
                "raise vocab or lower modulus_min"
            )
        if self.components_max < self.components_min:
            raise ConfigError(
                f"components_max is {self.components_max}, below components_min {self.components_min}; "
                "raise components_max or lower components_min"
            )
        if self.step_fraction >= 1:
            raise ConfigError(
                f"step_fraction is {self.step_fraction}; steps start at that share of c and end at c-1, "
                "so pass a share below 1 (published: 0.125)"
            )
        if self.noncoprime > 1:
            raise ConfigError(f"noncoprime is {self.noncoprime}; it is a probability: pass 0 to 1")
        if 0 < self.pareto < _LEAST_PARETO:
            raise ConfigError(
                f"pareto is {self.pareto}; weights 1 + Lomax(α) of so small an α leave float64: pass at least "
                f"{_LEAST_PARETO}, or 0 for equal weights"
            )
        if 0 < self.noise_df <= 2:
            raise ConfigError(
                f"noise_df is {self.noise_df}; Student-t noise has a variance only above 2 degrees of "
                "freedom: pass more than 2, or 0 for Gaussian noise"
            )

    @property
    def dtype(self) -> np.dtype:
        """Return the storage type of tokens: int16 while the largest id V-1 and V itself fit, else int32."""
        return np.dtype(np.int16 if self.vocab <= INT16_MAX else np.int32)

    def splits(self) -> tuple[Split, Split, Split]:
        """Draw the training, validation and test split, whose latents are `modular_walk_laws.Latents`.

        With `unique_val`, validation and test sequences are drawn until the wanted number of them does not occur in
        training.

        Raises:
            ConfigError: with `unique_val`, when hardly any sequence outside the training split exists.
        """
        for_train, for_val, for_test = split_generators(self.seed)
        train = draw_split(self, for_train, self.train)
        if not self.unique_val:
            return train, draw_split(self, for_val, self.val), draw_split(self, for_test, self.test)
        seen = set(sequence_keys(train.tokens))
        val = _draw_unseen(self, for_val, self.val, seen, "validation")
        return train, val, _draw_unseen(self, for_test, self.test, seen, "test")


def modular_walks(task: Task) -> ModularWalks:
    """Return the task itself if it is one of modular walks.

    Raises:
        ConfigError: another task.
    """
    if not isinstance(task, ModularWalks):
        raise ConfigError(f"the task is {task.kind}; bands (c, o) exist for {ModularWalks.kind} only")
    return task


def draw_split(config: ModularWalks, rng: np.random.Generator, n: int) -> Split:
    """Draw n sequences from the stream `rng`."""
    latents = draw_latents(config, rng, n)
    return Split(render(config, latents, rng), latents)


def _draw_unseen(
    config: ModularWalks, rng: np.random.Generator, n: int, seen: set[bytes], name: str
) -> Split:
    parts: list[Split] = []
    found = 0
    for _ in range(_REDRAW_LIMIT):
        drawn = draw_split(config, rng, n)
        fresh = np.array([row not in seen for row in sequence_keys(drawn.tokens)])
        parts.append(Split(drawn.tokens[fresh], drawn.latents.take(fresh)))
        found += int(fresh.sum())
        if found >= n:
            break
    else:
        raise ConfigError(
            f"unique_val: {_REDRAW_LIMIT * n} draws gave only {found} of {n} {name} sequences outside "
            "training; the task has too few of them: raise vocab or length, lower train, or switch "
            "unique_val off"
        )
    tokens = np.concatenate([part.tokens for part in parts])[:n].copy()
    tokens.flags.writeable = False
    return Split(tokens, concatenate([part.latents for part in parts]).take(np.arange(n)))


def _as_int(name: str, value: object, low: int, high: int | None = None) -> int:
    rule = f"an integer ≥ {low}" if high is None else f"an integer from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ConfigError(f"{name} is {value!r}; pass {rule}")
    if value < low or (high is not None and value > high):
        raise ConfigError(f"{name} is {value}; it must be {rule}: choose a value in that range")
    return int(value)


def _as_float(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise ConfigError(f"{name} is {value!r}; pass a finite number ≥ 0")
    if not math.isfinite(value) or value < 0:
        raise ConfigError(f"{name} is {value}; it must be finite and ≥ 0: choose such a number")
    # −0.0 + 0.0 is 0.0.
    return float(value) + 0.0
