"""The HTML page: figures as inline SVG, tables, and what made them, in one file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from sims.analysis.matched import matched_spectra
from sims.analysis.runs import Runs
from sims.pages.style import to_svg
from sims.runs.store import run_folders
from sims.studies.overview import tables
from sims.studies.overview.concentration_figure import causal_figure, concentration_figure, link_figure
from sims.studies.overview.curves_figure import loss_figure
from sims.studies.overview.findings import findings
from sims.studies.overview.spectra_figure import gradient_figure, matched_figure, stage_figure
from sims.system.files import write_atomic

TITLE = "Spectral Lens: stages of a modular-arithmetic transformer"


def write_report(out: Path, runs: Runs, notes: Sequence[str]) -> Path:
    """Write `out`/report.html; returns its path.

    Args:
        out: folder of the runs.
        runs, notes: what `report_runs` chose of them.

    Raises:
        StoreError: the page cannot be written.
    """
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        resources.files("sims.pages").joinpath("template.html").read_text()
    )
    page = template.render(
        title=TITLE,
        subtitle=_subtitle(runs),
        warnings=notes,
        findings=findings(runs),
        sections=list(_sections(runs)),
        provenance=_provenance(out, runs),
    )
    path = out / "report.html"
    write_atomic(path, lambda file: file.write(page.encode()))
    return path


def _section(
    title: str, figure: Figure | None = None, caption: str = "", text: str = "", table: Any = None
) -> dict[str, Any]:
    svg = to_svg(figure) if figure is not None else ""
    return {"title": title, "text": text, "svg": svg, "caption": caption, "table": table}


def _sections(runs: Runs) -> Iterator[dict[str, Any]]:
    yield _section(
        "Losses",
        loss_figure(runs),
        "Thin lines are seeds, thick lines their mean, shading their range.",
        table=tables.outcomes(runs),
    )
    if len(runs.values("h_peak", "probe")):
        yield from _concentration_sections(runs)
    yield _section(
        "Activation spectra at the end of training",
        stage_figure(runs),
        "Eigenvalues of the centred covariance of the final normalised state at the last position, divided by their "
        "sum.",
    )
    yield _section(
        "Activation spectra by batch size at matched loss",
        matched_figure(matched_spectra(runs)),
        "Each run at its first measurement at or below the loss that all runs of its stage reached.",
        table=tables.divergences(runs) if runs.runs["batch_size"].nunique() > 1 else None,
    )
    if (runs.spectra["object"] == "gradient").any():
        yield _section(
            "Gradient spectra",
            gradient_figure(runs),
            "Energies (squared singular values) of the M × P matrix of per-sample gradients of the last attention "
            "output matrix, uncentred, divided by their sum.",
        )


def _concentration_sections(runs: Runs) -> Iterator[dict[str, Any]]:
    null = (
        "Dotted: the mean of the null, grey up to its 97.5 % level; the null is what averages over shuffled states "
        "would give, in the effective dimension of the states. “seen” bands occur in training, “unseen” ones do not."
    )
    yield _section(
        "Concentration on one frequency: H_peak over training",
        concentration_figure(runs, "h_peak"),
        "One side of the largest conjugate pair of the class means of the last position’s final state. "
        + null,
    )
    yield _section(
        "Concentration on the task band: H_S over training",
        concentration_figure(runs, "h_s"),
        "Share of the between-state variance at the frequencies ±1…±7, which the bigram statistics favour. "
        + null,
        table=tables.concentrations(runs),
    )
    if runs.runs["stage"].nunique() > 1:
        yield _section(
            "Do the stages differ?",
            table=tables.differences(runs),
            text="Differences of the highest value over training, paired by seed; a verdict needs an interval "
            "without 0.",
        )
    yield _section(
        "Concentration against the activation spectrum",
        link_figure(runs),
        "Every measured moment after the start; a line follows one run, a ring marks its end. H_S is the mean over "
        "bands.",
    )
    if len(runs.values("causal_drop")):
        yield _section(
            "Is the key frequency used?",
            causal_figure(runs),
            "Filled: the pair of largest energy is dropped from, or alone kept in, the final state (left) or the "
            "band’s embedding rows (right). Open: random directions of equal dimension, or another frequency. One "
            "point a run. In stages with a tied head, editing the embedding edits the head too.",
        )


def _subtitle(runs: Runs) -> str:
    table = runs.runs
    return (
        f"{len(table)} runs: stages {', '.join(table['stage'].unique())}; batch sizes "
        f"{', '.join(map(str, sorted(table['batch_size'].unique())))}; {table['seed'].nunique()} seeds."
    )


def _provenance(out: Path, runs: Runs) -> list[tuple[str, str]]:
    first = next(f for f in run_folders(out) if f.done)
    origin = first.provenance
    versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    git = origin["git"]
    seconds = tables.timing(runs)
    shares = ", ".join(f"{part} {s / seconds.sum():.0%}" for part, s in seconds.items())
    config, measuring = first.configs()
    rows = [
        ("command", origin["command"]),
        ("started", origin["started"]),
        ("versions", f"Python {origin['python']}, {versions}"),
        ("device", f"{origin['device']}: {origin['device_name']}, {origin['cores']} cores"),
        (
            "source",
            "not a git checkout"
            if git is None
            else git["commit"][:12] + (" with changes" if git["dirty"] else ""),
        ),
        ("time of all runs", f"{seconds.sum():.0f} s of one process: {shares}"),
        ("task and model", f"{config.task}, {config.model}"),
        ("measurements", str(measuring)),
    ]
    return rows
