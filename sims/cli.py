"""The `speclens` command line."""

from __future__ import annotations

import inspect
import os
import sys
from typing import Annotated

import tyro

from sims.commands.bench import Bench
from sims.commands.demo import Demo
from sims.commands.measure import Measure
from sims.commands.report import Report
from sims.commands.sweep import Sweep
from sims.commands.theory import Theory
from sims.commands.train import Train
from sims.errors import EngineError, MeasureError, StoreError
from spectra.errors import InputError
from toymodel.errors import CheckpointError, ConfigError


def _described(command: type) -> object:
    # The docstring as it stands: tyro's own reading of it would drop the examples.
    return tyro.conf.subcommand(command.__name__.lower(), description=inspect.cleandoc(command.__doc__ or ""))


Command = (
    Annotated[Demo, _described(Demo)]
    | Annotated[Train, _described(Train)]
    | Annotated[Sweep, _described(Sweep)]
    | Annotated[Measure, _described(Measure)]
    | Annotated[Report, _described(Report)]
    | Annotated[Theory, _described(Theory)]
    | Annotated[Bench, _described(Bench)]
)

DESCRIPTION = """Toy models, theory and estimators for the spectral study of transformer training.

Start with `speclens demo`; every command has its own --help with examples."""
EXPECTED = (ConfigError, CheckpointError, MeasureError, StoreError, EngineError, InputError)


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, and turn expected errors into one line and status 2."""
    # One thread a process: a second one makes operations of this size slower.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        command = tyro.cli(Command, args=arguments, prog="speclens", description=DESCRIPTION)
        return command.run()
    except EXPECTED as error:
        print(f"speclens: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "speclens: stopped; everything finished is kept, and the same command goes on from here",
            file=sys.stderr,
        )
        return 130


if __name__ == "__main__":
    sys.exit(main())
