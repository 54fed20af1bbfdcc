"""The `speclens` command line.

Help and errors of the parser come in milliseconds: a command is imported when it is called, and `COMMANDS` holds
what `speclens --help` shows of the others.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import make_dataclass
from difflib import get_close_matches
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Union

import tyro

from sims.system.command_options import Option, command_options, full_name, in_full, option_name, presets
from sims.system.errors import (
    EngineError,
    MeasureError,
    MissingExtraError,
    PlaceError,
    QueryError,
    StoreError,
)
from sims.system.given import check_sizes, place_option
from sims.system.help_texts import metavars, paragraphs
from sims.system.outside import outside
from sims.system.parse_errors import check_values, one_line, repeated
from sims.system.plain import plain, plain_streams, quoted, without_long_words
from sims.system.signals import Stopped
from spectral_lens import __version__

# Name of each command, in the order of --help, and the first sentence of its docstring. The class of `carry-over` is
# CarryOver in sims.commands.carry_over.
COMMANDS: Mapping[str, str] = {
    "demo": "Train eight seeds of the four stages, measure them, and write report.html.",
    "train": "Train and measure toy runs of one configuration, or language models (lm).",
    "sweep": "Train and measure a grid of toy runs.",
    "measure": "Measure the stored checkpoints of a toy run, or those of a language model on text (--data).",
    "ls": "List the runs of a folder: status, settings that differ, losses.",
    "show": "Show one run: configuration, provenance, outcome, time of each part, last measurements, files.",
    "compare": "Compare complete runs side by side: their settings and their results.",
    "export": "Write the runs of a folder, or their measurements, to one file.",
    "report": "Print the summary of a folder of runs and write its report.html again.",
    "reproduce": "Reproduce the paper's toy figures and compare with its published numbers.",
    "bands": "Measure Fourier concentration on many bands of stored checkpoints.",
    "edge": "Ask whether windows of parameter updates have a spectral edge beyond noise, as was published.",
    "markov": "Ask whether states learn the predictive operator of the task, whose law is known exactly.",
    "grokking": "Ask whether anything warns of grokking before it happens, against controls that only memorise.",
    "phases": "Ask which phases the geometry of states goes through in training, and what carries each.",
    "post-train": "Ask what post-training does to the geometry of states and to answers, against plain training.",
    "rates": "Ask whether a learning rate for each matrix, by the spectrum of its weights, lowers the loss.",
    "lifecycle": "Ask how the spectra of weights develop over training and depth, and which blocks a model can lose.",
    "prune": "Prune models by magnitude, Wanda or SparseGPT, and compare ways to share the zeros between layers.",
    "robustness": "Test which conclusions about stages depend on choices of the measurement.",
    "carry-over": "Compare toy runs with language models: which findings carry over, and which questions are open.",
    "theory": "Verify the claims of the mechanistic model, or test them on trained runs.",
    "data": "Make token shards of text in GPT-2's vocabulary, in the format of modded-nanogpt.",
    "windows": "Compute the covariance spectrum of token windows: the structure of the data before any model.",
    "look": "Look at any model: spectra of its weights by layer, each beside noise of the same shape.",
    "inspect": "Describe a checkpoint: format, sizes, training step, and what can be measured.",
    "records": "Compare the records of a speed-run by their training logs: tokens and time to a loss.",
    "bench": "Time fast implementations against their slow references, and compare their results.",
}
# Earlier names of the commands for language models: `speclens bridge train` is `speclens train lm`.
BRIDGE: Mapping[str, tuple[str, ...]] = {
    "records": ("records",),
    "data": ("data",),
    "windows": ("windows",),
    "train": ("train", "lm"),
    "inspect": ("inspect",),
    "measure": ("measure",),
    "compare": ("carry-over",),
}

HELP = ("-h", "--help")
# Of tyro: a script that completes commands and options, printed or written to a file.
COMPLETION = ("--tyro-print-completion", "--tyro-write-completion")
SHELLS = ("bash", "zsh", "fish")

DESCRIPTION = """Toy models, theory and estimators for the spectral study of transformer training.

