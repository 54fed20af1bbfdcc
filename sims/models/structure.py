"""The embedding, the list of blocks, the head and the matrices of a module, by its structure alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import takewhile

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from sims.models.cuts import Family, cuts
from sims.models.layout import INPUT_OF, Projection
from sims.models.names import part_name, standard_name
from sims.models.subject import EMBED, FINAL, HEAD
from sims.system.plain import some


class Structure:
    """The embedding, the blocks and the head of a model, by structure."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        # A module of several names is called once under the first.
        self.modules = {name: module for name, module in model.named_modules() if name}
        self._names = {id(module): name for name, module in self.modules.items()}
        self.family = Family.of(getattr(model, "config", None))
        given = _asked(model, "get_input_embeddings")
        table = self._names.get(id(given)) if isinstance(given, nn.Embedding) else None
        self.blocks, self.staged = _block_list(self.modules, table)
        self.embed = table or self._embedding()
        self.head = self._head()

    def matrices(self) -> tuple[dict[str, Projection], list[str]]:
        """Return name → place of every matrix, and notes on tensors that are none."""
        found: dict[str, Projection] = {}
        skipped = []
        for module_name, parameter, tensor in self._tensors():
            own = f"{module_name}.{parameter}" if module_name else parameter
            module = self.model.get_submodule(module_name)
            turned = True if type(module).__name__ == "Conv1D" else None if self.family.kind else False
            if tensor.ndim == 2 and isinstance(module, nn.Linear | nn.Embedding):
                turned = False
            parts = cuts(
                _plain(own),
                self._standard(own, module_name),
                tensor.shape,
                self.family,
                turned,
                isinstance(module, _ConvNd),
            )
            if isinstance(parts, str):
                skipped.append(f"{own} ({parts})")
                continue
            taken = any(cut.name in found for cut in parts)
            for cut in parts:
                name = _plain(own.removesuffix(".weight")) if taken else cut.name
                found[name] = Projection(module_name, cut.rows, parameter, cut.index, cut.turned)
        return found, [f"not matrices: {some(skipped)}"] if skipped else []

    def sites(self, matrices: Mapping[str, Projection]) -> dict[str, str]:
        """Return site → module, in the order of registration, which is that of the forward pass as a rule."""
        if self.blocks is None and not self.staged:
            own = dict.fromkeys(owner for p in matrices.values() if (owner := _owner(p.module)))
            return {_plain(name): name for name in own}
        found = {}
        if self.blocks is None:
            for name in self.staged:
                found |= {
                    _plain(f"{name}.{child}"): f"{name}.{child}"
                    for child, _ in self.modules[name].named_children()
                }
            return found
        children = [child for child, _ in self.modules[self.blocks].named_children()]
        if self.embed is not None:
            # Positions, norms and scales are in it, wherever the model's code puts them.
            found[EMBED] = f"{INPUT_OF}{self.blocks}.{children[0]}"
        found |= {f"blocks.{i}": f"{self.blocks}.{child}" for i, child in enumerate(children)}
        found[FINAL] = self._before_head(f"{self.blocks}.{children[-1]}")
        return found

    def _tensors(self) -> Iterator[tuple[str, str, Tensor]]:
        """Yield module, name and parameter of each parameter of two or more axes; tied ones once."""
        # A tied weight is the embedding's, wherever it is registered first.
        table = None if self.embed is None else self.modules[self.embed].weight
        for name, tensor in self.model.named_parameters():
            own = f"{self.embed}.weight" if tensor is table else name
            if tensor.ndim > 1:
                module, _, parameter = own.rpartition(".")
                yield module, parameter, tensor

    def _standard(self, own: str, module: str) -> str:
        if module and module == self.embed:
            return EMBED
        if module and module == self.head:
            return HEAD
        if self.blocks is not None and (
            inside := re.fullmatch(rf"{re.escape(self.blocks)}\.(\w+)\.(.+)", own)
        ):
            order = [child for child, _ in self.modules[self.blocks].named_children()]
            return f"blocks.{order.index(inside[1])}.{part_name(_plain(inside[2]))}"
        own = _plain(own)
        name = standard_name(own)
        # "embed" and "head" are those that were found.
        return own.removesuffix(".weight") if name in (EMBED, HEAD) or name.startswith("blocks.") else name

    def _embedding(self) -> str | None:
        tables = {
            n: m for n, m in self.modules.items() if isinstance(m, nn.Embedding) and not self._inside(n)
        }
        named = [name for name in tables if standard_name(name) == EMBED]
        # Positions are a table too: the tokens are the larger one, as a rule.
        return (named or sorted(tables, key=lambda n: -tables[n].num_embeddings) or [None])[0]

    def _head(self) -> str | None:
        given = _asked(self.model, "get_output_embeddings")
        if isinstance(given, nn.Linear):
            return self._names.get(id(given))
        outside = [n for n, m in self.modules.items() if isinstance(m, nn.Linear) and not self._inside(n)]
        order = list(self.modules)
        if self.blocks is not None:
            after = order.index(self.blocks)
            outside = [name for name in outside if order.index(name) > after]
        elif self.embed is None or self.staged:
            return None
        if self.embed is not None:
            rows = _rows(self.modules[self.embed])
            outside = [n for n in outside if standard_name(n) == HEAD or _rows(self.modules[n]) == rows]
        return outside[-1] if outside else None

    def _inside(self, name: str) -> bool:
        lists = self.staged if self.blocks is None else (self.blocks,)
        return any(name.startswith(f"{own}.") for own in lists)

    def _before_head(self, last: str) -> str:
        """Return the place of what the head reads.

        It is a norm's output if that is all that follows the blocks and has weights (one without may be used twice).
        """
        order = list(self.modules)
        after = [
            name
            for name in order[order.index(last) :]
            if not name.startswith(f"{self.blocks}.")
            and name not in (self.head, self.embed)
            and any(True for _ in self.modules[name].parameters(recurse=False))
        ]
        if len(after) == 1 and _is_norm(after[0], self.modules[after[0]]):
            return after[0]
        if self.head is not None:
            return f"{INPUT_OF}{self.head}"
        return next((name for name in reversed(after) if _is_norm(name, self.modules[name])), last)


