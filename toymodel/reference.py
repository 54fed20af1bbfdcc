"""Slow oracles: the toy task as a plain loop over sequences, the network as a plain list of formulas.

Nothing here is shared with `toymodel.tasks` or with the stages' components: the laws are written out per sequence
and the walk follows its recurrence; the network is one member in torch's own layers, with the chain's changes written
out one below the other. Tests compare the two, the benchmark compares the speed of the task.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from toymodel.sizes import Sizes
from toymodel.tasks.modular_walks import ModularWalks

ORDER = (
    *("baseline", "rope", "muon", "untied", "value_mix", "unet", "fixed_window", "flex_window"),
    *("value_embed", "sparse_embed", "truncated_rope", "softcap", "long_short", "attn_scale"),
)


@dataclass(frozen=True)
class Walk:
    """Hold one component of one sequence: modulus c, offset o, step d, phase a, and its weight in the mean."""

    c: int
    o: int
    d: int
    a: int
    weight: float


def draw_sequences(
    config: ModularWalks, rng: np.random.Generator, n: int
) -> tuple[np.ndarray, list[list[Walk]]]:
    """Draw n sequences one after the other from the laws of `config`.

    Returns:
        (n, T+1) int64 tokens, and the components of each sequence.
    """
    moduli = np.arange(config.modulus_min, config.vocab + 1)
    # In units of the smallest modulus: c^−α of all moduli may underflow.
    modulus_p = (moduli / config.modulus_min) ** -config.modulus_power
    modulus_p /= modulus_p.sum()
    sequences: list[list[Walk]] = []
    tokens = np.empty((n, config.length + 1), np.int64)
    for row in range(n):
        count = int(rng.integers(config.components_min, config.components_max + 1))
        walks = [_draw_walk(config, rng, int(rng.choice(moduli, p=modulus_p))) for _ in range(count)]
        tokens[row] = _tokens(config, rng, walks)
        sequences.append(walks)
    return tokens, sequences


def walk_tokens(walk: Walk, positions: int) -> list[int]:
    """Return o + s_k for k = 0..positions-1 by the recurrence s_0 = a, s_{k+1} = (s_k + d) mod c.

    >>> walk_tokens(Walk(c=5, o=10, d=3, a=1, weight=1.0), 4)
    [11, 14, 12, 10]
    """
    out, state = [], walk.a
    for _ in range(positions):
        out.append(walk.o + state)
        state = (state + walk.d) % walk.c
    return out


def _draw_walk(config: ModularWalks, rng: np.random.Generator, c: int) -> Walk:
    offset_p = np.arange(1, config.vocab - c + 2) ** -config.offset_power
    offset_p /= offset_p.sum()
    o = int(rng.choice(len(offset_p), p=offset_p))
    d = int(rng.integers(max(1, math.floor(c * config.step_fraction)), c))
    divisors = [g for g in range(2, math.isqrt(c) + 1) if c % g == 0]
    if divisors and rng.random() < config.noncoprime:
        g = divisors[rng.integers(len(divisors))]
        d = min(max(d // g * g, g), c - 1)
    weight = 1.0 + float(rng.pareto(config.pareto)) if config.pareto > 0 else 1.0
    return Walk(c, o, d, int(rng.integers(c)), weight)


def _tokens(config: ModularWalks, rng: np.random.Generator, walks: list[Walk]) -> np.ndarray:
    positions = config.length + 1
    weights = np.array([walk.weight for walk in walks])
    mean = weights @ np.array([walk_tokens(walk, positions) for walk in walks]) / weights.sum()
    if config.noise > 0:
        if config.noise_df > 0:
            df = config.noise_df
            unit = rng.standard_t(df, positions) / math.sqrt(df / (df - 2))
        else:
            unit = rng.normal(size=positions)
        mean = mean + config.noise * unit
    return np.clip(np.rint(mean), 0, config.vocab - 1).astype(np.int64)


@dataclass(frozen=True)
class PlainNetwork:
    """Compute the loss of one member by plain formulas: no member axis, no components, derivatives by autograd.

    Args:
        stage: a name in `ORDER`.
        sizes: every shape.
        params: its parameters (*shape) by name.
        progress: share of the configured steps that are done.
    """

    stage: str
    sizes: Sizes
    params: Mapping[str, Tensor]
    progress: float = 1.0

    def loss(self, sequences: Tensor) -> Tensor:
        """Return the mean next-token cross-entropy in nats of (B, T+1) sequences."""
        tokens = sequences[:, :-1]
        x = self.params["embed"][tokens]
        if not self._has("rope"):
            x = x + self.params["positions"][: x.shape[1]]
        if self._has("untied"):
            x = self._norm(x)
        start, outputs, values = x, [], []
        for layer in range(self.sizes.layers):
            x = self._entered(layer, x, start, outputs)
            x = x + self._attention(layer, self._norm(x), tokens, values)
            inner = F.linear(self._norm(x), self.params[f"blocks.{layer}.mlp.fc"])
            x = x + F.linear(F.relu(inner) ** 2, self.params[f"blocks.{layer}.mlp.proj"])
            outputs.append(x)
        logits = self._norm(x) @ self.params["head" if self._has("untied") else "embed"].T
        if self._has("value_mix"):
            bound = 15 if self._has("softcap") else 30
            logits = bound * torch.tanh(logits / bound)
        return F.cross_entropy(logits.flatten(0, 1), sequences[:, 1:].flatten())

    def _has(self, stage: str) -> bool:
        return ORDER.index(self.stage) >= ORDER.index(stage)

    @staticmethod
    def _norm(x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:])

    def _entered(self, layer: int, x: Tensor, start: Tensor, outputs: list[Tensor]) -> Tensor:
        depth = self.sizes.layers // 2
        if self._has("unet") and depth <= layer < 2 * depth:
            x = x + self.params["skips"][layer - depth] * outputs[2 * depth - 1 - layer]
        if self._has("value_mix"):
            now, then = self.params[f"blocks.{layer}.shortcut"]
            x = now * x + then * start
        return x

    def _attention(self, layer: int, x: Tensor, tokens: Tensor, values: list[Tensor]) -> Tensor:
        q, k, v = (F.linear(x, w) for w in self.params[f"blocks.{layer}.attn.qkv"])
        values.append(v)
        v = self._values(layer, tokens, values)
        q, k, v = (z.unflatten(-1, (self.sizes.heads, -1)).transpose(1, 2) for z in (q, k, v))
        if self._has("rope"):
            q, k = (self._rotated(self._norm(z)) for z in (q, k))
        scale = 0.12 if self._has("attn_scale") else 1 / math.sqrt(q.shape[-1])
        scores = scale * q @ k.transpose(-1, -2)
        mixed = torch.softmax(scores.masked_fill(~self._sees(layer, x.shape[1]), -math.inf), -1) @ v
        return F.linear(mixed.transpose(1, 2).flatten(2), self.params[f"blocks.{layer}.attn.o"])

    def _values(self, layer: int, tokens: Tensor, values: list[Tensor]) -> Tensor:
        own, block, layers = values[-1], f"blocks.{layer}.attn", self.sizes.layers
        if self._has("sparse_embed"):
            weights = self.params[f"{block}.value_weights"]
            tables = max(1, layers // 4)
            for k in range(tables):
                if layer in (k, layers - tables + k):
                    return weights[0] * own + weights[1] * self.params[f"value_embed.{k}"][tokens]
            return weights[0] * own
        if self._has("value_embed"):
            share = self.params[f"{block}.value_mix"]
            return (1 - share) * own + share * self.params[f"value_embed.{layer}"][tokens]
        if self._has("value_mix") and layer > 0:
            share = self.params[f"{block}.value_mix"]
            return (1 - share) * own + share * values[0]
        return own

    def _rotated(self, x: Tensor) -> Tensor:
        """Rotate the pairs (i, i + width/2), as complex numbers."""
        width = x.shape[-1]
        if self._has("truncated_rope"):
            turning = max(1, width // 4)
            exponents = [i / max(1, turning - 1) for i in range(turning)]
            angles = [1024.0**-e for e in exponents] + [0.0] * (width // 2 - turning)
        else:
            angles = [10_000.0 ** (-2 * i / width) for i in range(width // 2)]
        angle = torch.outer(torch.arange(x.shape[-2]).double(), torch.tensor(angles).double())
        z = torch.complex(*x.double().chunk(2, -1)) * torch.complex(angle.cos(), angle.sin())
        return torch.cat([z.real, z.imag], -1).to(x.dtype)

    def _sees(self, layer: int, length: int) -> Tensor:
        window = length
        if self._has("flex_window"):
            window = min(14, 2 * int((2 + 12 * self.progress / 0.2) / 2))
            if self._has("long_short") and layer % 4:
                window = max(2, window // 2)
        elif self._has("fixed_window"):
            window = 8
        return torch.tensor([[i - window < j <= i for j in range(length)] for i in range(length)])
