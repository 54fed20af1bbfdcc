"""`speclens train`: toy runs, and language models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from sims.commands.train.lm import Lm
from sims.commands.train.toy import Published, Small
from sims.system.help_texts import paragraphs


@dataclass(frozen=True)
class Train:
    """Train and measure toy runs of one configuration, or language models (lm).

    `speclens train small --help`, `train published --help` and `train lm --help` list the options.

    Examples:
        speclens train small --stage muon --seeds 0 1 2
        speclens train published --stage untied --batch-size 32 --lr 6e-4 --target-loss 2.0 --seeds 0 1 2
        speclens train published --stage rope --task.components-max 3 --task.pareto 1.5 --out mixtures
        speclens train small --task.kind modular_arithmetic --task.p 47 --stage mlp --weight-decay 1 --steps 3000
        speclens train small --track tensorboard
        speclens train lm --data shards --tier tiny --stage untied
    """

    # Without a name of their own the options stand in one group, below the description.
    preset: Annotated[
        tyro.conf.OmitSubcommandPrefixes[
            Annotated[Published, tyro.conf.subcommand("published")]
            | Annotated[Small, tyro.conf.subcommand("small")]
            | Annotated[Lm, tyro.conf.subcommand("lm", description=paragraphs(Lm.__doc__ or ""))]
        ],
        tyro.conf.arg(name=""),
    ]

    def run(self) -> int:
        """Train; return 0 when every run is complete, else 1."""
        return self.preset.execute()