Start with `speclens demo`; every command has its own --help with examples."""

# Errors whose message is complete, by module. Loading these modules takes time, and what is not loaded was not raised.
_EXPECTED = {"toymodel.errors": ("ConfigError", "CheckpointError"), "spectra.errors": ("InputError",)}


def main(arguments: list[str] | None = None) -> int:
    """Parse and run one command.

    Args:
        arguments: those of the process by default.

    Returns:
        The exit status. Expected errors are one line on stderr and status 2.
    """
    # Operations of this size become slower with a second thread.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    _open_streams()
    warnings.formatwarning = _warning_line
    with plain_streams():
        return _run(arguments)


def _run(arguments: list[str] | None) -> int:
    command, arguments = None, sys.argv[1:] if arguments is None else arguments
    try:
        command = parse(arguments)
        check_sizes(command)
        status = command.run()
        sys.stdout.flush()
        return status
    except KeyboardInterrupt as stop:
        print(
            "speclens: stopped; everything finished is kept, and the same command goes on from here",
            file=sys.stderr,
        )
        return stop.status if isinstance(stop, Stopped) else 130
    except Exception as error:
        failed = outside(error)
        if not (failed or _expected(error)):
            raise
        # The status tells it too, where the error stream takes no more.
        with suppress(OSError):
            told = without_long_words(f"{_message(error, command, arguments)}{_file_note(error, arguments)}")
            print(f"speclens: {failed or plain(told)}", file=sys.stderr)
            sys.stderr.flush()
        return 2


def _message(error: Exception, command: Any, arguments: Sequence[str]) -> str:
    """Return the message of an error; the option that chooses the place is named where one is at fault."""
    if not isinstance(error, PlaceError):
        return str(error)
    # Some commands check the place while they are made.
    option = place_option(command_class(arguments[0]) if command is None else command, error.path)
    return error.told(f"choose another {option}" if option else "")


def _file_note(error: Exception, arguments: Sequence[str]) -> str:
    """Name the file that options came from, where one of them may be what is refused."""
    named = next(iter(_files(arguments)), "")
    known = not named or named in str(error) or "--config" in str(error)
    return "" if known or isinstance(error, StoreError | EngineError) else f" (with the options of {named})"


def _files(arguments: Sequence[str]) -> list[str]:
    """Return what stands behind each --config, as messages name it; empty where nothing does."""
    found, (named, _) = list[str](), _split(arguments)
    for word, following in zip_longest(named, named[1:], fillvalue=""):
        if option_name(word, ()) == "config":
            name = word.partition("=")[2] if "=" in word else following
            found.append("" if name.startswith("--") or not name.strip() else str(Path(name)))
    return found


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the arguments before --, and those from there on, which are values whatever they look like."""
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    return list(arguments[:end]), list(arguments[end:])


