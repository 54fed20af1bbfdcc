"""The verdicts of the theory: a terminal table, and a self-contained page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console

from sims.pages.drawing import drawn
from sims.pages.number import counted, listed, significant, verb
from sims.pages.page import Block, Cells, Fold, Formula, Page, Section, Steps, Text, Tone
from sims.pages.table import Table
from sims.pages.terminal import rich_table, toned
from sims.pages.write import write_page
from sims.studies.theory.figures.claims import PICTURES, agreement
from theory.families import FAMILIES, Family
from theory.verification import Verdict

TITLE = "The mechanistic model, claim by claim"
TONES: Mapping[str, Tone] = {"true": "good", "false": "bad", "unknown": "open"}
# How the page calls the three verdicts.
CALLED: Mapping[str, str] = {"true": "true as stated", "false": "refuted", "unknown": "open"}
NONE = "—"
RULES = (
    "Each claim predicts a number. Cases that meet its assumptions are drawn, the number is measured in each, by a "
    "simulation or a direct computation that does not use the prediction, and the two are compared. The same check is "
    "run on wrong versions of the claim, which it must reject. “True as stated” means: every case agrees within the "
    "tolerance, every wrong version is rejected, and the derivation, where there is one, gives the formula in use. "
    "“Refuted” means that a case or the derivation disagrees, “open” that too few cases could be drawn or a wrong "
    "version passed; open is not a pass. These are claims about a model of training: whether trained runs follow them "
    "is asked by speclens theory --against RUNS."
)


def record(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as plain values, with the numbers of its worst case (the largest error over tolerance)."""
    worst, mutants = verdict.worst, verdict.mutants
    return {
        "id": verdict.claim.id,
        "title": verdict.claim.title,
        "verdict": verdict.status,
        "reason": verdict.reason,
        "predicted": None if worst is None else worst.predicted,
        "measured": None if worst is None else worst.measured.value,
        "stderr": None if worst is None else worst.measured.stderr,
        "error_over_tolerance": None if worst is None else worst.score,
        "cases": verdict.cases,
        "mutants": len(mutants),
        "mutants_rejected": sum(m.rejected for m in mutants),
        "seconds": verdict.seconds,
    }


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
    """Return what the page says about one claim, its figures drawn."""
    claim = verdict.claim
    details: list[Block] = [Text(claim.statement)]
    if claim.remark:
        details.append(Text(claim.remark, "note"))
    details.append(Cells(Table.of_facts(_facts(verdict))))
    if verdict.results:
        picture = PICTURES.get(claim.id)
        details += [drawn(draw()) for draw in (picture, lambda: agreement(verdict)) if draw]
    blocks = (
        Text(f"What this means: {claim.meaning}"),
        Formula(claim.latex),
        Text(_outcome(verdict), TONES[verdict.status]),
        Fold("In full, and how it was checked", tuple(details)),
    )
    return Section(name=claim.id, title=f"{claim.id} · {claim.title}", blocks=blocks, level=3)


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
        subtitle=f"Profile {profile}, seed {seed}.",
        lead=_lead(verdicts),
        glance=Section(blocks=(Cells(_overview(verdicts, profile)),)),
        sections=[
            Section(
                title="How to read this page",
                text=RULES,
                blocks=(Fold("All claims in numbers", (Cells(_every(verdicts)),)),),
            ),
            *_by_family(verdicts, sections),
        ],
        provenance=[("profile", profile), ("seed", str(seed))],
        tones={CALLED[status]: tone for status, tone in TONES.items()},
    )
    return write_page(page, out if out.suffix == ".html" else out / "theory.html")


def _lead(verdicts: list[Verdict]) -> str:
    cases, wrong = sum(v.cases for v in verdicts), sum(len(v.mutants) for v in verdicts)
    named = {
        status: [v.claim.id for v in verdicts if v.status == status]
        for status in ("true", "false", "unknown")
    }
    true = len(named["true"])
    parts = [f"{true} of {counted(len(verdicts), 'claim')} {verb(true)} true as stated"]
    parts += [f"{CALLED[s]}: {', '.join(named[s])}" for s in ("false", "unknown") if named[s]]
    return (
        f"{'; '.join(parts)}. {counted(cases, 'case')} {verb(cases, 'was', 'were')} tested, and "
        f"{counted(wrong, 'wrong version')} put to the same checks."
    )


