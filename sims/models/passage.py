"""Remove blocks of a `torch.nn.Module`: a module that passes the residual stream on takes the place of each.

Blocks stay at their numbers, so that what a model does by number (windows of attention, kinds of layers) stays with
the block that it belongs to. Two passes show whether the blocks form a chain, in which each reads what the one before
returns and nothing else of it, and the end of the model what the last one returns; only then a removed block is one
that the residual stream passes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sims.models.block_list import numbered
from sims.models.layout import INPUT_OF, Layout, watch, with_tensors
from sims.models.state import same_values
from sims.models.subject import FINAL
from sims.system.errors import MeasureError, first_line

# A tuple's or list's type and length, in which a block returns the stream first; None if it returns the stream alone.
Form = tuple[type, int] | None
# Runs a model on a few samples and returns what it computes of them.
Run = Callable[[nn.Module], Tensor]

# Tokens of a sequence of such a run.
FEW = 4
_REMEDY = "remove blocks only from a model whose blocks follow each other on one residual stream"


class Passage(nn.Module):
    """Return the residual stream unchanged, in the form in which the block in this place returned it.

    Args:
        block: what it takes the place of; settings that are read from it (kind of attention, number) are kept.
        form: of its output; what it returned beside the stream becomes None.
        stream: returned in place of the first argument, if it is given.
    """

    def __init__(self, block: nn.Module, form: Form, stream: Tensor | None = None) -> None:
        super().__init__()
        for name, value in vars(block).items():
            if not name.startswith("_") and not hasattr(Passage, name):
                setattr(self, name, value)
        self._form, self._stream = form, stream

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the first argument."""
        x = _first(args, kwargs) if self._stream is None else self._stream
        if self._form is None:
            return x
        kind, length = self._form
        # A named tuple takes its fields one by one, and has a function for all at once.
        return getattr(kind, "_make", kind)((x, *[None] * (length - 1)))


@dataclass(frozen=True, eq=False)
class BlockChain:
    """Hold the blocks of a model, each of which reads what the one before returns. Create it with `BlockChain.of`.

    Args:
        model: not changed.
        places: block → name of its module, in the order of the forward pass.
        forms: block → form of its output.
        run: runs a model on a few samples.
    """

    model: nn.Module
    places: Mapping[int, str]
    forms: Mapping[int, Form]
    run: Run

    @classmethod
    def of(cls, model: nn.Module, sites: Mapping[str, str], run: Run) -> BlockChain:
        """Run a model to see that its blocks form a chain.

        Args:
            model: hooks are removed afterwards.
            sites: with the modules of all blocks as "blocks.0", ….
            run: runs a model on a few samples, and returns what depends on all blocks.

        Raises:
            MeasureError: a site that is no output of a module; a block that is not called exactly once, changes the
                shape of the stream, does not read exactly what the block before returns (skips, stages), or reads
                something else that an earlier block returns; or an end of the model that reads more than the stream
                after the last block.
        """
        places = {block: sites[f"blocks.{block}"] for block in numbered(sites)}
        if wrong := [place for place in places.values() if place.startswith(INPUT_OF)]:
            raise MeasureError(
                f"the site of a block is the {wrong[0]!r}; name the module that returns the stream"
            )
        seen, found = _watched(model, places, run)
        previous: list[_Seen] = []
        for block in seen:
            _check(block, previous, places)
            previous.append(block)
        whole = cls(model, places, {own.block: own.form for own in seen}, run)
        end = whole._replaced(places, previous[-1].returned)
        if not torch.allclose(_tried(run, end, "on the stream after its last block"), found, equal_nan=True):
            raise MeasureError(
                f"what follows the blocks of a {type(model).__name__} reads more of them than the stream after the "
                f"last one; {_REMEDY}"
            )
        return whole

    def without(self, removed: Collection[int]) -> nn.Module:
        """Return a copy of the model's structure, on the same weights, in which the stream passes some blocks.

        Raises:
            MeasureError: it cannot be run without them.
        """
        short = self._replaced(removed)
        _tried(self.run, short, f"without blocks {', '.join(map(str, removed))}")
        return short

    def _replaced(self, blocks: Collection[int], stream: Tensor | None = None) -> nn.Module:
        """Return a copy with a passage in the place of each block; the first returns a given stream."""
        short = with_tensors(self.model, lambda tensor: tensor)
        for block in blocks:
            parent, _, leaf = self.places[block].rpartition(".")
            passage = Passage(short.get_submodule(self.places[block]), self.forms[block], stream)
            setattr(short.get_submodule(parent), leaf, passage)
            stream = None
        return short


