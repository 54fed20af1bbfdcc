"""The `speclens` command line."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Sequence
from dataclasses import make_dataclass
from typing import Annotated, Any, Union

import tyro

from sims.system.errors import EngineError, MeasureError, MissingExtraError, QueryError, StoreError
from sims.system.signals import Stopped

# In the order of --help. Each is the class of that name in its own module of sims.commands.
COMMANDS = (
    *("demo", "train", "sweep", "ls", "show", "compare", "export"),
    *("reproduce", "bands", "robustness", "measure", "report", "theory", "bridge", "bench"),
)

DESCRIPTION = """Toy models, theory and estimators for the spectral study of transformer training.

Start with `speclens demo`; every command has its own --help with examples."""


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, and turn expected errors into one line and status 2."""
    # One thread a process: a second one makes operations of this size slower.
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
        # Whoever read the output has seen enough. Python would complain once more when it closes the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if not _expected(error):
            raise
        print(f"speclens: {error}", file=sys.stderr)
        return 2


def parse(arguments: Sequence[str]) -> Any:
    """The command that the arguments describe.

    Only the module of the command that is called is loaded: a list of runs need not wait for torch.
    """
    called = arguments[0] if arguments and arguments[0] in COMMANDS else None
    described = tuple(_described(name, load=called in (None, name)) for name in COMMANDS)
    union: Any = Union[described]  # noqa: UP007  (made at run time)
    return tyro.cli(union, args=arguments, prog="speclens", description=DESCRIPTION)


def _described(name: str, load: bool) -> object:
    if not load:
        return Annotated[make_dataclass(name, []), tyro.conf.subcommand(name)]
    command = getattr(importlib.import_module(f"sims.commands.{name}"), name.capitalize())
    # The docstring as it stands: tyro's own reading of it would drop the examples.
    description = inspect.cleandoc(command.__doc__ or "")
    return Annotated[command, tyro.conf.subcommand(name, description=description)]


def _expected(error: Exception) -> bool:
    """Whether the message says all there is to say."""
    if isinstance(error, MeasureError | StoreError | EngineError | QueryError | MissingExtraError):
        return True
    # These load torch, and a command that never did cannot have raised them.
    from spectra.errors import InputError
    from toymodel.errors import CheckpointError, ConfigError

    return isinstance(error, ConfigError | CheckpointError | InputError)


if __name__ == "__main__":
    sys.exit(main())
