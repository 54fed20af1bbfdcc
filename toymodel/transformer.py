"""One transformer for all stages, with a leading member axis written by hand.

Pre-RMSNorm without gain, squared-ReLU MLP, no biases (one of the logits on request), zero-initialised output
projections. It holds no state: parameters come in as a mapping of (K, …) tensors, so an ensemble, a checkpoint and an
edited copy for a causal test all use the same function. K members, B sequences, T positions, width d, vocabulary V
throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from toymodel.constants import constant
from toymodel.cross_entropy import head_cross_entropy, softcap
from toymodel.derivatives import plainly
from toymodel.elementwise import rms_norm, squared_relu
from toymodel.errors import ConfigError
from toymodel.lookup import look_up
from toymodel.parameter_spec import ParameterSpec
from toymodel.sizes import Sizes
from toymodel.stages import Stage
from toymodel.stages.base import Params

# Called with the name of a site and its activation (K, B, T, width); the network continues with what it returns.
Tap = Callable[[str, Tensor], Tensor]

FINAL = "final"
LOGIT_BIAS = "head.bias"


def pass_on(_: str, x: Tensor) -> Tensor:
    """Return the activation of a site unchanged."""
    return x


def _call(block: Callable[..., tuple[Tensor, Tensor]], *arguments: Any) -> tuple[Tensor, Tensor]:
    return block(*arguments)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Return y = x Wᵀ member by member: (K, B, T, in) and (K, out, in) give (K, B, T, out).

    >>> linear(torch.ones(1, 2, 3, 4), torch.ones(1, 5, 4)).shape
    torch.Size([1, 2, 3, 5])
    """
    k, b, t, width = x.shape
    return torch.bmm(x.reshape(k, b * t, width), weight.transpose(1, 2)).view(k, b, t, -1)


