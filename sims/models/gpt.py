"""Transformers of the GPT-2 shape as a plain module: the common form of nanoGPT and modded-nanogpt.

Parameters are named as those projects name them (``transformer.h.0.attn.c_q.weight``), so that a state is loaded as it
is. Everything is computed in float32; the records train, and evaluate, partly in bfloat16.

Written from the formats' facts: github.com/karpathy/nanoGPT, github.com/KellerJordan/modded-nanogpt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sims.models.checkpoint_info import Activation
from sims.models.layout import Layout, Projection
from sims.models.state import same_values
from sims.models.subject import EMBED, FINAL, HEAD
from sims.system.plain import some
from toymodel.errors import CheckpointError

ROTARY_BASE = 10_000.0
_BIASED = frozenset(("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj", "ln_f"))


@dataclass(frozen=True)
class Architecture:
    """One transformer of the GPT-2 shape.

    Args:
        vocab, width, layers, heads, mlp: sizes.
        activation: of the MLP: exact GELU, GELU by tanh, or squared ReLU.
        biases: parts that have one ("attn.c_proj", "ln_1", …); a layer norm without is a gain alone.
        length: rows of the position table; None for rotary positions.
        gain: layer norms with a gain (ε 1e-5); False for RMS norms without one.
        epsilon: of the RMS norms; None for the machine epsilon.
        fused: q, k and v in one matrix (3·width, width), in this order.
        qk_norm: queries and keys RMS-normalised, head by head, before they are rotated.
        attention_share: factor of what attention adds to the stream.
        tied: the head is the embedding.
        embedding_norm: RMS norm right after the embedding.
        shortcut: blocks read μx + νx₀.
        value_mix: attention averages (1 − λ)v + λv₀, v₀ the values of the first block.
        skips: how many of the last blocks add w·y of their mirror among the first.
        softcap: c of logits c·tanh(z/c).
    """

    vocab: int
    width: int
    layers: int
    heads: int
    mlp: int
    activation: Activation
    biases: frozenset[str] = frozenset()
    length: int | None = None
    gain: bool = False
    epsilon: float | None = None
    fused: bool = False
    qk_norm: bool = False
    attention_share: float = 1.0
    tied: bool = True
    embedding_norm: bool = False
    shortcut: bool = False
    value_mix: bool = False
    skips: int = 0
    softcap: float | None = None

    def layout(self) -> Layout:
        """Return its sites and matrices, with the names of the toy."""
        sites = {EMBED: "transformer.start"}
        matrices = {EMBED: Projection("transformer.wte")}
        if not self.tied:
            matrices[HEAD] = Projection("lm_head")
        for layer in range(self.layers):
            own, block = f"blocks.{layer}", f"transformer.h.{layer}"
            sites[own] = block
            for i, part in enumerate("qkv"):
                rows = slice(i * self.width, (i + 1) * self.width)
                fused = Projection(f"{block}.attn.c_attn", rows)
                matrices[f"{own}.attn.{part}"] = fused if self.fused else Projection(f"{block}.attn.c_{part}")
            matrices[f"{own}.attn.o"] = Projection(f"{block}.attn.c_proj")
            matrices[f"{own}.mlp.fc"] = Projection(f"{block}.mlp.c_fc")
            matrices[f"{own}.mlp.proj"] = Projection(f"{block}.mlp.c_proj")
        sites[FINAL] = "transformer.ln_f"
        return Layout(sites, matrices, head="lm_head", softcap=self.softcap, length=self.length)


class GPT(nn.Module):
    """A GPT: tokens (b, T) to final states (b, T, width), of which ``lm_head`` makes logits."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        parts: dict[str, nn.Module] = {"wte": nn.Embedding(arch.vocab, arch.width), "start": nn.Identity()}
        if arch.length is not None:
            parts["wpe"] = nn.Embedding(arch.length, arch.width)
        parts["h"] = nn.ModuleList([_Block(arch) for _ in range(arch.layers)])
        parts["ln_f"] = _norm(arch, "ln_f")
        self.transformer = nn.ModuleDict(parts)
        self.lm_head = nn.Linear(arch.width, arch.vocab, bias=False)
        if arch.skips:
            self.skip_weights = nn.Parameter(torch.ones(arch.skips))

        if arch.tied:
            self.tie()

    def tie(self) -> None:
        """Set the head's weight to the embedding."""
        embedding = self.transformer["wte"]
        assert isinstance(embedding, nn.Embedding)
        self.lm_head.weight = embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        arch, parts = self.arch, self.transformer
        x = parts["wte"](tokens)
        if arch.length is not None:
            x = x + parts["wpe"](torch.arange(tokens.shape[1], device=tokens.device))
        if arch.embedding_norm:
            x = _rms(x, arch.epsilon)
        start = x = parts["start"](x)
        outputs: list[Tensor] = []
        values: Tensor | None = None
        for layer, block in enumerate(parts["h"]):  # pyright: ignore[reportArgumentType]
            skip = layer - (arch.layers - arch.skips)
            if skip >= 0:
                x = x + self.skip_weights[skip] * outputs[arch.layers - 1 - layer]
            x, own = block(x, start, values)
            if arch.value_mix and values is None:
                values = own
            outputs.append(x)
        return parts["ln_f"](x)


