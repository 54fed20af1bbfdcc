"""Prepare docstrings for the site: examples become code blocks, names in backticks become links.

An extension of griffe, which reads the sources for mkdocstrings (mkdocs.yml, `extensions`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from griffe import Extension, Object

API = Path(__file__).parent / "api"
# An example: the lines from >>> to the next empty line.
EXAMPLE = re.compile(r"^([ ]*)>>> .*(?:\n\1\S.*|\n\1[ ]+\S.*)*", re.MULTILINE)
NAME = re.compile(r"(?<![\w`\[])`([A-Za-z_][\w.]*)`(?!`)")
# Names that share a description, "lo, hi: …", with the lines that continue it: griffe expects one name.
SHARED = re.compile(r"^( +)(\w+)((?:, \w+)+): (.*(?:\n\1 +\S.*)*)", re.MULTILINE)


def shown_names() -> list[str]:
    """Return the dotted names of the objects that the pages in docs/api show."""
    pages = "".join(page.read_text("utf-8") for page in sorted(API.glob("*.md")))
    return re.findall(r"^::: ([\w.]+)$", pages, re.MULTILINE)


class Prepare(Extension):
    """Rewrite the docstrings of the objects that the pages in docs/api show."""

    def __init__(self) -> None:
        self.shown = shown_names()

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring:
            obj.docstring.value = self.prepared(obj.docstring.value, obj.path)

    def prepared(self, text: str, path: str) -> str:
        """Return a docstring with its examples fenced and, outside of them, known names linked."""
        parts, end = [], 0
        for found in EXAMPLE.finditer(text):
            parts += [self.linked(text[end : found.start()], path), _fenced(found[0], found[1])]
            end = found.end()
        return "".join([*parts, self.linked(text[end:], path)])

    def linked(self, text: str, path: str) -> str:
        """Return text in which `name` links to the place of that name, of the same package first."""

        def link(found: re.Match[str]) -> str:
            named = [shown for shown in self.shown if f".{shown}".endswith(f".{found[1].rpartition('.')[2]}")]
            near = [shown for shown in named if shown.partition(".")[0] == path.partition(".")[0]]
            target = (near or named or [""])[0]
            return f"[{found[0]}][{target}]" if target and not path.endswith(f".{found[1]}") else found[0]

        # No line of a docstring is meant as a heading.
        text = re.sub(r"^( *)#(?=\S)", r"\1\\#", text, flags=re.MULTILINE)
        return SHARED.sub(_separate, NAME.sub(link, text))


def _separate(shared: re.Match[str]) -> str:
    """Give the first name the description, and point the others to it."""
    indent, first, others, description = shared.groups()
    rest = [f"{indent}{name}: see `{first}`." for name in others.removeprefix(", ").split(", ")]
    return "\n".join([f"{indent}{first}: {description}", *rest])


def _fenced(example: str, indent: str) -> str:
    return f"{indent}```pycon\n{example}\n{indent}```"
