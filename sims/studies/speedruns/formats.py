"""Formats of training logs: one `Format` for each kind of log.

A line of a log is a head, which names the step, and fields in any order, of which `names` are known. What the known
names stand for: train_loss and val_loss (nats), elapsed (training so far), step_avg (its mean per step), step_ms (this
step). Fields of other names are passed over. A line without a step belongs to the last named step.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from sims.studies.speedruns.batches import Batches, no_batches, source_batches
from sims.studies.speedruns.json_lines import STEPS, json_line
from sims.studies.speedruns.source import Source, literal

_STEP = r"(?P<step>[-+]?\d{1,12})"
_PLANNED = r"(?P<planned>\d{1,12})"
_VALUE = re.compile(
    r"(?P<value>[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|nan|inf(?:inity)?))\s*(?P<unit>[^\W\d_]+|%)?",
    re.IGNORECASE,
)
# Milliseconds are (value · the first) / the second: exact for the unit that a log has.
_UNITS = {
    "ns": (1.0, 1e6),
    **dict.fromkeys(("us", "µs", "μs"), (1.0, 1e3)),
    **dict.fromkeys(("ms", "msec", "milliseconds"), (1.0, 1.0)),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), (1e3, 1.0)),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), (6e4, 1.0)),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), (3.6e6, 1.0)),
}
# Blanks between a number and its unit.
_GAP = re.compile(rf"(?<=[\d.])\s+(?=(?:{'|'.join(_UNITS)})(?:[\s,;|]|$))")
LOSSES = ("train_loss", "val_loss")
TIMES = ("elapsed", "step_avg", "step_ms")
# Separators of records and their source in a modded-nanogpt log.
_RULE = re.compile(r"^={10,}[ \t]*\r?$", re.MULTILINE)


@dataclass(frozen=True)
class Header:
    """The content of a log outside its step lines.

    Args:
        settings: hyperparameters by their own names.
        batches: tokens of the optimiser steps over all devices, or why the log does not tell.
        hardware: such as "8 × NVIDIA H100 80GB HBM3"; empty if the log does not name it.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    batches: Batches = field(default_factory=no_batches)
    hardware: str = ""

    @property
    def tokens_per_step(self) -> int | None:
        """Tokens of every step; None if the log has no such number, or if they change."""
        return self.batches.constant


class Value(NamedTuple):
    """One field of a line: its name, its number (losses in nats, times in milliseconds), and whether it has a unit."""

    name: str
    number: float
    unit: bool


class DamagedLine(ValueError):
    """A line of a known kind that is cut or damaged."""


@dataclass(frozen=True)
class Format:
    """One kind of log.

    Args:
        name: shown in tables and messages.
        head: the beginning of a line, with the groups step, planned (steps of the whole run) or val_loss.
        suspect: marks what may be a damaged line of this kind.
        between: separates fields.
        item: splits a field into its name and the text of its value; None if it is none.
        names: known fields, as what they stand for.
        marks: every line of this kind has one of these, so that others need no closer look.
        header: reads the header from the text of the log.
        join: what may stand between the name of a field and its value, for a colon.
        begins: where the lines can begin in a text; what is before is not searched.
        plain: rewrites a line as head and fields.
        opening: what every line begins with, and which shows that it is cut where its end is missing.
    """

    name: str
    head: re.Pattern[str]
    suspect: re.Pattern[str]
    between: re.Pattern[str]
    item: Callable[[str], tuple[str, str] | None]
    names: Mapping[str, str]
    marks: tuple[str, ...]
    header: Callable[[str], Header]
    join: re.Pattern[str] | None = None
    begins: Callable[[str], int] = lambda text: 0
    plain: Callable[[str], str] | None = None
    opening: str = ""

    def fields(self, text: str) -> tuple[tuple[str, ...], list[Value]]:
        """Return the names of all fields of a line, in order, and the known ones with their values.

        Raises:
            DamagedLine: a known field without a number, with two or twice, a second head, or bytes that are not text.
        """
        if not text.isprintable() or "\ufffd" in text:
            raise DamagedLine(text)
        if self.join is not None and self.join.search(text):
            text = self.join.sub(":", text)
        text = _GAP.sub("", text)
        order, known, meaning = [], [], None
        for part in filter(None, self.between.split(text)):
            found = self.item(part)
            if found is None:
                if meaning is not None and _VALUE.fullmatch(part):
                    raise DamagedLine(text)
                continue
            order.append(found[0])
            meaning = self.names.get(found[0])
            if meaning is not None:
                known.append(_value(meaning, found[1]))
        if "step" in order or len(set(order)) < len(order):
            raise DamagedLine(text)
        return tuple(order), known


def _value(name: str, text: str) -> Value:
    match = _VALUE.fullmatch(text)
    if match is None:
        raise DamagedLine(text)
    number, unit = float(match["value"]), match["unit"]
    if number < 0 or (name in LOSSES and unit is not None):
        raise DamagedLine(text)
    if name in LOSSES:
        return Value(name, number, False)
    if unit is None:
        return Value(name, math.nan, False)
    factor = _UNITS.get(unit)
    if factor is None:
        raise DamagedLine(text)
    return Value(name, number * factor[0] / factor[1] if math.isfinite(number) else math.nan, True)


# The colon that stands there already is left alone.
_COLON = re.compile(r"\s+[:=]\s*|[:=]\s+|=")
_NAME = re.compile(r"[^\W\d][\w./@-]*")


def _pair(text: str) -> tuple[str, str] | None:
    """Split `name:value`."""
    name, colon, value = text.partition(":")
    return (name, value) if colon and _NAME.fullmatch(name) else None


_WORDS = re.compile(r"([A-Za-z][A-Za-z ]*?)\s+(\S+)")


