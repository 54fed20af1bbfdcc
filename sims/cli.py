"""The `speclens` command line.

Help and errors of the parser come in milliseconds: a command is imported when it is called, and `COMMANDS` holds
what `speclens --help` shows of the others.
"""

from __future__ import annotations

import errno
import importlib
import importlib.metadata
import inspect
import io
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import make_dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Union

import tyro

from sims.system.errors import EngineError, MeasureError, MissingExtraError, QueryError, StoreError
from sims.system.plain import plain, plain_streams
from sims.system.signals import Stopped

# Name of each command, in the order of --help, and the first sentence of its docstring. The class of `carry-over` is
# CarryOver in sims.commands.carry_over.
COMMANDS: Mapping[str, str] = {
    "demo": "Train the four stages at two batch sizes, measure them, and write report.html.",
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
    "robustness": "Test which conclusions about stages depend on choices of the measurement.",
    "carry-over": "Compare toy runs with language models: which findings carry over, and which questions are open.",
    "theory": "Verify the claims of the mechanistic model, or test them on trained runs.",
    "data": "Make token shards of text in GPT-2's vocabulary, in the format of modded-nanogpt.",
    "windows": "Compute the covariance spectrum of token windows: the structure of the data before any model.",
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

DESCRIPTION = """Toy models, theory and estimators for the spectral study of transformer training.

Start with `speclens demo`; every command has its own --help with examples."""

# Errors whose message is complete, by module. Loading these modules takes time, and what is not loaded was not raised.
_EXPECTED = {"toymodel.errors": ("ConfigError", "CheckpointError"), "spectra.errors": ("InputError",)}

# What a stream says that takes no more.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


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
    try:
        status = parse(sys.argv[1:] if arguments is None else arguments).run()
        sys.stdout.flush()
        return status
    except KeyboardInterrupt as stop:
        print(
            "speclens: stopped; everything finished is kept, and the same command goes on from here",
            file=sys.stderr,
        )
        return stop.status if isinstance(stop, Stopped) else 130
    except BrokenPipeError:
        # The reader of the output has closed it.
        _discard_output()
        return 0
    except Exception as error:
        outside = _unwritable(error) or _homeless(error)
        if not (outside or _expected(error)):
            raise
        # The status tells it too, where the error stream takes no more.
        with suppress(OSError):
            print(f"speclens: {outside or plain(str(error))}", file=sys.stderr)
            sys.stderr.flush()
        return 2


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


def _discard_output() -> None:
    """Write what is left of the output to nowhere; Python would report the same error again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _unwritable(error: Exception) -> str:
    """Say why the output cannot be written; empty where the error is another one."""
    # Errors of files carry their names; those of streams have none.
    if not isinstance(error, OSError) or error.filename is not None or error.errno not in _UNWRITABLE:
        return ""
    _discard_output()
    return f"the output cannot be written ({error.strerror}); write it to another place"


def _homeless(error: Exception) -> str:
    """Say that the current folder is gone; empty where the error is another one."""
    if not isinstance(error, FileNotFoundError):
        return ""
    try:
        os.getcwd()
    except FileNotFoundError:
        return "the current folder does not exist any more; change to another one, and give paths from there"
    return ""


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
        print(f"speclens {importlib.metadata.version('spectral-lens')}")
        raise SystemExit(0)
    if arguments[:1] == ["bridge"]:
        arguments = _without_bridge(arguments[1:])
    first = arguments[0] if arguments else ""
    if not first.startswith("-") and first:
        _check_known(first, COMMANDS, "speclens")
    described = tuple(_described(name, load=name == first) for name in COMMANDS)
    union: Any = Union[described]  # noqa: UP007  (made at run time)
    return tyro.cli(union, args=arguments, prog="speclens", description=DESCRIPTION)


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


def _check_known(name: str, known: Mapping[str, Any], program: str) -> None:
    if name not in known:
        near = get_close_matches(name, known, n=1)
        remedy = f"did you mean `{program} {near[0]}`?" if near else f"the commands are {', '.join(known)}"
        raise QueryError(f"{program} has no command {name!r}; {remedy}")


def _described(name: str, load: bool) -> object:
    if not load:
        return Annotated[make_dataclass(name, []), tyro.conf.subcommand(name, description=COMMANDS[name])]
    command = command_class(name)
    # The docstring in full: tyro's own reading of it would drop the examples.
    description = inspect.cleandoc(command.__doc__ or "")
    return Annotated[command, tyro.conf.subcommand(name, description=description)]


def _expected(error: Exception) -> bool:
    if isinstance(error, MeasureError | StoreError | EngineError | QueryError | MissingExtraError):
        return True
    loaded = [(sys.modules[module], names) for module, names in _EXPECTED.items() if module in sys.modules]
    return any(isinstance(error, getattr(module, name)) for module, names in loaded for name in names)


if __name__ == "__main__":
    sys.exit(main())