def _open_streams() -> None:
    """Give the process an output and an error stream where its parent has closed them.

    What the encoding of a stream does not have is written out, as \\u2192.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  (for the life of the process)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _warning_line(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> str:
    """Return a warning as one line, without the line of code that it comes from."""
    kind = "" if issubclass(category, UserWarning) else f"{category.__name__}: "
    return plain(f"speclens: note: {kind}{message}\n")


def parse(arguments: Sequence[str]) -> Any:
    """Return the command that the arguments describe; only its module is imported.

    Raises:
        QueryError: an unknown command.
        SystemExit: after --help and --version (0), and for arguments that a command does not take (2).
    """
    arguments = list(arguments)
    if arguments[:1] == ["--version"]:
        print(f"speclens {__version__}")
        # Behind the line that needs no package.
        from sims.system.provenance import surroundings

        print(surroundings())
        raise SystemExit(0)
    if arguments[:1] == ["bridge"]:
        arguments = _without_bridge(arguments[1:])
    first = arguments[0] if arguments else ""
    if not first.startswith("-") and first:
        _check_known(first, COMMANDS, "speclens")
    completing = first in COMPLETION
    if completing:
        _check_shell(arguments)
    every = [word for name in COMMANDS for word in presets(command_class(name))] if completing else None
    program, options, source, called = "speclens", {}, {}, None
    if first in COMMANDS:
        program, options, called = _called(arguments)
        arguments = in_full(arguments, options)
        told = {name: option for name, option in options.items() if name != "config"}
        for note in () if _asks_help(arguments) else repeated(told, _split(arguments)[0]):
            warnings.warn(note, stacklevel=2)
        arguments, source = _with_file(arguments, options, program)
    described = tuple(
        _described(name, arguments[1:] if name == first else every, called) for name in COMMANDS
    )
    union: Any = Union[described]  # noqa: UP007  (made at run time)
    try:
        with one_line(program, options, arguments[first in COMMANDS :], source):
            return tyro.cli(
                union, args=arguments, prog="speclens", description=DESCRIPTION, registry=metavars()
            )
    except OSError as error:
        if not completing:
            raise
        raise StoreError(f"cannot write {error.filename}: {error.strerror}") from error


def _called(arguments: Sequence[str]) -> tuple[str, dict[str, Option], type]:
    """Return the command with its preset, as typed, its options, and its class.

    Raises:
        QueryError: an unknown preset, or an option before it.
    """
    first, *words = arguments
    command = command_class(first)
    known, program = presets(command), f"speclens {first}"
    preset = next((word for word in words if word in known), None)
    if known and words and not words[0].startswith("-"):
        _check_known(words[0], known, program)
    if known and not preset and not _asks_help(words):
        before = f" before {words[0].partition('=')[0]}" if words else ""
        raise QueryError(
            f"{program} needs one of {', '.join(known)}{before}; `{program} --help` describes them"
        )
    if preset and words[0] != preset and words[0] not in HELP:
        raise QueryError(f"{preset} stands before the options; write `{program} {preset} {words[0]} …`")
    program = " ".join(filter(None, (program, preset)))
    command = _with_task(command, arguments, program)
    options = command_options(command, words)
    check_values(program, options, _split(words)[0])
    return program, options, command


def _with_task(command: type, arguments: Sequence[str], program: str) -> type:
    """Return a command of toy runs with the options of the task that is typed, or named in the file of --config."""
    if not any("task_kind" in kind.__dataclass_fields__ for kind in presets(command).values()):
        return command
    from sims.sweep.task_options import TASK_KIND, typed_task, with_task

    kind, names = typed_task(_split(arguments)[0]), _files(arguments)
    if kind is None and len(names) == 1 and names[0] and not _asks_help(arguments):
        from sims.runs.config_file import options_from

        kind = options_from(Path(names[0]), program).get(TASK_KIND)
    return command if kind is None else with_task(command, str(kind))


def _with_file(
    arguments: list[str], options: Mapping[str, Option], program: str
) -> tuple[list[str], dict[str, str]]:
    """Return the arguments with the options of their --config after them, and the file of each such option.

    Raises:
        QueryError: no name, two files, one that cannot be read, or options that the command does not take.
    """
    names = _files(arguments)
    if "config" not in options or not names or _asks_help(arguments):
        return arguments, {}
    if len(names) > 1:
        raise QueryError("--config is given twice; give one file")
    (name,) = names
    if not name:
        raise QueryError(f"--config has no value; it takes a path (`{program} --help` lists the options)")
    from sims.runs.config_file import options_from
    from sims.system.option_file import as_words

    path = Path(name)
    found: dict[str, Any] = {}
    for key, value in options_from(path, program).items():
        # An empty table is no value.
        full = full_name(key, options) if value else key
        if full in found:
            raise QueryError(f"{path} gives {full} twice; give it once")
        found[full] = value
    before, values = _split(arguments)
    words = as_words(found, path, options, before, program)
    typed = {option_name(word, list(options)) for word in before}
    return [*before, *words, *values], {key: name for key in found if key not in typed}


def _asks_help(words: Sequence[str]) -> bool:
    return any(word in HELP for word in _split(words)[0])


def command_class(name: str) -> type:
    """Import a command of `COMMANDS`."""
    module = importlib.import_module(f"sims.commands.{name.replace('-', '_')}")
    return getattr(module, name.title().replace("-", ""))


def _without_bridge(arguments: Sequence[str]) -> list[str]:
    """Return the arguments after `bridge` in the present spelling."""
    if not arguments or arguments[0].startswith("-"):
        print("usage: speclens bridge COMMAND …\n\nEarlier names of the commands for language models:\n")
        for name, now in BRIDGE.items():
            print(f"  speclens bridge {name:8} is  speclens {' '.join(now)}")
        print("\nEach has its own --help with examples.")
        raise SystemExit(0 if arguments else 2)
    _check_known(arguments[0], BRIDGE, "speclens bridge")
    return [*BRIDGE[arguments[0]], *arguments[1:]]


def _check_shell(arguments: Sequence[str]) -> None:
    """Refuse a shell that has no completion, and no file where one is to be written."""
    option, shell, *file = [*arguments, ""][:3]
    if shell not in SHELLS:
        raise QueryError(f"{option} takes a shell: {', '.join(SHELLS)} (docs/command-line.md)")
    if option == COMPLETION[1] and not any(file):
        raise QueryError(f"{option} {shell} takes a file to write to")


def _check_known(name: str, known: Mapping[str, Any], program: str) -> None:
    if name not in known:
        near = get_close_matches(name, known, n=1)
        remedy = f"did you mean `{program} {near[0]}`?" if near else f"the commands are {', '.join(known)}"
        raise QueryError(f"{program} has no command {quoted(name)}; {remedy}")


def _described(name: str, words: Sequence[str] | None, called: type | None = None) -> object:
    """Return a command for the parser.

    Args:
        name: of the command.
        words: typed after it; None where another command was typed, and its summary is all that is shown.
        called: its class, where that is not the one of its module.
    """
    if words is None:
        return Annotated[make_dataclass(name, []), tyro.conf.subcommand(name, description=COMMANDS[name])]
    command = called or command_class(name)
    # The docstring in full: tyro's own reading of it would drop the examples.
    shown = tyro.conf.subcommand(name, description=paragraphs(command.__doc__ or ""))
    known = presets(command)
    if known and not known.keys() & set(words):
        command = _listed(command, known)
    return Annotated[command, shown]


def _listed(command: type, known: Mapping[str, type]) -> type:
    """Return a command none of whose presets was typed: each is shown by the first sentence of its docstring."""
    listed = tuple(
        Annotated[
            make_dataclass(name, []),
            tyro.conf.subcommand(name, description=(kind.__doc__ or "").partition("\n")[0]),
        ]
        for name, kind in known.items()
    )
    choice: Any = Union[listed]  # noqa: UP007  (made at run time)
    return make_dataclass(command.__name__, [("preset", tyro.conf.OmitSubcommandPrefixes[choice])])


def _expected(error: Exception) -> bool:
    if isinstance(error, MeasureError | StoreError | EngineError | QueryError | MissingExtraError):
        return True
    loaded = [(sys.modules[module], names) for module, names in _EXPECTED.items() if module in sys.modules]
    return any(isinstance(error, getattr(module, name)) for module, names in loaded for name in names)


if __name__ == "__main__":
    # What is recorded with results is the name of the command, and not that of this file.
    sys.argv[0] = "speclens"
    sys.exit(main())
