"""The verdicts of the theory: a terminal table, and a self-contained page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console

from sims.pages.number import listed, significant
from sims.pages.page import Block, Cells, Formula, Page, Picture, Section, Steps, Text, Tone
from sims.pages.style import to_svg
from sims.pages.table import Table
from sims.pages.terminal import rich_table, toned
from sims.pages.write import write_page
from sims.studies.theory.figures.claims import PICTURES, agreement, latex_svg
from theory.verification import Verdict

TITLE = "The mechanistic model, claim by claim"
TONES: Mapping[str, Tone] = {"true": "good", "false": "bad", "unknown": "open"}
NONE = "—"
RULES = (
    "A claim is true when every drawn case that met its assumptions agrees within tolerance, sympy's result equals the "
    "formula in use, and every mutant is rejected; unknown is not a pass."
)


def print_table(verdicts: list[Verdict], console: Console) -> None:
    """Print one row a claim: id, title, predicted, measured, error over tolerance (worst case), cases, mutants."""
    columns = ("id", "claim", "predicted", "measured", "error/tol", "cases", "mutants", "verdict")
    rows = tuple(
        (
            v.claim.id,
            v.claim.title,
            listed(v.worst.predicted, 2) if v.worst else NONE,
            listed(v.worst.measured.value, 2) if v.worst else NONE,
            _worst(v),
            str(v.cases),
            _rejected(v),
            v.status,
        )
        for v in verdicts
    )
    console.print(rich_table(TITLE, Table(columns, rows, text=tuple(range(len(columns)))), TONES))
    for v in verdicts:
        if v.status != "true":
            console.print(
                f"{toned(v.status, TONES, f'{v.claim.id} {v.status}')}: {v.reason}", highlight=False
            )


def section(verdict: Verdict) -> Section:
    """Return everything the page says about one claim, its figures drawn."""
    claim, derivation = verdict.claim, verdict.derivation
    blocks: list[Block] = [
        Text(f"{verdict.status}: {verdict.reason}", TONES[verdict.status]),
        Text(claim.statement),
        Formula(claim.latex, latex_svg(claim.latex)),
        Cells(Table.of_facts(_facts(verdict))),
    ]
    if claim.remark:
        blocks.append(Text(claim.remark, "note"))
    blocks += [Picture(svg) for svg in _figures(verdict)]
    if derivation:
        steps = tuple(
            Formula(s.latex, latex_svg(_printable(s.latex)), f"{s.text}:") for s in derivation.steps
        )
        if steps:
            blocks.append(Steps("Derivation", steps))
            agreements = "; ".join(f"{a.name} (error {a.error:.1e})" for a in derivation.agreements)
            blocks.append(Text(f"Compared with the formula in use: {agreements}", "note"))
    return Section(name=claim.id, title=f"{claim.id} · {claim.title}", blocks=tuple(blocks))


def write_claims(
    verdicts: Iterable[Verdict], sections: Iterable[Section], profile: str, seed: int, out: Path
) -> Path:
    """Write the page to ``out`` (an .html file, or a folder that gets theory.html) and return its path.

    Args:
        verdicts: of the claims.
        sections: of `section`, in the same order.
        profile, seed: of the verification.

    Raises:
        StoreError: it cannot be written.
    """
    verdicts = list(verdicts)
    page = Page(
        title=TITLE,
        subtitle=f"Profile {profile}, seed {seed}, {len(verdicts)} claims. {RULES}",
        sections=[Section(title="All claims", table=_every(verdicts)), *sections],
        provenance=[("profile", profile), ("seed", str(seed))],
        tones=TONES,
    )
    return write_page(page, out if out.suffix == ".html" else out / "theory.html")


def _every(verdicts: list[Verdict]) -> Table:
    columns = ("id", "claim", "verdict", "cases", "worst error / tolerance", "mutants rejected")
    rows = tuple(
        (
            v.claim.id,
            v.claim.title,
            v.status,
            f"{v.cases} of {v.drawn.draws} draws",
            _worst(v),
            _rejected(v),
        )
        for v in verdicts
    )
    return Table(columns, rows, text=tuple(range(len(columns))), links=(0,))


def _facts(verdict: Verdict) -> list[tuple[str, str]]:
    claim, worst = verdict.claim, verdict.worst
    unmet = [f"not tested, {n} ×: “{text}” unmet" for text, n in verdict.drawn.unmet.items()]
    tested = f"{verdict.cases} distinct cases from {verdict.drawn.draws} draws"
    case = "no case was tested"
    if worst:
        case = f"{dict(worst.case)}\npredicted {listed(worst.predicted)}, measured {listed(worst.measured.value)}"
    assumptions = [a.text for a in claim.domain.assumptions] or ["none beyond the drawn ranges"]
    return [
        ("assumptions", "\n".join(assumptions)),
        ("tested", "\n".join([tested, *unmet])),
        ("quantity", claim.quantity),
        ("worst case", case),
        ("tolerance", claim.tolerance.reason),
        ("mutants", "\n".join(_mutants(verdict))),
        ("source", claim.source),
    ]


def _worst(verdict: Verdict) -> str:
    return significant(verdict.worst.score) if verdict.worst else NONE


def _rejected(verdict: Verdict) -> str:
    return f"{sum(m.rejected for m in verdict.mutants)} of {len(verdict.mutants)}"


def _mutants(verdict: Verdict) -> list[str]:
    return [
        f"{m.name}: rejected at case {m.tested}"
        if m.rejected
        else f"{m.name}: NOT rejected in {m.tested} cases"
        for m in verdict.mutants
    ]


def _figures(verdict: Verdict) -> list[str]:
    if not verdict.results:
        return []
    picture = PICTURES.get(verdict.claim.id)
    return [to_svg(agreement(verdict))] + ([to_svg(picture())] if picture else [])


def _printable(latex: str) -> str:
    """Return sympy's LaTeX without the one command that mathtext lacks and does not need."""
    return f"${latex}$".replace(r"\limits", "")
