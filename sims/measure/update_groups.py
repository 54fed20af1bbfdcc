"""Which parameters go into one window of updates, and the momentum of their optimiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sims.runs.step_settings import Group
from sims.system.errors import MeasureError
from toymodel.network import network_of
from toymodel.parameter_spec import ParameterSpec
from toymodel.stages import stage


@dataclass(frozen=True)
class UpdateGroup:
    """Name parameters whose updates are measured together.

    Args:
        name: the site of its rows.
        names: of the parameters, in the order of the model.
        momentum: β of their optimiser; None where it is not known, or differs between them.
    """

    name: str
    names: tuple[str, ...]
    momentum: float | None


_PARTS: dict[Group, Callable[[ParameterSpec], bool]] = {
    "all": lambda spec: True,
    # The layers between embedding and head, of a transformer or of the small network.
    "trunk": lambda spec: spec.name.startswith(("blocks.", "first", "second")),
    "attention": lambda spec: spec.name.endswith((".attn.qkv", ".attn.o")),
    "embedding": lambda spec: spec.role in ("embedding", "position"),
}


def groups_of(run: Any, chosen: Sequence[Group]) -> tuple[UpdateGroup, ...]:
    """Return the groups of a run of the stages.

    Args:
        run: a `RunConfig` or `LmConfig`.
        chosen: "optimiser" stands for one group for each optimiser, named adamw and muon.

    Raises:
        MeasureError: a part that the network does not have.

    >>> from toymodel import RunConfig
    >>> [(g.name, len(g.names), g.momentum) for g in groups_of(RunConfig("muon"), ("optimiser", "all"))]
    [('adamw', 1, 0.9), ('muon', 8, 0.95), ('all', 9, None)]
    """
    routing = stage(run.stage).routing
    specs = network_of(stage(run.stage), run.sizes).specs()
    momenta = {s.name: routing.momentum if s.role in routing.muon else routing.betas[0] for s in specs}

    def group(name: str, own: Sequence[ParameterSpec]) -> UpdateGroup:
        found = {momenta[s.name] for s in own}
        return UpdateGroup(name, tuple(s.name for s in own), found.pop() if len(found) == 1 else None)

    groups = []
    for part in dict.fromkeys(chosen):
        if part == "optimiser":
            groups.append(group("adamw", [s for s in specs if s.role not in routing.muon]))
            groups.append(group("muon", [s for s in specs if s.role in routing.muon]))
        else:
            own = [s for s in specs if _PARTS[part](s)]
            if not own:
                raise MeasureError(
                    f"update_groups has {part!r}, and stage {run.stage} has no such parameters; leave it out"
                )
            groups.append(group(part, own))
    return tuple(g for g in groups if g.names)


def parameter_count(run: Any, groups: Sequence[UpdateGroup]) -> int:
    """Return the number of coordinates of all parameters of the groups, each counted once."""
    names = {name for group in groups for name in group.names}
    return sum(s.size for s in network_of(stage(run.stage), run.sizes).specs() if s.name in names)
