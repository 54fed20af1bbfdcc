"""How help reads: paragraphs within the terminal, and what an option takes in few words."""

from __future__ import annotations

import re
import shutil
import textwrap
from dataclasses import fields, is_dataclass, replace
from inspect import cleandoc
from pathlib import Path
from types import UnionType
from typing import Any, Union

from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructTypeInfo,
)

# Longer lines are hard to read on wide terminals.
WIDEST = 100


def paragraphs(docstring: str) -> str:
    """Return a docstring with its paragraphs filled to the width of the terminal; indented lines stay as they are.

    The parser joins lines that begin with a letter, so all of them are indented.
    """
    width = min(WIDEST, shutil.get_terminal_size().columns)
    blocks = re.split(r"\n[ \t]*\n", cleandoc(docstring))
    return "\n\n".join(textwrap.indent(_filled(block, width - 2), "  ") for block in blocks).lstrip()


def metavars() -> ConstructorRegistry:
    """Return rules by which help shows `INT …` for whole numbers, and `INT` also where None is taken.

    By them, a path is not empty, and what a dataclass computes is no option.
    """
    registry, asked = ConstructorRegistry(), list[PrimitiveTypeInfo]()
    structs: list[StructTypeInfo] = []

    @registry.struct_rule
    def settings(info: StructTypeInfo) -> Any:
        computed = {f.name for f in fields(info.type) if not f.init} if is_dataclass(info.type) else set()
        if not computed or any(info is other for other in structs):
            return None
        structs.append(info)
        try:
            spec = ConstructorRegistry.get_struct_spec(info)
        finally:
            structs.pop()
        if not isinstance(spec, StructConstructorSpec):
            return spec
        return replace(spec, fields=tuple(f for f in spec.fields if f.name not in computed))

    @registry.primitive_rule
    def rule(info: PrimitiveTypeInfo) -> Any:
        if info.type is Path:
            return _PATH
        if info.type_origin not in (tuple, Union, UnionType) or any(info is other for other in asked):
            return None
        asked.append(info)
        try:
            spec = ConstructorRegistry.get_primitive_spec(info)
        finally:
            asked.pop()
        if not isinstance(spec, PrimitiveConstructorSpec):
            return spec
        default = spec.str_from_instance
        return replace(
            spec, metavar=_short(spec.metavar), str_from_instance=lambda value: default(value) or ["none"]
        )

    return registry


def _path(words: list[str]) -> Path:
    # Path("") is the current folder.
    if not words[0].strip():
        raise ValueError("a path is not empty")
    return Path(words[0])


_PATH = PrimitiveConstructorSpec(
    nargs=1,
    metavar="PATH",
    instance_from_str=_path,
    is_instance=lambda value: isinstance(value, Path),
    str_from_instance=lambda value: [str(value)],
)


def _filled(block: str, width: int) -> str:
    """Fill a paragraph, or each entry of a list; a block with indented lines, as examples are, stays."""
    listed = block.startswith("- ")
    if "\n " in block and not listed:
        return block
    entries = re.split(r"\n(?=- )", block)
    hang = "  " if listed else ""
    return "\n".join(
        textwrap.fill(
            " ".join(e.split()), width, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False
        )
        for e in entries
    )


def _short(metavar: str) -> str:
    """Return a metavar of tyro without what is said for parsers.

    >>> _short("[INT [INT ...]]"), _short("{None}|INT"), _short("{None}|{[INT INT [INT INT ...]]}")
    ('INT …', 'INT', 'INT INT …')
    """
    bare = metavar.removeprefix("{None}|")
    several = re.fullmatch(r"\{?\[(.+?) \[\1 \.\.\.\]\]\}?", bare)
    if several:
        return f"{several[1]} …"
    inner = re.fullmatch(r"\{(.+ …)\}", bare)
    return inner[1] if inner else bare
