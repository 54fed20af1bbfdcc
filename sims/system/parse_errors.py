"""What the parser refuses, as one line like every other refusal: the value, the rule, the remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import tyro

from sims.system.command_options import Option, allowed, nearest, opposite, option_name
from sims.system.errors import QueryError
from sims.system.plain import quoted, without_long_words

# Values of a list that a message tells.
_SHOWN = 10


def check_values(program: str, options: Mapping[str, Option], words: Sequence[str]) -> None:
    """Refuse a value of an option that takes none, and a list without any that is empty by default.

    The parser would take the former for the folder of the command, and pass over the latter.

    Raises:
        QueryError: naming what is typed for true, and for false, or what the list takes.
    """
    known = list(options)
    for word, following in pairwise([*words, "--"]):
        option = options.get(option_name(word, known))
        if option and option.flag and ("=" in word or following.lower() in ("true", "false")):
            raise QueryError(
                f"--{option.name} takes no value; write --{option.name} for true, and --{opposite(option.name)} for "
                f"false (`{program} --help` lists the options)"
            )
        ends = following.startswith("--") and following != "--help"
        if option and option.some and "=" not in word and ends:
            raise QueryError(
                f"--{option.name} has no value; it takes {allowed(option)}: give at least one, or leave the option out "
                f"(`{program} --help` lists the options)"
            )


def repeated(options: Mapping[str, Option], words: Sequence[str]) -> Iterator[str]:
    """Yield a sentence for each option that is typed again in another way: the last one counts.

    Args:
        options: of the command.
        words: typed after it, up to --.

    >>> list(repeated({"seed": Option("seed", "a whole number")}, ["--seed", "1", "--seed=2"]))
    ['--seed is typed 2 times, and only the last one counts']
    >>> list(repeated({"json": Option("json", "true or false", flag=True)}, ["--json", "--json"]))
    []
    """
    typed: dict[str, list[str]] = {}
    for word in words:
        if (name := option_name(word, list(options))) in options:
            typed.setdefault(name, []).append(word.replace("_", "-"))
    for name, own in typed.items():
        # A flag that is typed again says the same.
        if len(own) > 1 and not (options[name].flag and len(set(own)) == 1):
            all_at_once = "; give all of its values at once" if options[name].many else ""
            yield f"--{name} is typed {len(own)} times, and only the last one counts{all_at_once}"


@contextmanager
def one_line(
    program: str, options: Mapping[str, Option], words: Sequence[str], source: Mapping[str, str]
) -> Iterator[None]:
    """Raise QueryError for words that tyro refuses, in place of its box.

    Args:
        program: what was called, such as "speclens train small".
        options: of the command; empty where none was chosen.
        words: after the program.
        source: file of each option that was not typed.
    """

    def told(event: Any) -> None:
        line = _line(event, program, options, words, source)
        if line:
            raise QueryError(line)

    # The hook of tyro 1.0.17 is not yet public; a version without it shows its box.
    hook = getattr(getattr(tyro, "_errors", None), "on_parse_error", None)
    if hook is None:
        yield
        return
    with hook(told):
        yield


def _line(
    event: Any,
    program: str,
    options: Mapping[str, Option],
    words: Sequence[str],
    source: Mapping[str, str],
) -> str:
    """Return what the event says, in one line; empty for an event that is not known here."""
    kind, seen = type(event).__name__, f"`{program} --help` lists the options"
    if kind == "UnrecognizedArgs":
        return _unknown(event.tokens, program, options, words)
    if kind == "MissingArgs":
        missing = [_option(context.arg, options) for context in event.missing_arguments]
        named = [_spelled(option) for option in missing if option]
        return f"{program} needs {' and '.join(named)}; `{program} --help` shows examples"
    if kind == "MissingSubcommand":
        known = list(event.subcommand_spec.parser_from_name)
        return f"{program} needs one of {', '.join(known)}; `{program} --help` describes them"
    argument = getattr(event, "argument", None)
    if kind in ("BadValue", "InvalidChoice", "InstantiationFailure") and argument is not None:
        option = _option(argument, options)
        if option is None:
            return ""
        file = source.get(option.name, "")
        where = f"{file}: {option.name}" if file else _spelled(option)
        given = _given(option, words, options)
        unnamed = [other.name for other in options.values() if other.positional]
        # A list takes all words that follow it.
        if option.many and unnamed and words[0].startswith("-"):
            seen = f"{' and '.join(unnamed)} stand{'s' * (len(unnamed) == 1)} before the options; {seen}"
        return (
            f"{where} {f'is {given}' if given else 'has no value'}; it takes {allowed(option, file)} ({seen})"
        )
    return ""


def _unknown(tokens: Sequence[str], program: str, options: Mapping[str, Option], words: Sequence[str]) -> str:
    if "--" in words and tokens[0] in words[words.index("--") :]:
        return f"{program} does not take {quoted(tokens[0])} after --, where options are not read; leave out the --"
    # A value follows an option that is not known.
    word = next((token for token in tokens if token.startswith("-")), tokens[0])
    name = word.lstrip("-").partition("=")[0].replace("_", "-")
    known = [option.name for option in options.values() if not option.positional]
    near = nearest(name, known) if word.startswith("-") else ""
    remedy = f"did you mean --{near}?" if near else f"`{program} --help` lists the options"
    option = without_long_words(word.partition("=")[0])
    what = f"has no option {option}" if word.startswith("-") else f"does not take {quoted(word)}"
    return f"{program} {what}; {remedy}"


def _option(argument: Any, options: Mapping[str, Option]) -> Option | None:
    """Return the option that an argument of tyro stands for."""
    # Options have names; what help shows for the value (PATH) may also be how something unnamed is shown.
    names = [argument.display_name().split("/")[0].lstrip("-"), argument.lowered.metavar]
    return next(
        (options[name] for name in [*names, *(str(n).upper() for n in names)] if name in options), None
    )


def _spelled(option: Option) -> str:
    return option.name if option.positional else f"--{option.name}"


def _given(option: Option, words: Sequence[str], options: Mapping[str, Option]) -> str:
    """Return the values that stand behind an option, as they were given; the last time that it stands there."""
    if option.positional:
        # Of these, a path is refused where it is empty.
        return next((quoted(word) for word in words if not word.strip()), "")
    found: list[str] = []
    inside = False
    for word in words[: words.index("--")] if "--" in words else words:
        if name := option_name(word, list(options)):
            inside = name == option.name
            found = [word.partition("=")[2]] if inside and "=" in word else [] if inside else found
        elif inside:
            found.append(word)
    # What follows one value is a folder, or whatever the command takes without a name.
    shown = found if option.many else found[:1]
    more = f" … ({len(shown):,} values)" if len(shown) > _SHOWN else ""
    return " ".join(map(quoted, shown[:_SHOWN])) + more
