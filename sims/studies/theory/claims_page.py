"""The verdicts of the theory as a terminal table and as one self-contained HTML page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from jinja2 import Environment
from rich.console import Console
from rich.table import Table

from sims.studies.theory.claims_figures import PICTURES, agreement, latex_svg, to_svg
from theory.verify import Verdict

STYLE = {"true": "green", "false": "bold red", "unknown": "yellow"}

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>The mechanistic model, claim by claim</title>
<style>
body {font: 16px/1.5 Georgia, serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222}
table {border-collapse: collapse; font: 14px/1.4 system-ui, sans-serif; width: 100%}
td, th {border-bottom: 1px solid #ddd; padding: .3rem .5rem; text-align: left; vertical-align: top}
.true {color: #2f7d4f} .false {color: #c02020; font-weight: bold} .unknown {color: #a06a00; font-weight: bold}
section {border-top: 2px solid #bbb; margin-top: 2.5rem} code {font-size: .85em; overflow-wrap: anywhere}
svg {max-width: 100%; height: auto} .note {color: #555; font-size: .92em} h2 {margin-bottom: .2rem}
</style></head><body>
<h1>The mechanistic model, claim by claim</h1>
<p>Profile <b>{{ profile }}</b>, seed {{ seed }}, {{ verdicts|length }} claims, verified in
{{ "%.0f"|format(verdicts|sum(attribute="seconds")) }} s of processor time.
A claim is <i>true</i> when every drawn case that met its assumptions agrees within tolerance, sympy's result equals
the formula in use, and every mutant is rejected; <i>unknown</i> is not a pass.</p>
<table>
<tr><th>id</th><th>claim</th><th>verdict</th><th>cases</th><th>worst error / tolerance</th>
<th>mutants rejected</th></tr>
{% for v in verdicts %}<tr><td><a href="#{{ v.id }}">{{ v.id }}</a></td><td>{{ v.title }}</td>
<td class="{{ v.status }}">{{ v.status }}</td><td>{{ v.cases }} of {{ v.draws }} draws</td><td>{{ v.worst }}</td>
<td>{{ v.rejected }}</td></tr>{% endfor %}</table>
{% for v in verdicts %}<section id="{{ v.id }}"><h2>{{ v.id }} · {{ v.title }}</h2>
<p class="{{ v.status }}">{{ v.status }}: {{ v.reason }}</p>
<p>{{ v.statement }}</p>
<p>{% if v.formula %}{{ v.formula|safe }}{% else %}<code>{{ v.latex }}</code>{% endif %}</p>
<table>
<tr><th>assumptions</th>
<td>{% for a in v.assumptions %}{{ a }}<br>{% else %}none beyond the drawn ranges{% endfor %}</td></tr>
<tr><th>tested</th><td>{{ v.cases }} distinct cases from {{ v.draws }} draws
{% for a, n in v.unmet %}<br>not tested, {{ n }} ×: “{{ a }}” unmet{% endfor %}</td></tr>
<tr><th>quantity</th><td>{{ v.quantity }}</td></tr>
<tr><th>worst case</th><td>{% if v.example %}<code>{{ v.example }}</code><br>predicted {{ v.predicted }}, measured
{{ v.measured }}{% else %}no case was tested{% endif %}</td></tr>
<tr><th>tolerance</th><td>{{ v.tolerance }}</td></tr>
<tr><th>mutants</th><td>{% for m in v.mutants %}{{ m }}<br>{% endfor %}</td></tr>
<tr><th>source</th><td>{{ v.source }}</td></tr></table>
{% if v.remark %}<p class="note">{{ v.remark }}</p>{% endif %}
{% for f in v.figures %}<p>{{ f|safe }}</p>{% endfor %}
{% if v.steps %}<h3>Derivation</h3><ol>{% for s in v.steps %}<li>{{ s.text }}:
{% if s.svg %}{{ s.svg|safe }}{% else %}<code>{{ s.latex }}</code>{% endif %}</li>{% endfor %}</ol>
<p class="note">Compared with the formula in use: {{ v.agreements }}</p>{% endif %}
</section>{% endfor %}</body></html>
"""


