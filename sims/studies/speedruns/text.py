"""The text of a log: bytes of any encoding that programs and shells write, as numbered lines."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

# Marks at the beginning of a file; the one of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SAMPLE = 4096
# Colours and cursor movements (CSI), and titles and links (OSC), of terminals.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]{0,4096}(?:\x07|\x1b\\))")
# Blanks of other widths than a space: tabs, spaces that do not break, thin spaces.
_BLANKS = re.compile("(?: *[\t\v\f\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000] *)+")
# A longer line is not of a log; nothing searches through it.
LONGEST = 10_000


def decode(raw: bytes) -> str:
    """Return the text of a file without marks, terminal escapes and blocks of NUL bytes.

    A block of NUL (of a crash or a full disk) becomes one NUL and a carriage return: what it cuts off ends in a NUL.
    """
    text = raw.decode(_encoding(raw), "replace")
    if "\ufeff" in text:
        text = text.replace("\ufeff", "")
    if "\x1b" in text:
        text = _ESCAPES.sub("", text)
    return re.sub("\0+", "\0\r", text) if "\0" in text else text


def _encoding(raw: bytes) -> str:
    for mark, name in _MARKS:
        if raw.startswith(mark):
            return name
    # UTF-16 without a mark: every second byte of ASCII is 0, and hardly any of the others.
    sample = raw[:_SAMPLE]
    zeros = [sample[i::2].count(0) / max(1, len(sample) // 2) for i in (0, 1)]
    for place, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        if zeros[place] > 0.5 and zeros[1 - place] < 0.1:
            return name
    return "utf-8"


def numbered_lines(text: str, first: int = 1) -> Iterator[tuple[int, str]]:
    """Return (number, line), with spaces for all blanks.

    What a carriage return separates (progress bars) are lines of one number.
    """
    for number, line in enumerate(text.split("\n"), first):
        for part in line.split("\r") if "\r" in line else (line,):
            yield number, part if len(part) > LONGEST or part.isprintable() else _BLANKS.sub(" ", part)
