"""`speclens bands`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from sims.system.command_options import ConfigFile
from sims.system.files import check_folder


@dataclass(frozen=True)
class Bands:
    """Measure Fourier concentration on many bands of stored checkpoints.

    H_S and H_peak by position, over training, and what they vary with; how many seeds and bands a difference needs.

    Needs complete runs of at least two seeds, with checkpoints; nothing is trained. About three minutes of one core
    for twelve runs of the demo's size.

    Examples:
        speclens demo --seeds 3
        speclens bands demo
        speclens bands demo --bands 30 --fractions 0.25 0.5 0.75 1
    """

    folder: tyro.conf.Positional[Path]
    """A folder of runs, made by `speclens demo`, `train` or `sweep`."""
    bands: int = 20
    """Number of bands, half of them inside the training set."""
    named: tuple[tuple[int, int], ...] = ()
    """Bands (modulus offset) that are always measured; by default the two published ones where they fit."""
    samples: int = 2
    """Independent probe samples for each band and seed."""
    per_state: int = 8
    """Sequences for each state of a band in one clean sample."""
    fractions: tuple[float, ...] = (0.25, 0.5, 1.0)
    """Shares of training whose nearest checkpoints are measured."""
    batch_size: int | None = None
    """Measure the runs of this batch size; by default the smallest."""
    out: Path | None = None
    """Folder for tables and figures; by default FOLDER/bands."""
    json: bool = False
    """One JSON object on stdout in place of tables; notes go to stderr."""
    config: ConfigFile = None

    def __post_init__(self) -> None:
        check_folder(self._page)

    @property
    def _page(self) -> Path:
        return self.out or self.folder / "bands"

    def run(self) -> int:
        """Measure, print and write the page; return 0."""
        import time

        from rich.console import Console

        from sims.pages.answer import answering
        from sims.pages.table import Table
        from sims.pages.terminal import print_notes, print_table
        from sims.studies.bands.measured import BandPlan, band_report, default_named
        from sims.studies.bands.page import write_bands
        from sims.studies.bands.shown import shown_tables
        from sims.studies.stored import chosen_runs, run_notes

        console = Console()
        started = time.process_time()
        with answering(self.json) as answer:
            notes = run_notes(self.folder)
            vocab = chosen_runs(self.folder, self.batch_size)[0][1].task.vocab
            plan = BandPlan(
                bands=self.bands,
                named=self.named or default_named(vocab),
                samples=self.samples,
                per_state=self.per_state,
                fractions=self.fractions,
                batch_size=self.batch_size,
            )
            report = band_report(self.folder, plan, console)
            shown = shown_tables(report.tables)
            page = write_bands(report, self.folder, self._page, notes)
            if answer is not None:
                answer |= {**report.tables, "notes": notes, "page": page}
                return 0
            for heading in (h for h in ("Parts of the variance", "Seeds needed") if h in shown):
                console.print()
                print_table(heading, Table.of_frame(shown[heading]), console)
            print_notes(notes, console)
            seconds = time.process_time() - started
            spent = f"\n{seconds:.0f} s of processor time; page: {page}"
            console.print(spent, highlight=False, soft_wrap=True, markup=False)
        return 0
