"""The sections of the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, fields
from typing import Any

import numpy as np
import pandas as pd

from sims.analysis.asymmetry import Asymmetry
from sims.analysis.peaks import InvertedU
from sims.analysis.reversal import Reversal
from sims.analysis.spread import expected_range
from sims.analysis.timescale_gain import Gain
from sims.analysis.timescales import ONE, TWO, fit_timescales
from sims.pages.number import ABSENT, cell, interval
from sims.pages.page import Section, Text
from sims.pages.table import Table
from sims.studies.claims import Claim
from sims.studies.lifecycle.answers import LifeAnswers
from sims.studies.lifecycle.figures import (
    film_figure,
    front_figure,
    gradient_figure,
    profile_figure,
    scaling_figure,
    spread_figure,
    timescale_figure,
)
from sims.studies.lifecycle.measured import EXPONENTS
from sims.studies.lifecycle.published import NOTES, claims
from sims.studies.lifecycle.study import STUDY
from sims.system.errors import MeasureError

TITLES = {
    "alpha_half": "α, first half of ranks",
    "alpha_all": "α, all ranks",
    "hill": "Hill",
    "farms": "FARMS",
}
# Panels of a picture with one for each cell.
MOST_PANELS = 9


def deepest(answers: LifeAnswers) -> str:
    """Return the cell that pictures of one cell show: of the first line, the deepest."""
    return list(next(iter(answers.lines.values())).values())[-1]


def shown_cells(answers: LifeAnswers) -> list[str]:
    """Return the cells of pictures with a panel a cell: those of the first lines."""
    found = [cell for cells in answers.lines.values() for cell in cells.values()]
    return found[:MOST_PANELS]


def film(answers: LifeAnswers, of: str) -> pd.DataFrame:
    """Return the stable rank of every matrix of a cell, mean over seeds: type, block, step, value."""
    own = in_all_seeds(answers, of)
    mean = own.groupby(["type", "block", "step"], sort=False)["stable_rank"].mean().dropna().reset_index()
    order = {name: i for i, name in enumerate(answers.data.types(of))}
    mean = mean.sort_values("type", key=lambda c: c.map(order), kind="stable")
    return mean.rename(columns={"stable_rank": "value"})


def in_all_seeds(answers: LifeAnswers, of: str) -> pd.DataFrame:
    """Return the matrices of a cell at the looks that all of its seeds have: a mean over fewer is of other runs."""
    own = answers.data.of(of)
    return own[own.groupby("step")["seed"].transform("nunique") == own["seed"].nunique()]


@STUDY.figure("film", "What happens to the spectra?", order=10)
def films(answers: LifeAnswers) -> Section:
    """Show the stable rank of every matrix over training and depth."""
    of = deepest(answers)
    own = in_all_seeds(answers, of)
    last = own[own["step"] == own["step"].max()]
    quantities = [name for name in ("stable_rank", "rankme", *EXPONENTS) if name in last]
    rows = tuple(
        (name, *(cell(last.loc[last["type"] == name, q].mean()) for q in quantities))
        for name in answers.data.types(of)
    )
    return Section(
        text="The stable rank Σσ²/σ₁² of a matrix is the number of directions that carry it, as far as the largest "
        "singular value tells. A Gaussian matrix of 64×64 has 17. Matrices that start at zero, as those that write "
        "into the residual stream here (o and down), have no rank before their first update, and a small one after it.",
        figure=film_figure(film(answers, of)),
        caption=f"{of}, mean over {answers.seeds(of)} seeds. Colours are logarithmic, and the axis of steps too; its "
        "left end is the start.",
        table=Table(("at the end, mean over blocks", *(_title(q) for q in quantities)), rows, text=(0,)),
        tables={"film": film(answers, of)},
    )


def _title(quantity: str) -> str:
    return {"stable_rank": "stable rank", "rankme": "RankMe"}.get(quantity) or TITLES[quantity]


@STUDY.figure("waves", "Does compression pass through the blocks as a wave?", order=20)
def waves(answers: LifeAnswers) -> Section:
    """Show front times by block, and their rank correlation with depth."""
    table = answers.waves
    rows = tuple(
        (
            r["cell"],
            r["part"],
            r["name"],
            correlation(r),
            cell(r["p_holm"]),
            _speed(r),
            cell(r["kappa_null"]),
            r["reason"],
        )
        for r in table.to_dict("records")
    )
    times = answers.fronts
    return Section(
        text="The front of a layer is the time at which its ln stable rank has fallen by half of its largest fall. "
        "Times are sums of learning rates, so that a warm-up does not stretch them; the picture has steps. A wave has "
        "later fronts in later blocks; fronts closer together than three looks are not resolved. Layers are permuted "
        "in all seeds together, because what is particular to a layer is so in every seed. κ is the slope of ln front "
        "time over depth, and beside it the size that shuffled layers reach in 5 % of draws.",
        figure=front_figure(times[times["cell"].isin(shown_cells(answers))]),
        caption="Lines: mean over seeds; points: seeds. Dotted: the looks do not resolve the differences, or a layer "
        "never compresses. Matrices that start at zero have no rank to lose, and no front.",
        table=Table(
            (
                "runs",
                "blocks",
                "type",
                "ρ with depth",
                "p (Holm)",
                "κ [95 %]",
                "κ of shuffled layers",
                "why not",
            ),
            rows,
            text=(0, 1, 2, 7),
        ),
        tables={"fronts": times, "waves": table},
    )


def correlation(row: Mapping[Any, Any]) -> str:
    """Return the rank correlation of a row as text."""
    return cell(row["rho"]) if row["status"] == "ok" else ABSENT


def _speed(row: Mapping[Any, Any]) -> str:
    return interval(row["kappa"], row["low"], row["high"], 2) if row["status"] == "ok" else ABSENT


@STUDY.figure("reversal", "Does the gradient over depth peak early and reverse?", order=30)
def reversal(answers: LifeAnswers) -> Section:
    """Show the slope of ln stable rank over depth during training."""
    family = next(iter(answers.families))
    own = answers.slopes[answers.slopes["family"] == family]
    rows = tuple(
        (name, kind, *_reversed(found), found.reason) for (name, kind), found in answers.reversals.items()
    )
    return Section(
        text="γ is the slope of ln stable rank over depth (0 in the first block, 1 in the last). Published: it peaks "
        "early and then reverses. Each seed is read at the peak of the others, because the peak of a noisy curve is "
        "larger than the curve.",
        figure=gradient_figure(own),
        caption=f"{family}. Thin lines: seeds; shaded: their range.",
        table=Table(
            ("runs", "type", "γ at its peak [95 %]", "peak at (share of training)", "γ at the end [95 %]",
             "p of the change", "why not"),
            rows,
            text=(0, 1, 6),
        ),
        tables={"slopes": answers.slopes},
    )  # fmt: skip


def _reversed(found: Reversal) -> tuple[str, str, str, str]:
    if found.status != "ok":
        return ABSENT, ABSENT, ABSENT, ABSENT
    early = interval(found.early, found.early_low, found.early_high, 2)
    late = interval(found.late, found.late_low, found.late_high, 2)
    return early, f"{found.share:.0%}", late, cell(found.p)


@STUDY.figure("profiles", "Is the exponent over depth an inverted U?", order=40)
def profiles(answers: LifeAnswers) -> Section:
    """Show exponents over depth at the end, by the number of layers."""
    line = next(iter(answers.lines))
    parts = []
    for layers, name in answers.lines[line].items():
        for exponent in EXPONENTS:
            values = answers.profile(name, exponent)
            x = np.linspace(0, 1, layers)
            parts += [
                pd.DataFrame({"exponent": exponent, "layers": layers, "seed": seed, "x": x, "value": own})
                for seed, own in enumerate(values)
            ]
    rows = tuple(
        (name, exponent, part, *_lines(found), found.reason)
        for (name, exponent, part), found in answers.humps.items()
    )
    return Section(
        text="ᾱ of a block is the mean over its matrices of an exponent, standardised within each type. The exponents "
        "are those in excess of Gaussian matrices of the same shape. A profile is an inverted U if a line that rises "
        "and one that falls after it are both significant, with the ends and without them, and its peak lies between "
        "the ends in 80 % of seed bootstraps. α rises with a steeper decay of the singular values; Hill's exponent and "
        "that of FARMS fall.",
        figure=profile_figure(pd.concat(parts, ignore_index=True), TITLES),
        caption=f"{line}, at the end of training. Thin lines: seeds; shaded: their range.",
        table=Table(
            ("runs", "exponent", "blocks", "slope before", "slope after", "peak at [95 %]", "why not"),
            rows,
            text=(0, 1, 2, 6),
        ),
    )


def _lines(found: InvertedU) -> tuple[str, str, str]:
    if found.status != "ok":
        return ABSENT, ABSENT, ABSENT
    before, after = (
        f"{found.before:.2g} (p = {found.p_before:.2g})",
        f"{found.after:.2g} (p = {found.p_after:.2g})",
    )
    return before, after, interval(found.peak, found.peak_low, found.peak_high, 2)


@STUDY.figure("asymmetry", "Do q and k carry the dependence on depth?", order=50)
def asymmetry(answers: LifeAnswers) -> Section:
    """Show spreads over layers, of matrices and of products of heads."""
    of = deepest(answers)
    rows = tuple(
        (name, form, part, _ratio(found), cell(found.p), found.reason)
        for (name, form, part), found in answers.asymmetries.items()
    )
    return Section(
        text="A is the mean standard deviation over layers of q and k, divided by that of v and o, at the end of "
        "training. A head computes the products W_qᵀW_k and W_oW_v; its single matrices change with a change of basis "
        "that changes nothing else, so that a statement about q and k has to hold for the products too (where q and k "
        "are normalised, this freedom is a rotation and a scale of each head). The test "
        "exchanges the types within layers; the interval is over seeds.",
        figure=spread_figure(answers.spreads[answers.spreads["cell"] == of]),
        caption=f"{of}. Thin lines: seeds; shaded: their range. Products: mean over heads.",
        table=Table(("runs", "of", "blocks", "A [95 %]", "p", "why not"), rows, text=(0, 1, 2, 5)),
        tables={"spreads": answers.spreads},
    )


def _ratio(found: Asymmetry) -> str:
    return interval(found.ratio, found.low, found.high, 2) if found.status == "ok" else ABSENT


@STUDY.figure("timescales", "Does compression have a fast and a slow time?", order=60)
def timescales(answers: LifeAnswers) -> Section:
    """Show curves of one cell with one and two fitted times, and what two times gain."""
    if not answers.times:
        raise MeasureError(next(iter(answers.timed.values())))
    of, _ = list(answers.times)[-1]
    of = deepest(answers) if deepest(answers) in {cell for cell, _ in answers.times} else of
    own = answers.compressed(of)
    points, fits = [], []
    for name, values in list(own.values.items())[:4]:
        for model, kind in ((ONE, "one"), (TWO, "two")):
            curves = fit_timescales(own.clock, values, model).fitted.mean(axis=0)
            fits.append(_curves(name, own.clock, curves).assign(model=kind))
        points.append(_curves(name, own.clock, values.mean(axis=0)))
    rows = tuple(
        (cell_, kind, f"{one.fast:.2g}, {one.slow:.2g}", interval(one.ratio, one.low, one.high, 2),
         *(_gain(gain) for gain in one.gains.values()), _gain(answers.slow.get((cell_, kind))), one.reason)
        for (cell_, kind), one in answers.times.items()
    )  # fmt: skip
    return Section(
        text="ln stable rank is fitted by one or by two times that the layers of a type share, in sums of learning "
        "rates: in steps, a falling rate makes a second time by itself. What a model leaves is taken as correlated "
        "from look to look. Two times count if they predict layers and seeds that were left out better than one shared "
        "time, than one time of each layer, and than one that is stretched, each by two standard errors, and are apart "
        "by a factor of two. The last column asks whether exponents follow the slow time of the ranks (above 0) or "
        "the fast one.",
        figure=timescale_figure(pd.concat(points), pd.concat(fits)),
        caption=f"{of}, mean over seeds. Points: looks; lines: fits.",
        table=Table(
            ("runs", "type", "τ fast, slow", "ratio [95 %]", "gain: layers", "over own times", "over a stretched one",
             "seeds", "slow exponents", "why not"),
            rows,
            text=(0, 1, 9),
        ),
    )  # fmt: skip


def _curves(name: str, clock: np.ndarray, values: np.ndarray) -> pd.DataFrame:
    """Return values (looks, layers) as rows: type, block, clock, value."""
    looks, layers = values.shape
    return pd.DataFrame(
        {
            "type": name,
            "block": np.tile(np.arange(layers), looks),
            "clock": np.repeat(clock, layers),
            "value": values.ravel(),
        }
    )


def _gain(gain: Gain | None) -> str:
    return ABSENT if gain is None or gain.status != "ok" else f"{gain.gain:.2g} ± {gain.error:.1g}"


@STUDY.figure("scaling", "Does the spread over blocks grow with their number?", order=70)
def scaling(answers: LifeAnswers) -> Section:
    """Show spreads over layers against the number of layers."""
    spreads, chance, rows = [], [], []
    for (line, exponent, measure), law in answers.laws.items():
        ok = law.status == "ok"
        rows.append(
            (line, TITLES[exponent], measure, str(law.seeds),
             interval(law.exponent, law.low, law.high, 2) if ok else ABSENT,
             cell(law.null), cell(law.r2.value), law.reason or law.r2.reason)
        )  # fmt: skip
        if ok and exponent == EXPONENTS[0] and measure in ("sd", "range"):
            layers = np.array(law.layers)
            spreads.append(
                pd.DataFrame({"measure": measure, "line": line, "layers": layers, "value": law.spreads})
            )
            level = (
                np.array([expected_range(int(n)) for n in layers])
                if measure == "range"
                else np.ones(len(layers))
            )
            level = level * np.exp(np.mean(np.log(law.spreads)) - np.mean(np.log(level)))
            chance.append(pd.DataFrame({"measure": measure, "line": line, "layers": layers, "value": level}))
    return Section(
        text="The largest minus the smallest of L values grows with L whatever the values are. The standard deviation "
        "does not, once its bias in few layers is taken out: a law of depth has to show in it.",
        figure=scaling_figure(pd.concat(spreads), pd.concat(chance)) if spreads else None,
        caption="Of α over the first half of the ranks, at the end of training, mean over types, of the seeds that "
        "every number of blocks has. Grey: what independent values of the same size have.",
        table=Table(
            (
                *("runs", "exponent", "measure", "seeds", "exponent of L [95 %]"),
                *("of independent values", "R²", "why not"),
            ),
            tuple(rows),
            text=(0, 1, 2, 7),
        ),
    )


@STUDY.figure("claims", "The published claims beside these runs", order=100)
def published(answers: LifeAnswers) -> Section:
    """Show every claim with its null and verdict."""
    return Section(
        text="Claims on profiles, spreads of types and importance are decided on interior blocks too, and the reversal "
        "under a constant rate too: the ends differ from other blocks for reasons of their own, and a "
        "falling rate changes spectra by itself. Waves without the ends are in the table of waves.",
        table=Table(
            tuple(f.name for f in fields(Claim)),
            tuple(astuple(c) for c in claims(answers)),
            text=(0, 1, 2, 3, 4, 5, 6),
        ),
        blocks=tuple(Text(note, "note") for note in NOTES),
    )
