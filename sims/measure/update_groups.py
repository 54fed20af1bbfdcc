"""Which parameters go into one window of updates, and the momentum of their optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from sims.models.run_network import network_of_run
from sims.runs.step_settings import MATRIX
from sims.system.errors import MeasureError
from toymodel.parameter_spec import ParameterSpec
from toymodel.stages import stage
from toymodel.transformer import matrices, matrix_places


@dataclass(frozen=True)
class UpdateGroup:
    """Name parameters whose updates are measured together.

    Args:
        name: the site of its rows.
        names: of the parameters, in the order of the model; of a parameter that holds several matrices, of which one is
            measured apart, those of its matrices.
        momentum: β of their optimiser; None where it is not known, or differs between them.
    """

    name: str
    names: tuple[str, ...]
    momentum: float | None


_PARTS: dict[str, Callable[[ParameterSpec], bool]] = {
    "all": lambda spec: True,
    # The layers between embedding and head, of a transformer or of the small network.
    "trunk": lambda spec: spec.name.startswith(("blocks.", "first", "second")),
    "attention": lambda spec: spec.name.endswith((".attn.qkv", ".attn.o")),
    "embedding": lambda spec: spec.role in ("embedding", "position"),
}


def groups_of(run: Any, chosen: Sequence[str]) -> tuple[UpdateGroup, ...]:
    """Return the groups of a run of the stages.

    Args:
        run: a `RunConfig` or `LmConfig`.
        chosen: "optimiser" stands for one group for each optimiser, named adamw and muon; "matrix:NAME" for one matrix.

    Raises:
        MeasureError: a part or a matrix that the network does not have.

    >>> from toymodel import RunConfig
    >>> [(g.name, len(g.names), g.momentum) for g in groups_of(RunConfig("muon"), ("optimiser", "all"))]
    [('adamw', 1, 0.9), ('muon', 8, 0.95), ('all', 9, None)]
    """
    routing = stage(run.stage).routing
    specs = network_of_run(run).specs()
    momenta = {s.name: routing.momentum if s.role in routing.muon else routing.betas[0] for s in specs}

    def group(name: str, own: Sequence[ParameterSpec]) -> UpdateGroup:
        found = {momenta[s.name] for s in own}
        return UpdateGroup(name, tuple(s.name for s in own), found.pop() if len(found) == 1 else None)

    groups, places = [], matrix_places(specs)
    for part in dict.fromkeys(chosen):
        if part.startswith(MATRIX):
            name = part.removeprefix(MATRIX)
            if name not in places:
                raise MeasureError(
                    f"update_groups has {part!r}, and stage {run.stage} has no such matrix; its matrices are "
                    f"{', '.join(places)}"
                )
            groups.append(UpdateGroup(part, (name,), momenta[places[name][0]]))
        elif part == "optimiser":
            groups.append(group("adamw", [s for s in specs if s.role not in routing.muon]))
            groups.append(group("muon", [s for s in specs if s.role in routing.muon]))
        else:
            own = [s for s in specs if _PARTS[part](s)]
            if not own:
                raise MeasureError(
                    f"update_groups has {part!r}, and stage {run.stage} has no such parameters; leave it out"
                )
            groups.append(group(part, own))
    return _apart(tuple(g for g in groups if g.names), {s.name for s in specs}, places)


def _apart(
    groups: tuple[UpdateGroup, ...], parameters: set[str], places: Mapping[str, tuple[str, int]]
) -> tuple[UpdateGroup, ...]:
    """Name the matrices of a parameter in every group, where one of them is measured apart from the others."""
    divided = {places[n][0] for group in groups for n in group.names if n not in parameters}
    parts = {name: [n for n, (whole, _) in places.items() if whole == name] for name in divided}
    return tuple(
        replace(group, names=tuple(n for name in group.names for n in parts.get(name, [name])))
        for group in groups
    )


def with_matrices(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors (*shape) of parameters by name, and views of the matrices that one parameter holds several of."""
    held = {name: value[None] for name, value in tensors.items() if value.ndim > 1}
    return {name: value[0] for name, value in matrices(held).items()} | dict(tensors)


def parameter_count(run: Any, groups: Sequence[UpdateGroup]) -> int:
    """Return the number of coordinates of all parameters of the groups, each counted once."""
    specs = network_of_run(run).specs()
    sizes = {s.name: s.size for s in specs}
    for name, (whole, _) in matrix_places(specs).items():
        rows_and_columns = next(s.shape[-2:] for s in specs if s.name == whole)
        sizes.setdefault(name, math.prod(rows_and_columns))
    return sum(sizes[name] for name in {name for group in groups for name in group.names})
