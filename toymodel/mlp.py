"""Two ReLU layers over the concatenated embeddings of all tokens, with a leading member axis written by hand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from toymodel.cross_entropy import position_losses
from toymodel.lookup import look_up
from toymodel.parameter_spec import ParameterSpec
from toymodel.sizes import Sizes
from toymodel.stages import Stage
from toymodel.stages.base import Params
from toymodel.transformer import FINAL, Tap, linear, pass_on

HIDDEN = "hidden"


@dataclass(frozen=True)
class Mlp:
    """Compute logits = W₃·relu(W₂·relu(W₁·[e₁; …; e_T] + b₁) + b₂) + b₃ of the last target, e_t the embedded tokens.

    W₁ is (2d, T·d), W₂ (d, 2d), W₃ (V, d). At the start they are as torch.nn.Linear and torch.nn.Embedding make them.
    The interface is that of `toymodel.transformer.Transformer`, with one position in place of T.

    Args:
        stage: the stage.
        sizes: every shape; heads, layers and MLP width do not matter.

    Sites at which `hidden` calls its tap: ``embed`` (K, B, T, d), ``hidden`` (K, B, 1, 2d) after the first layer,
    ``final`` (K, B, 1, d) after the second, which the head reads.

    >>> from toymodel.sizes import Sizes
    >>> from toymodel.stages import stage
    >>> mlp = Mlp(stage("mlp"), Sizes(vocab=47, length=2, d=64, heads=1, layers=1, mlp=1))
    >>> mlp.parameter_count()
    30831
    >>> params = {spec.name: torch.ones(3, *spec.shape) for spec in mlp.specs()}
    >>> mlp.hidden(params, torch.zeros(3, 5, 2, dtype=torch.long)).shape
    torch.Size([3, 5, 1, 64])
    """

    stage: Stage
    sizes: Sizes

    def at(self, step: int, steps: int) -> Mlp:
        """Return the same network: nothing of it changes by the step."""
        return self

    @property
    def windows(self) -> tuple[int, ...]:
        """Return no attention windows."""
        return ()

    def specs(self) -> tuple[ParameterSpec, ...]:
        """Return every parameter, in the order in which they are stored."""
        s = self.sizes
        layers = {"first": (2 * s.d, s.length * s.d), "second": (s.d, 2 * s.d)}
        specs = [ParameterSpec("embed", (s.vocab, s.d), "embedding", "normal")]
        specs += [ParameterSpec(name, shape, "hidden", "fan_in") for name, shape in layers.items()]
        specs.append(ParameterSpec("head", (s.vocab, s.d), "head", "fan_in"))
        # After the matrices, whose alignment must not depend on a few biases.
        inputs = {**layers, "head": (s.vocab, s.d)}
        specs += [
            ParameterSpec(f"{name}.bias", (rows,), "scalar", "fan_in", fan=fan)
            for name, (rows, fan) in inputs.items()
        ]
        return tuple(specs)

    def parameter_count(self) -> int:
        """Count the trainable numbers of one member."""
        return sum(spec.size for spec in self.specs())

    def hidden(self, params: Params, tokens: Tensor, tap: Tap = pass_on, last: bool = False) -> Tensor:
        """Return the states (K, B, 1, d) that the head reads.

        Args:
            params: (K, …) tensors by name, as `specs` lists them.
            tokens: (K, B, T) integer tokens, T = `sizes.length`.
            tap: sees, and may replace, the activation at every site.
            last: changes nothing, as there is one position.
        """
        x = tap("embed", look_up(params["embed"], tokens))  # (K, B, T, d)
        x = x.flatten(2).unsqueeze(2)  # (K, B, 1, T·d)
        x = tap(HIDDEN, torch.relu(_layer(params, "first", x)))
        return tap(FINAL, torch.relu(_layer(params, "second", x)).to(params["embed"].dtype))

    def logits(self, params: Params, hidden: Tensor) -> Tensor:
        """Return the logits (K, B, 1, V) of states (K, B, 1, d)."""
        return _layer(params, "head", hidden)

    def losses(
        self,
        params: Params,
        sequences: Tensor,
        tap: Tap = pass_on,
        mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Return the (K,) mean cross-entropies in nats of the last targets of (K, B, T+1) sequences.

        Args:
            mask: (K, B, T) True at the last target alone; it says nothing more here.
            labels: (K, B, T) targets where they are not the next tokens.
        """
        logits = self.logits(params, self.hidden(params, sequences[..., :-1], tap))[:, :, 0]
        return position_losses(logits, (sequences if labels is None else labels)[..., -1]).mean(dim=1)


def _layer(params: Params, name: str, x: Tensor) -> Tensor:
    """Return W x + b, (K, B, 1, out)."""
    return linear(x, params[name]) + params[f"{name}.bias"][:, None, None]
