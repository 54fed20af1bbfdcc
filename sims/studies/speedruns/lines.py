"""One line of a log: what stands before it, its step and its values."""

from __future__ import annotations

import re
from typing import NamedTuple

from sims.studies.speedruns.formats import LOSSES, DamagedLine, Format
from sims.studies.speedruns.text import LONGEST

# What may stand before a head: it ends in one of these, in a digit, or in one of the words or one with a digit.
_PREFIX_ENDS = "])|>-:%"
_PREFIX_WORDS = frozenset(
    (
        "debug",
        "info",
        "warning",
        "warn",
        "error",
        "am",
        "pm",
        "utc",
        "gmt",
        "z",
        "f",
        "stdout",
        "stderr",
        "out",
        "err",
    )
)
# Groups of three digits in steps and in times. In a loss 3,277 may be 3.277, and is damage.
_GROUPED = re.compile(
    r"(?:(?<=step:)|(?<=step: )|(?<=iter )|(?<=step )|(?<=\bs:)|(?<=/))\d{1,3}(?:,\d{3})+(?![\d,.])"
    r"|(?<![\d.,])\d{1,3}(?:,\d{3})+(?=(?:\.\d+)?\s?[mu]?s\b)"
)
_RANK = re.compile(r"(?:rank|default)[ :=_-]?(\d{1,6})|^\s*(\d{1,6}):\s*$", re.IGNORECASE)


class Line(NamedTuple):
    """One line of a log that could be read.

    Args:
        number: of the line in the file.
        step, planned: the step, None where the line does not name it; steps of the whole run, if named.
        values: known fields, in milliseconds and nats.
        names: of all fields, in order.
        validates: whether it has a validation loss.
        closed: whether it ends in a unit, so that its last number is complete.
        unitless: whether a time has no unit.
        rank: of the process that wrote it, if the line says so.
    """

    number: int
    step: int | None
    planned: int | None
    values: dict[str, float]
    names: tuple[str, ...]
    validates: bool
    closed: bool
    unitless: bool
    rank: int | None


def split_line(format_: Format, text: str) -> tuple[str, str, re.Match[str]] | None:
    """Return what stands before a line, the fields before its head, and the head; None if it is not of this format.

    Ranks, times, levels and progress bars may stand before a line; words, quotes and comments may not.
    """
    if len(text) > LONGEST or not any(mark in text for mark in format_.marks):
        return None
    text = format_.plain(text) if format_.plain else text
    text = _GROUPED.sub(lambda found: found[0].replace(",", ""), text) if "," in text else text
    head = format_.head.search(text)
    if head is None:
        return None
    before = text[: head.start()].rstrip()
    at = min((i for name in format_.names if (i := before.find(f"{name}:")) >= 0), default=len(before))
    fields, before = before[at:], before[:at].rstrip()
    return (before, fields, head) if _is_prefix(before, text[len(before) : len(before) + 1]) else None


def _is_prefix(before: str, after: str) -> bool:
    """Return whether a text can stand before a line; `after` is the character that follows it."""
    if not before or before[-1] in _PREFIX_ENDS or before[-1].isdigit():
        return True
    last = before.rsplit(None, 1)[-1].lower()
    # A time with its zone (…T12:00:01Z), a host or a worker with its number.
    numbered = last[-1].isalpha() and any(c.isdigit() for c in last)
    return after.isspace() and (last in _PREFIX_WORDS or numbered)


def read_line(format_: Format, number: int, text: str) -> Line | None:
    """Read one line; None if it is not of this format.

    Raises:
        DamagedLine: it is of this format, but damaged.
    """
    found = split_line(format_, text)
    if found is None:
        if any(mark in text for mark in format_.marks) and format_.suspect.search(text[:LONGEST]):
            raise DamagedLine(text)
        return None
    before, first, head = found
    rest = f"{first} {head.string[head.end() :]}".strip()
    names, values = format_.fields(rest)
    groups = head.groupdict()
    if groups.get("val_loss") is not None:
        names, values = format_.fields(f"val loss {groups['val_loss']}")
    step, planned = (None if groups.get(k) is None else int(groups[k]) for k in ("step", "planned"))
    impossible = step is not None and not 0 <= step <= (step if planned is None else planned)
    if impossible or not names:
        raise DamagedLine(text)
    closed = rest.endswith(("%", "tok/s")) or (bool(values) and values[-1].unit) or bool(format_.opening)
    fields = {value.name: value.number for value in values}
    unitless = any(not value.unit for value in values if value.name not in LOSSES)
    rank = _RANK.search(before) if before else None
    of_rank = None if rank is None else int(rank[1] or rank[2])
    return Line(number, step, planned, fields, names, "val_loss" in fields, closed, unitless, of_rank)
