"""The figures that can be asked for, and what makes each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sims.errors import MeasureError
from sims.reproduce.concentration import fig4b, fig11b
from sims.reproduce.material import Material, Section, unavailable
from sims.reproduce.numbers import tables
from sims.reproduce.prediction import fig4a
from sims.reproduce.remeasured import bands, robustness, seeds, sequence
from sims.reproduce.spectra import fig1a, fig9, fig11a
from sims.reproduce.stages import fig3, fig7, fig18


@dataclass(frozen=True)
class Target:
    """One figure.

    Attributes:
        make: from the runs to the section of the page.
        title: for a figure that could not be made.
    """

    make: Callable[[Material], Section]
    title: str


TARGETS: dict[str, Target] = {
    "tables": Target(tables, "Tables: losses, tokens, transitions and concentration"),
    "fig1a": Target(fig1a, "Figure 1a: activation spectra by batch size at equal loss"),
    "fig3": Target(fig3, "Figure 3: taxonomy of transitions"),
    "fig4a": Target(fig4a, "Figure 4a: early prediction of token efficiency"),
    "fig4b": Target(fig4b, "Figure 4b: concentration over training"),
    "fig7": Target(fig7, "Figure 7: Muon against AdamW at equal loss"),
    "fig9": Target(fig9, "Figure 9: how far batch sizes are apart at equal loss"),
    "fig11a": Target(fig11a, "Figure 11a: tails by batch size at equal loss"),
    "fig11b": Target(fig11b, "Figure 11b: gains of transitions, and concentration"),
    "fig18": Target(fig18, "Figure 18: phases of RankMe"),
    "bands": Target(bands, "What concentrates, and when: many bands over training"),
    "sequence": Target(sequence, "When it dissolves: along the sequence"),
    "seeds": Target(seeds, "How many seeds and bands a stage difference needs"),
    "robustness": Target(robustness, "Which conclusions move"),
}


def sections(names: Sequence[str], material: Material) -> list[Section]:
    """The sections of these figures, in the order of `TARGETS`; what the runs do not allow says why."""
    found = []
    for name, target in TARGETS.items():
        if name in names:
            try:
                found.append(target.make(material))
            except MeasureError as error:
                found.append(unavailable(name, target.title, error))
    return found
