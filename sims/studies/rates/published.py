"""What was published of learning rates by spectra, beside what these runs show (arXiv 2312.00359, 2506.06280).

The published models are far larger, and their range of multipliers was tuned for each network. Claims are compared in
kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from sims.analysis.paired import SIGNIFICANT
from sims.analysis.pruning import COSTS, OPEN, SAVES
from sims.analysis.rates import LEAST_DRAWS, LEAST_SEEDS
from sims.analysis.resampling import holm
from sims.pages.number import ABSENT, interval, number
from sims.studies import claims as words
from sims.studies.claims import NOT_SHOWN, SHOWN, Claim
from sims.studies.rates.answers import END, START, RatesAnswers, scores_of, unlike_rates
from sims.studies.rates.measured import EXPONENTS
from theory.decision import side, why_undecided
from toymodel.rates import REVERSED, SHUFFLED, UNIFORM

OUTCOMES = {SAVES: SHOWN, COSTS: NOT_SHOWN, OPEN: words.OPEN}
LOSS = "Learning rates by {} lower the loss"
CREDIT = "It is the order of the exponents that does it ({})"
EVEN = "Exponents are more even over matrices after training with rates by {}"
PUBLISHED_LOSS = "error of operator learning falls by up to 5.66 % (FARMS) and 9.73 % (ModelBalancing)"
PUBLISHED_EVEN = "more balanced"


def claims(answers: RatesAnswers) -> Iterator[Claim]:
    """Yield every claim for every cell: on the loss, on what is credited with it, on the spread of exponents."""
    for cell in answers.data.cells:
        for arm in scores_of(answers, cell):
            yield _loss(answers, cell, arm)
            yield _credit(answers, cell, arm)
    yield from _even(answers)


def row_of(answers: RatesAnswers, cell: str, arm: str) -> dict[str, Any]:
    """Return the comparison of an arm with uniform."""
    own = answers.summary
    found: list[Any] = own[(own["cell"] == cell) & (own["arm"] == arm)].to_dict("records")
    return found[0]


def told_edge(row: Mapping[Any, Any]) -> str:
    """Say where a best rate is the first or the last one tried, so that a better one may lie beyond."""
    sides = [(row["arm"], row["edge"]), (row["base"], row["base_edge"])]
    told = [f"the best rate of {name} is the {edge} tried" for name, edge in sides if edge]
    return f"; {' and '.join(told)}" if told else ""


def delta(row: Mapping[Any, Any]) -> str:
    """Write a difference of losses with its interval."""
    told = interval(row["delta"], row["low"], row["high"], write=signed)
    return told if told == ABSENT else f"{told} nats"


def signed(value: float) -> str:
    """Write a number with its sign and four decimals, a dash where it is missing.

    >>> signed(-0.01234), signed(float("nan"))
    ('−0.0123', '–')
    """
    return f"{value:+.4f}".replace("-", "−") if np.isfinite(value) else number(value)


def _needs(answers: RatesAnswers, cell: str, arm: str) -> str:
    """Return the first command that trains what an arm lacks: itself, uniform or its shuffles; empty without one."""
    own = answers.missing[answers.missing["cell"] == cell]
    wanted = {UNIFORM, arm, SHUFFLED + arm}
    own = own[[not wanted.isdisjoint(arms.split(", ")) for arms in own["arms"]]]
    more = f" (and {len(own) - 1} more, listed under missing runs)" if len(own) > 1 else ""
    return f"; train with: {own['command'].iloc[0]}{more}" if len(own) else ""


def _loss(answers: RatesAnswers, cell: str, arm: str) -> Claim:
    row = row_of(answers, cell, arm)
    reason = f"{row['reason']}{told_edge(row)}"
    if row["seeds"] < LEAST_SEEDS:
        reason += _needs(answers, cell, arm)
    return Claim(
        LOSS.format(arm),
        cell,
        PUBLISHED_LOSS,
        f"{delta(row)} against one rate, {answers.credit(cell, arm)}",
        _controls(answers, cell, arm),
        OUTCOMES[row["verdict"]],
        reason,
    )


def _controls(answers: RatesAnswers, cell: str, arm: str) -> str:
    """Write the differences of the controls to uniform."""
    own = answers.summary[answers.summary["cell"] == cell]
    named = own[own["arm"].isin(("depth", REVERSED + arm))].to_dict("records")
    told = [f"{row['arm']} {delta(row)}" for row in named]
    return "; ".join(told) or "no controls run"


def _credit(answers: RatesAnswers, cell: str, arm: str) -> Claim:
    row, rank = row_of(answers, cell, arm), answers.rank(cell, arm)
    outcome, here = words.OPEN, answers.credit(cell, arm)
    if rank is None or not rank["seeds"]:
        reason = f"its shuffles were not run{_needs(answers, cell, arm)}"
    elif not rank["rates"]:
        reason = f"its shuffles ran at none of its base rates{_needs(answers, cell, arm)}"
    elif rank["seeds"] < LEAST_SEEDS:
        reason = f"{rank['seeds']} of {LEAST_SEEDS} seeds have the score and all its shuffles"
        reason += _needs(answers, cell, arm)
    elif rank["as_good"]:
        outcome, reason = (
            NOT_SHOWN,
            f"{rank['as_good']} of {rank['draws']} shuffles are as good; p = {rank['p']:.2g}",
        )
    elif not answers.credited(cell, arm):
        few = f"{rank['draws']} of {LEAST_DRAWS} draws" if rank["draws"] < LEAST_DRAWS else ""
        lacking = " and ".join(part for part in (unlike_rates(rank), few) if part)
        reason = f"shuffles have {lacking}, so that they can refute a score and not credit it"
        reason += _needs(answers, cell, arm)
    elif row["verdict"] != SAVES:
        reason = f"better than all shuffles (p = {rank['p']:.2g}), but it is not shown that it saves"
    else:
        outcome, reason = SHOWN, f"it saves, and beats all {rank['draws']} shuffles; p = {rank['p']:.2g}"
    against = "–" if rank is None else f"mean loss of its shuffles {number(rank['shuffled'], 4)}"
    return Claim(CREDIT.format(arm), cell, "no shuffles published", here, against, outcome, reason)


def _even(answers: RatesAnswers) -> Iterator[Claim]:
    """Yield the claims on spreads; their tests are corrected for the number of these."""
    asked = [
        (cell, arm, quantity)
        for cell in answers.data.cells
        for arm in scores_of(answers, cell)
        for quantity, score in EXPONENTS.items()
        if arm.removesuffix("-z") == score
    ]
    found = [_change(answers, *names) for names in asked]
    adjusted = holm(np.array([row["p"] for row in found], float))
    for (cell, arm, quantity), row, p in zip(asked, found, adjusted.tolist(), strict=True):
        yield _even_claim(answers, (cell, arm, quantity), row, p)


def _change(answers: RatesAnswers, cell: str, arm: str, quantity: str) -> dict[str, Any]:
    own = answers.changes
    at = (own["cell"] == cell) & (own["arm"] == arm) & (own["when"] == END) & (own["quantity"] == quantity)
    found: list[Any] = own[at].to_dict("records")
    return found[0] if found else {"n": 0, "mean": np.nan, "low": np.nan, "high": np.nan, "p": np.nan}


def _even_claim(answers: RatesAnswers, names: tuple[str, str, str], row: dict[str, Any], p: float) -> Claim:
    cell, arm, quantity = names
    which = side(row["low"], row["high"])
    outcome = words.OPEN
    if row["n"] < LEAST_SEEDS:
        reason = (
            f"{row['n']} of {LEAST_SEEDS} seeds have both arms at uniform's best rate, with stored weights"
        )
    elif which == 0:
        reason = why_undecided(row["low"], row["high"])
    elif not p <= SIGNIFICANT:
        reason = f"p = {p:.2g} after Holm's correction"
    else:
        outcome = SHOWN if which < 0 else NOT_SHOWN
        reason = f"p = {p:.2g} after Holm's correction"
    told, against = interval(row["mean"], row["low"], row["high"], write=signed), "–"
    levels = answers.spreads
    own = levels[
        (levels["cell"] == cell) & (levels["arm"].isin(("uniform", arm))) & (levels["quantity"] == quantity)
    ]
    if len(own):
        means = own.groupby(["arm", "when"])["sd"].mean()
        shown = ", ".join(
            f"{n} {number(means.get((n, START), np.nan))} to {number(means[n, END])}"
            for n in (arm, "uniform")
            if (n, END) in means.index
        )
        told += f" (sd over training: {shown})" if shown else ""
        mean, low, high = answers.noise(cell, quantity)
        against = f"Gaussian matrices of these shapes: sd {mean:.3f} [{low:.3f}, {high:.3f}]"
        for control in ("depth", REVERSED + arm):
            own = _change(answers, cell, control, quantity)
            if own["n"]:
                against += f"; {control} {interval(own['mean'], own['low'], own['high'], write=signed)}"
    return Claim(EVEN.format(arm), cell, PUBLISHED_EVEN, told, against, outcome, reason)
