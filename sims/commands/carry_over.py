"""`speclens carry-over`."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sims.system.errors import QueryError


@dataclass(frozen=True)
class CarryOver:
    """Compare toy runs with language models: which findings carry over, and which questions are open.

    TOY is a folder of `speclens train`, `sweep` or `demo`, LM a folder of `speclens train lm` or `speclens measure`.
    The same analyses read both. The page is one self-contained HTML file; figures (SVG, PNG) and tables (CSV) are
    written to a folder of its name.

    Examples:
        speclens carry-over sweep lm-runs --out carry-over.html
    """

    toy: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TOY")]
    """Folder of toy runs."""
    lm: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="LM")]
    """Folder of language-model runs."""
    out: Path = Path("carry-over.html")
    """The page: an .html file."""
    json: bool = False
    """One JSON object on stdout in place of tables; notes go to stderr."""

    def __post_init__(self) -> None:
        if self.out.suffix != ".html":
            raise QueryError(f"--out is {self.out}, which ends in {self.out.suffix!r}; name an .html file")

    def run(self) -> int:
        """Write the page and print its answers; return 0."""
        from sims.analysis.runs import load
        from sims.pages.answer import answering
        from sims.pages.plain import show_table
        from sims.runs.layout import TEXT, TOY
        from sims.system.files import check_page

        check_page(self.out)
        toy, text = load(self.toy, TOY), load(self.lm, TEXT)
        # Loading matplotlib takes a second: only when both folders can be read.
        from sims.studies.carry_over.page import side_notes, write_comparison
        from sims.studies.carry_over.sections import Sides

        command = shlex.join(["speclens", "carry-over", str(self.toy), str(self.lm), "--out", str(self.out)])
        answers = write_comparison(Sides(toy, text, self.toy, self.lm), self.out, command)
        notes = [*side_notes("toy", toy), *side_notes("language model", text)]
        with answering(self.json) as answer:
            if answer is None:
                rows = [
                    [r["question"], r["what"] or "all", r["verdict"], r["reason"]]
                    for r in answers.to_dict("records")
                ]
                show_table(("question", "of", "verdict", "why"), rows, left=4)
            else:
                answer |= {"answers": answers, "notes": notes, "page": self.out}
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
        print(f"page: {self.out}", file=sys.stderr)
        return 0
