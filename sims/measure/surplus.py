"""Estimate what a state knows of the token after the next one, beyond the next one itself.

The surplus is I(H; W' | W) for the state H after some tokens, the next token W and the one after it W'. A probe
q(w' | h, w) ∝ b(w' | w) exp g(h, w) starts at the exact law b of a token given the one before it, with g = 0. In
expectation its gain on held-out sequences, E[ln q(w') − ln b(w')], is a lower bound of the surplus: what the probe
cannot read is not counted, and a state that knows nothing has a gain of 0. The ceiling is what all tokens read so far
tell, H(W' | W) − H(W' | X, W), which is known exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from sims.system.errors import MeasureError
from theory.formulas.law import WalkLaw

Kind = Literal["linear", "mlp"]
KINDS: tuple[Kind, ...] = ("linear", "mlp")
# Shares of the sequences that a probe is fitted and stopped on; it is scored on the others.
FITTED, STOPPED = 0.5, 0.2
HIDDEN, BATCH, RATE = 128, 512, 3e-3
# Steps between looks at the sequences for stopping, most looks, and how many without progress end the fit.
LOOK, LOOKS, PATIENCE = 40, 30, 3
# Samples that are scored at once.
_AT_ONCE = 4_096
# Of what is impossible.
_LEAST = -50.0


@dataclass(frozen=True)
class Surplus:
    """Hold what a probe gained.

    Attributes:
        gain: E[ln q − ln b] on sequences that it was not fitted or stopped on, nats.
        ceiling: the most that any function of the tokens read can gain, on the same sequences; nats.
        looks: after how many looks the probe was best; 0 where nothing helped.
    """

    gain: float
    ceiling: float
    looks: int

    @property
    def share(self) -> float:
        """Return the gain as a share of the ceiling."""
        return self.gain / self.ceiling


def surplus(states: Tensor, sequences: np.ndarray, law: WalkLaw, kind: Kind, seed: int = 0) -> Surplus:
    """Fit a probe of the token after the next one, and return its gain.

    Args:
        states: (n, T, d) states after 1 to T tokens.
        sequences: (n, T+1) independent sequences of the law.
        law: exact law of the next token.
        kind: "linear" in the state and the one-hot of the next token, or "mlp" with one hidden layer.
        seed: of the order of the samples and the first weights.

    Raises:
        MeasureError: fewer than ten sequences, arrays that do not belong together, or states that are not finite.
    """
    n, length = sequences.shape[0], sequences.shape[1] - 1
    if n < 10 or length < 2 or states.ndim != 3 or states.shape[:2] != (n, length):
        raise MeasureError(
            f"states have shape {tuple(states.shape)} and sequences {sequences.shape}; pass (n, T, d) and (n, T+1), "
            "n ≥ 10, T ≥ 2"
        )
    if not bool(states.isfinite().all()):
        raise MeasureError("the states have NaN or Inf; measure a checkpoint before the run diverged")
    base = np.log(np.maximum(law.next_tokens(np.arange(law.vocab)[:, None]), math.exp(_LEAST)))
    tokens = torch.tensor(sequences, dtype=torch.long)
    # The last state has no token after the next one.
    h, near, far = states[:, :-1].float(), tokens[:, 1:-1], tokens[:, 2:]
    ends = [0, round(FITTED * n), round((FITTED + STOPPED) * n), n]
    fit, stop, score = (_Samples(*(x[a:b].flatten(0, 1) for x in (h, near, far))) for a, b in pairwise(ends))
    middle, spread = fit.states.mean(dim=0), fit.states.std()
    scale = 1 / spread if spread > 0 else torch.ones(())
    parts = [_Samples((part.states - middle) * scale, part.near, part.far) for part in (fit, stop, score)]
    probe, looks = _fitted(kind, parts[0], parts[1], torch.tensor(base, dtype=torch.float32), seed)
    inside = sequences[ends[2] :]
    return Surplus(probe.gain(parts[2]), ceiling(inside, law), looks)


def ceiling(sequences: np.ndarray, law: WalkLaw) -> float:
    """Return H(W' | W) − H(W' | X, W) in nats, mean over positions of (n, T+1) sequences and exact in each of them."""
    alone = law.entropies(np.arange(law.vocab)[:, None])[:, 0]
    return float((alone[sequences[:, 1:-1]] - law.entropies(sequences[:, :-1])[:, 1:]).mean())


@dataclass(frozen=True, eq=False)
class _Samples:
    """States (m, d), next tokens (m,) and the tokens after them (m,)."""

    states: Tensor
    near: Tensor
    far: Tensor

    def at(self, places: Tensor) -> _Samples:
        return _Samples(self.states[places], self.near[places], self.far[places])


class _Probe(nn.Module):
    """q(w' | h, w) ∝ b(w' | w) exp g(h, w), g = 0 at first."""

    def __init__(self, kind: Kind, width: int, base: Tensor, generator: torch.Generator) -> None:
        super().__init__()
        self.base, self.kind = base, kind
        vocab = len(base)
        inner = HIDDEN if kind == "mlp" else vocab
        draw = torch.randn(width, inner, generator=generator) / math.sqrt(width)
        self.of_state = nn.Parameter(draw if kind == "mlp" else torch.zeros(width, inner))
        self.of_token = nn.Parameter(torch.zeros(vocab, inner))
        self.out = nn.Parameter(torch.zeros(inner, vocab)) if kind == "mlp" else None

    def gains(self, samples: _Samples) -> Tensor:
        """Return ln q(w') − ln b(w'), (m,)."""
        inner = samples.states @ self.of_state + self.of_token[samples.near]
        g = inner if self.out is None else inner.relu() @ self.out
        base = self.base[samples.near]
        # b sums to 1: without g the gain is 0 but for rounding, and exactly 0 at the start.
        normal = (base + g).logsumexp(dim=1) - base.logsumexp(dim=1)
        return g.gather(1, samples.far[:, None])[:, 0] - normal

    @torch.no_grad()
    def gain(self, samples: _Samples) -> float:
        """Return the mean gain."""
        places = torch.arange(len(samples.near)).split(_AT_ONCE)
        return float(sum(self.gains(samples.at(part)).double().sum() for part in places) / len(samples.near))


def _fitted(kind: Kind, fit: _Samples, stop: _Samples, base: Tensor, seed: int) -> tuple[_Probe, int]:
    """Return the probe at its best look at the sequences for stopping, and which look that was."""
    generator = torch.Generator().manual_seed(seed)
    probe = _Probe(kind, fit.states.shape[1], base, generator)
    optimiser = torch.optim.Adam(probe.parameters(), RATE)
    best, looks = 0.0, 0
    kept = {name: value.clone() for name, value in probe.state_dict().items()}
    for look in range(1, LOOKS + 1):
        for _ in range(LOOK):
            places = torch.randint(len(fit.near), (BATCH,), generator=generator)
            optimiser.zero_grad()
            (-probe.gains(fit.at(places)).mean()).backward()
            optimiser.step()
        gain = probe.gain(stop)
        if gain > best:
            best, looks = gain, look
            kept = {name: value.clone() for name, value in probe.state_dict().items()}
        elif look - looks >= PATIENCE:
            break
    probe.load_state_dict(kept)
    return probe, looks
