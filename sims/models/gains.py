"""Find the gain of the norm that a matrix reads: W·diag(gain) is what the model computes of the normalised state.

A gain g can be divided by any number (each entry by its own) and the columns of W multiplied by it, without any change
of the model: the spectrum of W changes, that of W·diag(g) does not. Which norm a matrix reads is seen in one forward
pass; names do not tell it (a norm may come after a block, or before another).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sims.models.layout import INPUT_OF, Projection, routed
from sims.models.module import ModuleSubject
from sims.models.passage import final_states
from sims.models.subject import FINAL
from sims.models.watched import WatchedSubject


@dataclass(frozen=True)
class Norm:
    """A norm with a gain.

    Args:
        module: its name in the model.
        offset: 1 where the gain is 1 + weight, 0 where it is the weight.
    """

    module: str
    offset: float

    def gain(self, model: nn.Module) -> Tensor:
        """Return its gain (width,) as it is now, float64."""
        weight = model.get_submodule(self.module).weight
        assert isinstance(weight, Tensor)
        return weight.detach().double() + self.offset


# Linear module → the norm that it reads, of models that were seen.
_SEEN: WeakKeyDictionary[nn.Module, Mapping[str, Norm]] = WeakKeyDictionary()


def norm_gains(subject: Any) -> dict[str, Tensor]:
    """Return the gains (columns,) of the norms before matrices, by the name of the matrix (see `norms_read`)."""
    return {name: norm.gain(subject.model) for name, norm in norms_read(subject).items()}


def norms_read(subject: Any) -> dict[str, Norm]:
    """Return the norms with a gain that matrices read, by the name of the matrix.

    Matrices that read no norm, a norm without a gain or several norms are not in it; nor are those of a model that
    cannot be run (watched without a probe), or of this package, whose norms have no gains.

    Args:
        subject: a `Subject`, or a watched model. It is run on a few tokens when it is first seen.
    """
    places: Mapping[str, Projection]
    final = head = ""
    if isinstance(subject, ModuleSubject):
        places, run = subject.layout.matrices, partial(final_states, subject.layout, subject.model)
        final, head = subject.layout.sites[FINAL], subject.layout.head
    elif isinstance(subject, WatchedSubject) and subject.probe is not None:
        places, run = subject.parts.matrices, partial(subject.few_outputs, subject.model)
    else:
        return {}
    model: nn.Module = subject.model
    if model not in _SEEN:
        norms = _norms_read(model, run)
        if final and not final.startswith(INPUT_OF) and (last := _norm(final, model.get_submodule(final))):
            # The pass ends before the head.
            norms[head] = last
        _SEEN[model] = norms
    norms = _SEEN[model]
    return {
        name: norms[place.module]
        for name, place in places.items()
        if place.module in norms and place.is_linear(model) and not routed(name)
    }


def _norms_read(model: nn.Module, run: Callable[[], Any]) -> dict[str, Norm]:
    """Return the norm that each linear module reads, from one forward pass."""
    norms = {
        name: norm for name, module in model.named_modules() if (norm := _norm(name, module)) is not None
    }
    # Outputs are kept, so that no later tensor lies where one of them did.
    outputs: list[tuple[str, Tensor]] = []
    read: dict[str, set[str | None]] = {}

    def returned(name: str, module: nn.Module, args: Any, output: Any) -> None:
        outputs.append((name, output))

    def given(name: str, module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        x = args[0] if args else next(iter(kwargs.values()), None)
        source = next((own for own, output in reversed(outputs) if _same(x, output)), None)
        read.setdefault(name, set()).add(source)

    with torch.no_grad(), _hooked() as handles:
        for name, module in model.named_modules():
            if name in norms:
                handles.append(module.register_forward_hook(partial(returned, name)))
            elif isinstance(getattr(module, "weight", None), Tensor) and not any(module.children()):
                handles.append(module.register_forward_pre_hook(partial(given, name), with_kwargs=True))
        run()
    single = {name: next(iter(sources)) for name, sources in read.items() if len(sources) == 1}
    return {name: norms[source] for name, source in single.items() if source is not None}


def _same(x: Any, output: Any) -> bool:
    """Return whether a tensor is the output of a norm, in another shape or not."""
    if not isinstance(x, Tensor) or not isinstance(output, Tensor):
        return False
    return x.data_ptr() == output.data_ptr() and x.numel() == output.numel() and x.dtype == output.dtype


def _norm(name: str, module: nn.Module) -> Norm | None:
    """Return a norm whose gain multiplies the last axis; None for any other module."""
    weight = getattr(module, "weight", None)
    if "norm" not in type(module).__name__.lower() or any(module.children()):
        return None
    if not isinstance(weight, Tensor) or weight.ndim != 1:
        return None
    draw = torch.Generator().manual_seed(weight.numel())
    x = torch.randn(1, 3, weight.numel(), generator=draw).to(weight)
    drawn = torch.randn(weight.shape, generator=draw).to(weight)
    plain = {"bias": torch.zeros_like(weight)} if isinstance(getattr(module, "bias", None), Tensor) else {}

    def out(gain: Tensor) -> Tensor:
        return functional_call(module, {"weight": gain, **plain}, (x,)).double()

    try:
        with torch.no_grad():
            none, one, other = (out(g) for g in (torch.zeros_like(weight), torch.ones_like(weight), drawn))
    except Exception:
        # A module of somebody else that takes more than a state.
        return None
    offset = 1.0 if bool(none.any()) else 0.0
    wanted = one / (1 + offset) * (drawn.double() + offset)
    # The weight of a norm of channels multiplies another axis.
    fits = one.shape == x.shape and torch.allclose(
        other, wanted, rtol=1e-2, atol=1e-2 * float(other.abs().max())
    )
    return Norm(name, offset) if fits else None


@contextmanager
def _hooked() -> Iterator[list[Any]]:
    handles: list[Any] = []
    try:
        yield handles
    finally:
        for handle in handles:
            handle.remove()
