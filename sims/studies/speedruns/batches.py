"""Tokens of the optimiser steps of a run, from the training script in its log."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np

from sims.studies.speedruns.source import WORLD_SIZE, Source, literal

LARGEST = 10**12
_LONGEST = 10**7
# A batch without a sequence length beside it is of tokens from here on, and of sequences below.
_FEWEST_TOKENS = 8192
_IN_TOKENS = ("train_batch_size", "total_batch_size", "batch_size")
_LENGTHS = ("sequence_length", "train_seq_len", "seq_len")
_STEPS = ("num_scheduled_iterations", "num_extension_iterations")
_SHOWN = ("batch", "seq", "accum", "world", "bs_", "tokens")


@dataclass(frozen=True)
class Batches:
    """Tokens of the optimiser steps of a run, over all devices.

    Args:
        starts: first step (from 0) of each size; empty if nothing is known.
        sizes: tokens of a step.
        found: where the log says so, or what it says instead.
        total: steps of the schedule, which are those of the run; None for one size.
    """

    starts: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()
    found: str = ""
    total: int | None = None

    @staticmethod
    def of(tokens: Any, found: str) -> Batches:
        """Return steps of equal size; nothing known if `tokens` is no such number."""
        whole = isinstance(tokens, int) or (isinstance(tokens, float) and tokens.is_integer())
        return Batches((0,), (int(tokens),), found) if whole and 1 <= tokens <= LARGEST else Batches()

    @property
    def constant(self) -> int | None:
        """Tokens of every step; None if they change or are not known."""
        return self.sizes[0] if len(self.sizes) == 1 else None

    def tokens(self, steps: np.ndarray) -> np.ndarray:
        """Return the tokens of the first `steps` steps (any shape, float64); NaN if not known."""
        if not self.sizes:
            return np.full(np.shape(steps), np.nan)
        steps = np.asarray(steps, float)
        total, ends = np.zeros(steps.shape), (*self.starts[1:], np.inf)
        for start, end, size in zip(self.starts, ends, self.sizes, strict=True):
            total += np.clip(steps, start, end) * size - start * size
        return total


def no_batches() -> Batches:
    """Return batches of which nothing is known."""
    return Batches()


@lru_cache(maxsize=64)
def source_batches(script: str, cards: int) -> Batches:
    """Return the tokens of the steps as the script sets them.

    The number of devices is asked for only where the tokens depend on it: the script asserts it, or the log lists the
    cards of the machine.

    Args:
        script: source of the training script; nothing of it is executed.
        cards: GPUs that the log lists; 0 if it lists none.
    """
    source = Source.of(script)
    tried = [_batches(source, n) for n in (1, 2, 4, 8)]
    if tried[0].sizes and all((b.starts, b.sizes) == (tried[0].starts, tried[0].sizes) for b in tried):
        return tried[0]
    asserted = source.asserted_devices()
    devices = asserted or cards
    found = _batches(source, devices) if devices else Batches()
    if found.sizes:
        by = "asserted by the script" if asserted else "listed by nvidia-smi"
        return Batches(found.starts, found.sizes, f"{found.found}; {devices} devices, {by}", found.total)
    return Batches(found=_what_there_is(source))


def _batches(source: Source, devices: int) -> Batches:
    names = source.constants(devices)
    scheduled = [*_stages(source, names), *_thirds(names)]
    if scheduled:
        return scheduled[0]
    for found in (_from_loader(source, names), _from_names(names)):
        if found.sizes:
            return found
    return Batches()


def _get(names: Mapping[str, Any], name: str) -> Any:
    """Return a constant of the class of hyperparameters, or else of the module."""
    return names.get(f".{name}", names.get(name))


def _schedule(starts: list[int], sizes: list[Any], names: Mapping[str, Any], found: str) -> Batches:
    """Return a schedule of sizes; nothing known if the steps or sizes are no whole numbers."""
    total = sum(_get(names, name) for name in _STEPS)
    if not all(isinstance(size, int) and 1 <= size <= LARGEST for size in sizes):
        return Batches()
    kept = [i for i, size in enumerate(sizes) if not i or size != sizes[i - 1]]
    return Batches(tuple(starts[i] for i in kept), tuple(sizes[i] for i in kept), found, total)


def _steps(names: Mapping[str, Any]) -> tuple[int, int] | None:
    found = tuple(_get(names, name) for name in _STEPS)
    return found if all(isinstance(n, int) and 0 <= n <= _LONGEST for n in found) and found[0] else None  # type: ignore[return-value]


def _stages(source: Source, names: Mapping[str, Any]) -> Iterator[Batches]:
    """Yield a list of stages: [Stage(duration=1/3, batch_size=…), …, Stage(batch_size=…)], the last an extension."""
    for name, value in source.assignments:
        if not isinstance(value, ast.List) or not all(isinstance(part, ast.Call) for part in value.elts):
            continue
        stages = [
            {k.arg: literal(k.value, names) for k in part.keywords if k.arg}
            for part in value.elts
            if isinstance(part, ast.Call)
        ]
        if not any("batch_size" in stage for stage in stages):
            continue
        steps = _steps(names)
        given = [stage.get("duration") for stage in stages[:-1]]
        shares = [v for v in given if isinstance(v, int | float) and 0 <= v <= 1]
        if steps is None or len(shares) < len(given):
            yield Batches()
            continue
        starts = [0, *(round(share * steps[0]) for share in accumulate(shares))]
        yield _schedule(starts, [stage.get("batch_size") for stage in stages], names, f"schedule {name}")


def _thirds(names: Mapping[str, Any]) -> Iterator[Batches]:
    """Yield a tuple of sizes over equal parts of the scheduled steps, and one of the extension."""
    sizes, last = _get(names, "train_bs_schedule"), _get(names, "train_bs_extension")
    if sizes is None and last is None:
        return
    steps = _steps(names)
    if steps is None or not isinstance(sizes, tuple):
        yield Batches()
        return
    # As the script does it, in float64: int(len(sizes) * (step / scheduled)).
    part = (len(sizes) * (np.arange(steps[0]) / steps[0])).astype(int)
    starts = np.searchsorted(part, np.arange(len(sizes))).tolist()
    yield _schedule([*starts, steps[0]], [*sizes, last], names, "train_bs_schedule and train_bs_extension")


def _from_loader(source: Source, names: Mapping[str, Any]) -> Batches:
    """Return what the loader of training batches is asked for, by the name of its parameter."""
    calls = [v for name, v in source.assignments if name == "train_loader" and isinstance(v, ast.Call)]
    if not calls or not isinstance(calls[-1].func, ast.Name):
        return Batches()
    parameters = source.definition(calls[-1].func.id)
    given: dict[str, ast.expr] = dict(zip(parameters, calls[-1].args, strict=False))
    given |= {k.arg: k.value for k in calls[-1].keywords if k.arg}
    for name in ("batch_size", "num_tokens"):
        if name in given:
            return Batches.of(literal(given[name], names), f"{ast.unparse(given[name])} (of the loader)")
    if "seq_len" in given and "grad_accum_steps" in given:
        parts = [literal(given[name], names) for name in ("seq_len", "grad_accum_steps")]
        if all(isinstance(part, int) for part in parts):
            shown = f"{ast.unparse(given['seq_len'])} · accumulated steps · devices (of the loader)"
            return Batches.of(parts[0] * parts[1] * names[WORLD_SIZE], shown)
    return Batches()


def _from_names(names: Mapping[str, Any]) -> Batches:
    """Return what the usual names of a batch and of the length of its sequences stand for."""
    length = next(((n, v) for n in _LENGTHS if isinstance(v := _get(names, n), int)), None)
    batch = next(((n, v) for n in _IN_TOKENS if isinstance(v := _get(names, n), int)), None)
    if batch is not None:
        # The length named in full goes with batches of sequences; else a batch shorter than a sequence is of sequences.
        if length is not None and (length[0] == "sequence_length" or batch[1] < length[1]):
            return Batches.of(batch[1] * length[1], f"{batch[0]} · {length[0]}")
        return Batches.of(batch[1] if batch[1] >= _FEWEST_TOKENS else None, batch[0])
    if length is None or length[0] == "sequence_length":
        return Batches()
    accumulated = _get(names, "grad_accum_steps")
    times = accumulated if isinstance(accumulated, int) else 1
    return Batches.of(length[1] * times * names[WORLD_SIZE], f"{length[0]} · devices")


def _what_there_is(source: Source) -> str:
    """Return the constants that bear on the size of a batch, for people to see."""
    names = source.constants(None)
    found = {
        name.removeprefix("."): value
        for name, value in names.items()
        if any(part in name for part in _SHOWN) and not name.removeprefix(".").startswith("val_")
    }
    unread = {name: value for name, value in source.assignments if name in (*_IN_TOKENS, *_LENGTHS)}
    found |= {name: f"= {ast.unparse(v)[:80]}" for name, v in unread.items() if name not in found}
    return ", ".join(f"{name} {value}" for name, value in sorted(found.items())[:8])
