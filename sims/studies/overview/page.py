"""The report of a folder: findings, the sections of the study, and how the runs were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sims.analysis.caveats import seconds_by_part
from sims.analysis.origins import provenance_of
from sims.analysis.runs import Runs
from sims.pages.page import Page
from sims.pages.write import UNKNOWN, provenance_rows, write_page
from sims.runs.store import RunFolder
from sims.studies.overview.findings import findings
from sims.studies.overview.study import PAGE
from sims.studies.study import sections

TITLE = "Spectral Lens: stages of a modular-arithmetic transformer"


def write_report(out: Path, runs: Runs, notes: Sequence[str]) -> Path:
    """Write `out`/report.html and return its path.

    Args:
        out: folder of the runs.
        runs, notes: what `report_runs` chose of them.

    Raises:
        StoreError: the page cannot be written.
    """
    page = Page(
        title=TITLE,
        subtitle=_subtitle(runs),
        warnings=notes,
        findings=findings(runs),
        sections=sections(PAGE, runs),
        provenance=_provenance(out, runs),
    )
    return write_page(page, out / "report.html")


def _subtitle(runs: Runs) -> str:
    table = runs.runs
    return (
        f"{len(table)} runs: stages {', '.join(table['stage'].unique())}; batch sizes "
        f"{', '.join(map(str, sorted(table['batch_size'].unique())))}; {table['seed'].nunique()} seeds."
    )


def _provenance(out: Path, runs: Runs) -> list[tuple[str, str]]:
    first = RunFolder(out / min(runs.runs["run_id"]))
    origin = provenance_of(first)
    known = provenance_rows(origin)
    seconds = seconds_by_part(runs)
    shares = ", ".join(f"{part} {s / seconds.sum():.0%}" for part, s in seconds.items())
    config, measuring = first.configs()
    return [
        ("command", known["command"]),
        ("started", str(origin.get("started", UNKNOWN))),
        ("versions", known["versions"]),
        ("device", _device(origin)),
        ("source", known["source"]),
        ("time of all runs", f"{seconds.sum():.0f} s of one process: {shares}"),
        ("task and model", f"{config.task}, {config.model}"),
        ("measurements", str(measuring)),
    ]


def _device(origin: Mapping[str, Any]) -> str:
    if "device" not in origin:
        return UNKNOWN
    return f"{origin['device']}: {origin.get('device_name', UNKNOWN)}, {origin.get('cores', UNKNOWN)} cores"
