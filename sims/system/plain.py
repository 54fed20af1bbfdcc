"""Text of foreign files on a terminal: bytes that it would obey, in names and messages, are made visible."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

# Control characters other than tab and line feed, marks that turn the direction of writing, and halves of surrogate
# pairs, as file names have that are not UTF-8.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# What rich writes to a terminal: colours, the cursor up and hidden, a line erased, and the return to its start.
_OWN = re.compile(r"(\x1b\[[0-9;]*[mAK]|\x1b\[\?25[hl]|\r)")


def plain(text: str) -> str:
    r"""Return a text in which everything that a terminal obeys is written out, as JSON writes it.

    >>> plain("a\x1b[2Jb"), plain("two\nlines")
    ('a\\u001b[2Jb', 'two\nlines')
    """
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class PlainStream:
    """A text stream that writes plain text; a terminal also gets the colours and bars of this package.

    Args:
        stream: where it is written; it keeps all other methods.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text; return its number of characters."""
        if not self._stream.isatty():
            self._stream.write(plain(text))
        else:
            parts = _OWN.split(text)
            self._stream.write("".join(part if i % 2 else plain(part) for i, part in enumerate(parts)))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts one after the other."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def plain_streams() -> Iterator[None]:
    """Make the output and the error stream of the process plain."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (PlainStream(stream) for stream in before)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
