"""`speclens bridge`: language models on real text. One file each subcommand, and one line in `_COMMANDS`."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import cleandoc
from typing import Annotated, Any, Union

import tyro

from sims.commands.bridge.compare import Compare
from sims.commands.bridge.data import Data
from sims.commands.bridge.inspect import Inspect
from sims.commands.bridge.measure import Measure
from sims.commands.bridge.records import Records
from sims.commands.bridge.train import Train
from sims.commands.bridge.windows import Windows

# In the order of --help. Each is called like its class.
_COMMANDS = (
    Records,
    Data,
    Windows,
    Train,
    Inspect,
    Measure,
    Compare,
)


def _described(command: type) -> object:
    # The docstring as it stands: tyro's own reading of it would drop the examples.
    description = cleandoc(command.__doc__ or "")
    return Annotated[command, tyro.conf.subcommand(command.__name__.lower(), description=description)]


_UNION: Any = Union[tuple(map(_described, _COMMANDS))]  # noqa: UP007  (made at run time)


@dataclass(frozen=True)
class Bridge:
    """Language models on real text: runs of the toy's stages, and the logs and checkpoints of other projects.

    Every subcommand has its own --help with examples.
    """

    command: Annotated[Any, tyro.conf.arg(name="", constructor=_UNION)]

    def run(self) -> int:
        """Run the subcommand."""
        return self.command.run()
