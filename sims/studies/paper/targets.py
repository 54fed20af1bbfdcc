"""The figures that can be asked for, and what makes each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sims.studies.paper.concentration import fig4b, fig11b
from sims.studies.paper.figure_data import OPEN, FigureData, Section, unavailable
from sims.studies.paper.language import LEFT_OUT
from sims.studies.paper.layers import layers, measured_sites
from sims.studies.paper.numbers import tables
from sims.studies.paper.prediction import fig4a
from sims.studies.paper.remeasured import bands, robustness, seeds, sequence
from sims.studies.paper.spectra import fig1a, fig9, fig11a
from sims.studies.paper.stages import fig3, fig7, fig18
from sims.system.errors import MeasureError
from toymodel.errors import ConfigError


@dataclass(frozen=True)
class Target:
    """One figure.

    Attributes:
        make: from the runs to the section of the page.
        title: for a figure that could not be made.
    """

    make: Callable[[FigureData], Section]
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
    "layers": Target(layers, "Figures 8 and 10: layer by layer"),
    "fig18": Target(fig18, "Figure 18: phases of RankMe"),
    "bands": Target(bands, "What concentrates, and when: many bands over training"),
    "sequence": Target(sequence, "When it dissolves: along the sequence"),
    "seeds": Target(seeds, "How many seeds and bands a stage difference needs"),
    "robustness": Target(robustness, "Which conclusions move"),
}


def every(material: FigureData) -> tuple[str, ...]:
    """What "all" stands for: every figure of the toy, and that of layers where several were measured; of language
    models what needs nothing that only the toy has."""
    if material.language:
        return tuple(name for name in TARGETS if name not in LEFT_OUT)
    several = len(measured_sites(material)) > 1
    return tuple(name for name in TARGETS if several or name != "layers")


def sections(names: Sequence[str], material: FigureData) -> list[Section]:
    """The sections of these figures, in the order of `TARGETS`; what the runs do not allow says why.

    Raises:
        ConfigError: a figure that language models never allow.
    """
    refused = [name for name in names if material.language and name in LEFT_OUT]
    if refused:
        raise ConfigError(
            f"{', '.join(refused)} cannot be made of language models: {LEFT_OUT[refused[0]]}; they allow "
            f"{', '.join(every(material))}"
        )
    found = []
    for name, target in TARGETS.items():
        if name in names:
            try:
                found.append(_alone(target.make(material), material))
            except MeasureError as error:
                found.append(unavailable(name, target.title, error))
    return found


def _alone(section: Section, material: FigureData) -> Section:
    """Of language models, without what was published of the toy and how findings stand to that."""
    if material.language is None:
        return section
    return replace(section, checks=(), findings=tuple(replace(f, stance=OPEN) for f in section.findings))
