"""Find the parts of any `torch.nn.Module` that can be measured: the stream between its blocks, and its weight matrices.

Found by structure: the list of blocks is the longest list of modules of one class with weights; embedding and head
are what `get_input_embeddings` and `get_output_embeddings` return, or else the nn.Embedding and the nn.Linear
before and behind the blocks. Nothing is run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from sims.models.decoder import ending, length_of
from sims.models.layout import INPUT_OF, Layout, Projection, check_module, routed, unwrapped
from sims.models.names import LEAVES, short
from sims.models.structure import Structure
from sims.models.subject import EMBED, FINAL, HEAD
from sims.system.errors import MeasureError
from sims.system.plain import some

__all__ = ["Parts", "find_parts", "layout_of", "unwrapped"]

# More modules than a table by layer can show.
MANY = 200


@dataclass(frozen=True)
class Parts:
    """Where the parts of a module are.

    Args:
        sites: site → module whose output it is, in the order of the forward pass: "embed", "blocks.0", …, "final", or
            the names of the modules themselves where there are no blocks. Where no module returns it, "input of NAME"
            is the first argument of module NAME (`sims.models.layout.watch` hooks both).
        matrices: name → place.
        embed, head, blocks: modules of the token embedding, of the head, and the list of blocks; None where there is
            none.
        notes: what a user should know: tensors that are no matrices, or a very long list of parts.
    """

    sites: Mapping[str, str]
    matrices: Mapping[str, Projection]
    embed: str | None = None
    head: str | None = None
    blocks: str | None = None
    notes: tuple[str, ...] = ()


def find_parts(model: nn.Module, layers: Sequence[str] = ()) -> Parts:
    """Find the sites and matrices of a model.

    Args:
        model: any module; wrappers are taken off.
        layers: names or patterns (``*``, ``?``, ``[…]``) of modules, sites or matrices to keep; all if empty. A
            module's name keeps what lies in it, too.

    Raises:
        MeasureError: a pattern that matches nothing, sharded or quantised weights, or no matrix.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> find_parts(model).sites, list(find_parts(model, ["0"]).matrices)
    ({'0': '0', '2': '2'}, ['0'])
    """
    model = unwrapped(model)
    check_module(model)
    structure = Structure(model)
    matrices, notes = structure.matrices()
    if not matrices:
        why = "".join(f" ({note})" for note in notes)
        raise MeasureError(
            f"a {type(model).__name__} has no weight matrix{why}; pass the model whose weights are trained"
        )
    sites = structure.sites(matrices)
    if not layers and structure.blocks is None and len(sites) > MANY:
        notes.append(f"{len(sites)} modules have weights; choose some by name or pattern")
    found = Parts(sites, matrices, structure.embed, structure.head, structure.blocks, tuple(notes))
    return _chosen(found, model, layers) if layers else found


def layout_of(model: nn.Module) -> Layout:
    """Return the layout of a decoder: tokens in, a linear head at the end.

    It is run once on four tokens, in a copy of its structure that shares the weights: what the head reads, the
    scale and bound of logits and causality are seen, not guessed.

        subject = ModuleSubject.of(model, layout_of(model), step=1_000)

    Raises:
        MeasureError: no embedding, blocks or linear head; not causal; or logits that are not the head's.
    """
    model = unwrapped(model)
    parts = find_parts(model)
    embed, blocks, head = parts.embed, parts.blocks, parts.head
    if embed is None or blocks is None or head is None:
        found = (("token embedding", embed), ("list of blocks", blocks), ("linear head", head))
        missing = [what for what, name in found if name is None]
        raise MeasureError(
            f"a {type(model).__name__} is no decoder: it has no {' and no '.join(missing)}; measure its activations "
            "and weights (find_parts), or name its sites (sims.models.layout.Layout)"
        )
    longest = length_of(model, blocks, embed)
    rows = min(len(Projection(name).weight(model)) for name in (embed, head))
    inside = (p for name, p in parts.matrices.items() if name.startswith("blocks.") and not routed(name))
    linear = list(dict.fromkeys(place.module for place in inside if place.is_linear(model)))
    end = ending(model, blocks, head, parts.sites[FINAL], linear, rows, longest)
    matrices = _ordered({EMBED: Projection(embed), **parts.matrices})
    layout = Layout(
        {**parts.sites, FINAL: end.final},
        matrices,
        head,
        end.trunk,
        end.softcap,
        longest,
        end.scale,
        end.flat,
    )
    layout.check(model)
    return layout


def _ordered(matrices: Mapping[str, Projection]) -> dict[str, Projection]:
    """Return embedding, head and the matrices of blocks in their standard order; tables of positions are left out."""
    leaves = list(LEAVES)

    def order(name: str) -> tuple[int, int, int]:
        if (inside := re.fullmatch(r"blocks\.(\d+)\.(.+)", name)) is None:
            return (0, (EMBED, HEAD).index(name), 0)
        return (1, int(inside[1]), leaves.index(inside[2]) if inside[2] in leaves else len(leaves))

    kept = [name for name in matrices if name in (EMBED, HEAD) or name.startswith("blocks.")]
    return {name: matrices[name] for name in sorted(kept, key=order)}


def _chosen(parts: Parts, model: nn.Module, layers: Sequence[str]) -> Parts:
    """Return the parts that patterns name."""
    if isinstance(layers, str):
        layers = [layers]
    modules = [name for name, _ in model.named_modules() if name]
    sites: dict[str, str] = {}
    matrices: dict[str, Projection] = {}
    for pattern in layers:

        def named(*names: str, pattern: str = pattern) -> bool:
            return any(fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*") for name in names)

        own_sites = {site: at for site, at in parts.sites.items() if _matches(pattern, site, at)}
        own = {
            name: at
            for name, at in parts.matrices.items()
            if named(name, short(name), at.module, f"{at.module}.{at.parameter}")
        }
        plain = {
            name: name for name in modules if fnmatchcase(name, pattern) and name not in parts.sites.values()
        }
        if not (own_sites or own or plain):
            raise MeasureError(
                f"{pattern!r} names no part of this model; sites are {some(list(parts.sites), 8)}; matrices "
                f"{some(list(parts.matrices), 8)}; modules {some(modules, 8)}"
            )
        sites |= own_sites or ({} if own else plain)
        matrices |= own
    ordered = {site: at for site, at in parts.sites.items() if site in sites} | sites
    kept = {name: at for name, at in parts.matrices.items() if name in matrices}
    return Parts(ordered, kept, parts.embed, parts.head, parts.blocks, parts.notes)


def _matches(pattern: str, site: str, place: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in (site, short(site), place.removeprefix(INPUT_OF)))