def _number(x: float) -> str:
    return f"{x:.3g}" if math.isfinite(x) else str(x)


def _numbers(values: object, limit: int = 4) -> str:
    listed = [float(v) for v in values]  # type: ignore[attr-defined]
    text = ", ".join(f"{v:.5g}" for v in listed[:limit])
    return text + (f", … ({len(listed)} in all)" if len(listed) > limit else "")


def _rejected(verdict: Verdict) -> str:
    return f"{sum(m.rejected for m in verdict.mutants)} of {len(verdict.mutants)}"


def print_table(verdicts: list[Verdict], console: Console) -> None:
    """One row a claim: id, statement, predicted, measured, error over tolerance (worst case), cases, mutants."""
    table = Table(title="The mechanistic model, claim by claim", show_lines=False)
    for column in ("id", "claim", "predicted", "measured", "error/tol", "cases", "mutants", "verdict"):
        table.add_column(column, overflow="fold")
    for v in verdicts:
        worst = v.worst
        table.add_row(
            v.claim.id,
            v.claim.title,
            _numbers(worst.predicted, 2) if worst else "—",
            _numbers(worst.measured.value, 2) if worst else "—",
            _number(worst.score) if worst else "—",
            str(v.cases),
            _rejected(v),
            f"[{STYLE[v.status]}]{v.status}[/]",
        )
    console.print(table)
    for v in verdicts:
        if v.status != "true":
            console.print(f"[{STYLE[v.status]}]{v.claim.id} {v.status}[/]: {v.reason}", highlight=False)


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
    """sympy's LaTeX without the one command that mathtext lacks and does not need."""
    return f"${latex}$".replace(r"\limits", "")


Section = Mapping[str, object]


def section(verdict: Verdict) -> Section:
    """Everything that the page says about one claim, figures included, as plain values."""
    claim, worst, derivation = verdict.claim, verdict.worst, verdict.derivation
    return {
        **{
            k: getattr(claim, k)
            for k in ("id", "title", "statement", "latex", "source", "quantity", "remark")
        },
        "status": verdict.status,
        "reason": verdict.reason,
        "seconds": verdict.seconds,
        "cases": verdict.cases,
        "draws": verdict.drawn.draws,
        "unmet": list(verdict.drawn.unmet.items()),
        "assumptions": [a.text for a in claim.domain.assumptions],
        "worst": _number(worst.score) if worst else "—",
        "example": dict(worst.case) if worst else None,
        "predicted": _numbers(worst.predicted) if worst else "",
        "measured": _numbers(worst.measured.value) if worst else "",
        "tolerance": claim.tolerance.reason,
        "rejected": _rejected(verdict),
        "mutants": _mutants(verdict),
        "formula": latex_svg(claim.latex),
        "figures": _figures(verdict),
        "steps": [
            {"text": s.text, "latex": s.latex, "svg": latex_svg(_printable(s.latex))}
            for s in (derivation.steps if derivation else ())
        ],
        "agreements": "; ".join(f"{a.name} (error {a.error:.1e})" for a in derivation.agreements)
        if derivation
        else "",
    }


def render(sections: Iterable[Section], profile: str, seed: int) -> str:
    """The self-contained HTML page: every figure is inline SVG, nothing is loaded from elsewhere."""
    page = Environment(autoescape=True).from_string(_PAGE)
    return page.render(verdicts=list(sections), profile=profile, seed=seed)


def write(sections: Iterable[Section], profile: str, seed: int, out: Path) -> Path:
    """Write the page to ``out`` (a .html file, or a folder that gets theory.html) and return its path."""
    path = out if out.suffix == ".html" else out / "theory.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(sections, profile, seed), encoding="utf-8")
    return path
