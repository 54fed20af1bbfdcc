"""`speclens bridge`: language-model runs of other projects. One file each subcommand, and one line in `_COMMANDS`."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Annotated, Any, Union

import tyro

from sims.commands.bridge.data import Data
from sims.commands.bridge.records import Records

# In the order of --help. Each is called like its class.
_COMMANDS = (
    Records,
    Data,
)


def _described(command: type) -> object:
    # The docstring as it stands: tyro's own reading of it would drop the examples.
    description = inspect.cleandoc(command.__doc__ or "")
    return Annotated[command, tyro.conf.subcommand(command.__name__.lower(), description=description)]


@dataclass(frozen=True)
class Bridge:
    """Language-model runs of other projects: their training logs, and text in their format.

    Every subcommand has its own --help with examples.
    """

    command: Annotated[Any, tyro.conf.arg(name="", constructor=Union[tuple(map(_described, _COMMANDS))])]  # noqa: UP007

    def run(self) -> int:
        """Run the subcommand."""
        return self.command.run()
