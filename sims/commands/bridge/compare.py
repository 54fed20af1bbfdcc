"""`speclens bridge compare`: toy and language models on one page."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sims.analysis.runs import load
from sims.pages.plain import show_table
from sims.system.errors import QueryError


@dataclass(frozen=True)
class Compare:
    """Put toy runs and language-model runs side by side: which of the toy's findings carry over, and what is open.

    Both folders hold run folders: of `speclens train`, `sweep` or `demo`, and of `speclens bridge measure` or `train`.
    The same analyses read both. The page is one self-contained HTML file; figures (SVG, PNG) and tables (CSV) stand in
    a folder of its name.

    Examples:
        speclens bridge compare sweep lm-runs --out carry-over.html
    """

    toy: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TOY")]
    """Folder of toy runs."""
    nanogpt: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="NANOGPT")]
    """Folder of language-model runs."""
    out: Path = Path("carry-over.html")
    """The page: an .html file."""

    def run(self) -> int:
        """Run it."""
        if self.out.suffix != ".html":
            raise QueryError(f"{self.out} is the page, and ends in {self.out.suffix!r}; name an .html file")
        toy, text = load(self.toy), load(self.nanogpt)
        # matplotlib takes its second only once both folders can be read.
        from sims.studies.carry_over.page import write_comparison
        from sims.studies.carry_over.sections import Sides

        command = shlex.join(["speclens", "bridge", "compare", str(self.toy), str(self.nanogpt)])
        sides = Sides(toy, text, self.toy, self.nanogpt)
        answers = write_comparison(sides, self.out, f"{command} --out {shlex.quote(str(self.out))}")
        rows = [
            [r["question"], r["what"] or "all", r["verdict"], r["reason"]] for r in answers.to_dict("records")
        ]
        show_table(("question", "of", "verdict", "why"), rows, left=4)
        print(f"page: {self.out}", file=sys.stderr)
        return 0
