"""Find out by one small forward pass how a decoder gets from tokens to logits.

The structure of a module does not show what its head reads, whether logits are scaled or bounded, and whether
attention is causal. Four tokens show all of it; a model whose logits cannot be computed from what its head reads is
refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sims.models.cuts import Family
from sims.models.layout import INPUT_OF, Projection, watch, with_tensors
from sims.system.errors import MeasureError, first_line
from toymodel.cross_entropy import softcap

# Tokens of the pass, and the size of logits at which a bound shows.
_LENGTH = 4
_LARGE = 50.0
# Weights beyond it are those of a run that diverged.
_BEYOND = 1e6
# Settings of transformers: the bound of logits, factors of them, and divisors.
_CAPS = ("final_logit_softcapping", "output_logit_soft_cap")
_FACTORS = ("logit_scale", "output_multiplier")
_DIVISORS = ("logits_scaling",)
# Names of tables that give every position a vector: pos, position_embeddings, abs_pos, wpe; not compositional.
_POSITIONS = re.compile("(?:^|_)(?:pos|wpe)")
_BY_HAND = "name its sites by hand (sims.models.layout.Layout), or measure it without losses (find_parts)"


@dataclass(frozen=True)
class Ending:
    """How logits come about.

    Args:
        final: place of what the head reads.
        trunk: module that takes the tokens and contains all but the head; "" for the model itself.
        scale, softcap: of the logits.
        flat: linear modules that are given (b·T, in).
    """

    final: str
    trunk: str
    scale: float
    softcap: float | None
    flat: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Pass:
    """What was seen in a forward pass of (2, T) tokens that differ in the last one."""

    logits: Tensor
    read: Tensor  # by the head
    outputs: Mapping[str, Tensor]  # of modules outside the blocks that are called once, in this order
    fed: tuple[str, ...]  # modules that were given the tokens
    flat: tuple[str, ...]  # linear modules that were given (2·T, in)


def ending(
    model: nn.Module,
    blocks: str,
    head: str,
    final: str,
    linear: Sequence[str],
    vocabulary: int,
    longest: int | None,
) -> Ending:
    """Return how a decoder's logits come about.

    A copy of the structure is run, that shares the weights that are float32. Weights that are all zero, as many are
    before training, would hide what they multiply, and those of a run that diverged what follows them: noise stands in
    for both.

    Args:
        model: a decoder.
        blocks, head: names of the list of blocks and of the linear head.
        final: where the head's input is expected to be.
        linear: linear modules in the blocks.
        vocabulary, longest: tokens that it knows, and the longest input.

    Raises:
        MeasureError: it does not take tokens alone, is not causal, or has logits that are not those of its head.
    """
    model = with_tensors(model, _lively).eval()
    length = min(_LENGTH, longest or _LENGTH)
    tokens = (vocabulary - 1 - torch.arange(length)).remainder(vocabulary).repeat(2, 1)
    tokens[1, -1] = (vocabulary - 1 - length) % vocabulary
    tokens = tokens.to(next(model.parameters()).device)
    seen = _run(model, blocks, head, linear, tokens)
    place = _final(seen, head, final, length)
    trunk = _trunk(model, seen, place, blocks, head, tokens)
    states = _states(model, trunk, place, tokens)
    _refuse_looking_ahead(model, states)
    # A bound shows in large logits only.
    weight = Projection(head).weight(model)
    factor = _LARGE / float(seen.logits.abs().max().clamp_min(1e-6))
    large = with_tensors(model, lambda t: _like(t, t.detach() * max(1.0, factor)) if t is weight else t)
    seen = _run(large, blocks, head, linear, tokens)
    scale, cap = _logits_of(large, head, _states(large, trunk, place, tokens), seen.logits)
    return Ending(place, trunk, scale, cap, seen.flat)


def _lively(tensor: Tensor) -> Tensor:
    """Return a tensor in float32, and noise in place of a parameter that is zero, not finite or far too large."""
    if tensor.is_floating_point() and tensor.dtype != torch.float32:
        single = tensor.detach().float()
        tensor = nn.Parameter(single, requires_grad=False) if isinstance(tensor, nn.Parameter) else single
    if not isinstance(tensor, nn.Parameter):
        return tensor
    largest = float(tensor.detach().abs().max())
    if 0 < largest <= _BEYOND:  # not of NaN
        return tensor
    draw = torch.Generator().manual_seed(tensor.numel())
    noise = torch.randn(tensor.shape, generator=draw) / max(1, tensor.shape[-1] if tensor.ndim else 1) ** 0.5
    return _like(tensor, noise)


def _like(tensor: Tensor, values: Tensor) -> Tensor:
    return nn.Parameter(values.to(tensor), requires_grad=False)


def _run(model: nn.Module, blocks: str, head: str, linear: Sequence[str], tokens: Tensor) -> _Pass:
    outputs: dict[str, Tensor] = {}
    read: list[Tensor] = []
    fed: list[str] = []
    flat: dict[str, bool] = {}
    calls: Counter[str] = Counter()
    handles = []

    def after(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
            given = (*args, *kwargs.values())
            if name and any(value is tokens for value in given):
                fed.append(name)
            calls[name] += 1
            if name == head:
                read.append(given[0].detach().clone())
            if name in linear and given[0].ndim == 2 and len(given[0]) == tokens.numel():
                flat[name] = _in_sequence(given[0], *tokens.shape)
            first = output[0] if isinstance(output, tuple) and output else output
            if name not in linear and isinstance(first, Tensor) and first.ndim == 3:
                outputs[name] = first.detach().clone()

        return hook

    inside = f"{blocks}."
    last = [name for name, _ in model.get_submodule(blocks).named_children()][-1]
    try:
        for name, module in model.named_modules():
            if not name.startswith(inside) or name == f"{inside}{last}" or name in linear:
                handles.append(module.register_forward_hook(after(name), with_kwargs=True))
        with torch.no_grad():
            result = model(tokens)
    except MeasureError:
        raise
    except Exception as error:
        # Of other inputs than tokens a model raises whatever it stumbles over.
        raise MeasureError(
            f"a {type(model).__name__} cannot be run on tokens (b, T) alone ({first_line(error)}); {_BY_HAND}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    if len(read) != 1:
        raise MeasureError(
            f"the head {head} of a {type(model).__name__} is called {len(read)} times in a forward pass; {_BY_HAND}"
        )
    if odd := [name for name, sample_by_sample in flat.items() if not sample_by_sample]:
        raise MeasureError(
            f"module {odd[0]} reads the positions of all sequences, and not one sequence after the other; {_BY_HAND}"
        )
    once = {name: x for name, x in outputs.items() if calls[name] == 1}
    vocabulary = len(Projection(head).weight(model))
    return _Pass(_logits_in(result, vocabulary, model), read[0], once, tuple(fed), tuple(flat))


def _in_sequence(x: Tensor, b: int, length: int) -> bool:
    """Return whether rows (b·T, width) are two sequences, one after the other, that differ in the last token."""
    rows = x.detach().unflatten(0, (b, length))
    return _close(rows[0, :-1], rows[1, :-1])


def _logits_in(result: Any, vocabulary: int, model: nn.Module) -> Tensor:
    """Return the logits (2, t, V) in what a model returns: t is T, or 1 for the last position alone."""
    given = getattr(result, "logits", None)
    several = tuple(result) if isinstance(result, tuple | list) else ()
    for candidate in (given, result, *several):
        if isinstance(candidate, Tensor) and candidate.ndim == 3 and candidate.shape[-1] == vocabulary:
            return candidate.detach()
    raise MeasureError(f"a {type(model).__name__} returns no logits (b, T, {vocabulary}); {_BY_HAND}")


def _final(seen: _Pass, head: str, expected: str, length: int) -> str:
    """Return the place of what the head reads, for all positions."""
    read = seen.read
    matching = [
        name
        for name, x in seen.outputs.items()
        if x.shape[1] == length and x.shape[-1] == read.shape[-1] and torch.equal(x[:, -1], read[:, -1])
    ]
    if expected in matching:
        return expected
    if matching:
        return matching[-1]
    if read.shape[1] == length:
        return f"{INPUT_OF}{head}"
    raise MeasureError(
        f"the head {head} reads only some positions, and no module returns what it reads for all of them; {_BY_HAND}"
    )


def _trunk(model: nn.Module, seen: _Pass, place: str, blocks: str, head: str, tokens: Tensor) -> str:
    """Return the module that turns tokens into final states without the head, if the model has one."""
    if place.startswith(INPUT_OF):
        return ""
    for name in seen.fed:
        holds = [f"{part}.".startswith(f"{name}.") for part in (place, blocks, head)]
        if holds == [True, True, False] and _same_states(model, name, place, tokens):
            return name
    return ""


def _same_states(model: nn.Module, trunk: str, place: str, tokens: Tensor) -> bool:
    try:
        alone = _states(model, trunk, place, tokens)
    except Exception:  # It needs more than the tokens, whatever it raises then.
        return False
    return torch.equal(alone, _states(model, "", place, tokens))


def _states(model: nn.Module, trunk: str, place: str, tokens: Tensor) -> Tensor:
    found: list[Tensor] = []
    handle = watch(model, place, lambda x: found.append(x.detach().clone()))
    try:
        with torch.no_grad():
            model.get_submodule(trunk)(tokens)
    finally:
        handle.remove()
    return found[-1]


def _refuse_looking_ahead(model: nn.Module, states: Tensor) -> None:
    if not _close(states[0, :-1], states[1, :-1]):
        raise MeasureError(
            f"a {type(model).__name__} is not causal: another last token changes the states before it, so that it has "
            "no loss of next tokens; measure it without losses (find_parts)"
        )


def _logits_of(model: nn.Module, head: str, states: Tensor, logits: Tensor) -> tuple[float, float | None]:
    """Return scale and bound with which the head's output is the model's."""
    with torch.no_grad():
        plain = model.get_submodule(head)(states[:, -logits.shape[1] :])
    family = Family.of(getattr(model, "config", None))

    def said(names: tuple[str, ...]) -> list[float]:
        found = (family.settings.get(name) for name in names)
        return [float(x) for x in found if isinstance(x, int | float) and not isinstance(x, bool) and x]

    scales = [*said(_FACTORS), *(1 / x for x in said(_DIVISORS)), 1.0]
    for cap in (*said(_CAPS), None):
        for scale in scales:
            if _close(softcap(plain * scale, cap).to(logits.dtype), logits):
                return scale, cap
    raise MeasureError(
        f"the logits of a {type(model).__name__} are not those of its head {head}, nor these scaled or bounded as its "
        f"configuration says, so that its losses are not known; {_BY_HAND}"
    )


def _close(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors agree up to rounding; those without numbers do."""
    return not a.numel() or bool(
        (a.double() - b.double()).abs().max() <= 1e-4 * b.double().abs().max().clamp_min(1e-12)
    )


def length_of(model: nn.Module, blocks: str, embed: str) -> int | None:
    """Return the longest input that the configuration, or else a table of positions, allows; None for no limit.

    Args:
        model: a decoder.
        blocks, embed: names of the list of blocks, in which no table is looked for, and of the token embedding.
    """
    family = Family.of(getattr(model, "config", None))
    said = family.number("max_position_embeddings", "n_positions", "block_size", "max_seq_len", "n_ctx")
    if said is not None:
        return said
    tables = [
        module.num_embeddings
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and name != embed and not name.startswith(f"{blocks}.")
        if _POSITIONS.search(name.rpartition(".")[2].lower())
    ]
    return min(tables, default=None)
