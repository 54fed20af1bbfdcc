"""The `speclens` command line.

Help and errors of the parser come in milliseconds: a command is imported when it is called, and `COMMANDS` holds
what `speclens --help` shows of the others.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import make_dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Union

import tyro

from sims.system.errors import EngineError, MeasureError, MissingExtraError, QueryError, StoreError
from sims.system.signals import Stopped

# Name of each command, in the order of --help, and the first sentence of its docstring. The class of `carry-over` is
# CarryOver in sims.commands.carry_over.
COMMANDS: Mapping[str, str] = {
    "demo": "Train the four stages at two batch sizes, measure them, and write report.html.",
    "train": "Train and measure one configuration for one or more seeds.",
    "sweep": "Train and measure a grid of runs.",
    "ls": "List the runs of a folder: how they stand, what distinguishes them, and their losses.",
    "show": "Show one run: configuration, provenance, outcome, time by part, the last measured numbers, files.",
    "compare": "Put complete runs side by side: what differs in their configuration, and what came out.",
    "export": "Write the runs of a folder, or all that was measured of them, to one file.",
    "reproduce": "Train what the paper's toy figures need, and set our numbers beside the published ones.",
    "bands": "Measure H_S and H_peak on many bands of stored checkpoints.",
    "robustness": "Judge every conclusion again with other choices of the measurement.",
    "measure": "Measure every stored checkpoint of a run with the given settings.",
    "report": "Print the summary of a folder of runs and rebuild its report.html.",
    "theory": "Verify the claims of the mechanistic model and say which are true, false or undecided.",
    "bridge": "Language models on real text: runs of the toy's stages, and checkpoints of other projects.",
    "bench": "Time fast routes against their slow oracles; ratios and errors of one run.",
}

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
        # The reader of the output has closed it. Python would report this once more when it closes the pipe itself.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if not _expected(error):
            raise
        print(f"speclens: {error}", file=sys.stderr)
        return 2


def parse(arguments: Sequence[str]) -> Any:
    """Return the command that the arguments describe; only its module is imported.

    Raises:
        QueryError: an unknown command.
        SystemExit: after --help and --version (0), and for arguments that a command does not take (2).
    """
    first = arguments[0] if arguments else ""
    if first == "--version":
        print(f"speclens {importlib.metadata.version('spectral-lens')}")
        raise SystemExit(0)
    if first and not first.startswith("-") and first not in COMMANDS:
        near = get_close_matches(first, COMMANDS, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(COMMANDS)}"
        raise QueryError(f"unknown command {first!r}; {remedy}")
    described = tuple(_described(name, load=name == first) for name in COMMANDS)
    union: Any = Union[described]  # noqa: UP007  (made at run time)
    return tyro.cli(union, args=arguments, prog="speclens", description=DESCRIPTION)


def command_class(name: str) -> type:
    """Import a command of `COMMANDS`."""
    module = importlib.import_module(f"sims.commands.{name.replace('-', '_')}")
    return getattr(module, name.title().replace("-", ""))


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
