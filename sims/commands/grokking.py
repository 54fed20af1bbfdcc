"""`speclens grokking`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from sims.sweep.options import LocalOptions
from sims.system.errors import QueryError
from sims.system.files import check_folder, page_folder
from sims.system.given import check_seeds, given

if TYPE_CHECKING:
    from rich.console import Console

    from sims.pages.answer import Answer

SEEDS, FULL_SEEDS, CAUSAL_SEEDS = 4, 8, 8
DEFAULT, FULL, CAUSAL = "grokking", "grokking-full", "grokking-causal"


@dataclass(frozen=True)
class Grokking:
    """Ask whether anything warns of grokking before it happens, against controls that only memorise.

    Trains small networks on modular arithmetic: operations that are learned long after they are memorised, and four
    types of control (no weight decay, random labels, few pairs, hard operations). Signals such as the gap of the
    spectral edge and the commutator defect are read at equal times, with thresholds from other runs (arXiv 2603.15678,
    2602.16746, 2602.16967). Under ten minutes on two free CPU cores; --network transformer takes hours. After an
    interruption, the same command continues. With --runs nothing is trained.

    With --causal, weight decay is taken away at the alarm or at other times, and updates lose the directions above
    their edge or the same energy elsewhere: does grokking come later?

    Profiles (--profile):

    - quick: one network (--network), four seeds.
    - full: every network in a folder of its own, eight seeds, more operations; 14 hours of one core.

    Examples:
        speclens grokking
        speclens grokking --dry-run
        speclens grokking --profile full --dry-run
        speclens grokking --network rope --out grokking-rope
        speclens grokking --causal
        speclens grokking --runs grokking
    """

    out: Path | None = None
    """Folder for the runs and, below it, for the page; by default grokking, grokking-full or grokking-causal. With
    --runs that of the page alone, by default RUNS/page."""
    profile: Literal["quick", "full"] = "quick"
    """Which runs: quick, or full."""
    runs: Path | None = None
    """A folder of runs of modular arithmetic, with accuracies and signals measured between steps, to ask instead."""
    seeds: int | None = None
    """Seeds of each setting, by default 4, with --causal or --profile full 8: three operations, and two settings of
    each type of control (of the transformer one operation, and one setting of each type; with --profile full four
    operations, two settings of three types and one of hard operations). The rule asks for eight runs of each type."""
    network: Literal["mlp", "rope", "transformer"] | None = None
    """Two ReLU layers over both tokens, or a transformer of one block (about four times as long), both modulo 47; or a
    transformer of two blocks modulo 97, five minutes a run. By default mlp, and with --profile full every one."""
    causal: bool = False
    """Change runs of the small network on purpose, and compare when they grok (ten runs a seed)."""
    dry_run: bool = False
    """Show the runs and how long they take on this machine, and stop; nothing is written."""
    options: Annotated[LocalOptions, tyro.conf.arg(name="")] = field(default_factory=LocalOptions)

    def __post_init__(self) -> None:
        if self.seeds is not None:
            check_seeds(self.seeds)
        if self.runs is not None and (found := given(self, ("seeds", "profile", "network", "dry_run"))):
            raise QueryError(f"--runs names existing runs; leave out {', '.join(found)}: about training")
        if self.causal and (found := given(self, ("profile", "network"))):
            raise QueryError(f"--causal changes runs of the small network; leave out {', '.join(found)}")
        check_folder(self._page)

    @property
    def _default(self) -> Path:
        return Path(CAUSAL if self.causal else FULL if self.profile == "full" else DEFAULT)

    @property
    def _page(self) -> Path:
        return page_folder(self.out, self.runs, self._default)

    def run(self) -> int:
        """Train, read, print and write the page; return 0, or 1 where a run failed."""
        return self._causal() if self.causal else self._warnings()

    def _warnings(self) -> int:
        from rich.console import Console

        from sims.pages.answer import answering
        from sims.studies.grokking.study import PAGE
        from sims.studies.study import profiles
        from sims.sweep.show import show_failures

        console, failed = Console(), dict[str, str]()
        full = self.profile == "full"
        profile = profiles(PAGE)[self.profile]()
        networks = [self.network or "mlp"] if self.network or not full else list(profile)
        seeds = range(self.seeds or (FULL_SEEDS if full else SEEDS))
        with answering(self.options.json) as answer:
            if self.runs is not None:
                self._answer(self.runs, self._page, failed, console, answer)
                return 0
            found: dict[str, Answer] = {network: {} for network in networks}
            places = {n: (self.out or self._default) / (n if full else "") for n in networks}
            for network, out in places.items() if not self.dry_run else ():
                # The last network trains hours after the first.
                profile[network].check(seeds, self.options, out)
            for network, out in places.items():
                own = None if answer is None else found[network]
                if full:
                    console.print(f"network {network}:")
                if self.dry_run:
                    profile[network].show(seeds, None, self.options, console, own)
                    continue
                lost = profile[network].train(seeds, None, self.options, out, console)
                show_failures(lost, console)
                self._answer(out, out / "page", lost, console, own)
                failed |= lost
            if answer is not None:
                answer |= {"networks": found} if full else found[networks[0]]
        return 1 if failed else 0

    def _answer(
        self, runs: Path, folder: Path, failed: Mapping[str, str], console: Console, answer: Answer | None
    ) -> None:
        """Read the runs of one network, print what they say and write its page."""
        from sims.pages.terminal import print_notes, print_place
        from sims.studies.grokking.answers import Answers
        from sims.studies.grokking.measured import looks_of
        from sims.studies.grokking.page import print_answers, write_grokking
        from sims.studies.stored import run_notes

        answers, notes = Answers(looks_of(runs)), run_notes(runs)
        page = write_grokking(answers, runs, folder, notes)
        if answer is None:
            print_answers(answers, console)
        else:
            verdicts = [{"signal": name, **v.row()} for name, v in answers.verdicts.items()]
            answer |= {"outcomes": answers.outcomes, "verdicts": verdicts, "areas": answers.rocs}
            answer |= {"leads": answers.leads, "notes": notes, "failed": dict(failed), "page": page}
        print_notes(notes, console)
        print_place(page, console)

    def _causal(self) -> int:
        from rich.console import Console

        from sims.pages.answer import answering
        from sims.pages.terminal import print_notes, print_place
        from sims.studies.grokking.causal_page import CausalAnswers, answer_of, print_causal, write_causal
        from sims.studies.grokking.causal_runs import (
            changed_measurements,
            expected,
            seeds_in,
            times_of,
            train_arms,
        )
        from sims.studies.stored import run_notes
        from sims.sweep.named_runs import show_named
        from sims.sweep.show import show_failures

        console, failed = Console(), {}
        out = self.out or self._default
        seeds = range(self.seeds or CAUSAL_SEEDS)
        with answering(self.options.json) as answer:
            if self.dry_run:
                show_named(expected(seeds), changed_measurements(), self.options, console, answer)
                return 0
            if self.runs is None:
                failed = train_arms(seeds, self.options, out, console)
                show_failures(failed, console)
            runs = self.runs or out
            times, left_out = times_of(runs, seeds_in(runs) if self.runs else seeds)
            answers, notes = CausalAnswers(times), [*left_out, *run_notes(runs)]
            page = write_causal(answers, runs, self._page, notes)
            if answer is None:
                print_causal(answers, console)
            else:
                answer |= {**answer_of(answers), "notes": notes, "failed": failed, "page": page}
            print_notes(notes, console)
            print_place(page, console)
        return 1 if failed else 0
