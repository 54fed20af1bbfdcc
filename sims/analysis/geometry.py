"""Label the phases of the geometry of states over training: warm-up, entropy-seeking, compression-seeking.

ln RankMe is segmented against ln tokens (`segmentation`). A fall before any rise is W, a rise E, a fall after a rise C;
what moves too little, or in neither direction for certain, is flat. α-ReQ must move the other way in each, as a decay
that gets steeper leaves fewer directions. The letters in their order are the word of a run, or of a set of seeds, whose
mean curve is labelled: there the turns between letters must be those of the seeds too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby, pairwise
from typing import Literal

import numpy as np

from sims.analysis.intervals import mean_interval, student
from sims.analysis.phases import SIGNIFICANT, TOLERANCE
from sims.analysis.resampling import LEAST_SEEDS, spearman
from sims.analysis.segmentation import DRAWS, LEAST_POINTS, Segmentation, hinges, level_p, segment
from sims.pages.number import counted
from sims.system.errors import MeasureError
from theory.decision import has_width, side

WARMUP, ENTROPY, COMPRESSION, FLAT, UNKNOWN = "W", "E", "C", "flat", "?"
MAX_CHANGES = 4
# A phase moves ln RankMe by at least so much.
LEAST_MOVE = 0.02
# α-ReQ moves the other way if its rank correlation with RankMe within a phase is at most this, over four looks or more.
OPPOSITE, LEAST_LOOKS = -0.5, 4
# Of the seeds, so large a share has the turns of their mean.
AGREEING = 2 / 3
ALPHA_OPPOSITE, RANKME_ONLY = "RankMe and α", "RankMe only"


@dataclass(frozen=True)
class Phase:
    """Hold a part of a curve with one label.

    Attributes:
        label: W, E, C, flat, or ? (a direction, or a turn to it, that the tests or the seeds do not support).
        start, end: in tokens.
        slope, low, high: of ln RankMe per e-fold of tokens, with its 95 % interval over seeds, or of correlated noise
            where there are fewer than three; the places of the changes are taken as known.
        move: change of ln RankMe from start to end.
        rho: Spearman correlation of RankMe and α-ReQ over the looks of the phase; NaN where there are fewer than four.
        support: "RankMe and α" or "RankMe only".
        p_level: p-value of no slope, with the changes searched again; NaN of the first letter and of what is flat.
        p: largest p-value of the changes of slope between this letter and the one before; NaN of the first letter.
        agree: share of seeds with the same turn within a factor √2 of its tokens; NaN of the first letter and of one
            seed.
    """

    label: str
    start: float
    end: float
    slope: float
    low: float
    high: float
    move: float
    rho: float = math.nan
    support: str = ""
    p_level: float = math.nan
    p: float = math.nan
    agree: float = math.nan


@dataclass(frozen=True)
class Phases:
    """Hold the phases of a run, or of a set of seeds.

    Attributes:
        word: the letters in their order, such as WE or WEC; "flat" where nothing moves, "" where it is not fitted.
        status: "ok"; "flagged" where a letter rests on RankMe only or a turn is not supported; "not fitted".
        reason: why it is not ok.
        seeds, points: seeds, and looks of each.
        phases: in their order.
        p: largest p-value of the letters: of their slopes and of the turns between them; NaN where there is none.
    """

    word: str
    status: Literal["ok", "flagged", "not fitted"]
    reason: str
    seeds: int
    points: int
    phases: tuple[Phase, ...] = ()
    p: float = math.nan

    @property
    def sentence(self) -> str:
        """Return the word, its turns and what limits it as one sentence."""
        if self.status == "not fitted":
            return f"Not resolved ({self.reason})."
        parts = [
            f"{own.label} {'+' if own.move > 0 else '−'}{abs(own.move):.2g} until {own.end:.3g} tokens"
            for own in self.phases
        ]
        limit = f"; {self.reason}" if self.reason else ""
        return f"{self.word} over {counted(self.seeds, 'seed')}: {', '.join(parts)}{limit}."

    def rows(self) -> list[dict[str, object]]:
        """Return one row a phase: its attributes and word, status, reason, seeds, points."""
        head = {
            "word": self.word,
            "status": self.status,
            "reason": self.reason,
            "seeds": self.seeds,
            "points": self.points,
        }
        return [{**head, **asdict(own)} for own in self.phases] or [head]

    def turns(self) -> list[tuple[str, float]]:
        """Return where two letters meet, as their pair and ln tokens: the middle of what is flat between them."""
        found = []
        for before, after in pairwise(_letters(self.phases)):
            found.append((before.label + after.label, (math.log(before.end) + math.log(after.start)) / 2))
        return found


def label_phases(
    tokens: np.ndarray,
    rankme: np.ndarray,
    alpha: np.ndarray | None = None,
    *,
    max_changes: int = MAX_CHANGES,
    level: float = SIGNIFICANT,
    draws: int = DRAWS,
    seed: int = 0,
) -> Phases:
    """Label the phases of one run, or of the mean over seeds.

    Args:
        tokens: (n,) positive and rising.
        rankme: (n,) of one run, or (seeds, n).
        alpha: α-ReQ of the same shape, NaN at looks without; None where there is none at all.
        max_changes, level, draws, seed: of `segmentation.segment`.

    Returns:
        The phases; "not fitted" with fewer than eight looks.

    Raises:
        MeasureError: tokens that do not rise, RankMe that is not positive, shapes that do not agree.
    """
    y, other = _checked(tokens, rankme, alpha)
    seeds, n = y.shape
    if n < LEAST_POINTS:
        return Phases("", "not fitted", f"{n} looks after the start, of {LEAST_POINTS} needed", seeds, n)
    x = np.log(np.asarray(tokens, float))
    curve = segment(x, y.mean(axis=0), max_changes=max_changes, level=level, draws=draws, seed=seed)
    phases = _letters_tested(_labelled(x, y, curve, level, draws, seed), curve)
    if other is not None:
        phases = [_with_alpha(own, x, y.mean(axis=0), other.mean(axis=0)) for own in phases]
    else:
        phases = [replace(own, support=RANKME_ONLY if own.label != FLAT else "") for own in phases]
    found = Phases("", "ok", "", seeds, n, tuple(phases))
    if seeds > 1 and found.turns():
        each = [
            label_phases(tokens, row, max_changes=max_changes, level=level, draws=draws, seed=seed)
            for row in np.exp(y)
        ]
        found = replace(found, phases=_agreed(found, each))
    return _judged(found, level)


def _checked(
    tokens: np.ndarray, rankme: np.ndarray, alpha: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return ln RankMe and α-ReQ as (seeds, n)."""
    x, values = np.asarray(tokens, float), np.atleast_2d(np.asarray(rankme, float))
    if x.ndim != 1 or values.ndim != 2 or values.shape[1] != len(x) or not len(values):
        raise MeasureError(
            f"tokens have shape {x.shape} and RankMe {np.shape(rankme)}; they must be (n,) and (n,) or (seeds, n)"
        )
    if not np.isfinite(x).all() or not (x > 0).all() or not (np.diff(x) > 0).all():
        raise MeasureError("tokens must be positive and rise; leave out the start, which has no logarithm")
    if not np.isfinite(values).all() or not (values > 0).all():
        raise MeasureError("RankMe must be finite and positive; leave out looks at which a seed has none")
    if alpha is None:
        return np.log(values), None
    other = np.atleast_2d(np.asarray(alpha, float))
    if other.shape != values.shape:
        raise MeasureError(
            f"α-ReQ has shape {other.shape} and RankMe {values.shape}; give both of the same looks, NaN where missing"
        )
    return np.log(values), other


