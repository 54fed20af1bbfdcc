"""Record moments of activations and factors of per-sample gradients of any model, by hooks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from spectra.arrays import brief
from spectra.errors import InputError, NotFiniteError
from spectra.factors import Factors, Inputs, OneHot
from spectra.moments import Moments
from spectra.shown import Shown

# Rows on which a module's output is compared with x Wᵀ, and the relative error allowed (bfloat16 keeps 3 digits).
CHECKED_ROWS = 8
CHECK_TOLERANCE = 0.03


@dataclass
class _Call:
    """One use of a weight in the forward pass."""

    module: str
    x: Tensor
    version: int
    edge: GradientEdge
    shape: torch.Size
    dtype: torch.dtype
    transposed: bool


class Capture(Shown):
    """Turn the recorded inputs of modules into gradient factors.

    Made by `capture_factors`; `factors` runs the backward pass.

    >>> model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    >>> with capture_factors(model, ["0", "1"]) as capture:
    ...     losses = model(torch.ones(5, 3)).square().sum(1)
    >>> list(capture.factors(losses))
    ['0', '1']
    """

    def __init__(self, names: Sequence[str], weights: dict[str, nn.Parameter]) -> None:
        self._names = tuple(names)
        self._weights = weights
        self._calls: dict[int, list[_Call]] = defaultdict(list)
        self._padding: dict[str, int | None] = {}
        self._recording = True

    def _shown(self) -> Mapping[str, object]:
        return {"modules": ", ".join(self._names)}

    def factors(self, losses: Tensor) -> dict[str, tuple[Factors, ...]]:
        """Compute the factors of every named module's weight gradient.

        One backward pass of Σ_m L_m to the captured outputs; gradients of parameters are neither computed
        nor stored. It frees the graph, so it can be called once.

        Args:
            losses: (M,) loss L_m of each sample, computed inside the ``with`` block from that sample only
                (a layer that mixes samples, such as batch normalisation, has no per-sample gradient).

        Returns:
            name → terms, one for each use of the weight in the forward pass; pass them to
            `stacked_gradient_spectrum` or `sample_gradient_spectra`.

        Raises:
            InputError: losses not of shape (M,), a module that was never called, whose sample axis is not
                its first, or whose input was overwritten after the call.
        """
        if losses.ndim != 1 or not losses.requires_grad:
            raise InputError(
                f"losses have shape {tuple(losses.shape)} and requires_grad={losses.requires_grad}; "
                "pass the (M,) per-sample losses, attached to the graph of the captured forward pass"
            )
        unused = [name for name in self._names if not self._calls[id(self._weights[name])]]
        if unused:
            raise InputError(
                f"modules {unused} were not called; run the forward pass inside the with block, take the factors "
                "once, and use per_sample_gradients for a weight that the model uses without calling its module"
            )
        calls = [call for name in self._names for call in self._calls[id(self._weights[name])]]
        unique = list({id(call): call for call in calls}.values())
        # Activation checkpointing runs the modules again in the backward pass.
        self._recording = False
        try:
            gradients = torch.autograd.grad(losses.sum(), [call.edge for call in unique], allow_unused=True)
        finally:
            self._recording = True
        inputs: dict[int, Inputs] = {}
        built = {
            id(call): self._build(call, gradient, len(losses), inputs)
            for call, gradient in zip(unique, gradients, strict=True)
        }
        factors = {
            name: tuple(built[id(call)] for call in self._calls[id(self._weights[name])])
            for name in self._names
        }
        self._calls.clear()
        return factors

    def _build(
        self, call: _Call, gradient: Tensor | None, samples: int, inputs: dict[int, Inputs]
    ) -> Factors:
        if call.x._version != call.version:
            raise InputError(
                f"the input of {call.module!r} was overwritten in place after the call; make that operation "
                "out of place, or use per_sample_gradients"
            )
        if call.shape[0] != samples:
            raise InputError(
                f"module {call.module!r} returned shape {tuple(call.shape)} for {samples} losses; "
                "its first axis must "
                "be the sample (build Factors yourself where samples are laid out otherwise)"
            )
        if gradient is None:
            # A use that the losses do not depend on has a zero gradient.
            gradient = call.x.new_zeros(call.shape, dtype=call.dtype)
        d = gradient.detach().reshape(samples, -1, call.shape[-1])
        x = call.x.detach()
        if not x.is_floating_point():
            index = x.reshape(samples, -1)
            padding = self._padding[call.module]
            if padding is not None:
                d = d.masked_fill((index == padding).unsqueeze(-1), 0.0)
            rows = self._rows_of(call.module)
            return Factors(d, OneHot(index, rows))
        if call.transposed:
            return Factors(d, x.reshape(samples, -1, x.shape[-1]))
        # The same tensor fed to several layers (q, k, v) becomes one Inputs, which they share.
        if id(call.x) not in inputs:
            inputs[id(call.x)] = Inputs(x.reshape(samples, -1, x.shape[-1]))
        return Factors(inputs[id(call.x)], d)

    def _rows_of(self, module: str) -> int:
        return self._weights[module].shape[0]

    def _record(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> Tensor:
        if not torch.is_grad_enabled():
            raise InputError(
                f"module {name!r} was called without gradients; leave torch.no_grad and activation "
                "checkpointing out of the captured forward pass"
            )
        x = args[0] if args and isinstance(args[0], Tensor) else None
        if x is None or not isinstance(output, Tensor):
            raise InputError(
                f"module {name!r} must map one tensor to one tensor; use per_sample_gradients for it"
            )
        weight = self._weights[name]
        transposed = False
        if isinstance(module, nn.Embedding):
            self._padding[name] = module.padding_idx
            if module.scale_grad_by_freq:
                raise InputError(f"module {name!r} scales gradients by frequency, which mixes the samples")
        else:
            transposed = _orientation(name, module, weight, x, output)
        if not output.requires_grad:
            # A copy of a fresh leaf, and not the leaf itself, which later in-place operations could not touch.
            output = output.detach().requires_grad_().clone()
        if self._recording:
            # The edge is taken now: a later in-place operation on the output would change it.
            call = _Call(
                name, x, x._version, get_gradient_edge(output), output.shape, output.dtype, transposed
            )
            self._calls[id(weight)].append(call)
        return output


@contextmanager
def capture_moments(
    model: nn.Module, names: Sequence[str], rows: Callable[[Any], Tensor] | None = None
) -> Iterator[dict[str, Moments]]:
    """Accumulate moments of the outputs of named modules.

        with capture_moments(model, ["layers.0", "layers.1"]) as moments:
            for batch in batches:
                model(batch)
        spectra = {name: own.spectrum() for name, own in moments.items()}

    Nothing is kept but count, mean and second moment, on the device of the outputs. Every call of a module adds rows.
    The model is unchanged afterwards, also after an exception: hooks are removed and no output is changed.

    Args:
        model: any module, in any mode, with or without gradients.
        names: as in ``model.named_modules()``.
        rows: maps a module's output to the (…, d) tensor to be measured, whose leading axes are flattened
            into rows; None for the output itself. ``lambda out: out[:, -1]`` takes the last position of each sequence:
            positions of one sequence are not independent samples.

    Yields:
        name → `Moments`, empty for a module that is not called.

    Raises:
        InputError: no names or unknown names; while the model runs, an output (or the result of rows) that is not
            a tensor of at least one axis, or that `Moments.update` rejects.

    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    >>> with capture_moments(model, ["1"]) as moments:
    ...     _ = model(torch.ones(5, 3))
    >>> moments["1"]
    Moments(count=5, d=4)
    """
    modules = _modules(model, names)
    moments = {name: Moments() for name in names}
    handles = []
    try:
        for name in moments:

            def hook(module: nn.Module, args: tuple[Any, ...], output: Any, name: str = name) -> None:
                chosen = output if rows is None else rows(output)
                if not isinstance(chosen, Tensor) or chosen.ndim < 1:
                    raise InputError(
                        f"module {name!r} gives a {type(chosen).__name__}, not a tensor of rows; pass rows= to choose "
                        "what of its output to measure"
                    )
                try:
                    moments[name].update(chosen.reshape(-1, chosen.shape[-1]))
                except InputError as error:
                    raise InputError(f"the output of module {name!r} cannot be measured: {error}") from error

            handles.append(modules[name].register_forward_hook(hook))
        yield moments
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def capture_factors(model: nn.Module, names: Sequence[str]) -> Iterator[Capture]:
    """Record the factors of the named modules' weight gradients.

        with capture_factors(model, ["blocks.0.attn.out", "head"]) as capture:
            losses = per_sequence_loss(model(tokens), targets)        # (M,)
        spectrum = stacked_gradient_spectrum(capture.factors(losses)["head"])

    Works for nn.Embedding, nn.Linear and any module with a 2-D ``weight`` that computes y = x Wᵀ (or x W) along
    its last axis, plus a bias; this is checked on the first rows. Other modules with the same parameter (a tied
    head) are captured too, and the uses of a weight are returned as terms that add up. A weight that is used
    without calling its module is not seen by the hooks: build `Factors` for it, or use `per_sample_gradients`.

    The model is unchanged afterwards, also after an exception: hooks are removed, no .grad is touched.

    Args:
        model: any module; frozen parameters are fine. The sample is the first axis of every captured
            module's input.
        names: as in ``model.named_modules()``.

    Raises:
        InputError: no names, unknown names, modules without a 2-D weight, calls under no_grad, or a module
            that does not compute x Wᵀ.

    >>> model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    >>> with capture_factors(model, ["1"]) as capture:
    ...     losses = model(torch.ones(5, 3)).square().sum(1)
    >>> capture.factors(losses)["1"]
    (Factors(M=5, T=1, out×in=2×4, dense),)
    """
    modules = _modules(model, names)
    weights = {name: _weight(name, modules[name]) for name in names}
    wanted = {id(weight) for weight in weights.values()}
    hooked: dict[int, str] = {}
    for name, module in modules.items():
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter) and id(weight) in wanted:
            # One hook for each module object; where it has several names, the requested one is used.
            hooked[id(module)] = name if name in weights or id(module) not in hooked else hooked[id(module)]
    weights |= {name: _weight(name, modules[name]) for name in hooked.values()}
    capture = Capture(names, weights)
    handles = []
    try:
        for name in hooked.values():

            def hook(module: nn.Module, args: tuple[Any, ...], output: Any, name: str = name) -> Any:
                return capture._record(name, module, args, output)

            handles.append(modules[name].register_forward_hook(hook))
        yield capture
    finally:
        for handle in handles:
            handle.remove()


def _modules(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """Return all modules by all of their names, after checking that the requested ones exist."""
    if not isinstance(model, nn.Module):
        raise InputError(f"the model is {brief(model)}; pass a torch.nn.Module")
    if (
        isinstance(names, str)
        or not isinstance(names, Sequence)
        or not all(isinstance(n, str) for n in names)
    ):
        raise InputError(f"the names are {brief(names)}; pass a list of names, as in model.named_modules()")
    modules = dict(model.named_modules(remove_duplicate=False))
    unknown = [name for name in names if name not in modules]
    if unknown or not names:
        raise InputError(
            f"the model has no modules {unknown}; choose from named_modules(): {list(modules)[1:13]}, …"
        )
    return modules


def _weight(name: str, module: nn.Module) -> nn.Parameter:
    weight = getattr(module, "weight", None)
    if not isinstance(weight, nn.Parameter) or weight.ndim != 2:
        raise InputError(
            f"module {name!r} ({type(module).__name__}) has no 2-D weight parameter; name a linear "
            "or embedding module, or use per_sample_gradients"
        )
    return weight


def _orientation(name: str, module: nn.Module, weight: nn.Parameter, x: Tensor, output: Tensor) -> bool:
    """Return False when the module computes x Wᵀ, True when it computes x W; raise InputError otherwise."""
    for tensor, what in ((weight, "weight"), (x, "input"), (output, "output")):
        bad = int((~torch.isfinite(tensor.detach())).sum())
        if bad:
            raise NotFiniteError(
                f"the {what} of module {name!r} has {bad} NaN or Inf of {tensor.numel()}; repair it first"
            )
    rows = x.flatten(0, -2)[:CHECKED_ROWS].to(weight.dtype)
    expected = output.flatten(0, -2)[:CHECKED_ROWS].to(weight.dtype)
    bias = getattr(module, "bias", None)
    with torch.no_grad():
        for transposed, candidate in ((False, weight), (True, weight.T)):
            if candidate.shape != (expected.shape[-1], rows.shape[-1]):
                continue
            computed = F.linear(rows, candidate, bias if isinstance(bias, Tensor) else None)
            # No rows, as of an expert that no sample reached, contradict neither.
            if (
                not rows.numel()
                or (computed - expected).abs().max() <= CHECK_TOLERANCE * expected.abs().max()
            ):
                return transposed
    raise InputError(
        f"module {name!r} ({type(module).__name__}) does not compute x Wᵀ with its weight of shape "
        f"{tuple(weight.shape)}; use per_sample_gradients for it"
    )