def _words(text: str) -> tuple[str, str] | None:
    """Split `some name value`; a value in brackets after it, as of llm.c, is passed over."""
    match = _WORDS.fullmatch(re.sub(r"\s*\([^()]*\)$", "", text))
    return None if match is None else (match[1], match[2])


def _words_or_unit(text: str) -> tuple[str, str] | None:
    """Split `some name value` or `value unit`, which is named by its unit."""
    value, _, unit = text.partition(" ")
    match = _VALUE.fullmatch(value)
    return (unit or match["unit"] or "", value + unit) if match else _words(text)


def _script(text: str) -> slice:
    """Return the place of the training script that a modded-nanogpt log begins with, as it is set off by rules."""
    begin = 0
    for rule in islice(_RULE.finditer(text), 2):
        if re.search(r"^(?:import|from) ", text[begin : rule.start()], re.MULTILINE):
            return slice(begin, rule.start())
        begin = rule.end()
    return slice(0, 0)


def _modded_header(text: str) -> Header:
    """Read the source of the training script at the beginning, and the table of `nvidia-smi`."""
    rule = _RULE.search(text)
    script = text[_script(text)] or text[: rule.start() if rule else 0]
    cards = re.findall(r"^\|\s+\d+\s+(NVIDIA [^|]*?)\s+(?:On|Off)\s*\|", text, flags=re.MULTILINE)
    hardware = f"{len(cards)} × {cards[0]}" if cards else ""
    return Header(dict(Source.of(script).settings), source_batches(script, len(cards)), hardware)


def _llmc_header(text: str) -> Header:
    """Read the parameters, which the program prints as a table of two columns."""
    rows = re.findall(r"^\|\s*([^|]+?)\s*\|\s*([^|]*?)\s*\|\s*$", text, flags=re.MULTILINE)
    settings = {name: _parsed(value) for name, value in rows if name != "Parameter"}
    hardware = str(settings.get("device", ""))
    return Header(settings, Batches.of(settings.get("total batch size"), "total batch size"), hardware)


def _nanogpt_header(text: str) -> Header:
    """Read the overridden defaults, which the script prints as assignments."""
    pairs = re.findall(r"^(?:Overriding: )?([a-z_]\w*) = ([^#\n]+)", text, flags=re.MULTILINE)
    settings = {name: _parsed(value) for name, value in pairs}
    tokens = re.search(r"^tokens per iteration will be: ([\d,]{1,20})\s*$", text, flags=re.MULTILINE)
    return Header(
        settings, Batches.of(int(tokens[1].replace(",", "")) if tokens else None, "tokens per iteration")
    )


def _parsed(text: str) -> Any:
    """Parse a number or a quoted text; return any other text unchanged."""
    try:
        parsed = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return text.strip()
    value = literal(parsed)
    return text.strip() if value is None else value


MODDED = Format(
    "modded-nanogpt",
    re.compile(rf"(?<![A-Za-z_])step:\s*{_STEP}\s*/\s*{_PLANNED}(?=[\s,;|]|$)"),
    re.compile(r"step:\s*\S{0,30}/\d|^\s*step:\s*\S|val_loss\s*[:=]\s*[\d.]"),
    re.compile(r"[\s,;|]+"),
    _pair,
    {"train_loss": "train_loss", "val_loss": "val_loss", "train_time": "elapsed", "step_avg": "step_avg"},
    ("step:", "val_loss"),
    _modded_header,
    _COLON,
    lambda text: _script(text).stop,
)

# Early modded-nanogpt records have this form too. `eval` is HellaSwag accuracy, which is not a loss.
LLMC_LOG = Format(
    "llm.c main.log",
    re.compile(rf"(?<![\w])s:\s*{_STEP}(?=\s+(?:tel|trl|eval):)"),
    re.compile(r"^\s*s:\s*\d|\b(?:tel|trl):\s*\d"),
    re.compile(r"[\s,;|]+"),
    _pair,
    {"trl": "train_loss", "tel": "val_loss"},
    ("tel:", "trl:", "eval:"),
    lambda text: Header(),
    _COLON,
)

LLMC_OUTPUT = Format(
    "llm.c output",
    re.compile(rf"\bstep\s+{_STEP}/{_PLANNED}\s*\||\bval loss (?P<val_loss>\S+)\s*$"),
    re.compile(r"\bstep\s+\d+/\d|\bval loss \d"),
    re.compile(r"\s*\|\s*"),
    _words_or_unit,
    {"loss": "train_loss", "val loss": "val_loss", "ms": "step_ms"},
    ("step ", "val loss "),
    _llmc_header,
)

NANOGPT = Format(
    "nanoGPT",
    re.compile(rf"\b(?:iter|step) {_STEP}:(?=\s)"),
    re.compile(r"\b(?:iter|step) \d+:"),
    re.compile(r"\s*,\s*"),
    _words,
    {"loss": "train_loss", "train loss": "train_loss", "val loss": "val_loss", "time": "step_ms"},
    ("iter ", "step "),
    _nanogpt_header,
)

# A line that is cut is no JSON any more.
JSON_LINES = Format(
    "JSON lines",
    re.compile(rf"(?<![A-Za-z_])step:{_STEP}(?:/{_PLANNED})?(?=\s|$)"),
    re.compile(rf"\{{.*\"(?:{'|'.join(STEPS)})\""),
    re.compile(r"\s+"),
    _pair,
    {**MODDED.names, "step_time": "step_ms"},
    tuple(f'"{name}"' for name in STEPS),
    _modded_header,
    begins=MODDED.begins,
    plain=json_line,
    opening="{",
)

# Register a new kind of log here.
FORMATS = (MODDED, LLMC_LOG, LLMC_OUTPUT, NANOGPT, JSON_LINES)
