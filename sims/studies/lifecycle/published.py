"""What was published of the spectral lifecycle of weights, beside what these runs show (arXiv 2604.22778).

The published models have 30 to 285 million parameters, so that claims are compared in kind. The published definitions
of a wave, an exponent and a timescale, the optimiser and the data are not known: definitions are those of this page.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from sims.pages.number import ABSENT, interval
from sims.studies.claims import Claim
from sims.studies.lifecycle.answers import (
    ALL_LAYERS,
    DECAYS,
    FORMS,
    INTERIOR,
    MATRICES,
    PRODUCTS,
    SUMMARY,
    LifeAnswers,
)
from sims.studies.lifecycle.measured import EXPONENTS

NOTES = (
    "The published law Δα ∝ L^0.26 with R² 0.99 is what the largest minus the smallest of L independent values has: "
    "0.262 and 0.990 over L = 8, 12, 16, 24, 36, whatever the values are.",
    "A rule that keeps the last block may gain or lose by that alone against one that removes the last N: a fair "
    "comparison is with sets of interior blocks.",
    "Single matrices q, k, v and o change with a change of basis inside a head, which changes nothing the model does; "
    "the products W_qᵀW_k and W_oW_v do not. Where q and k are normalised (stages from rope on) only a rotation and a "
    "scale of each head are free, and the product W_qᵀW_k is not what a head computes.",
)


@lru_cache(maxsize=4)
def claims(answers: LifeAnswers) -> tuple[Claim, ...]:
    """Return every claim: waves, their reversal, the profile over depth, q and k, timescales, scaling, removal."""
    return tuple(_claims(answers))


def _claims(answers: LifeAnswers) -> Iterator[Claim]:
    for family in answers.families:
        yield _wave(answers, family)
    for family in answers.families:
        yield _reversal(answers, family)
    for cell in answers.data.cells:
        yield _hump(answers, cell)
    for line in answers.lines:
        yield _shift(answers, line)
    for form in FORMS:
        for cell in answers.data.cells:
            yield from _asymmetry(answers, cell, form)
    for family, cells in answers.families.items():
        for kind in dict.fromkeys(kind for cell, kind in answers.timed if cell in cells.values()):
            yield _times(answers, family, kind)
    for line in answers.lines:
        yield _scaling(answers, line)
    if answers.removals is not None:
        for cell in dict.fromkeys(answers.removals.cells.values()):
            yield from _importance(answers, cell)
        for line in answers.lines:
            yield from _removal(answers, line)


def _wave(answers: LifeAnswers, family: str) -> Claim:
    table = answers.waves
    own = table[(table["part"] == ALL_LAYERS) & (table["name"] == "pooled")]
    own = own[own["cell"].isin(answers.families[family].values()) & (own["status"] == "ok")]
    here = "; ".join(f"ρ = {rho:.2f}, p = {p:.2g}" for rho, p in zip(own["rho"], own["p"], strict=True))
    return Claim.judged(
        "Compression passes from early to late blocks as a wave",
        family,
        "early blocks first",
        here or ABSENT,
        "ρ = 0 where all layers follow one clock",
        answers.wave(family),
    )


def _reversal(answers: LifeAnswers, family: str) -> Claim:
    cells = answers.families[family].values()
    found = [r for cell in cells if (r := answers.reversals[cell, SUMMARY]).status == "ok"]
    here = "; ".join(f"γ = {r.early:.2g} at {r.share:.0%}, {r.late:.2g} at the end" for r in found)
    return Claim.judged(
        "The gradient over depth peaks early and then reverses",
        family,
        "peaks early, late blocks over-compress",
        here or ABSENT,
        "a decayed rate moves ranks by itself; layers permuted",
        answers.reverses(family),
    )


def _hump(answers: LifeAnswers, cell: str) -> Claim:
    found = answers.humps[cell, EXPONENTS[0], ALL_LAYERS]
    here = ABSENT
    if found.status == "ok":
        peak = interval(found.peak, found.peak_low, found.peak_high, 2)
        here = f"slopes {found.before:.2g} and {found.after:.2g}; peak at {peak}"
    return Claim.judged(
        "The exponent over depth is an inverted U",
        cell,
        "inverted U",
        here,
        "a quadratic has a maximum in curves that level off too",
        answers.humped(cell),
    )


def _shift(answers: LifeAnswers, line: str) -> Claim:
    found = answers.shift(line)
    here = f"ρ = {found.rho:.2f}, p = {found.p:.2g}" if found.status == "ok" else ABSENT
    return Claim.judged(
        "Its peak comes earlier in deeper models",
        line,
        "earlier in deeper models",
        here,
        "numbers of layers permuted",
        found.verdict,
    )


def _asymmetry(answers: LifeAnswers, cell: str, form: str) -> Iterator[Claim]:
    verdict = answers.asymmetric(cell, form)
    if verdict is None:
        return
    what = {
        MATRICES: "Stable ranks of q and k vary more over depth than those of v and o",
        PRODUCTS: "Stable ranks of W_qᵀW_k vary more over depth than those of W_oW_v",
        DECAYS: "Exponents of q and k vary more over depth than those of v and o",
    }
    found = {part: answers.asymmetries[cell, form, part] for part in (ALL_LAYERS, INTERIOR)}
    here = "; ".join(
        f"{part}: {interval(one.ratio, one.low, one.high, 2)}"
        for part, one in found.items()
        if one.status == "ok"
    )
    yield Claim.judged(
        what[form],
        cell,
        "v and o uniform, q and k carry the depth",
        here or ABSENT,
        "1; types exchanged",
        verdict,
    )


def _times(answers: LifeAnswers, family: str, kind: str) -> Claim:
    cells = answers.families[family].values()
    found = [answers.times[cell, kind] for cell in cells if (cell, kind) in answers.times]
    here = "; ".join(f"ratio {interval(one.ratio, one.low, one.high, 2)}" for one in found)
    return Claim.judged(
        "Compression has a fast and a slow time",
        f"{family}, {kind}",
        "two timescales",
        here or ABSENT,
        "one shared time; one of each layer; one that is stretched",
        answers.two_times(family, kind),
    )


def _scaling(answers: LifeAnswers, line: str) -> Claim:
    sd, extent = (answers.laws[line, EXPONENTS[0], measure] for measure in ("sd", "range"))
    here = ABSENT
    if sd.status == "ok":
        told = interval(extent.exponent, extent.low, extent.high, 2)
        here = f"sd: L^{interval(sd.exponent, sd.low, sd.high, 2)}; range: L^{told}"
    against = "sd: 0" + (f"; range: {extent.null:.2f}" if extent.status == "ok" else "")
    return Claim.judged(
        "The spread of exponents over blocks grows with their number",
        line,
        "range ∝ L^0.26, R² 0.99",
        here,
        against,
        answers.grows(line),
    )


def _importance(answers: LifeAnswers, cell: str) -> Iterator[Claim]:
    verdict = answers.important(cell)
    if verdict is None:
        return
    table = answers.importances
    own = table[(table["cell"] == cell) & (table["status"] == "ok")]
    # Any of the exponents may show it.
    told = {
        part: ", ".join(f"{r['name']} {r['rho']:.2f}" for r in own[own["part"] == part].to_dict("records"))
        for part in (ALL_LAYERS, INTERIOR)
    }
    here = "; ".join(f"{part}: ρ = {each}" for part, each in told.items() if each)
    yield Claim.judged(
        "The exponent of a block says how important it is",
        cell,
        "ρ = 0.69 to 0.84, p < 0.02",
        here or ABSENT,
        "layers permuted; the ends alone make a correlation",
        verdict,
    )


def _removal(answers: LifeAnswers, line: str) -> Iterator[Claim]:
    verdict = answers.guided(line)
    if verdict is None:
        return
    table = answers.advantages
    own = table[table["cell"].isin(answers.lines[line].values()) & (table["status"] == "ok")]
    parts = []
    for against, mine in own.groupby("against", sort=False):
        best = mine.groupby("rule")["factor"].median()
        parts.append(f"than {against}: " + ", ".join(f"{rule} {f:.2f}" for rule, f in best.items()))
    yield Claim.judged(
        "Exponents say which blocks can be removed",
        line,
        "1.1 to 3.6 times better than the last N",
        "; ".join(parts) or ABSENT,
        "all sets of interior blocks",
        verdict,
    )
