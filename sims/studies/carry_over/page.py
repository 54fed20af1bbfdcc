"""Toy and language models side by side, on one page: which findings carry over, and what these runs cannot tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from sims.analysis.layers import early_by_layer, exponents_by_layer
from sims.analysis.runs import Runs
from sims.pages.render import render, save_figure, section
from sims.pages.table import ABSENT, Table, number
from sims.runs.store import run_folders
from sims.studies.carry_over import figures
from sims.studies.carry_over.carry_over import (
    AGREES,
    CANNOT_TELL,
    DISAGREES,
    alone,
    carry_over,
    labels,
    seed_stability,
)
from sims.studies.carry_over.questions import WINDOW, family_concentration
from sims.studies.paper.layers_figure import early_figure, layers_figure
from sims.system.errors import MeasureError
from sims.system.files import make_folder, write_atomic
from sims.system.provenance import provenance

TITLE = "Spectral Lens: do the toy’s findings carry over to language models?"
RULES = (
    "The same questions are put to both sides by the same functions. An answer needs a 95 % interval over seeds on one "
    "side of 0 (filled marks); two answers agree or disagree, and everything else cannot be told. The answers are not "
    "corrected for their number."
)


@dataclass(frozen=True)
class Sides:
    """What a page is made from.

    Args:
        toy, text: the runs.
        toy_folder, text_folder: where they lie.
    """

    toy: Runs
    text: Runs
    toy_folder: Path
    text_folder: Path


def write_comparison(sides: Sides, page: Path, command: str) -> pd.DataFrame:
    """Write the page, and beside it a folder of its name with figures (SVG, PNG) and tables (CSV).

    Args:
        sides: the runs.
        page: an .html file.
        command: the command that makes it again.

    Returns:
        The answers (of `carry_over`).

    Raises:
        StoreError: something cannot be written.
    """
    folder = make_folder(page.with_suffix(""))
    answers = carry_over(sides.toy, sides.text)
    sections = list(_sections(sides, answers, folder))
    html = render(
        title=TITLE,
        subtitle=f"Toy: {_described(sides.toy)}. Language model: {_described(sides.text)}. {_tally(answers)}.",
        warnings=_warnings(sides),
        findings=_findings(answers),
        sections=sections,
        provenance=_provenance(sides, command),
    )
    write_atomic(page, lambda file: file.write(html.encode()))
    return answers


def _sections(sides: Sides, answers: pd.DataFrame, folder: Path) -> Iterator[dict[str, Any]]:
    def keep(name: str, table: pd.DataFrame) -> None:
        write_atomic(folder / f"{name}.csv", lambda file: table.to_csv(file, index=False))

    def drawn(name: str, draw: Callable[[], Figure]) -> str:
        return save_figure(draw(), folder, name)

    keep("answers", answers)
    known = answers[["toy_value", "text_value"]].notna().to_numpy().any()
    yield section(
        "Which findings carry over",
        text=RULES,
        svg=drawn("answers", lambda: figures.answers_figure(answers)) if known else "",
        caption="Circles: toy; squares: language model; lines: 95 % intervals over seeds, or from the level of a null "
        "law on. Filled: answered. Right of 0 is “yes” to the statement of the table.",
        table=_answers(answers),
    )
    both = labels(sides.toy, sides.text)
    keep("taxonomy", both)
    if len(both):
        yield section(
            "Labels of transitions",
            text="Outcome / mechanism, from the same thresholds on both sides.",
            table=_labels(both),
        )
    yield from _stability(sides, keep)
    yield section(
        "Spectra and RankMe",
        svg=drawn("spectra", lambda: figures.spectra_figure(sides.toy, sides.text)),
        caption="Eigenvalues of the centred covariance of what the head reads, scaled by the width so that models of "
        "different width lie over each other; one line a run.",
    )
    yield from _layers(sides, keep, drawn)
    yield from _families(sides, keep, drawn)


Keep = Callable[[str, pd.DataFrame], None]
Drawn = Callable[[str, Callable[[], Figure]], str]


def _stability(sides: Sides, keep: Keep) -> Iterator[dict[str, Any]]:
    tables = {"toy": seed_stability(sides.toy), "language model": seed_stability(sides.text)}
    table = pd.concat([t.assign(side=side) for side, t in tables.items()])
    keep("seed-stability", table)
    rows = tuple(
        (
            *(r["side"], r["stage"], str(r["batch_size"]), str(r["seeds"]), number(r["loss"])),
            *(number(r["js"], 5), number(r["sampling_floor"], 5)),
        )
        for r in table.to_dict("records")
    )
    columns = (
        "side",
        "stage",
        "B",
        "seeds",
        "at loss (nats)",
        "JS between seeds (nats)",
        "of sampling alone",
    )
    yield section(
        "Seed stability",
        text="How far two seeds of one cell are apart at equal loss, beside what two samples of the same activations "
        "would be. A dash: one seed has no distance to another.",
        table=Table(columns, rows, text=(0, 1)),
    )


def _layers(sides: Sides, keep: Keep, drawn: Drawn) -> Iterator[dict[str, Any]]:
    layers = exponents_by_layer(sides.text)
    if layers.empty:
        yield section(
            "Layer by layer",
            text=f"No exponent of ranks {WINDOW} was fitted in the language model’s activations.",
        )
        return
    keep("layers", layers)
    yield section(
        "Layer by layer: exponents of the language model",
        svg=drawn("layers", lambda: layers_figure(layers)),
        caption="Exponent of ranks 10–40 of the activations by depth, mean over batch sizes and seeds; the later the "
        "checkpoint, the darker its line. The toy is measured where the head reads, at depth 1.",
    )
    title = "Layer by layer: early prediction of token efficiency"
    try:
        table = early_by_layer(sides.text)
    except MeasureError as error:
        yield section(title, text=f"Not made from these runs: {error}.")
        return
    keep("early-by-layer", table)
    own = table[table["window"] == WINDOW]
    fitted = own["rho"].notna().any()
    yield section(
        title,
        svg=drawn("early-by-layer", lambda: early_figure(own)) if fitted else "",
        caption="Spearman correlation over batch sizes of token inefficiency with α(10–40), by the layer and the share "
        "of training at which it is measured; a star where q ≤ 0.05 within a stage and layer. Layers of one model "
        "are not independent of each other.",
    )


def _families(sides: Sides, keep: Keep, drawn: Drawn) -> Iterator[dict[str, Any]]:
    rows = sides.text.values("h_peak", "table")
    table = pd.concat(
        [
            family_concentration(runs).assign(side=side)
            for side, runs in (("toy", sides.toy), ("text", sides.text))
        ]
    )
    keep("families", table)
    if rows.empty:
        yield section("Token families", text="No family of tokens was probed in the language model.")
        return
    own = table[table["side"] == "text"]
    cells = tuple(
        (
            *(
                r["run_id"],
                r["site"],
                r["family"],
                number(r["value"]),
                number(r["null"]),
                number(r["null_high"]),
            ),
            "beyond" if r["value"] > r["null_high"] else "within",
        )
        for r in own.to_dict("records")
    )
    columns = ("run", "table", "family", "H_peak at the end", "null, mean", "null, 97.5 %", "chance")
    yield section(
        "Token families",
        text="Share of the energy of a family’s rows at the strongest frequency of their cycle (one side of the "
        "conjugate pair), as of the toy’s bands. The null is that of rows without structure in the effective dimension "
        "of the whole table; small families have a large one. One test in forty is beyond its level by chance.",
        svg=drawn("families", lambda: figures.families_figure(rows)),
        caption="Over training; dotted: the null’s 97.5 % level.",
        table=Table(columns, cells, text=(0, 1, 2, 6)),
    )


def _answers(answers: pd.DataFrame) -> Table:
    order = {DISAGREES: 0, AGREES: 1, CANNOT_TELL: 2}
    ranked = answers.sort_values("verdict", key=lambda v: v.map(order), kind="stable")
    rows = tuple(
        (r["question"], r["statement"], _reading(r, "toy"), _reading(r, "text"), r["verdict"], r["reason"])
        for r in ranked.to_dict("records")
    )
    columns = ("question", "statement", "toy [95 %]", "language model [95 %]", "verdict", "why")
    return Table(columns, rows, text=(0, 1, 4, 5))


def _reading(row: Mapping[Any, Any], side: str) -> str:
    value, low, high = (row[f"{side}_{name}"] for name in ("value", "low", "high"))
    if math.isnan(value):
        return ABSENT
    if math.isnan(low):
        return number(value)
    return f"{number(value)} [{_bound(low)}, {_bound(high)}]"


def _bound(value: float) -> str:
    return number(value) if math.isfinite(value) else "–∞" if value < 0 else "∞"


def _labels(both: pd.DataFrame) -> Table:
    def label(r: Mapping[Any, Any], side: str) -> str:
        parts = [r[f"{side}_outcome"], r[f"{side}_mechanism"]]
        return " / ".join(parts) if any(parts) else ABSENT

    rows = tuple((r["transition"], label(r, "toy"), label(r, "text")) for r in both.to_dict("records"))
    return Table(("transition", "toy", "language model"), rows, text=(0, 1, 2))


def _tally(answers: pd.DataFrame) -> str:
    counts = answers["verdict"].value_counts()
    return ", ".join(f"{counts.get(v, 0)} {v}" for v in (AGREES, DISAGREES, CANNOT_TELL))


def _findings(answers: pd.DataFrame) -> list[str]:
    lines = []
    for verdict, said in ((DISAGREES, "Does not carry over"), (AGREES, "Carries over")):
        for r in answers[answers["verdict"] == verdict].to_dict("records"):
            both = f"toy {_reading(r, 'toy')}, language model {_reading(r, 'text')}"
            denied = verdict == AGREES and r["toy_value"] < 0
            statement = f"on neither side: {r['statement']}" if denied else r["statement"]
            lines.append(f"{said}: {statement} ({both}; {r['unit']}).")
    # One run's own numbers are worth reading, as long as nobody takes them for a finding.
    seen = answers[(answers["text_seeds"] == 1) & answers["text_value"].notna() & answers["text_low"].isna()]
    if len(seen):
        values = "; ".join(
            f"{r['question']} {r['text_value']:+.3g} ({r['what']}: {r['unit']})"
            for r in seen.to_dict("records")
        )
        lines.append(f"Seen in this run, without an interval over seeds: {values}.")
    unknown = answers[answers["verdict"] == CANNOT_TELL]
    if len(unknown):
        names = ", ".join(dict.fromkeys(unknown["question"]))
        lines.append(f"Cannot be told from these runs ({len(unknown)} of {len(answers)}): {names}.")
    return lines


def _warnings(sides: Sides) -> list[str]:
    found = []
    for name, runs in (("toy", sides.toy), ("language model", sides.text)):
        if alone(runs):
            found.append(
                f"The {name} has one run of each cell. It cannot show how much of a difference between its stages or "
                "batch sizes is the seed, so none of them is established, whatever its size. What one run can tell: "
                "what its own trajectory did, and whether its own token families concentrate beyond chance."
            )
        if runs.incomplete:
            found.append(f"{len(runs.incomplete)} runs of the {name} are not complete and are left out.")
    if sides.text.differing:
        shown = ", ".join(sides.text.differing[:6])
        found.append(
            f"The language-model runs differ in more than stage, batch size, rate and seed: {shown}."
        )
    found.append(
        "The sides differ beyond size and data: the toy’s samples are last positions of fixed sequences, a language "
        "model’s by default every token, which are not independent within a sequence; the toy’s concentration is that "
        "of its bands, a language model’s that of token families in its embedding and head, as its text has no known "
        "state at each position."
    )
    return found


def _described(runs: Runs) -> str:
    table = runs.runs
    return (
        f"{len(table)} run{'s' * (len(table) > 1)}, stages {', '.join(table['stage'].unique())}, batch sizes "
        f"{', '.join(map(str, sorted(table['batch_size'].unique())))}, {table['seed'].nunique()} "
        f"seed{'s' * (table['seed'].nunique() > 1)}"
    )


def _provenance(sides: Sides, command: str) -> list[tuple[str, str]]:
    origin = provenance("cpu")
    versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    git = origin["git"]
    source = "not a git checkout"
    if git is not None:
        source = git["commit"][:12] + (" with changes" if git["dirty"] else "")
    rows = [
        ("command", command),
        ("made", origin["started"]),
        ("versions", f"Python {origin['python']}, {versions}"),
        ("source", source),
    ]
    for name, folder in (("toy", sides.toy_folder), ("language model", sides.text_folder)):
        first = next(f for f in run_folders(folder) if f.done)
        identity = first.identity()
        model = identity["train"].get("model")
        rows += [
            (f"{name}: runs", str(folder)),
            (f"{name}: first run", f"{first.path.name}, model {model}"),
            (f"{name}: measurements", ", ".join(f"{k} {v}" for k, v in identity["measure"].items())),
        ]
    return rows
