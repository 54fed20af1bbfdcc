"""The report of a folder: findings, the sections of the study, and how the runs were made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sims.analysis.caveats import seconds_by_part
from sims.analysis.origins import provenance_of
from sims.analysis.runs import Runs
from sims.pages.number import counted
from sims.pages.page import Page
from sims.pages.write import UNKNOWN, beside, provenance_rows, write_page
from sims.runs.layout import TOY
from sims.runs.store import RunFolder
from sims.studies.glance import glance
from sims.studies.overview.findings import findings, lead, rule
from sims.studies.overview.study import PAGE
from sims.studies.study import sections
from sims.system.plain import some
from toymodel.stages import stage

TITLE = "Spectral Lens: stages of a modular-arithmetic transformer"
OTHERS_TITLE = "Spectral Lens: language models and watched models"

# Of the models of a page, so many are described.
MOST_MODELS = 6


def write_report(out: Path, runs: Runs, notes: Sequence[str]) -> Path:
    """Write `out`/report.html, with its figures and tables in `out`/report, and return its path.

    Args:
        out: folder of the runs.
        runs, notes: what `report_runs` chose of them.

    Raises:
        StoreError: the page cannot be written.
    """
    page = Page(
        title=TITLE if runs.kind == TOY else OTHERS_TITLE,
        subtitle=_subtitle(runs),
        lead=lead(runs),
        glance=glance(runs),
        links=[beside("Source runs", out, out)],
        warnings=notes,
        rule=rule(runs),
        findings=findings(runs),
        sections=sections(PAGE, runs),
        provenance=_provenance(out, runs),
    )
    return write_page(page, out / "report.html", files=out / PAGE)


def _subtitle(runs: Runs) -> str:
    table = runs.runs
    if (table["stage"] == table["run_id"]).all():
        return f"{counted(len(table), 'run')}, each for itself: {some(list(table['run_id']), 5)}."
    names = list(table["stage"].unique())
    sizes = sorted(table["batch_size"].unique())
    about = (
        f"{counted(len(table), 'run')}: stage{'s' * (len(names) > 1)} {', '.join(names)}; batch "
        f"size{'s' * (len(sizes) > 1)} {', '.join(map(str, sizes))}; {counted(table['seed'].nunique(), 'seed')}."
    )
    return f"{about} {_task(names)}" if runs.kind == TOY else about


def _task(names: Sequence[str]) -> str:
    """Say what toys learn, and what each of these stages changes."""
    changes = "; ".join(f"{name}: {stage(name).change}" for name in names)
    return (
        "Small transformers learn to continue walks: token k is o + (a + d·k) mod c, and offset o, start a, step d and "
        "modulus c are drawn anew for each sequence. Each stage keeps the changes of those before it. "
        f"{changes[0].upper()}{changes[1:]}."
    )


def _provenance(out: Path, runs: Runs) -> list[tuple[str, str]]:
    first = RunFolder(out / min(runs.runs["run_id"]))
    origin = provenance_of(first)
    known = provenance_rows(origin)
    seconds = seconds_by_part(runs)
    total = seconds.sum()
    shares = ", ".join(f"{part} {s / total:.0%}" for part, s in seconds.items() if total)
    if runs.kind == TOY:
        config, measuring = first.configs()
        what = [("task and model", f"{config.task}, {config.model}"), ("measurements", str(measuring))]
    else:
        what = _models(out, runs)
    return [
        ("command", known["command"]),
        ("started", str(origin.get("started", UNKNOWN))),
        ("versions", known["versions"]),
        ("device", _device(origin)),
        ("source", known["source"]),
        ("time of all runs", f"{total:.0f} s of one process: {shares}".strip(": ")),
        *what,
    ]


def _models(out: Path, runs: Runs) -> list[tuple[str, str]]:
    """Return the models of the runs and what was measured, as run.json records them; each once."""
    found = [RunFolder(out / name).identity() for name in sorted(runs.runs["run_id"])]

    def different(part: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> str:
        texts = dict.fromkeys(", ".join(f"{k} {v}" for k, v in part(own).items()) for own in found)
        return "\n".join(list(texts)[:MOST_MODELS]) + (
            f"\n… ({len(texts)} in all)" if len(texts) > MOST_MODELS else ""
        )

    return [("models", different(_model)), ("measurements", different(lambda own: own["measure"]))]


def _model(own: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the model of a run: as it was found, or by its tier where it was trained here."""
    train = own["train"]
    found = train.get("model") or {k: train[k] for k in ("tier", "vocabulary", "length") if k in train}
    return {name: value for name, value in found.items() if name != "id"}


def _device(origin: Mapping[str, Any]) -> str:
    if "device" not in origin:
        return UNKNOWN
    return f"{origin['device']}: {origin.get('device_name', UNKNOWN)}, {origin.get('cores', UNKNOWN)} cores"
