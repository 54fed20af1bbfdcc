"""`speclens robustness`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from sims.system.command_options import ConfigFile
from sims.system.errors import QueryError
from sims.system.files import check_folder

# A sixteenth of them is measured too, and a spectrum needs two.
LEAST_SEQUENCES, MOST_SEQUENCES = 32, 10**6


@dataclass(frozen=True)
class Robustness:
    """Test which conclusions about stages depend on choices of the measurement.

    Every conclusion is tested again with fewer samples, other windows and poolings, cleaned validation, other data.

    Needs complete runs of at least two seeds, with checkpoints; nothing is trained. About ten seconds for twelve runs
    of the demo's size. For --other-data train the same runs, of one model seed, on other data: with --vary task.seed
    and the task and rates of the folder.

    Examples:
        speclens demo --seeds 3
        speclens robustness demo
        speclens sweep small --batch-sizes 32 --seeds 0 --vary task.seed=1,2 --out other
        speclens robustness demo --other-data other
    """

    folder: tyro.conf.Positional[Path]
    """A folder of runs, made by `speclens demo`, `train` or `sweep`."""
    other_data: Path | None = None
    """A folder of the same runs with other task.seed and one model seed."""
    sequences: int = 1_024
    """Validation sequences of the reference measurement."""
    batch_size: int | None = None
    """The runs of this batch size; by default the smallest."""
    out: Path | None = None
    """Folder for tables and the figure; by default FOLDER/robustness."""
    json: bool = False
    """One JSON object on stdout in place of tables; notes go to stderr."""
    config: ConfigFile = None

    def __post_init__(self) -> None:
        if not LEAST_SEQUENCES <= self.sequences <= MOST_SEQUENCES:
            raise QueryError(
                f"--sequences is {self.sequences}; it must lie in {LEAST_SEQUENCES} … {MOST_SEQUENCES:,}"
            )
        check_folder(self._page)

    @property
    def _page(self) -> Path:
        return self.out or self.folder / "robustness"

    def run(self) -> int:
        """Measure, print and write the page; return 0."""
        import time

        from rich.console import Console

        from sims.pages.answer import answering
        from sims.pages.table import Table
        from sims.pages.terminal import print_notes, print_table
        from sims.studies.robustness.measured import RobustnessPlan, robustness_report
        from sims.studies.robustness.page import write_robustness
        from sims.studies.robustness.shown import shown_tables
        from sims.studies.stored import run_notes

        console = Console()
        started = time.process_time()
        fewer = tuple(self.sequences // k for k in (2, 4, 8, 16))
        plan = RobustnessPlan(sequences=self.sequences, fewer=fewer, batch_size=self.batch_size)
        with answering(self.json) as answer:
            folders = (self.folder, self.other_data)
            notes = [note for folder in folders if folder for note in run_notes(folder)]
            report = robustness_report(self.folder, plan, console, self.other_data)
            shown = shown_tables(report.tables)
            page = write_robustness(report, self.folder, self._page, notes)
            if answer is not None:
                answer |= {**report.tables, "notes": notes, "page": page}
                return 0
            print_table("Counts", Table.of_frame(shown["Counts"]), console)
            print_notes(notes, console)
            seconds = time.process_time() - started
            spent = f"\n{seconds:.0f} s of processor time; page: {page}"
            console.print(spent, highlight=False, soft_wrap=True, markup=False)
        return 0