def _labelled(
    x: np.ndarray, y: np.ndarray, curve: Segmentation, level: float, draws: int, seed: int
) -> list[Phase]:
    """Return the segments with their labels, those of one direction in sequence together."""
    edges = [float(x[0]), *curve.changes, float(x[-1])]
    signs = [_direction(_part(x, y, curve, a, b)) for a, b in pairwise(edges)]
    groups = [(sign, len(list(own))) for sign, own in groupby(signs)]
    found: list[Phase] = []
    place, risen = 0, False
    for i, (sign, parts) in enumerate(groups):
        own = _part(x, y, curve, edges[place], edges[place + parts])
        risen, place = risen or sign > 0, place + parts
        if sign:
            own = replace(own, label=_letter(sign, risen))
            if any(before.label != FLAT for before in found):
                middle = _middle(x, own)
                p = level_p(x, y.mean(axis=0), len(groups) - 1, i, middle, draws=draws, seed=seed)
                own = replace(own, p_level=p, label=own.label if p <= level else UNKNOWN)
        found.append(own)
    return found


def _middle(x: np.ndarray, own: Phase) -> tuple[int, int]:
    """Return the looks between which the middle half of a phase lies."""
    first, last = (int(np.argmin(np.abs(x - math.log(t)))) for t in (own.start, own.end))
    quarter = (last - first) // 4
    return first + quarter, last - quarter


def _direction(own: Phase) -> int:
    """Return the sign of a slope; 0 where its interval holds 0, or it moves ln RankMe too little."""
    if abs(own.move) < LEAST_MOVE:
        return 0
    # A curve without noise has its slope exactly, and an interval without width.
    return side(own.low, own.high) if has_width(own.low, own.high) else int(np.sign(own.slope))


def _letter(sign: int, risen: bool) -> str:
    return ENTROPY if sign > 0 else COMPRESSION if risen else WARMUP