def _plain(name: str) -> str:
    """Return a name without the marks of modules that were compiled one by one.

    >>> _plain("blocks.0._orig_mod.attn"), _plain("head._orig_mod")
    ('blocks.0.attn', 'head')
    """
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def _owner(module: str) -> str:
    """Return the module that is called on states, of a weight that is computed from others (a parametrization).

    >>> _owner("net.0.parametrizations.weight"), _owner("parametrizations.weight"), _owner("net.0")
    ('net.0', '', 'net.0')
    """
    return re.sub(r"(^|\.)parametrizations\.\w+$", "", module)


def _is_norm(name: str, module: nn.Module) -> bool:
    leaf = not any(True for _ in module.children())
    return leaf and (
        "norm" in type(module).__name__.lower() or re.search(r"(^|[._])(norm|ln)", name) is not None
    )


def _rows(module: nn.Module) -> int:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.shape[0]


def _asked(model: nn.Module, method: str) -> nn.Module | None:
    """Return what a method of transformers returns; None where a model has no such method, or no such part."""
    try:
        return getattr(model, method)()
    except (AttributeError, NotImplementedError):
        return None


def _block_list(modules: Mapping[str, nn.Module], table: str | None) -> tuple[str | None, tuple[str, ...]]:
    """Return the list of blocks, and of a model in stages all of its lists.

    A list holds modules of one class with modules and weights inside; experts are no blocks, and lists within the
    blocks of another list are not counted. Stages (ResNet, Swin, an encoder and a decoder) are several lists of one
    class or length.
    """
    lists = {name: list(m.children()) for name, m in modules.items() if _is_list(name, m)}
    whole = [name for name in lists if len(lists[name]) > 1 or _is_named(name)]
    outer = [name for name in lists if not any(name.startswith(f"{other}.") for other in whole)]
    several = [name for name in outer if len(lists[name]) > 1]
    if not (found := several or outer[:1]):
        return None, ()
    # Of a model with an encoder of images, that of the text lies beside the table of tokens.
    near = {name: _common(name, table or "") for name in found}
    found = [name for name in found if near[name] == max(near.values())]
    longest = max(found, key=lambda name: len(lists[name]))
    first = type(lists[longest][0])
    alike = [
        name
        for name in outer
        if near.get(name, 0) == near[longest]
        and (type(lists[name][0]) is first or (name in several and len(lists[name]) == len(lists[longest])))
    ]
    return (longest, ()) if len(alike) == 1 else (None, tuple(alike))


def _is_named(name: str) -> bool:
    return name.rpartition(".")[2] in ("h", "layers", "blocks", "layer", "block")


def _common(a: str, b: str) -> int:
    """Return how many modules two names have in common from the top."""
    return sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a.split("."), b.split("."), strict=False))
    )


def _is_list(name: str, module: nn.Module) -> bool:
    children = list(module.children())
    if (
        not isinstance(module, nn.ModuleList | nn.Sequential | nn.ModuleDict)
        or not children
        or "expert" in name
    ):
        return False
    if isinstance(module, nn.ModuleDict) and not all(key.isdigit() for key in module):
        return False
    weighty = all(
        any(p.ndim > 1 for p in child.parameters()) and any(True for _ in child.children())
        for child in children
    )
    return weighty and (_is_named(name) or len({type(child) for child in children}) == 1)
