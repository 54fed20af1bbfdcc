"""Text of foreign files on a terminal: bytes that it would obey, in names and messages, are made visible."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

# Control characters other than tab and line feed, marks that turn the direction of writing, and halves of surrogate
# pairs, as file names have that are not UTF-8.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# Characters of a value that a message tells, and those that are left of a longer one.
_MOST, _START = 80, 40
_LONG_WORDS = re.compile(r"[^\s'\";]{400,}")
# What rich writes to a terminal: colours, the cursor up and hidden, a line erased, and the return to its start.
_OWN = re.compile(r"(\x1b\[[0-9;]*[mAK]|\x1b\[\?25[hl]|\r)")


def plain(text: str) -> str:
    r"""Return a text in which everything that a terminal obeys is written out, as JSON writes it.

    >>> plain("a\x1b[2Jb"), plain("two\nlines")
    ('a\\u001b[2Jb', 'two\nlines')
    """
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def quoted(text: str) -> str:
    """Return a text in quotes, as messages tell it: of a long one the start, and how long it is.

    >>> print(quoted("abc"), quoted("f" * 5000))
    'abc' 'ffffffffffffffffffffffffffffffffffffffff…' (5,000 characters)
    """
    return repr(text) if len(text) <= _MOST else f"{text[:_START] + '…'!r} ({len(text):,} characters)"


def some(names: Sequence[str], shown: int = 3) -> str:
    """Join the first few of many names.

    >>> some(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def without_long_words(text: str) -> str:
    """Return a message in which only the start is left of words that nobody reads to their end.

    >>> without_long_words("unknown device " + "x" * 5000 + "; choose cpu")
    'unknown device xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx… (5,000 characters); choose cpu'
    """
    return _LONG_WORDS.sub(lambda found: f"{found[0][:_START]}… ({len(found[0]):,} characters)", text)


def utf8(text: str) -> str:
    r"""Return a text that UTF-8 can express; names of files may hold other bytes.

    >>> utf8("run-\udcff")
    'run-?'
    """
    return text if text.isascii() else text.encode(errors="replace").decode()


class PlainStream:
    """A text stream that writes plain text; a terminal also gets the colours and bars of this package.

    Args:
        stream: where it is written; it keeps all other methods.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text; return its number of characters."""
        parts = _OWN.split(text) if self._stream.isatty() else [text]
        shown = "".join(part if i % 2 else plain(part) for i, part in enumerate(parts))
        with self._unread_is_no_error():
            self._stream.write(shown)
        return len(text)

    def flush(self) -> None:
        """Hand on what is written."""
        with self._unread_is_no_error():
            self._stream.flush()

    @contextmanager
    def _unread_is_no_error(self) -> Iterator[None]:
        """Go on where the reader of a pipe has left (`| head -1`): the rest of the output goes nowhere."""
        try:
            yield
        except BrokenPipeError:
            discard(self._stream)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts one after the other."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def discard(stream: TextIO) -> None:
    """Let what a stream still has, and all that it is given, go nowhere; Python would report its error at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextmanager
def plain_streams() -> Iterator[None]:
    """Make the output and the error stream of the process plain, and write all of it before they are as before."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = streams = PlainStream(before[0]), PlainStream(before[1])  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in streams:
            with suppress(OSError, ValueError):
                stream.flush()