def _part(x: np.ndarray, y: np.ndarray, curve: Segmentation, start: float, end: float) -> Phase:
    """Return the mean slope of the fitted curve between two of its changes, with its interval."""
    basis = hinges(x, curve.changes)
    ends = hinges(np.array([x[0], start, end]), curve.changes)
    # The slope is linear in y: the places of the changes are taken as known.
    weights = (ends[2] - ends[1]) @ np.linalg.pinv(basis) / (end - start)
    slopes = y @ weights
    slope, low, high = mean_interval(slopes)
    if len(y) < LEAST_SEEDS:
        half = _noise_interval(y.mean(axis=0) - curve.fitted, basis, weights, curve.correlation)
        low, high = slope - half, slope + half
    return Phase(FLAT, math.exp(start), math.exp(end), slope, low, high, slope * (end - start))


def _noise_interval(rest: np.ndarray, basis: np.ndarray, weights: np.ndarray, correlation: float) -> float:
    """Return the half width of a 95 % interval of weights · y for noise of first-order correlation."""
    n, parameters = basis.shape
    law = correlation ** np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    left = np.eye(n) - basis @ np.linalg.pinv(basis)
    variance = float((rest**2).sum()) / max(float(np.trace(left @ law)), 1e-12)
    return student(max(n - parameters, 1)) * math.sqrt(variance * float(weights @ law @ weights))


def _letters(phases: Sequence[Phase]) -> list[Phase]:
    """Return the phases that are letters of the word; two of one letter with a flat part between are one."""
    found: list[Phase] = []
    for own in phases:
        if own.label == FLAT:
            continue
        if found and found[-1].label == own.label:
            found[-1] = replace(found[-1], end=own.end)
        else:
            found.append(own)
    return found


def _letters_tested(phases: list[Phase], curve: Segmentation) -> list[Phase]:
    """Return the phases with the p-value of the turn to each letter."""
    found, last = [], None
    for own in phases:
        if own.label != FLAT:
            if last is not None and last.label != own.label:
                low, high = (math.log(t) for t in (last.end, own.start))
                between = [
                    p for c, p in zip(curve.changes, curve.p, strict=True) if low - 1e-9 <= c <= high + 1e-9
                ]
                own = replace(own, p=max(between))
            last = own
        found.append(own)
    return found


def _with_alpha(own: Phase, x: np.ndarray, y: np.ndarray, alpha: np.ndarray) -> Phase:
    """Return a phase with the correlation of RankMe and α-ReQ over its looks."""
    if own.label == FLAT:
        return own
    inside = (x >= math.log(own.start) - 1e-9) & (x <= math.log(own.end) + 1e-9) & np.isfinite(alpha)
    rho = float(spearman(y[inside], alpha[inside])) if inside.sum() >= LEAST_LOOKS else math.nan
    return replace(own, rho=rho, support=ALPHA_OPPOSITE if rho <= OPPOSITE else RANKME_ONLY)


def _agreed(found: Phases, each: Sequence[Phases]) -> tuple[Phase, ...]:
    """Return the phases with the share of seeds that have the turn to each letter."""
    shares = iter(
        np.mean([any(k == kind and abs(p - place) <= TOLERANCE for k, p in own.turns()) for own in each])
        for kind, place in found.turns()
    )
    return tuple(
        own if math.isnan(own.p) else replace(own, agree=float(next(shares))) for own in found.phases
    )


def _judged(found: Phases, level: float) -> Phases:
    """Return the phases with their word: a letter that is not supported, and all after it, are unknown."""
    reasons, known, phases = [], True, []
    for own in found.phases:
        if known and (why := _unsupported(own, level)):
            known = False
            reasons.append(f"from {own.start:.3g} tokens on the phases are not supported ({why})")
        phases.append(own if known or own.label == FLAT else replace(own, label=UNKNOWN))
    alone = [own.label for own in phases if own.support == RANKME_ONLY and own.label != UNKNOWN]
    if alone:
        reasons.append(f"RankMe only: {', '.join(dict.fromkeys(alone))}")
    word = "".join(label for label, _ in groupby(own.label for own in phases if own.label != FLAT)) or FLAT
    tested = [p for own in phases for p in (own.p, own.p_level) if not math.isnan(p)]
    p = max(tested) if tested else math.nan
    status = "flagged" if reasons else "ok"
    return replace(found, word=word, status=status, reason="; ".join(reasons), phases=tuple(phases), p=p)


def _unsupported(own: Phase, level: float) -> str:
    """Say why a phase is no letter; empty where it is one, or flat."""
    if own.p_level > level:
        return f"p = {own.p_level:.2g} of no slope"
    if own.p > level:
        return f"p = {own.p:.2g} of no change"
    return f"{own.agree:.0%} of the seeds have this turn" if own.agree < AGREEING - 1e-9 else ""
