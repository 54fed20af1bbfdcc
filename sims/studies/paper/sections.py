"""Which sections the page has for some runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sims.pages.page import Section
from sims.studies.paper.cells import SCAN_SIZES, A, B, Cell
from sims.studies.paper.figure_data import FigureData
from sims.studies.paper.published import SIZES, STAGES
from sims.studies.paper.study import PAGE
from sims.studies.study import OPEN, Figure, figures
from toymodel.errors import ConfigError


def every(data: FigureData) -> tuple[str, ...]:
    """Return the figures that "all" asks for: those that apply to the data."""
    return tuple(name for name, f in figures(PAGE).items() if f.applies(data) and not _refused(name, data))


def sections(names: Sequence[str], data: FigureData) -> list[Section]:
    """Make the sections of these figures in the order of the page; what the runs do not allow says why.

    Raises:
        ConfigError: a figure that language models never allow.
    """
    for name in names:
        if reason := _refused(name, data):
            raise ConfigError(
                f"{name} cannot be made of language models: {reason}; they allow {', '.join(every(data))}"
            )
    return [_unpublished(f, f.section(data), data) for name, f in figures(PAGE).items() if name in names]


def left_out() -> str:
    """Return which figures language models do not allow, and why."""
    by_reason: dict[str, list[str]] = {}
    for name, figure in figures(PAGE).items():
        if figure.refused:
            by_reason.setdefault(figure.refused, []).append(name)
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()) + "."


def _refused(name: str, data: FigureData) -> str:
    return figures(PAGE)[name].refused if data.language else ""


def _unpublished(figure: Figure, section: Section, data: FigureData) -> Section:
    """Drop what a section says about the paper where nothing published was measured on such runs.

    Published numbers are the toy's: a section about language models has neither comparisons nor a stance. Findings of
    runs of the published size have one once all cells of the figure are there: over fewer they are other statements.
    """
    if data.language is not None:
        section = replace(section, checks=())
    elif not data.comparable or _whole(figure, data):
        return section
    return replace(section, findings=tuple(replace(f, stance=OPEN) for f in section.findings))


def _whole(figure: Figure, data: FigureData) -> bool:
    """Return whether every cell that a published figure was made from has runs."""
    sizes = {A: SIZES, B: SCAN_SIZES}.get(figure.runs or "", ())
    return all(
        Cell(stage, size, str(figure.runs)) in data.cells
        for stage in figure.stages or STAGES
        for size in sizes
    )