def _overview(verdicts: list[Verdict], profile: str) -> Table:
    """Write one line a family."""
    columns = ("family", "verdict", "what it says", f"checked ({profile} profile)")
    rows = tuple(
        (name, _called(own), f"{family.title}. {family.sentence}", _checked(own))
        for name, family, own in _families(verdicts)
    )
    return Table(columns, rows, text=tuple(range(len(columns))), links=(0,))


def _families(verdicts: list[Verdict]) -> Iterator[tuple[str, Family, list[Verdict]]]:
    """Yield each family of the claims with its verdicts; a family without a name has those of its first claim."""
    for name, group in groupby(verdicts, lambda v: v.claim.family):
        own = list(group)
        first = own[0].claim
        yield name, FAMILIES.get(name) or Family(first.title, first.meaning), own


def _checked(verdicts: list[Verdict]) -> str:
    count, cases = len(verdicts), sum(v.cases for v in verdicts)
    rejected, wrong = (sum(k) for k in zip(*map(_wrong, verdicts), strict=True))
    derived = any(v.derivation for v in verdicts)
    return (
        f"{counted(count, 'claim')}, {counted(cases, 'case')}, {rejected} of {counted(wrong, 'wrong version')} rejected"
        f"{', with a derivation' * derived}"
    )


def _called(verdicts: list[Verdict]) -> str:
    """Return the verdict on a family: that of all its claims, or the claims of each."""
    states = {v.status: [w.claim.id for w in verdicts if w.status == v.status] for v in verdicts}
    if len(states) == 1:
        return CALLED[verdicts[0].status]
    return "\n".join(f"{CALLED[status]}: {', '.join(names)}" for status, names in states.items())


def _by_family(verdicts: list[Verdict], sections: Iterable[Section]) -> Iterator[Section]:
    """Yield a section for each family, with its derivations, then those of its claims."""
    of_claim = {v.claim.id: s for v, s in zip(verdicts, sections, strict=True)}
    shown: dict[Any, str] = {}
    for name, family, own in _families(verdicts):
        title = f"{name} · {family.title}"
        yield Section(name=name, title=title, text=family.sentence, blocks=tuple(_derivations(own, shown)))
        yield from (of_claim[v.claim.id] for v in own)


def _derivations(verdicts: list[Verdict], shown: dict[Any, str]) -> Iterator[Block]:
    """Yield each derivation of a family once, or say where it stands.

    Args:
        verdicts: of the family.
        shown: derivations that stand on the page already, with the family that shows them; completed.
    """
    for derive in dict.fromkeys(v.claim.derivation for v in verdicts if v.derivation is not None):
        own = [v for v in verdicts if v.claim.derivation is derive]
        named, derivation = ", ".join(v.claim.id for v in own), own[0].derivation
        if derive in shown:
            yield Text(f"The derivation of {named} is the one under {shown[derive]}.", "note")
        elif derivation is not None:
            shown[derive] = own[0].claim.family
            agreements = "; ".join(f"{a.name} (error {a.error:.1e})" for a in derivation.agreements)
            compared = Text(f"Compared with the formula in use: {agreements}", "note")
            steps = Steps("", tuple(Formula(s.latex, f"{s.text}:") for s in derivation.steps))
            yield Fold(f"Derivation of {named}, by sympy", (steps, compared))


def _every(verdicts: list[Verdict]) -> Table:
    columns = ("id", "claim", "verdict", "cases", "worst error / tolerance", "wrong versions rejected")
    rows = tuple(
        (
            v.claim.id,
            v.claim.title,
            CALLED[v.status],
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
        ("wrong versions", "\n".join(_mutants(verdict))),
        ("source", claim.source),
    ]


def _worst(verdict: Verdict) -> str:
    return significant(verdict.worst.score) if verdict.worst else NONE


def _wrong(verdict: Verdict) -> tuple[int, int]:
    """Return how many wrong versions were rejected, and how many there are."""
    return sum(m.rejected for m in verdict.mutants), len(verdict.mutants)


def _rejected(verdict: Verdict) -> str:
    return "{} of {}".format(*_wrong(verdict))


def _outcome(verdict: Verdict) -> str:
    """Return the verdict in one line, with the wrong versions that were rejected, or why the claim is not true."""
    if verdict.status != "true":
        return f"{CALLED[verdict.status]}: {verdict.reason}"
    names = "; ".join(m.name for m in verdict.mutants)
    return f"{CALLED['true']}: {verdict.cases} cases agree. Rejected wrong versions: {names}."


def _mutants(verdict: Verdict) -> list[str]:
    return [
        f"{m.name}: rejected at case {m.tested}"
        if m.rejected
        else f"{m.name}: NOT rejected in {m.tested} cases"
        for m in verdict.mutants
    ]
