"""`speclens phases`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from sims.system.command_options import ConfigFile
from sims.system.errors import QueryError
from sims.system.files import check_folder
from sims.system.given import given, refuse

MEASURING = ("length", "sequences", "tokens_per_step", "device")


@dataclass(frozen=True)
class Phases:
    """Ask which phases the geometry of states goes through in training, and what carries each.

    Labels the phases of RankMe over training (warm-up W, entropy-seeking E, compression-seeking C) in every run and in
    every set of runs that are alike but for their seed, and puts the published claims (arXiv 2509.23024) to a test
    with a null: the word WEC, expansion by 2 to 3 times, compression at the end, what is left without the first
    directions, the mean state, the ramp of the learning rate, the bottleneck. Runs with another warm-up or width, and
    null runs, are recognised by their configuration. Nothing is trained. After an interruption, the same command
    continues.

    Examples:
        speclens phases toy-runs
        speclens phases lm-runs ramp-runs --out page
        speclens phases lm-runs shuffled-runs --texts shards shuffled --out page
        speclens phases pythia-70m pythia-160m --data shards --tokens-per-step 2097152
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of runs with the geometry of states (`--measure.geometry`), or folders of checkpoints of one training run
    each (named step<N>, as those of Pythia and OLMo), of any number of steps."""
    out: Path | None = None
    """Folder of the page, and of what is measured of checkpoints; by default RUNS/page of the first."""
    data: Path | None = None
    """Checkpoints: a token shard, or a folder of shards, in the vocabulary of the models; its validation part."""
    texts: tuple[Path, ...] = ()
    """Language models: folders of token shards they were trained on, of which null texts (speclens data --null) are
    recognised."""
    length: int = 128
    """Checkpoints: tokens per sequence."""
    sequences: int = 1_024
    """Checkpoints: sequences, whose last states are measured, or as many as the text has."""
    tokens_per_step: int | None = None
    """Checkpoints: tokens of a training step where they do not record it; without it times are steps."""
    device: str | None = None
    """Checkpoints: cpu, cuda or cuda:N; by default the GPU if there is one."""
    json: bool = False
    """One JSON object on stdout in place of tables; notes go to stderr."""
    config: ConfigFile = None

    def __post_init__(self) -> None:
        if not self.runs:
            raise QueryError("name RUNS: folders of runs, or of checkpoints of one training run each")
        for name, least in (("length", 2), ("sequences", 3)):
            if getattr(self, name) < least:
                raise QueryError(f"--{name} is {getattr(self, name)}; it must be at least {least}")
        if self.tokens_per_step is not None and self.tokens_per_step < 1:
            raise QueryError(f"--tokens-per-step is {self.tokens_per_step}; it must be at least 1")
        if self.data is None:
            refuse(
                given(self, MEASURING),
                "only for checkpoints; name a text with --data, or leave these options out",
            )
        check_folder(self._page)

    @property
    def _page(self) -> Path:
        return self.out or self.runs[0] / "page"

    def run(self) -> int:
        """Read or measure, print and write the page; return 0."""
        from rich.console import Console

        from sims.analysis.origins import made_by
        from sims.pages.answer import answering
        from sims.pages.terminal import print_notes, print_place, rich_table
        from sims.studies.claims import TONES, claim_table, print_claims
        from sims.studies.phases.answers import PhaseAnswers
        from sims.studies.phases.labels import StoredLabels
        from sims.studies.phases.measured import phase_data
        from sims.studies.phases.page import TITLE, word_rows, word_table, write_phases
        from sims.studies.phases.published import claims
        from sims.studies.phases.sources import StateOptions, measured_folders
        from sims.training.toy_runner import chosen_device

        console = Console()
        page = self._page
        with answering(self.json) as answer:
            options = StateOptions(
                self.data, self.length, self.sequences, self.tokens_per_step,
                chosen_device(self.device) if self.data else "cpu",
            )  # fmt: skip
            folders, notes = measured_folders(self.runs, page, options)
            data = phase_data(folders, ", ".join(map(str, self.runs)), notes, self.texts)
            answers = PhaseAnswers(data, label=StoredLabels(page))
            notes = [*answers.data.notes, *made_by(list(answers.data.folders.values()))]
            written = write_phases(answers, self.runs, page, notes)
            found = list(claims(answers))
            if answer is None:
                console.print(rich_table("Phases", word_table(answers), TONES))
                print_claims(TITLE, found, console)
            else:
                answer |= {
                    "words": word_rows(answers), "claims": claim_table(found), "notes": notes, "page": written,
                }  # fmt: skip
            print_notes(notes, console)
            print_place(written, console)
        return 0
