"""Lines of a log that are JSON objects, as `step:… name:value` with the names that the other formats use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

STEPS = ("step", "iter", "iteration", "global_step", "_step")
_PLANNED = ("num_steps", "total_steps", "max_steps", "train_steps", "num_iterations")
# Of several names that a line has, the first counts. A bare "time" or "runtime" may be of a step, of the run or of the
# day, and is not read.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "val_loss": (
        "val_loss",
        "val/loss",
        "valid_loss",
        "validation_loss",
        "validation/loss",
        "eval_loss",
        "eval/loss",
    ),
    "train_loss": ("train_loss", "train/loss", "training_loss", "loss"),
    "train_time": ("train_time", "training_time", "elapsed", "elapsed_time"),
    "step_avg": ("step_avg", "step_average"),
    "step_time": ("step_time",),
}
_TIMES = ("train_time", "step_avg", "step_time")
# What a name of a time may end in, as the unit of its value.
_UNITS = {
    "": "",
    "_ms": "ms",
    "_us": "us",
    "_s": "s",
    "_sec": "s",
    "_secs": "s",
    "_seconds": "s",
    "_min": "min",
}
# A line that has only "loss" may say of which data in one of these.
_KINDS = ("split", "phase", "mode", "type", "kind", "event", "set")
_TRAINING, _VALIDATION = ("train", "training"), ("val", "valid", "validation", "eval", "evaluation")
_DEEPEST = 3


def json_line(text: str) -> str:
    """Return what stands before the object, and its step and known values as fields; "" if it is not such a line."""
    begin = text.find("{")
    if begin < 0:
        return ""
    try:
        read = json.loads(
            text[begin:].rstrip().removesuffix(","),
            object_pairs_hook=_object,
            parse_float=str,
            parse_int=str,
            parse_constant=str,
        )
        found = _fields(_flat(read))
    except (ValueError, RecursionError):
        return ""
    return f"{text[:begin]}{' ' * bool(begin)}{found}" if found else ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _flat(read: Mapping[str, Any], before: str = "", depth: int = 0) -> dict[str, Any]:
    """Return the values of an object and of those in it, as `outer/inner`."""
    found: dict[str, Any] = {}
    for name, value in read.items():
        if isinstance(value, Mapping) and depth < _DEEPEST:
            found |= _flat(value, f"{before}{name}/", depth + 1)
        elif value is not None:
            found[before + name] = value
    return found


def _fields(values: Mapping[str, Any]) -> str:
    step = next((str(values[name]) for name in STEPS if name in values), None)
    if step is None:
        return ""
    number, slash, planned = step.partition("/")
    if not slash:
        found = (_whole(str(values[name])) for name in _PLANNED if name in values)
        planned = next((text for text in found if text.isdecimal()), "")
    parts = ["step:" + "/".join(_whole(text) for text in (number, planned) if text)]
    for meaning, names in _known(values).items():
        units = _UNITS if meaning in _TIMES else {"": ""}
        own = [(values[n + end], unit) for n in names for end, unit in units.items() if n + end in values]
        if own:
            value, unit = own[0]
            if not isinstance(value, str):
                raise ValueError("a loss or a time is not a number")
            parts.append(f"{meaning}:{value.strip()}{unit}")
    return " ".join(parts if len(parts) > 1 else [*parts, "no_known_field:0"])


def _known(values: Mapping[str, Any]) -> Mapping[str, tuple[str, ...]]:
    """Return the names to look for; a "loss" of data other than those of training is theirs."""
    kinds = [str(values[name]).lower() for name in _KINDS if name in values]
    if not kinds or any(kind in _TRAINING for kind in kinds):
        return _NAMES
    bare = {**_NAMES, "train_loss": tuple(name for name in _NAMES["train_loss"] if name != "loss")}
    if any(kind in _VALIDATION for kind in kinds):
        bare["val_loss"] = (*_NAMES["val_loss"], "loss")
    return bare


def _whole(text: str) -> str:
    """Return a step as it is written without a fraction: 250.0 is 250."""
    whole, point, rest = text.strip().partition(".")
    return whole if point and not rest.strip("0") else text.strip()
