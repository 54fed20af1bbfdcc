"""Split files into documents of plain text: one per file, or groups of entries for dictionaries."""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from sims.system.errors import StoreError

TEXT = (".txt", ".md", ".rst", ".html", ".htm")
_PACKED = (".gz", ".dz")
# Byte order marks; that of UTF-32 begins like that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Control characters that no text in Latin-1 has; it has tabs, ends of lines and of pages, and colours of terminals.
_NO_TEXT = re.compile("[\x01-\x08\x0e-\x1a\x1c-\x1f]")
# A line is a document of its own, in JSON.
_RECORDS = (".jsonl", ".ndjson")
# Zero bytes in a row that no binary number has.
_BLOCK = 16
# Fewest characters of a document: shorter ones are redirecting pages or empty entries.
LEAST = 16
# Entries of a dictionary are joined up to this many characters: single ones would be shorter than any window.
TOGETHER = 4096


def is_text(path: Path) -> bool:
    """Return whether the ending is one of plain text or HTML, compressed or not."""
    return _plain_name(path).suffix.lower() in TEXT


def documents(path: Path) -> Iterator[str]:
    """Yield the documents of a file.

    Tags are removed from HTML. A .dict file and WordNet's data files are split into groups of entries; indents are
    removed from the former, and only words and glosses are kept of the latter. Any other file is one document.

    Raises:
        StoreError: missing, cut or damaged, lines of JSON, or not text in UTF-8, Latin-1, or UTF-16 or -32 with a byte
            order mark.
    """
    name = _plain_name(path)
    if name.suffix.lower() in _RECORDS:
        raise StoreError(
            f"{path} has a document in JSON on each line, which is not read; write every text into a file of its own, "
            "such as 000001.txt"
        )
    text = _read(path)
    if name.suffix.lower() in (".html", ".htm"):
        found = iter([_without_tags(text)])
    elif name.suffix == ".dict":
        # A hanging indent on every line would be a quarter of all tokens: GPT-2 has one for each space.
        found = _together([re.sub(r"(?m)^[ \t]+", "", e) for e in re.split(r"\n\n(?=\S)", text)])
    elif name.stem == "data" and name.suffix in (".adj", ".adv", ".noun", ".verb"):
        found = _together(
            [_gloss(line) for line in text.splitlines() if "|" in line and not line.startswith(" ")]
        )
    else:
        found = iter([text])
    for document in found:
        # Only one kind of line ending.
        tidy = document.replace("\r\n", "\n").replace("\r", "\n").strip()
        if len(tidy) >= LEAST:
            yield tidy


def _plain_name(path: Path) -> Path:
    return path.with_suffix("") if path.suffix.lower() in _PACKED else path


def _read(path: Path) -> str:
    try:
        raw = path.read_bytes()
        if path.suffix.lower() in _PACKED:
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StoreError(f"{path} cannot be read ({reason}); get it again or leave it out") from error
    encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), None)
    try:
        text = raw.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding is not None:
            raise StoreError(
                f"{path} begins as {encoding.upper()} text and is none ({error.reason} at byte {error.start}); it is "
                "cut or damaged: get it again or leave it out"
            ) from error
        _refuse_damaged(path, raw, error)
        text = raw.decode("latin-1")
        if "\0" not in text and (found := _NO_TEXT.search(text)):
            raise StoreError(
                f"{path} is not text: byte {found.start():,} is {ord(found[0])}, as binary and compressed files have; "
                "unpack it (.gz is read as it is) or leave it out"
            ) from error
    if "\0" in text:
        raise StoreError(f"{path} is not text: it has zero bytes, {_zeros(raw)}")
    return text


def _refuse_damaged(path: Path, raw: bytes, error: UnicodeDecodeError) -> None:
    """Refuse UTF-8 with some damaged bytes: as Latin-1 each of its other letters would become two or more."""
    known = raw.decode("utf-8", "ignore")
    letters = len(known) - len(known.encode("ascii", "ignore"))
    damaged = raw.decode("utf-8", "replace").count("\ufffd") - known.count("\ufffd")
    if letters and letters >= damaged:
        raise StoreError(
            f"{path} is UTF-8 text that is cut or damaged ({error.reason} at byte {error.start:,}); get it again, drop "
            "the damaged bytes (iconv -c -f UTF-8 -t UTF-8), or leave it out"
        )


def _zeros(raw: bytes) -> str:
    """Say what a file with zero bytes seems to be."""
    even, odd = raw[::2].count(0), raw[1::2].count(0)
    if min(even, odd) * 10 < max(even, odd) and max(even, odd) * 4 > len(raw) // 2:
        order = "UTF-16LE" if odd > even else "UTF-16BE"
        return f"as {order} without a byte order mark has; convert it (iconv -f {order} -t UTF-8) or leave it out"
    longest = max(re.findall(rb"\0+", raw), key=len)
    if len(longest) >= _BLOCK:
        return (
            f"{len(longest):,} of them in a block from byte {raw.index(longest):,}, as a file that was not written to "
            "its end; get it again or leave it out"
        )
    return f"{raw.count(0):,} of {len(raw):,}, as binary files have; leave it out"


def _together(entries: list[str]) -> Iterator[str]:
    group: list[str] = []
    size = 0
    for entry in entries:
        group.append(entry.strip("\n"))
        size += len(entry)
        if size >= TOGETHER:
            yield "\n\n".join(group)
            group, size = [], 0
    if group:
        yield "\n\n".join(group)


def _gloss(line: str) -> str:
    """Return a synset as "word, word: gloss".

    The fourth field is the number of words, in hexadecimal; each word has two fields.
    """
    fields, gloss = line.split("|", 1)
    parts = fields.split()
    words = [re.sub(r"\(\w+\)$", "", w).replace("_", " ") for w in parts[4 : 4 + 2 * int(parts[3], 16) : 2]]
    return f"{', '.join(words)}: {gloss.strip()}"


_BLOCKS = frozenset(
    (
        *(
            "address",
            "article",
            "blockquote",
            "br",
            "dd",
            "div",
            "dl",
            "dt",
            "figure",
            "footer",
            "h1",
            "h2",
            "h3",
            "h4",
        ),
        *(
            "h5",
            "h6",
            "header",
            "hr",
            "li",
            "main",
            "ol",
            "p",
            "pre",
            "section",
            "table",
            "td",
            "th",
            "tr",
            "ul",
        ),
    )
)
_SILENT = frozenset(("head", "script", "style", "nav", "noscript"))
# What a head may hold. Its end tag may be left out: any other tag ends it.
_IN_HEAD = frozenset(("base", "link", "meta", "noscript", "script", "style", "template", "title"))


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.silent: list[str] = []
        self.pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.silent[-1:] == ["head"] and tag not in _IN_HEAD:
            self.silent.pop()
        if tag in _SILENT:
            self.silent.append(tag)
        self.pre += tag == "pre"
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.silent:
            # Tags left open inside it end with it.
            del self.silent[self.silent.index(tag) :]
        self.pre = max(self.pre - (tag == "pre"), 0)
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self.silent:
            self.parts.append(data if self.pre else re.sub(r"\s+", " ", data))


def _without_tags(text: str) -> str:
    parser = _Text()
    parser.feed(text)
    parser.close()
    lines = "".join(parser.parts).split("\n")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in lines))