def final_states(layout: Layout, model: nn.Module) -> Tensor:
    """Return the final states of a few tokens."""
    length = min(FEW, layout.length or FEW)
    head = model.get_submodule(layout.head).weight
    assert isinstance(head, Tensor)
    tokens = torch.arange(2 * length, device=head.device).remainder(len(head)).view(2, length)
    found: list[Tensor] = []
    handle = watch(model, layout.sites[FINAL], found.append)
    try:
        model.get_submodule(layout.trunk)(tokens)
    finally:
        handle.remove()
    return found[-1]


@dataclass(eq=False)
class _Seen:
    """What a block was given and returned in a pass; the stream as copies."""

    block: int
    calls: int = 0
    read: Tensor | None = None
    given: tuple[Any, ...] = ()
    returned: Tensor | None = None
    more: tuple[Tensor, ...] = ()
    form: Form = None


def _watched(model: nn.Module, places: Mapping[int, str], run: Run) -> tuple[list[_Seen], Tensor]:
    """Run a model and return what its blocks read and returned, and what the run gave."""
    seen = [_Seen(block) for block in places]
    handles = []
    try:
        for own in seen:
            module = model.get_submodule(places[own.block])
            handles.append(module.register_forward_pre_hook(_before(own), with_kwargs=True))
            handles.append(module.register_forward_hook(_after(own)))
        return seen, _tried(run, model, "with all blocks")
    finally:
        for handle in handles:
            handle.remove()


def _before(own: _Seen) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        own.calls += 1
        x = _first(args, kwargs)
        own.read = x.detach().clone() if isinstance(x, Tensor) else None
        own.given = (*args, *kwargs.values())

    return hook


def _after(own: _Seen) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        x = output
        if isinstance(output, tuple | list) and len(output) > 0:
            x, *more = output
            own.form = (type(output), len(output))
            own.more = tuple(tensor for tensor in _tensors(more) if tensor is not x)
        own.returned = x.detach().clone() if isinstance(x, Tensor) else None

    return hook


def _check(own: _Seen, previous: list[_Seen], places: Mapping[int, str]) -> None:
    what = f"block {own.block} ({places[own.block]})"
    if own.calls != 1:
        raise MeasureError(f"{what} is called {own.calls} times in a forward pass, not once; {_REMEDY}")
    if own.read is None or own.returned is None:
        raise MeasureError(f"{what} does not take and return a tensor of states; {_REMEDY}")
    if own.read.shape != own.returned.shape or own.read.dtype != own.returned.dtype:
        raise MeasureError(
            f"{what} takes states {tuple(own.read.shape)} and returns {tuple(own.returned.shape)}: a stream of another "
            f"shape cannot pass it; {_REMEDY}"
        )
    if not previous:
        return
    last = previous[-1]
    assert last.returned is not None
    if not same_values(own.read, last.returned):
        raise MeasureError(
            f"{what} does not read exactly what block {last.block} returns (skips between blocks, or something between "
            f"them): its removal would not be the identity; {_REMEDY}"
        )
    earlier = {id(tensor): each.block for each in previous for tensor in each.more}
    if taken := [earlier[id(tensor)] for tensor in _tensors(own.given) if id(tensor) in earlier]:
        raise MeasureError(
            f"{what} reads more of block {taken[0]} than the residual stream (values or keys that are passed on): the "
            f"removal of that block would not be the identity; {_REMEDY}"
        )


def _first(args: Any, kwargs: Mapping[str, Any]) -> Any:
    return args[0] if args else next(iter(kwargs.values()), None)


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, Mapping):
        yield from _tensors(tuple(value.values()))


def _tried(run: Run, model: nn.Module, how: str) -> Tensor:
    """Return what a run gives, or say in one line why it failed."""
    try:
        with torch.no_grad():
            return run(model)
    except MeasureError:
        raise
    except Exception as error:
        # Code of others raises whatever it stumbles over.
        raise MeasureError(
            f"a {type(model).__name__} cannot be run {how} ({first_line(error)}); {_REMEDY}"
        ) from error
