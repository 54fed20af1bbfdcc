"""Build grids of runs over stages, batch sizes, learning rates and seeds."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Generic, Literal

from sims.sweep.scaling import BASE_BATCH, FACTORS, Rule, learning_rates
from sims.sweep.work import R
from toymodel.errors import ConfigError

# Fields that have a separate command-line option.
_NAMED = {
    "stage": "--stages",
    "batch_size": "--batch-sizes",
    "lr": "--lrs or --lr-rule",
    "seed": "--seeds",
    "steps": "--steps-at",
}


@dataclass(frozen=True)
class Grid(Generic[R]):
    """Describe a grid of runs around one configuration.

    Args:
        base: values of all fields that are not varied.
        stages, batch_sizes, seeds: values of the varied fields.
        lrs: learning rates for every stage and batch size; None derives them from `base_lrs`, `rules` and `factors`.
        base_lrs: learning rate at the base batch size, by stage; other batch sizes scale from it.
        rules: "sqrt" or "linear" scaling with batch size / base batch size, or both, which takes the union.
        factors: multiples of each scaled learning rate.
        steps_at: steps by batch size; other batch sizes keep the steps of `base`.
        vary: further fields and their values, such as {"task.length": ["16", "32"]}; a dot separates nested fields.
        base_batch: the base batch size.

    Raises:
        ConfigError: an empty or repeated axis, learning rates given twice, an unknown field or value.
    """

    base: R
    stages: Sequence[str]
    batch_sizes: Sequence[int]
    seeds: Sequence[int]
    base_lrs: Mapping[str, float]
    lrs: Sequence[float] | None = None
    rules: Sequence[Rule] = ("sqrt",)
    factors: Sequence[float] = FACTORS
    steps_at: Mapping[int, int] = dataclasses.field(default_factory=dict)
    vary: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    base_batch: float = BASE_BATCH

    def __post_init__(self) -> None:
        axes = {
            "stages": self.stages,
            "batch sizes": self.batch_sizes,
            "seeds": self.seeds,
            "learning rates": (None,) if self.lrs is None else self.lrs,
            "rules of learning rates": self.rules,
            "factors of learning rates": self.factors,
            **{f"values of {name}": values for name, values in self.vary.items()},
        }
        for name, values in axes.items():
            if not values:
                raise ConfigError(f"the {name} are empty; a grid needs at least one value on every axis")
            repeated = sorted({str(v) for v in values if list(values).count(v) > 1})
            if repeated:
                raise ConfigError(
                    f"the {name} hold {', '.join(repeated)} more than once; name every value once"
                )
        unused = sorted(set(self.steps_at) - set(self.batch_sizes))
        if unused:
            raise ConfigError(
                f"--steps-at names batch size {unused[0]}, which is not among --batch-sizes "
                f"({', '.join(map(str, self.batch_sizes))})"
            )
        for name in self.vary:
            if name in _NAMED:
                raise ConfigError(f"--vary {name}: use {_NAMED[name]} for it")

    def configs(self) -> list[R]:
        """Return every run once.

        The order is stages, batch sizes, other fields, learning rates, seeds; the last varies fastest.

        Raises:
            ConfigError: a combination is not a valid run; the message names it.
        """
        found = []
        for stage, batch in product(self.stages, self.batch_sizes):
            own = {"stage": stage, "batch_size": batch, "steps": self.steps_at.get(batch, self.base.steps)}
            for values in product(*self.vary.values()):
                # All at once: single changes need not be runs, such as a width that fits new heads only.
                changed = with_fields(self.base, dict(zip(self.vary, values, strict=True)), own)
                for lr, seed in product(self.rates(stage, batch), self.seeds):
                    found.append(replace(changed, lr=lr, seed=seed))
        return list(dict.fromkeys(found))

    def rates(self, stage: str, batch_size: int) -> list[float]:
        """Return the learning rates of a stage at a batch size, ascending."""
        if self.lrs is not None:
            return sorted(self.lrs)
        if stage not in self.base_lrs:
            raise ConfigError(
                f"no base learning rate for stage {stage!r}; give --base-lr VALUE or --lrs, or choose from "
                f"{', '.join(self.base_lrs)}"
            )
        return learning_rates(self.base_lrs[stage], batch_size, self.rules, self.factors, self.base_batch)


def with_fields(config: Any, texts: Mapping[str, str], own: Mapping[str, Any] | None = None) -> Any:
    """Return the configuration with several fields set at once, from text.

    Args:
        config: a frozen dataclass.
        texts: value by the name of the field; dots separate nested fields.
        own: further fields, by value.

    Raises:
        ConfigError: no such field, the text is not a value of its type, or the values do not fit together.
    """
    changed: dict[str, Any] = dict(own or {})
    inner: dict[str, dict[str, str]] = {}
    for name, text in texts.items():
        head, _, rest = name.partition(".")
        kind = _kind(config, name, head)
        if dataclasses.is_dataclass(getattr(config, head)):
            inner.setdefault(head, {})[rest] = text
        elif rest:
            raise ConfigError(f"--vary {name}: {head} has no fields of its own")
        else:
            changed[head] = _parse(text, kind, name)
    for head, members in inner.items():
        group = getattr(config, head)
        if "" in members:
            names = ", ".join(f"{head}.{f.name}" for f in dataclasses.fields(group) if f.init)
            raise ConfigError(f"--vary {head} is a group of fields; name one of {names}")
        changed[head] = with_fields(group, members)
    return replace(config, **changed)


def _kind(config: Any, name: str, head: str) -> Any:
    """Return the type of a field."""
    annotations = typing.get_type_hints(type(config))
    kinds = {field.name: annotations[field.name] for field in dataclasses.fields(config) if field.init}
    if head not in kinds:
        raise ConfigError(
            f"--vary {name}: {type(config).__name__} has no field {head!r}; it has {', '.join(kinds)}"
        )
    return kinds[head]


def _parse(text: str, kind: Any, name: str) -> Any:
    """Parse text by a type; of a union, the first that fits."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        options = typing.get_args(kind)
    else:
        options = (kind,)
    for option in options:
        if option is type(None) and text.lower() == "none":
            return None
        if typing.get_origin(option) is Literal and text in typing.get_args(option):
            return text
        if option is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if option in (int, float, str):
            try:
                return option(text)
            except ValueError:
                continue
    takes = {int: "whole numbers", float: "numbers", bool: "true and false"}.get(kind, str(kind))
    raise ConfigError(f"--vary {name}: {text!r} is not a value of it; it takes {takes}")
