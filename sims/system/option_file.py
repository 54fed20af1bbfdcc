"""Options of a command from a YAML or TOML file: read strictly, and turned into what would be typed.

The command then checks them by the rules of its options. Texts of numbers stay as they are written (6e-4 is no number
in YAML 1.1), and so do on, off, yes and no, which are values of options; true, false and null are what they say.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from sims.system.command_options import Option, allowed, nearest, opposite, option_name
from sims.system.errors import QueryError
from sims.system.plain import quoted, without_long_words

YAML, TOML = (".yaml", ".yml"), (".toml",)
# The numbers of pairs in a table: {measure: {bands: [[31, 20]]}}. YAML can also put a table into itself.
_DEEPEST = 4
_TOO_DEEP = "tables or lists are nested too deep"
_TAG = "tag:yaml.org,2002:"
_TOO_LONG = "has more digits than a 64-bit number; it must be between −2⁶³ and 2⁶³ − 1"


def read_options(path: Path) -> dict[str, Any]:
    """Read a file of options.

    Args:
        path: a .yaml, .yml or .toml file; tables are the part of a name before the dot: {model: {heads: 2}} is
            model.heads.

    Returns:
        Values by the full name of their option, with - for _: texts, integers, True, False, None, or lists of them.

    Raises:
        QueryError: missing, not such a file, no table, or with a name that is given twice.
    """
    if path.suffix.lower() not in (*YAML, *TOML):
        raise QueryError(f"{path} is no file of options; name one that ends in .yaml, .yml or .toml")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise QueryError(f"cannot read {path}: {reason}; give a YAML or TOML file of options") from error
    return options_in(text, path)


def options_in(text: str, path: Path) -> dict[str, Any]:
    """Return the options in the text of a file, as `read_options` does."""
    found = _yaml(text, path) if path.suffix.lower() in YAML else _toml(text, path)
    if not isinstance(found, dict):
        raise QueryError(f"{path} holds no table; write one option a line, such as `steps{_is(path)} 480`")
    options: dict[str, Any] = {}
    for name, value in _flat(found, "", path):
        if name in options:
            raise QueryError(f"{path} gives {name} twice; give it once")
        options[name] = value
    return options


def as_words(
    found: Mapping[str, Any], path: Path, options: Mapping[str, Option], typed: Iterable[str], program: str
) -> list[str]:
    """Return the words that would be typed for the options of a file.

    Args:
        found: of `read_options`.
        path: of the file, for messages.
        options: those that the command has.
        typed: the words of the command line; an option in it wins over the file.
        program: the command, for messages.

    Raises:
        QueryError: names that the command does not have, or a value of another type than its option takes.
    """
    if "config" in found:
        raise QueryError(f"{path} names another file as config; a file of options names none")
    named = {name: option for name, option in options.items() if not option.positional}
    # A table that says nothing, also one with comments only.
    empty = [
        name
        for name, value in found.items()
        if not value
        and isinstance(value, dict | NoneType)
        and name not in named
        and any(other.startswith(f"{name}.") for other in named)
    ]
    _check_names([name for name in found if name not in (*named, *empty)], path, options, program)
    given = {option_name(word, list(options)) for word in typed}
    words: list[str] = []
    for name, value in found.items():
        if name in empty:
            continue
        spelled = _words(options[name], value, path)
        if name not in given:
            words += spelled
    return words


def _check_names(unknown: Sequence[str], path: Path, options: Mapping[str, Option], program: str) -> None:
    if not unknown:
        return
    name = unknown[0]
    known = [option.name for option in options.values() if not option.positional]
    typed = [option.name for option in options.values() if option.positional]
    if name.upper() in typed:
        raise QueryError(f"{path}: {name} is typed after `{program}`, and not read from a file; leave it out")
    near = nearest(name, known)
    group = next(
        (g for g in (name, name.rpartition(".")[0]) if any(k.startswith(f"{g}.") for k in known)), ""
    )
    remedy = f"`{program} --help` lists the options"
    if near and group != name:
        remedy = f"did you mean {near}?"
    elif group:
        remedy = f"{group} has {', '.join(k.removeprefix(f'{group}.') for k in known if k.startswith(f'{group}.'))}"
    more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
    raise QueryError(f"{path}: {program} has no option {quoted(name)}{more}; {remedy}")


def _words(option: Option, value: Any, path: Path) -> list[str]:
    flag = f"--{option.name}"
    wrong = QueryError(f"{path}: {option.name} is {_shown(value)}; it takes {allowed(option, str(path))}")
    if isinstance(value, bool):
        if not option.flag:
            raise wrong
        return [flag if value else f"--{opposite(option.name)}"]
    if value is None:
        if not option.optional:
            raise wrong
        # Neither true nor false is what an option is that is not given.
        return [] if option.flag else [flag, "None"]
    if option.flag:
        raise wrong
    if not isinstance(value, list):
        if not _is_text(value):
            raise wrong
        return [f"{flag}={_typed(value, option, path)}"]
    if not option.many:
        raise wrong
    inner = [member for member in value if isinstance(member, list)]
    # Typed, pairs are one list of numbers: others in the file would be cut into pairs.
    if inner and not (option.pairs and len(inner) == len(value) and all(len(pair) == 2 for pair in inner)):
        raise wrong
    values = [v for member in value for v in (member if isinstance(member, list) else [member])]
    if not all(_is_text(v) for v in values):
        raise wrong
    texts = [_typed(v, option, path) for v in values]
    # Typed, such a word is the next option.
    if dashed := [
        text for text in texts if text.startswith("-") and not re.match(r"-[\d.]|-(inf|nan)", text)
    ]:
        raise QueryError(f"{path}: {option.name} has {quoted(dashed[0])}; a value does not begin with a dash")
    return [flag, *texts]


def _typed(value: str | int, option: Option, path: Path) -> str:
    """Return a value as the shell would hand it on: ~ is the home folder."""
    if isinstance(value, int) and value.bit_length() > 64:
        # Python turns no number of more than 4,300 digits into a text.
        raise QueryError(f"{path}: {option.name} {_TOO_LONG}")
    text = str(value)
    return os.path.expanduser(text) if "path" in option.takes else text


def _is_text(value: Any) -> bool:
    """Return whether a value could be typed: no NUL, and no half of a pair of code points."""
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, str) and not re.search("[\0\ud800-\udfff]", value))


def _flat(found: Mapping[Any, Any], prefix: str, path: Path) -> Iterator[tuple[str, Any]]:
    for key, value in found.items():
        name = f"{prefix}{key}".replace("_", "-")
        if isinstance(value, dict) and value:
            if name.count(".") > _DEEPEST:
                raise QueryError(f"{path}: {quoted(name)} is no option; tables are nested at most once")
            yield from _flat(value, f"{name}.", path)
        else:
            yield name, value


def _toml(text: str, path: Path) -> Any:
    try:
        return tomllib.loads(text, parse_float=str)
    except RecursionError as error:
        raise QueryError(f"{path} is not valid TOML: {_TOO_DEEP}") from error
    except ValueError as error:
        # Of whole numbers that Python does not read; the parser's own errors name their line.
        long = re.search(r"\d[\d_]{4000,}", text) if "string conversion" in str(error) else None
        reason = f"a number in line {_line(text, long.start())} {_TOO_LONG}" if long else str(error)
        raise QueryError(f"{path} is not valid TOML: {without_long_words(reason)}") from error


def _yaml(text: str, path: Path) -> Any:
    import yaml

    loader = None
    try:
        loader = _yaml_loader(path)(text)
        found = loader.get_single_data()
        return {} if found is None else found
    except yaml.reader.ReaderError as error:
        reason = f"the character U+{error.character:04X} in line {_line(text, error.position)} is not allowed"
    except yaml.MarkedYAMLError as error:
        reason = f"{error.problem}{_spot(error.problem_mark)}"
    except (ValueError, OverflowError):
        # Of an escape ("\UFFFFFFFF") or a version (%YAML).
        reason = f"a number in line {loader.line + 1 if loader else 1} is too large"
    raise QueryError(f"{path} is not valid YAML: {without_long_words(reason)}")


def _yaml_loader(path: Path) -> Any:
    """Return a loader that reads scalars as texts, but for null, true and false, and no tags."""
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers: Mapping[str, Any] = {}
        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()
            if tag := getattr(event, "tag", None):
                tag = without_long_words(tag.replace(_TAG, "!!"))
                raise QueryError(f"{path}: tags are not read; leave out {tag}{_spot(event.start_mark)}")
            if self.depth > _DEEPEST:
                raise yaml.MarkedYAMLError(problem=_TOO_DEEP, problem_mark=event.start_mark)
            self.depth += 1
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            for key in keys:
                # Names are texts, also those that look like null.
                key.tag = self.DEFAULT_SCALAR_TAG
            for name, count in Counter(key.value for key in keys).items():
                if count > 1:
                    raise QueryError(f"{path} gives {name} twice; give it once")
            return super().construct_mapping(node, deep)

    Loader.add_implicit_resolver(f"{_TAG}null", re.compile(r"^(~|null|Null|NULL|)$"), None)
    Loader.add_implicit_resolver(f"{_TAG}bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), None)
    return Loader


def _spot(mark: Any) -> str:
    return f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # Such a text reads like the value that is asked for.
        return f"the text {value!r}" if value.lower() in ("true", "false", "null") else quoted(value)
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 64 else "a number of more than 64 bits"
    kinds = {dict: "a table", list: "a list", type(None): "null"}
    return kinds.get(type(value)) or f"a {type(value).__name__}"


def _is(path: Path) -> str:
    return ":" if path.suffix.lower() in YAML else " ="
