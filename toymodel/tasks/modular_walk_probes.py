"""Bands (c, o) of the modular walks: those that training has, and probe sequences of one band."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from toymodel.data import Dataset
from toymodel.errors import ConfigError
from toymodel.limits import whole
from toymodel.task import Split
from toymodel.tasks.modular_walk_laws import Latents, draw_latents, draw_walk, render, walk_states
from toymodel.tasks.modular_walks import ModularWalks, modular_walks

Regime = Literal["clean", "matched"]

# The two probe bands (c, o) of the published tables. At the published setting neither occurs in training.
PUBLISHED_BANDS = ((97, 200), (179, 50))

# Spawn key of the probes' random streams; the splits have 0 to 2 (`toymodel.data.split_generators`).
_PROBE = 3


@dataclass(frozen=True, eq=False)
class ProbeSplit(Split):
    """Hold sequences anchored in one band (c, o), which is component 0 of the latents.

    Args:
        states: (n, T) s_k of the anchored walk at every input position, read-only; in the matched regime too,
            where the tokens do not show it.
        modulus, offset: the band.
        regime: ``"clean"`` or ``"matched"``.
    """

    states: np.ndarray
    modulus: int
    offset: int
    regime: Regime


class Band(NamedTuple):
    """Hold a band (c, o) of training, the number of training sequences that contain it, and their share."""

    c: int
    o: int
    sequences: int
    frequency: float


def probe_split(
    config: ModularWalks, c: int, o: int, n: int = 12_000, regime: Regime = "clean", seed: int = 0
) -> ProbeSplit:
    """Draw n sequences anchored in the band (c, o), with the state of the anchored walk at every position.

    Step and phase follow the training law given c. ``"clean"`` is only that walk, without noise.
    ``"matched"`` puts it where the first component of a training sequence is: the other components, the
    weights and the noise follow the training distribution. The anchored walks of both regimes are the same,
    and where training has one component and no noise, so are the tokens.

    The draw depends on ``seed``, the band and the laws of ``config``, not on ``config.seed``: runs trained on
    different data are probed with the same sequences.

    Args:
        c, o: band, with modulus_min ≤ c and o + c ≤ V.
        n: number of sequences.
        regime: ``"clean"`` or ``"matched"``.
        seed: seed of the probe, ≥ 0.

    Raises:
        ConfigError: another task, a band that does not fit in the vocabulary or below modulus_min, n below 1, a
            negative seed, numbers that are not whole, an unknown regime.

    >>> probe = probe_split(ModularWalks(vocab=16, length=4), c=7, o=3, n=2)
    >>> probe.tokens.shape, bool((probe.inputs == probe.states + 3).all())
    ((2, 5), True)
    """
    _check_probe(modular_walks(config), c, o, n, regime, seed)
    sequence = np.random.SeedSequence(seed, spawn_key=(_PROBE, c, o))
    anchor_rng, nuisance_rng = (np.random.default_rng(child) for child in sequence.spawn(2))
    step, phase = draw_walk(config, anchor_rng, np.full(n, c))
    single = regime == "clean"
    drawn = _single(n) if single else draw_latents(config, nuisance_rng, n)

    def anchored(others: np.ndarray, values: np.ndarray | int) -> np.ndarray:
        out = others.copy()
        out[:, 0] = values
        return out

    latents = Latents(
        anchored(drawn.modulus, c),
        anchored(drawn.offset, o),
        anchored(drawn.step, step),
        anchored(drawn.phase, phase),
        drawn.weights,
        drawn.count,
    )
    tokens = render(config, latents, nuisance_rng, noise=0.0 if single else None)
    states = walk_states(latents, 0, config.length, config.dtype)
    return ProbeSplit(tokens, latents, states, c, o, regime)


def training_bands(dataset: Dataset, k: int, c_min: int = 11, odd: bool = False) -> tuple[Band, ...]:
    """Return the k bands (c, o) with c ≥ c_min that most training sequences contain, most frequent first.

    Ties go to the smaller c, then the smaller o. A sequence that contains a band twice counts once.

    Args:
        k: number of bands.
        c_min: smallest modulus; small ones have a large null level of every frequency statistic (c = 7: .18).
        odd: odd moduli only. For even c the frequency c/2 has no partner, and its one-sided share may reach 1.

    Raises:
        ConfigError: a data set of another task, k or c_min not whole or below 1, or fewer than k such bands in the
            training split.

    >>> from toymodel import make_dataset
    >>> data = make_dataset(ModularWalks(vocab=16, length=4, train=200, val=1, test=1))
    >>> all(band.c >= 11 and band.c + band.o <= 16 for band in training_bands(data, 2))
    True
    """
    k, c_min = whole("k", k, 1), whole("c_min", c_min, 1)
    latents, vocab = dataset.train.latents, modular_walks(dataset.config).vocab
    wanted = (latents.weights > 0) & (latents.modulus >= c_min)
    if odd:
        wanted &= latents.modulus % 2 == 1
    rows, slots = np.nonzero(wanted)
    moduli, offsets = latents.modulus[rows, slots], latents.offset[rows, slots]
    code = moduli.astype(np.int64) * vocab + offsets
    if latents.weights.shape[1] > 1:
        code = np.unique(np.stack([rows, code]), axis=1)[1]
    bands, counts = np.unique(code, return_counts=True)
    if len(bands) < k:
        raise ConfigError(
            f"k is {k} but the training split contains {len(bands)} bands with c ≥ {c_min}; "
            "lower k or c_min, or train on more sequences"
        )
    order = np.argsort(-counts, kind="stable")[:k]
    n = len(dataset.train)
    return tuple(
        Band(int(bands[i]) // vocab, int(bands[i]) % vocab, int(counts[i]), int(counts[i]) / n) for i in order
    )


def _single(n: int) -> Latents:
    """Return n single components of weight 1, at rest."""
    zero = np.zeros((n, 1), np.int32)
    one = np.ones((n, 1), np.int32)
    return Latents(one, zero, zero.copy(), zero.copy(), np.ones((n, 1)), np.ones(n, np.int32))


def _check_probe(config: ModularWalks, c: int, o: int, n: int, regime: str, seed: int) -> None:
    if regime not in ("clean", "matched"):
        raise ConfigError(f"regime is {regime!r}; pass 'clean' or 'matched'")
    for name, value, low in (("c", c, None), ("o", o, None), ("n", n, 1), ("seed", seed, 0)):
        whole(name, value, low)
    if not config.modulus_min <= c <= config.vocab:
        raise ConfigError(
            f"probe band {c}:{o} has modulus {c}, outside the task's {config.modulus_min}..{config.vocab}; "
            "pass a c in that range"
        )
    if not 0 <= o <= config.vocab - c:
        raise ConfigError(
            f"probe band {c}:{o} covers tokens {o}..{o + c - 1}, not all in the vocabulary "
            f"0..{config.vocab - 1}; pass an offset from 0 to {config.vocab - c}"
        )