@dataclass(frozen=True)
class Transformer:
    """Compute the function of one stage at one size.

    Args:
        stage: the choice of components.
        sizes: every shape.
        progress: share of the configured steps that are done, in [0, 1]; a stage with a schedule reads it.
        embed_std: standard deviation of the token embedding at the start.
        recompute: keep only the inputs of every block for the backward pass, which runs the blocks a second time.
        removed: blocks that pass the residual stream on unchanged; the others keep their numbers.
        logit_bias: whether the logits are softcap(W h + b) with a learned b (V,) that starts at 0, not softcap(W h).
            AdamW updates b without weight decay, which would push token frequencies out of b and back into the states.

    Raises:
        ConfigError: removed blocks that do not exist, or of a stage whose blocks read more than the output of the block
            before.

    >>> from toymodel.sizes import Sizes
    >>> from toymodel.stages import stage
    >>> transformer = Transformer(stage("untied"), Sizes(vocab=11, length=8, d=8, heads=2, layers=1, mlp=16))
    >>> params = {spec.name: torch.ones(3, *spec.shape) for spec in transformer.specs()}
    >>> transformer.hidden(params, torch.zeros(3, 2, 8, dtype=torch.long)).shape
    torch.Size([3, 2, 8, 8])

    Sites at which `hidden` calls its tap, in order, each (K, B, T, width): ``embed``; for every block l
    ``blocks.l.attn.in`` (normalised input of q, k, v), ``blocks.l.attn.q/k/v`` (their outputs, before rotation
    and mixing), ``blocks.l.attn.mix`` (input of o), ``blocks.l.attn.o``, ``blocks.l.mlp.in``,
    ``blocks.l.mlp.fc``, ``blocks.l.mlp.act`` (input of proj), ``blocks.l.mlp.proj``, ``blocks.l`` (the residual
    stream after the block); ``final`` (the RMS-normalised hidden state that the head reads).
    """

    stage: Stage
    sizes: Sizes
    progress: float = 1.0
    embed_std: float = 1.0
    recompute: bool = False
    removed: frozenset[int] = frozenset()
    logit_bias: bool = False

    def __post_init__(self) -> None:
        if unknown := sorted(self.removed - set(range(self.sizes.layers))):
            raise ConfigError(f"no blocks {unknown}; the blocks are 0 to {self.sizes.layers - 1}")
        if self.removed and (self.stage.stream is not None or self.stage.values is not None):
            raise ConfigError(
                f"blocks of stage {self.stage.name} cannot be removed: later blocks read more of them than the "
                "residual stream (skips, mixed values); take a stage without, such as baseline, rope, muon or untied"
            )

    @property
    def blocks(self) -> tuple[int, ...]:
        """Return the numbers of the blocks that are computed."""
        return tuple(layer for layer in range(self.sizes.layers) if layer not in self.removed)

    def at(self, step: int, steps: int) -> Transformer:
        """Return the same architecture as it is after that many of the configured steps."""
        return replace(self, progress=step / steps)

    @property
    def windows(self) -> tuple[int, ...]:
        """Return the attention window of each block at this progress; nothing where all earlier positions are seen."""
        window, layers = self.stage.window, range(self.sizes.layers)
        return () if window is None else tuple(window.size(layer, self.progress) for layer in layers)

    def specs(self) -> tuple[ParameterSpec, ...]:
        """Return every parameter, in the order in which they are stored."""
        s = self.sizes
        specs = [ParameterSpec("embed", (s.vocab, s.d), "embedding", "normal", std=self.embed_std)]
        specs += self.stage.positions.specs(s)
        specs += self.stage.head.specs(s)
        for layer in self.blocks:
            block = f"blocks.{layer}"
            specs += [
                ParameterSpec(f"{block}.attn.qkv", (3, s.d, s.d), "hidden", "fan_in"),
                ParameterSpec(f"{block}.attn.o", (s.d, s.d), "hidden", "zeros"),
                ParameterSpec(f"{block}.mlp.fc", (s.mlp, s.d), "hidden", "fan_in"),
                ParameterSpec(f"{block}.mlp.proj", (s.d, s.mlp), "hidden", "zeros"),
            ]
        # After all others: the alignment of large matrices must not depend on a handful of scalars.
        for component in (self.stage.values, self.stage.stream):
            if component is not None:
                specs += component.specs(s)
        if self.logit_bias:
            specs.append(ParameterSpec(LOGIT_BIAS, (s.vocab,), "scalar", "zeros", decays=False))
        return tuple(specs)

    def parameter_count(self) -> int:
        """Count the trainable numbers of one member."""
        return sum(spec.size for spec in self.specs())

    def hidden(self, params: Params, tokens: Tensor, tap: Tap = pass_on, last: bool = False) -> Tensor:
        """Return the final hidden states.

        Args:
            params: (K, …) tensors by name, as `specs` lists them.
            tokens: (K, B, T) integer tokens, T at most `sizes.length`.
            tap: sees, and may replace, the activation at every site.
            last: compute only the last position in the last block, whose sites behind attention then have T = 1.

        Returns:
            (K, B, T, d), RMS-normalised: what the head reads; (K, B, 1, d) for the last position.
        """
        x = look_up(params["embed"], tokens)  # (K, B, T, d)
        x = self.stage.positions.embed(params, x)
        if self.stage.embedding_norm:
            x = rms_norm(x)
        trail = (tap("embed", x),)
        values: tuple[Tensor, ...] = ()
        run = partial(checkpoint, use_reentrant=False, preserve_rng_state=False) if self.recompute else _call
        blocks = self.blocks
        for layer in blocks:
            only = last and layer == blocks[-1]
            x, v = run(self._block, params, layer, trail, values, tokens, tap, only)
            trail, values = (*trail, x), (*values, v)
        if last and not blocks:
            trail = (trail[-1][..., -1:, :],)
        return tap(FINAL, rms_norm(trail[-1]))

    def _block(
        self,
        params: Params,
        layer: int,
        trail: tuple[Tensor, ...],
        values: tuple[Tensor, ...],
        tokens: Tensor,
        tap: Tap,
        last: bool,
    ) -> tuple[Tensor, Tensor]:
        """Return the residual stream (K, B, T, d) after a block, and the values that it has computed.

        `trail` holds the embedded tokens and the output of every block so far, `values` the values of every block.
        """
        block = f"blocks.{layer}"
        x = trail[-1] if self.stage.stream is None else self.stage.stream.enter(self.sizes, params, trail)
        mixed, v = self._attention(params, layer, rms_norm(x), tokens, values, tap, last)
        x = (x[..., -1:, :] if last else x) + mixed
        x = x + self._mlp(params, block, rms_norm(x), tap)
        return tap(block, x), v

    def _attention(
        self,
        params: Params,
        layer: int,
        x: Tensor,
        tokens: Tensor,
        values: tuple[Tensor, ...],
        tap: Tap,
        last: bool,
    ) -> tuple[Tensor, Tensor]:
        """Return the output (K, B, T, d) of a block's attention, and its unmixed values (K, B, T, d)."""
        k, b, t, d = x.shape
        heads, block = self.sizes.heads, f"blocks.{layer}"
        x = tap(f"{block}.attn.in", x)
        qkv = linear(x, params[f"{block}.attn.qkv"].reshape(k, 3 * d, d))  # (K, B, T, 3d)
        q, key, v = (
            tap(f"{block}.attn.{name}", part) for name, part in zip("qkv", qkv.split(d, dim=-1), strict=True)
        )
        own = v
        if self.stage.values is not None:
            v = self.stage.values.mix(self.sizes, params, tokens, (*values, own))
        # Each (K·B, heads, T, head width).
        q, key, v = (part.reshape(k * b, t, heads, d // heads).transpose(1, 2) for part in (q, key, v))
        q, key = self.stage.positions.rotate(q, key)
        mask = self._mask(layer, t, x.device)
        if last:
            # The last position sees all keys unless a window hides some of them.
            q, mask = q[:, :, -1:], None if mask is None else mask[-1:]
        mixed = attend(q, key, v, mask, mask is None and not last, self.stage.attention_scale)
        mixed = tap(f"{block}.attn.mix", mixed.transpose(1, 2).reshape(k, b, -1, d))
        return tap(f"{block}.attn.o", linear(mixed, params[f"{block}.attn.o"])), own

    def _mask(self, layer: int, t: int, device: torch.device) -> Tensor | None:
        """Return (t, t) True where row sees column, or None where that is every earlier position."""
        window = t if self.stage.window is None else self.windows[layer]
        return None if window >= t else window_mask(t, window, device)

    def _mlp(self, params: Params, block: str, x: Tensor, tap: Tap) -> Tensor:
        x = tap(f"{block}.mlp.in", x)
        # (K, B, T, mlp)
        inner = tap(f"{block}.mlp.fc", linear(x, params[f"{block}.mlp.fc"]))
        active = tap(f"{block}.mlp.act", squared_relu(inner))
        return tap(f"{block}.mlp.proj", linear(active, params[f"{block}.mlp.proj"]))

    def logits(self, params: Params, hidden: Tensor) -> Tensor:
        """Return the logits (K, B, T, V) of final hidden states (K, B, T, d)."""
        logits = linear(hidden, self.stage.head.weight(params))
        if self.logit_bias:
            logits = logits + params[LOGIT_BIAS][:, None, None]
        return softcap(logits, self.stage.softcap)

    def losses(
        self,
        params: Params,
        sequences: Tensor,
        tap: Tap = pass_on,
        mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Return the (K,) mean next-token cross-entropies in nats of (K, B, T+1) sequences.

        Args:
            mask: (K, B, T) True at the targets that count; None counts all.
            labels: (K, B, T) targets where they are not the next tokens.
        """
        hidden = self.hidden(params, sequences[..., :-1], tap)
        k, b, t, d = hidden.shape  # (K, B·T, d) against (K, B·T)
        targets = (sequences[..., 1:] if labels is None else labels).reshape(k, b * t)
        flat, head = hidden.reshape(k, b * t, d), self.stage.head.weight(params)
        counted = None if mask is None else mask.reshape(k, b * t)
        bias = params[LOGIT_BIAS] if self.logit_bias else None
        return head_cross_entropy(flat, head, targets, self.stage.softcap, counted, bias)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float | None) -> Tensor:
    """Return the attention of queries to keys, the mean of the values with weights softmax(scale·q·k).

    Args:
        q, k, v: (n, heads, T, head width); q may have the last position only.
        mask: True where a query sees a key; None for the rule of `causal`.
        causal: whether a query sees no later key.
        scale: None for 1/√(head width).

    >>> attend(torch.ones(1, 1, 2, 4), torch.ones(1, 1, 2, 4), torch.tensor([[[[1.0], [3.0]]]]), None, True, None)
    tensor([[[[1.],
              [2.]]]])
    """
    if not plainly():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale)
    scores = (q.shape[-1] ** -0.5 if scale is None else scale) * (q @ k.transpose(-1, -2))
    seen = window_mask(k.shape[-2], k.shape[-2], k.device) if causal else mask
    if seen is not None:
        scores = scores.masked_fill(~seen, -torch.inf)
    return torch.softmax(scores, dim=-1) @ v


@constant
def window_mask(t: int, window: int, device: torch.device) -> Tensor:
    """Return (t, t) True where a row sees a column: itself and the window − 1 positions before it.

    >>> window_mask(3, 2, torch.device("cpu")).int()
    tensor([[1, 0, 0],
            [1, 1, 0],
            [0, 1, 1]], dtype=torch.int32)
    """
    places = torch.arange(t, device=device)
    distance = places.view(-1, 1) - places
    return (distance >= 0) & (distance < window)


def matrix_places(specs: Sequence[ParameterSpec]) -> dict[str, tuple[str, int]]:
    """Return for each weight matrix the parameter that holds it and its index there; scalars are no matrices.

    >>> qkv = ParameterSpec("blocks.0.attn.qkv", (3, 8, 8), "hidden", "fan_in")
    >>> matrix_places([qkv])["blocks.0.attn.k"]
    ('blocks.0.attn.qkv', 1)
    """
    places: dict[str, tuple[str, int]] = {}
    for spec in specs:
        if spec.name.endswith(".qkv"):
            stem = spec.name.removesuffix("qkv")
            places.update({f"{stem}{part}": (spec.name, i) for i, part in enumerate("qkv")})
        elif len(spec.shape) == 2:
            places[spec.name] = (spec.name, 0)
    return places


def matrix_sizes(specs: Sequence[ParameterSpec]) -> dict[str, int]:
    """Return the number of weights of each weight matrix of one member, by name.

    >>> matrix_sizes([ParameterSpec("blocks.0.attn.qkv", (3, 8, 8), "hidden", "fan_in")])["blocks.0.attn.k"]
    64
    """
    shapes = {spec.name: spec.shape for spec in specs}
    return {name: math.prod(shapes[held][-2:]) for name, (held, _) in matrix_places(specs).items()}


def matrices(params: Params) -> dict[str, Tensor]:
    """Return views (K, rows, cols) of each weight matrix by name; q, k and v are three, scalars are no matrices."""
    named: dict[str, Tensor] = {}
    for name, value in params.items():
        if name.endswith(".qkv"):
            stem = name.removesuffix("qkv")
            named.update({f"{stem}{part}": value[:, i] for i, part in enumerate("qkv")})
        elif value.ndim == 3:
            named[name] = value
    return named
