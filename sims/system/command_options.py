"""The options of a command as its dataclass declares them: names, and what each takes, in words."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

ConfigFile = Annotated[
    Path | None,
    tyro.conf.arg(
        metavar="FILE",
        help="Options from a YAML or TOML file; options that are typed win over them.",
    ),
]
# Of the commands that train what a run folder describes.
ConfigFileOrRun = Annotated[
    Path | None,
    tyro.conf.arg(
        metavar="FILE",
        help="Options from a YAML or TOML file, or of a run folder; options that are typed win over them.",
    ),
]

_ONE = {int: "a whole number", float: "a number", str: "a text", Path: "a path", bool: "true or false"}
_MANY = {int: "whole numbers", float: "numbers", str: "texts", Path: "paths"}


@dataclass(frozen=True)
class Option:
    """Describe one option of a command.

    Attributes:
        name: as typed, without the first dashes, such as measure.top-k; of a positional one, as help shows it.
        takes: what it takes, in words.
        flag: it is true or false, and typed without a value.
        many: it takes any number of values.
        pairs: these are pairs.
        some: it is none by default, so that it says nothing without a value.
        optional: it takes None.
        positional: it is typed without its name.
    """

    name: str
    takes: str
    flag: bool = False
    many: bool = False
    optional: bool = False
    positional: bool = False
    pairs: bool = False
    some: bool = False


def allowed(option: Option, file: str = "") -> str:
    """Return what an option takes, in words, with None where it takes that too.

    Args:
        option: of a command.
        file: that holds it; each format has its own word for None. Empty where it is typed.

    >>> allowed(Option("seeds", "whole numbers", optional=True)), allowed(Option("lr", "a number"), "o.yaml")
    ('whole numbers, or None', 'a number')
    """
    none = {".toml": '"None"', ".yaml": "null", ".yml": "null"}.get(Path(file).suffix.lower(), "None")
    return f"{option.takes}, or {none}" if option.optional else option.takes


def opposite(name: str) -> str:
    """Return how an option is typed that is to be false.

    >>> opposite("json"), opposite("measure.checkpoints")
    ('no-json', 'measure.no-checkpoints')
    """
    group, dot, last = name.rpartition(".")
    return f"{group}{dot}no-{last}"


def command_options(command: type, words: Sequence[str]) -> dict[str, Option]:
    """Return the options of a command by name.

    Args:
        command: its dataclass; a field that is a union of dataclasses is a choice of presets.
        words: typed after the command; the first one that names a preset chooses it.
    """
    return {option.name: option for option in _walk(command, MISSING, "", words)}


def presets(command: type) -> dict[str, type]:
    """Return the presets of a command by name; empty where it has none."""
    for spec in fields(command):
        found, _ = _bare(get_type_hints(command, include_extras=True)[spec.name])
        if _is_choice(found):
            return {_preset_name(member): _bare(member)[0] for member in get_args(found)}
    return {}


def nearest(name: str, known: Sequence[str]) -> str:
    """Return the known name that is most like another; empty where none is.

    >>> nearest("seds", ["seeds", "stage"]), nearest("d-model", ["model.d-model"]), nearest("x", ["seeds"])
    ('seeds', 'model.d-model', '')
    >>> nearest("seed", ["seeds", "task.seed"])
    'seeds'
    """
    if f"{name}s" in known:
        return f"{name}s"
    group, dot, last = name.rpartition(".")
    siblings = [full.removeprefix(f"{group}.") for full in known if dot and full.startswith(f"{group}.")]
    if siblings:
        return next((f"{group}.{near}" for near in get_close_matches(last, siblings, n=1)), "")
    ending = [full for full in known if full.endswith(f".{last}")]
    return (ending or get_close_matches(name, known, n=1) or [""])[0]


def option_name(word: str, known: Sequence[str]) -> str:
    """Return the name of the option that a word gives; empty where it is a value.

    >>> option_name("--measure.no-checkpoints", ["measure.checkpoints"]), option_name("--lr=1", ["lr"])
    ('measure.checkpoints', 'lr')
    """
    if not word.startswith("--"):
        return ""
    name = word[2:].partition("=")[0].replace("_", "-")
    group, dot, last = name.rpartition(".")
    positive = f"{group}{dot}{last.removeprefix('no-')}"
    return positive if name not in known and positive in known else name


def full_name(name: str, known: Collection[str]) -> str:
    """Return the name of the option `by` of a group where only the group is named; other names as they are.

    >>> full_name("rates", ["rates.by", "rates.map"]), full_name("lr", ["lr", "rates.by"])
    ('rates.by', 'lr')
    """
    return f"{name}.by" if name not in known and f"{name}.by" in known else name


def in_full(words: Sequence[str], known: Collection[str]) -> list[str]:
    """Return words with such names in full, up to -- after which there are no options.

    >>> in_full(["--rates", "farms", "--rates.map=step"], ["rates.by", "rates.map"])
    ['--rates.by', 'farms', '--rates.map=step']
    """
    end = list(words).index("--") if "--" in words else len(words)
    found = list(words)
    for i, word in enumerate(words[:end]):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            found[i] = f"--{full_name(name, known)}{equals}{value}"
    return found


def _walk(kind: type, default: Any, prefix: str, words: Sequence[str]) -> Iterator[Option]:
    hints = get_type_hints(kind, include_extras=True)
    for spec in fields(kind):
        hint, marks = _bare(hints[spec.name])
        if not spec.init or tyro.conf.Suppress in marks:
            continue
        value = getattr(default, spec.name, spec.default)
        if value is MISSING and spec.default_factory is not MISSING:
            value = spec.default_factory()
        given = next((mark.name for mark in marks if getattr(mark, "name", None)), None)
        name = given or spec.name.replace("_", "-")
        if _is_choice(hint):
            members = {_preset_name(member): _bare(member)[0] for member in get_args(hint)}
            chosen = next((word for word in words if word in members), None)
            if chosen:
                yield from _walk(members[chosen], MISSING, prefix, words)
        elif is_dataclass(hint) or is_dataclass(value):
            flat = any(getattr(mark, "name", None) == "" for mark in marks)
            inner: Any = type(value) if is_dataclass(value) else hint
            yield from _walk(inner, value, prefix if flat else f"{prefix}{name}.", words)
        else:
            positional = tyro.conf.Positional in marks
            shown = next((mark.metavar for mark in marks if getattr(mark, "metavar", None)), name.upper())
            yield _option(shown if positional else f"{prefix}{name}", hint, positional, value)


def _option(name: str, hint: Any, positional: bool, default: Any) -> Option:
    members = [_bare(member)[0] for member in get_args(hint)] if _is_union(hint) else [hint]
    bare = [member for member in members if member is not NoneType]
    many = get_origin(bare[0]) is tuple
    inner = get_args(bare[0])[0] if many else bare[0]
    optional = len(bare) < len(members)
    takes = _several(inner) if many else _single(inner)
    pairs = many and get_origin(inner) is tuple
    flag = inner is bool and not many
    return Option(name, takes, flag, many, optional, positional, pairs, many and default == ())


def _single(kind: Any) -> str:
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    return f"one of {', '.join(map(str, choices))}" if choices else _ONE.get(kind, "a value")


def _several(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return f"pairs of {_several(get_args(kind)[0])}"
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    return f"any of {', '.join(map(str, choices))}" if choices else _MANY.get(kind, "values")


def _bare(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return a type without its annotations, and these."""
    if get_origin(hint) is Annotated:
        bare, *marks = get_args(hint)
        return bare, tuple(marks)
    return hint, ()


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType)


def _is_choice(hint: Any) -> bool:
    """Return whether a type is a union of dataclasses: a choice of presets."""
    return _is_union(hint) and all(is_dataclass(_bare(member)[0]) for member in get_args(hint))


def _preset_name(member: Any) -> str:
    bare, marks = _bare(member)
    return next((mark.name for mark in marks if getattr(mark, "name", None)), bare.__name__.lower())
