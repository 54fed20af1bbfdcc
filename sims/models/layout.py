"""Where the sites and the matrices of a `torch.nn.Module` are."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sims.models.cuts import whole_matrix
from sims.models.state import not_weights
from sims.models.subject import EMBED, FINAL, HEAD, input_site
from sims.system.errors import MeasureError
from sims.system.plain import some

# Before the name of a module: the site is what it reads, where no module returns it.
INPUT_OF = "input of "


def watch(model: nn.Module, place: str, seen: Callable[[Tensor], None]) -> RemovableHandle:
    """Call a function with the activation at a place in every forward pass; the handle's `remove` ends it.

    Args:
        model: the module.
        place: name of a module, for its output (of a tuple the first entry), or "input of" one, for its first argument.
        seen: takes the activation.

    Raises:
        MeasureError: while the model runs, an output that is not a tensor.

    >>> import torch
    >>> model, found = nn.Sequential(nn.Linear(3, 2)), []
    >>> handle = watch(model, "input of 0", found.append)
    >>> _ = model(torch.ones(5, 3))
    >>> handle.remove(); found[0].shape
    torch.Size([5, 3])
    """

    def after(module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        if place.startswith(INPUT_OF):
            output = args[0] if args else next(iter(kwargs.values()))
        seen(activation(output, place))

    return model.get_submodule(place.removeprefix(INPUT_OF)).register_forward_hook(after, with_kwargs=True)


def activation(output: Any, place: str) -> Tensor:
    """Return the tensor that a module returns, alone or as the first entry of a tuple or a mapping.

    Raises:
        MeasureError: it is something else.
    """
    first = output
    if isinstance(output, Mapping):
        first = next(iter(output.values()), None)
    elif isinstance(output, tuple | list) and output:
        first = output[0]
    if not isinstance(first, Tensor):
        raise MeasureError(
            f"the activation at {place} is a {type(output).__name__}, not a tensor; name a module that returns one"
        )
    return first


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model without the wrappers of torch.compile, DataParallel and DistributedDataParallel.

    >>> inner = nn.Linear(2, 2)
    >>> unwrapped(nn.DataParallel(inner)) is inner
    True

    Raises:
        MeasureError: a model whose weights are sharded over processes (FSDP).
    """
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            break
        model = inner
    for name, module in model.named_modules():
        sharded = any(type(p).__name__ == "DTensor" for p in module.parameters(recurse=False))
        if sharded or type(module).__name__.startswith(("FSDP", "FullyShardedDataParallel")):
            raise MeasureError(
                f"{name or 'the model'} is a {type(module).__name__}, whose weights are spread over processes; measure "
                "a checkpoint of its full state instead"
            )
    return model


def with_tensors(model: nn.Module, change: Callable[[Tensor], Tensor]) -> nn.Module:
    """Return a copy of a model's structure with changed parameters and buffers; tied ones stay tied."""
    # deepcopy takes what the memo holds as the copy, so that no tensor is duplicated.
    memo: dict[int, Any] = {id(tensor): change(tensor) for tensor in (*model.parameters(), *model.buffers())}
    copied = copy.deepcopy(model, memo)
    # Models of transformers keep keys and values for the next token, which nobody asks for here.
    config: Any = getattr(copied, "config", None)
    if getattr(config, "use_cache", False) is True:
        config.use_cache = False
    return copied


@dataclass(frozen=True, eq=False)
class Projection:
    """The place of one matrix in a model.

    Args:
        module: name of a module, as in ``model.named_modules()``.
        rows: rows of the weight that form the matrix (q of a fused q, k, v); None for all of them.
        parameter: name of the weight in its module: a matrix, a kernel (out, in, k, …), or several matrices (E, a, b).
        index: which of several matrices; None for one.
        turned: the weight is kept as (in, out).
    """

    module: str
    rows: slice | Tensor | None = None
    parameter: str = "weight"
    index: int | None = None
    turned: bool = False

    def weight(self, model: nn.Module) -> Tensor:
        """Return the whole parameter."""
        weight = getattr(model.get_submodule(self.module), self.parameter)
        assert isinstance(weight, Tensor)  # Layout.check
        return weight

    def of(self, model: nn.Module) -> Tensor:
        """Return the matrix (rows, cols): a view, or a copy if the rows are not adjacent."""
        return self.cut(self.weight(model).detach())

    def cut(self, weight: Tensor) -> Tensor:
        """Return the matrix of a tensor like the parameter (its gradient, its update)."""
        whole = whole_matrix(weight, self.index, self.turned)
        return whole if self.rows is None else whole[self.rows]

    def has_factors(self, name: str, model: nn.Module) -> bool:
        """Return whether its per-sample gradient is a product of two factors: not of tables, routers and experts."""
        return (
            name not in (EMBED, HEAD)
            and not routed(name)
            and self.parameter == "weight"
            and self.weight(model).ndim == 2
        )

    def is_linear(self, model: nn.Module) -> bool:
        """Return whether its module computes Wx + b at every position."""
        module = model.get_submodule(self.module)
        turned = self.turned and type(module).__name__ == "Conv1D"  # of transformers: a linear map
        return self.parameter == "weight" and (isinstance(module, nn.Linear) or turned)


class Matrices(Mapping[str, Tensor]):
    """Matrices by name, cut out when they are read."""

    def __init__(self, model: nn.Module, projections: Mapping[str, Projection]) -> None:
        self._model = model
        self._projections = projections

    def __getitem__(self, name: str) -> Tensor:
        return self._projections[name].of(self._model)

    def __iter__(self) -> Iterator[str]:
        return iter(self._projections)

    def __len__(self) -> int:
        return len(self._projections)


