"""`speclens measure`: measure the stored weights of a run again, with other settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from sims.measure.remeasure import remeasure
from sims.runs.layout import which
from sims.runs.measure_config import MeasureConfig
from sims.training.toy_runner import chosen_device


@dataclass(frozen=True)
class Measure:
    """Measure every stored checkpoint of a run with the given settings.

    Results stand in RUN/measured-<hash of the settings>/; those of the training run stay as they are.

    Examples:
        speclens measure demo/untied-b32-… --measure.pooling token
        speclens measure runs/rope-b32-… --measure.bands 97 200 31 20 --measure.sites final blocks.0
    """

    folder: tyro.conf.Positional[Path]
    """The folder of one run."""
    measure: MeasureConfig
    """What to measure; the settings of the training run are not taken over."""
    device: str | None = None
    """cpu, cuda or cuda:N; by default the GPU where there is one."""

    def run(self) -> int:
        """Run it."""
        console = Console()
        path, rows = remeasure(self.folder, self.measure, chosen_device(self.device), console)
        last = rows[(rows["step"] == rows["step"].max()) & rows["object"].isin(["activation", "probe"])]
        table = Table(title=f"step {rows['step'].max()}", title_justify="left")
        for name in ("quantity", "site", "which", "value", "null", "status"):
            table.add_column(name)
        for row in last.to_dict("records"):
            values = (f"{row[name]:.4g}" for name in ("value", "null"))
            table.add_row(row["quantity"], row["site"], which(row), *values, row["status"])
        console.print(table)
        console.print(f"{len(rows)} rows in {path}", soft_wrap=True)
        return 0
