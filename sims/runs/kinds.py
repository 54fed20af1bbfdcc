"""The kinds of runs, and how each is read from what run.json or a checkpoint records. A new kind is one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sims.runs.layout import TEXT, TOY
from sims.runs.lm_config import lm_config
from sims.runs.lm_measure_config import LmRun
from sims.runs.spec import RunSpec
from toymodel.config import run_config
from toymodel.errors import ConfigError


def _text(train: dict[str, Any]) -> RunSpec:
    """Return a language model trained here, or a run of which only checkpoints were measured."""
    return lm_config(train) if "tier" in train else foreign_run(train)


def foreign_run(train: dict[str, Any]) -> LmRun:
    """Return the run that JSON describes.

    Raises:
        ConfigError: unknown or missing fields.
    """
    try:
        checkpoints = tuple((int(s), str(name), int(size)) for s, name, size in train["checkpoints"])
        return LmRun(**{**train, "checkpoints": checkpoints})
    except (TypeError, KeyError, ValueError) as error:
        raise ConfigError(
            f"not a run of checkpoints of this version: {error}; it was written by another version or by hand"
        ) from error


KINDS: Mapping[str, Callable[[dict[str, Any]], RunSpec]] = {TOY: run_config, TEXT: _text}


def run_spec(kind: str, train: dict[str, Any]) -> RunSpec:
    """Return the run of a kind from its plain values.

    Raises:
        ConfigError: an unknown kind, or fields that it does not have.
    """
    if kind not in KINDS:
        raise ConfigError(f"unknown kind of run {kind!r}; the kinds are {', '.join(KINDS)}")
    return KINDS[kind](train)