def sites_outside(sites: Mapping[str, str], modules: Sequence[str]) -> dict[str, str]:
    """Return the sites that are no outputs of some modules or of what lies in them; "embed" and "final" stay."""
    return {s: place for s, place in sites.items() if s in (EMBED, FINAL) or _outside(place, modules)}


def matrices_outside(matrices: Mapping[str, Projection], modules: Sequence[str]) -> dict[str, Projection]:
    """Return the matrices that do not lie in some modules."""
    return {name: place for name, place in matrices.items() if _outside(place.module, modules)}


def _outside(place: str, modules: Sequence[str]) -> bool:
    return not any(f"{place.removeprefix(INPUT_OF)}.".startswith(f"{name}.") for name in modules)


def routed(name: str) -> bool:
    """Return whether a matrix is that of a router or of one of its experts, which do not read every position."""
    return name.endswith(".router") or ".experts." in f".{name}."


@dataclass(frozen=True)
class Layout:
    """The modules that are the sites and the matrices of a model.

    Args:
        sites: site → module whose output (b, T, width) it is, in the order of the forward pass (see `watch`). "final",
            the input of the head, must be one of them.
        matrices: name → projection; "embed", whose rows are the tokens, must be one of them. Matrices of one block with
            the names of the toy transformer ("blocks.0.attn.q", …) share input sites (see `input_site`).
        head: name of the linear module that turns final states into logits.
        trunk: module that is run on the tokens, "" for the model itself; a trunk without the head avoids computing
            logits that are not used.
        softcap: c of logits c·tanh(z/c); None for no bound.
        length: longest input, None for no limit.
        scale: s of logits z = s·(Wx + b).
        flat: linear modules that are given (b·T, in), one sequence after the other.
    """

    sites: Mapping[str, str]
    matrices: Mapping[str, Projection]
    head: str
    trunk: str = ""
    softcap: float | None = None
    length: int | None = None
    scale: float = 1.0
    flat: tuple[str, ...] = ()

    def input_sites(self, model: nn.Module) -> dict[str, str]:
        """Return matrix → site that it multiplies, for the matrices of linear modules."""
        return {
            name: FINAL if projection.module == self.head else input_site(name)
            for name, projection in self.matrices.items()
            if projection.is_linear(model) and not routed(name)
        }

    def without(self, modules: Sequence[str]) -> Layout:
        """Return the layout without the sites and matrices of some modules and of what lies in them."""
        return replace(
            self,
            sites=sites_outside(self.sites, modules),
            matrices=matrices_outside(self.matrices, modules),
            flat=tuple(name for name in self.flat if _outside(name, modules)),
        )

    def check(self, model: nn.Module) -> None:
        """Refuse a layout that does not fit the model.

        Raises:
            MeasureError: a missing module, no "final" or no "embed", a weight that is not a matrix, a head that is not
                linear, or a site with the name of a matrix's input.
        """
        modules = dict(model.named_modules(remove_duplicate=False))
        places = [place.removeprefix(INPUT_OF) for place in self.sites.values()]
        named = [*places, *self.flat, *(p.module for p in self.matrices.values()), self.head, self.trunk]
        if unknown := sorted({name for name in named if name not in modules}):
            raise MeasureError(
                f"the model has no modules {', '.join(unknown)}; choose from named_modules(): "
                f"{', '.join(list(modules)[1:13])}, …"
            )
        if FINAL not in self.sites or EMBED not in self.matrices:
            raise MeasureError(
                f"a layout names the site {FINAL!r} (what the head reads) and the matrix {EMBED!r} (the token "
                f"embedding); this one has sites {', '.join(self.sites)} and matrices {', '.join(self.matrices)}"
            )
        for name, projection in self.matrices.items():
            weight = getattr(modules[projection.module], projection.parameter, None)
            axes = 2 if projection.index is None else 3
            if not isinstance(weight, Tensor) or weight.ndim < axes:
                raise MeasureError(
                    f"{name}: module {projection.module} ({type(modules[projection.module]).__name__}) has no {axes}-D "
                    f"{projection.parameter}; name a linear or embedding module"
                )
        if not isinstance(modules[self.head], nn.Linear):
            raise MeasureError(
                f"the head {self.head} is a {type(modules[self.head]).__name__}; it must be an nn.Linear, whose rows "
                "the final state is compared with"
            )
        inputs = set(self.input_sites(model).values()) - {FINAL}
        if taken := sorted(inputs & set(self.sites)):
            raise MeasureError(
                f"the sites {', '.join(taken)} have the names of the inputs of matrices, which need no entry in sites; "
                "take them out or rename them"
            )


def check_module(model: Any) -> None:
    """Refuse what is no module, and weights that cannot be measured as they are.

    Raises:
        MeasureError: something else, or weights that are not dense tensors of real floating-point numbers.
    """
    if not isinstance(model, nn.Module):
        remedy = (
            "build the module and call its load_state_dict with it"
            if isinstance(model, Mapping)
            else "pass the module itself (for model.parameters(), the model)"
        )
        raise MeasureError(f"the model is a {type(model).__name__}; it must be a torch.nn.Module: {remedy}")
    if wrong := [f"{name} is {why}" for name, p in model.named_parameters() if (why := not_weights(p))]:
        raise MeasureError(
            f"{some(wrong)}; weights must be dense real floating-point tensors with values: load and convert the model "
            "before it is measured"
        )