class _Block(nn.Module):
    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        self.ln_1, self.ln_2 = _norm(arch, "ln_1"), _norm(arch, "ln_2")
        self.attn, self.mlp = _Attention(arch), _Mlp(arch)
        if arch.shortcut:
            self.lambdas = nn.Parameter(torch.tensor([1.0, 0.0]))

    def forward(self, x: Tensor, start: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the residual stream, which is the site, and the values of this block."""
        if self.arch.shortcut:
            x = self.lambdas[0] * x + self.lambdas[1] * start
        mixed, values = self.attn(self.ln_1(x), first)
        x = x + self.arch.attention_share * mixed
        return x + self.mlp(self.ln_2(x)), values


class _Attention(nn.Module):
    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        if arch.fused:
            self.c_attn = _linear(arch, "attn.c_attn", arch.width, 3 * arch.width)
        else:
            self.c_q, self.c_k, self.c_v = (
                _linear(arch, f"attn.c_{part}", arch.width, arch.width) for part in "qkv"
            )
        self.c_proj = _linear(arch, "attn.c_proj", arch.width, arch.width)
        if arch.value_mix:
            self.lamb = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor]:
        arch = self.arch
        q, k, own = (
            self.c_attn(x).split(arch.width, dim=-1)
            if arch.fused
            else (self.c_q(x), self.c_k(x), self.c_v(x))
        )
        v = own if first is None or not arch.value_mix else (1 - self.lamb) * own + self.lamb * first
        q, k, v = (part.unflatten(-1, (arch.heads, -1)).transpose(1, 2) for part in (q, k, v))
        if arch.qk_norm:
            q, k = _rms(q, arch.epsilon), _rms(k, arch.epsilon)
        if arch.length is None:
            q, k = _rotated(q), _rotated(k)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(mixed.transpose(1, 2).flatten(2)), own


class _Mlp(nn.Module):
    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.activation = arch.activation
        self.c_fc = _linear(arch, "mlp.c_fc", arch.width, arch.mlp)
        self.c_proj = _linear(arch, "mlp.c_proj", arch.mlp, arch.width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c_fc(x)
        if self.activation == "relu2":
            return self.c_proj(F.relu(x).square())
        return self.c_proj(F.gelu(x, approximate="tanh" if self.activation == "gelu_tanh" else "none"))


class _RmsNorm(nn.Module):
    def __init__(self, epsilon: float | None) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return _rms(x, self.epsilon)


def _norm(arch: Architecture, name: str) -> nn.Module:
    if not arch.gain:
        return _RmsNorm(arch.epsilon)
    return nn.LayerNorm(arch.width, bias=name in arch.biases)


def _linear(arch: Architecture, name: str, inner: int, out: int) -> nn.Linear:
    return nn.Linear(inner, out, bias=name in arch.biases)


def _rms(x: Tensor, epsilon: float | None) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], eps=epsilon)


def inverse_frequencies(head_width: int, device: torch.device | str | None = None) -> Tensor:
    """Return the angles per position (head_width/2,) of the rotary embedding."""
    pairs = torch.arange(0, head_width, 2, dtype=torch.float32, device=device)
    return 1.0 / ROTARY_BASE ** (pairs / head_width)


def _rotated(x: Tensor) -> Tensor:
    """Rotate pairs (i, i + width/2) of x (b, heads, T, width) at position t by −t·θ_i, as the records do."""
    positions = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32)
    angles = torch.outer(positions, inverse_frequencies(x.shape[-1], x.device))
    cos, sin = angles.cos(), angles.sin()
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos + second * sin, second * cos - first * sin), dim=-1)


def layers_in(state: Mapping[str, Tensor], path: Path) -> int:
    """Return the number of blocks of a state.

    Raises:
        CheckpointError: none, numbers that do not run from 0, or an embedding that is not a matrix.
    """
    check_axes(state, {"transformer.wte.weight": 2}, path)
    found = {int(m[1]) for name in state if (m := re.match(r"transformer\.h\.(\d{1,9})\.", name))}
    if "transformer.wte.weight" not in state or not found:
        raise CheckpointError(
            f"{path} is not of the GPT-2 shape: it has {some(list(state))}, and neither transformer.wte.weight nor "
            "transformer.h.0; build the model with its own code and name its sites (sims.models.module)"
        )
    if max(found) >= len(found):
        missing = [str(n) for n in range(len(found)) if n not in found]
        raise CheckpointError(f"{path} lacks blocks {some(missing)} of {max(found) + 1}; it is cut")
    return max(found) + 1


def biases_in(state: Mapping[str, Tensor], gain: bool, path: Path) -> frozenset[str]:
    """Return the parts that have a bias, from the first block and the last norm.

    Args:
        state: the tensors.
        gain: whether its norms have a gain; models with such norms have all biases or none.
        path: for messages.

    Raises:
        CheckpointError: a part of a model with gains lacks the bias that others have.
    """
    own = {m[1] for name in state if (m := re.match(r"transformer\.h\.0\.(.+)\.bias$", name))}
    found = frozenset(own | ({"ln_f"} if "transformer.ln_f.bias" in state else set()))
    if gain and found and (missing := sorted(_BIASED - found)):
        places = [f"transformer.{'' if part == 'ln_f' else 'h.0.'}{part}.bias" for part in missing]
        raise CheckpointError(f"{path} lacks {some(places)}, where other parts have biases; it is cut")
    return found


def is_tied(state: Mapping[str, Tensor]) -> bool:
    """Return whether the head is the embedding: it is not stored, or the same to the last bit."""
    head = state.get("lm_head.weight")
    return head is None or same_values(head, state["transformer.wte.weight"])


def check_axes(state: Mapping[str, Tensor], axes: Mapping[str, int], path: Path) -> None:
    """Refuse tensors whose number of axes is not that of their kind.

    Raises:
        CheckpointError: one has other axes; the message names it.
    """
    for name, count in axes.items():
        if name in state and state[name].ndim != count:
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(state[name].shape)}, and such a tensor has {count} axes; it is "
                "damaged, or of another architecture"
            )


def check_sizes(state: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Refuse tensors of another shape than is expected; those that are not there are passed over.

    Raises:
        CheckpointError: another shape; the message names the tensors.
    """
    wrong = [
        f"{name} {tuple(state[name].shape)} instead of {shape}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    if wrong:
        raise CheckpointError(f"{path}: sizes do not fit: {some(wrong)}")


def gpt_of(arch: Architecture, state: Mapping[str, Tensor], path: Path) -> GPT:
    """Build the module on the state's tensors, without a copy.

    Raises:
        CheckpointError: tensors that are missing, too many, or of another shape than the sizes say.
    """
    with torch.device("meta"):
        model = GPT(arch)
    if arch.tied:
        state = {name: tensor for name, tensor in state.items() if name != "lm_head.weight"}
    expected = {name: tuple(p.shape) for name, p in model.named_parameters()}
    if missing := [name for name in expected if name not in state]:
        raise CheckpointError(
            f"{path} lacks {some(missing)}; it is cut, or of another architecture than its other keys say"
        )
    if unknown := [name for name in state if name not in expected]:
        raise CheckpointError(
            f"{path} has tensors that this architecture does not know: {some(unknown)}; only the GPT-2 shape up to "
            "U-Net skips is read here: build the model with its own code and name its sites (sims.models.module)"
        )
    check_sizes(state, expected, path)
    model.load_state_dict(state, assign=True, strict=not arch.tied)
    if arch.tied:
        model.tie()
    return model
