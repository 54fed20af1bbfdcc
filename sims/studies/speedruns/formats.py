"""Formats of training logs: one `Format` for each kind of log.

The named groups of a pattern are: step, planned (steps of the whole run), train_loss, val_loss (nats),
elapsed (milliseconds of training so far), step_avg (their mean per step), step_ms (milliseconds of this step). A line
without a step belongs to the last named step.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|nan|inf)"


@dataclass(frozen=True)
class Header:
    """The content of a log outside its step lines.

    Args:
        settings: hyperparameters by their own names.
        tokens_per_step: tokens of one optimiser step over all devices; None if the log has no such number.
        hardware: such as "8 × NVIDIA H100 80GB HBM3"; empty if the log does not name it.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    tokens_per_step: int | None = None
    hardware: str = ""


@dataclass(frozen=True)
class Format:
    """One kind of log.

    Args:
        name: shown in tables and messages.
        begins: the beginning of every line of this kind, complete or cut; lines of other kinds never match.
        lines: complete lines, with the groups named above.
        ends: whether a complete line has a fixed end, so that a cut line can be detected.
        header: reads the header from the text of the log.
    """

    name: str
    begins: re.Pattern[str]
    lines: tuple[re.Pattern[str], ...]
    ends: bool
    header: Callable[[str], Header]


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text.replace("NUMBER", _NUMBER))


def _nothing(text: str) -> Header:
    return Header()


def _modded_header(text: str) -> Header:
    """Read the source of the training script at the beginning, and the table of `nvidia-smi`."""
    settings = _hyperparameters(re.split(r"^={10,}\s*$", text, maxsplit=1, flags=re.MULTILINE)[0])
    cards = re.findall(r"^\|\s+\d+\s+(NVIDIA [^|]*?)\s+(?:On|Off)\s*\|", text, flags=re.MULTILINE)
    hardware = f"{len(cards)} × {cards[0]}" if cards else ""
    batch, length = settings.get("batch_size"), settings.get("sequence_length")
    tokens = batch * length if isinstance(batch, int) and isinstance(length, int) else None
    return Header(settings, tokens, hardware)


def _hyperparameters(source: str) -> dict[str, Any]:
    """Return the constants of the class `Hyperparameters`; none if the source is cut."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError):
        return {}
    found: dict[str, Any] = {}
    for node in body:
        if not (isinstance(node, ast.ClassDef) and node.name == "Hyperparameters"):
            continue
        for item in node.body:
            if (
                isinstance(item, ast.AnnAssign)
                and isinstance(item.target, ast.Name)
                and item.value is not None
            ):
                found[item.target.id] = _constant(item.value)
            elif isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
                found[item.targets[0].id] = _constant(item.value)
    return {name: value for name, value in found.items() if value is not None}


_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


def _constant(node: ast.expr) -> Any:
    """Evaluate a literal or arithmetic of literals (8*64); None for anything else. No code of a log is executed."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str):
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _constant(node.left), _constant(node.right)
        if isinstance(left, int | float) and isinstance(right, int | float):
            try:
                return _OPERATORS[type(node.op)](left, right)
            except ZeroDivisionError:
                return None
    return None


def _llmc_header(text: str) -> Header:
    """Read the parameters, which the program prints as a table of two columns."""
    rows = re.findall(r"^\|\s*([^|]+?)\s*\|\s*([^|]*?)\s*\|\s*$", text, flags=re.MULTILINE)
    settings = {name: _value(value) for name, value in rows if name != "Parameter"}
    total = settings.get("total batch size")
    hardware = str(settings.get("device", ""))
    return Header(settings, total if isinstance(total, int) and total > 0 else None, hardware)


def _nanogpt_header(text: str) -> Header:
    """Read the overridden defaults, which the script prints as assignments."""
    pairs = re.findall(r"^(?:Overriding: )?([a-z_]\w*) = ([^#\n]+)", text, flags=re.MULTILINE)
    settings = {name: _value(value) for name, value in pairs}
    tokens = re.search(r"^tokens per iteration will be: ([\d,]+)\s*$", text, flags=re.MULTILINE)
    return Header(settings, int(tokens[1].replace(",", "")) if tokens else None)


def _value(text: str) -> Any:
    """Parse a number or a quoted text; return any other text unchanged."""
    try:
        parsed = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        return text.strip()
    value = _constant(parsed)
    return text.strip() if value is None else value


MODDED = Format(
    "modded-nanogpt",
    re.compile(r"step:\d"),
    (
        _pattern(
            r"step:(?P<step>\d+)/(?P<planned>\d+)(?: train_loss:(?P<train_loss>NUMBER))?"
            r"(?: val_loss:(?P<val_loss>NUMBER))? train_time:(?P<elapsed>NUMBER)ms step_avg:(?P<step_avg>NUMBER)ms"
        ),
    ),
    True,
    _modded_header,
)

# Early modded-nanogpt records have this form too.
LLMC_LOG = Format(
    "llm.c main.log",
    re.compile(r"s:\d"),
    (
        _pattern(r"s:(?P<step>\d+) tel:(?P<val_loss>NUMBER)"),
        _pattern(r"s:(?P<step>\d+) trl:(?P<train_loss>NUMBER)(?: lr:NUMBER norm:NUMBER)?"),
        # HellaSwag accuracy, which is not a loss.
        _pattern(r"s:(?P<step>\d+) eval:NUMBER"),
    ),
    False,
    _nothing,
)

LLMC_OUTPUT = Format(
    "llm.c output",
    re.compile(r"step\s+\d+/\d|val loss \d"),
    (
        _pattern(
            r"step\s+(?P<step>\d+)/(?P<planned>\d+) \| loss (?P<train_loss>NUMBER) .*?"
            r"\| (?P<step_ms>NUMBER) ms \|.* tok/s"
        ),
        _pattern(r"val loss (?P<val_loss>NUMBER)"),
    ),
    True,
    _llmc_header,
)

NANOGPT = Format(
    "nanoGPT",
    re.compile(r"iter \d+:|step \d+:"),
    (
        _pattern(
            r"iter (?P<step>\d+): loss (?P<train_loss>NUMBER), time (?P<step_ms>NUMBER)ms(?:, mfu NUMBER%)?"
        ),
        _pattern(r"step (?P<step>\d+): train loss (?P<train_loss>NUMBER), val loss (?P<val_loss>NUMBER)"),
    ),
    False,
    _nanogpt_header,
)

# Register a new kind of log here.
FORMATS = (MODDED, LLMC_LOG, LLMC_OUTPUT, NANOGPT)
