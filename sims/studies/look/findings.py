"""Sentences about one model: what lies outside noise, what cannot be told from it, and which fits to leave unread."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from sims.measure.noise_levels import DRAWS
from sims.models.names import short
from sims.pages.number import compact, verb
from sims.pages.page import Finding
from sims.studies.look.laws import said
from sims.studies.look.tables import ABOVE, BELOW, INSIDE, SHOWN, TAILS, UNKNOWN, weight_rows
from sims.system.plain import some

if TYPE_CHECKING:
    from sims.studies.look.look import Look

# More matrices than chance puts outside noise: at this level.
LEVEL = 0.01
# One matrix that is farther from the mean of noise than so many ranges of its draws is no matter of chance.
FAR = 3.0
# The quantity of the first sentence.
FIRST = "rankme"
# How a reason of a flagged fit begins → what it says.
REASONS = {
    "KS distance": "no power law above the threshold (KS test)",
    "a log-normal": "a log-normal fits better",
    "the tail has": "too few values in the tail",
}
NAMED = 6


def verdict(look: Look) -> str:
    """Return one sentence about the whole model."""
    rows = weight_rows(look.rows)
    own = rows[(rows["name"] == FIRST) & (rows["position"] != UNKNOWN)]
    missing = rows["site"].nunique() - len(own)
    unmeasured = f" {missing} of {rows['site'].nunique()} could not be measured." if missing else ""
    if own.empty:
        return f"No weight matrix of {look.name} has a spectrum that can be set against noise.{unmeasured}"
    total = len(own)
    counts = {
        word: int((own["position"] == side).sum()) for word, side in (("fewer", BELOW), ("more", ABOVE))
    }
    beyond = [word for word, count in counts.items() if count and chance(count, total) <= LEVEL]
    if not beyond:
        far = [f"{short(row['site'])} ({_beside(row)})" for row in own[_far(own)].to_dict("records")]
        matrices = verb(total, "matrix", "matrices")
        if len(far) == total:
            return (
                f"RankMe tells {total} of {total} weight {matrices} of {look.name} from noise, by distance: "
                f"{some(far, NAMED)}.{unmeasured}"
            )
        but = f", except for {some(far, NAMED)}" if far else ""
        return (
            f"The weights of {look.name} cannot be told from noise by their RankMe{but}: of {total} {matrices} "
            f"{counts['fewer']} {verb(counts['fewer'], 'lies', 'lie')} below and {counts['more']} "
            f"{verb(counts['more'], 'lies', 'lie')} above all {DRAWS} Gaussian matrices of their shape, which is no "
            f"more than chance gives.{unmeasured}"
        )
    first, *rest = beyond
    also = "".join(f", and {counts[word]} {verb(counts[word], 'has', 'have')} {word}" for word in rest)
    return (
        f"{_share(counts[first], total)} weight matrices of {look.name} {verb(counts[first], 'has', 'have')} {first} "
        f"effective directions (RankMe) than any of {DRAWS} Gaussian matrices of the same shape{also}.{unmeasured}"
    )


def chance(outside: int, total: int) -> float:
    """Return the probability that at least so many of `total` noise matrices lie below all draws of noise.

    Exact for matrices of one shape, which are compared with the same draws: the lowest `outside` of all total + 19
    exchangeable values must be of matrices. Cautious for several shapes.

    >>> chance(1, 1)
    0.05
    """
    return math.prod((total - i) / (total + DRAWS - i) for i in range(outside))


def findings(look: Look) -> list[Finding]:
    """Return all sentences, the verdict first."""
    rows = weight_rows(look.rows)
    texts = [verdict(look)]
    names = [name for name in SHOWN if name not in TAILS and (rows["name"] == name).any()]
    texts += [_position(rows, name) for name in names]
    texts += [_by_chance(rows, names), _nowhere(rows)]
    texts += [_tail(rows, name) for name in TAILS if (rows["name"] == name).any()]
    texts += [_unmeasured(rows)]
    if look.text:
        texts += [*_of_text(look), *said(look.rows)]
    return [Finding(text) for text in texts if text]


def _position(rows: pd.DataFrame, name: str) -> str:
    """Say where a summary of the matrices lies among noise; nothing of one that `_by_chance` names."""
    own = rows[(rows["name"] == name) & (rows["position"] != UNKNOWN)]
    if own.empty:
        return f"{SHOWN[name]}: of no matrix."
    counts = Counter(own["position"])
    if not _beyond_chance(own):
        return ""
    parts = []
    for side in (BELOW, ABOVE):
        if not (count := counts[side]):
            continue
        most = _most(own, side)
        text = f"{side} noise in {count} of {len(own)}, most in {short(most['site'])} ({_beside(most)})"
        alike = chance(count, len(own)) > LEVEL and not _far(own[own["position"] == side]).any()
        parts.append(text + (", no more than chance gives" if alike else ""))
    if counts[INSIDE]:
        parts.append(f"not to be told from noise in {counts[INSIDE]}")
    return f"{SHOWN[name]} is {'; '.join(parts)}."


def _far(own: pd.DataFrame) -> pd.Series:
    """Return whether each row lies far outside noise."""
    away = (own["value"] - own["null"]).abs()
    return own["position"].isin((BELOW, ABOVE)) & (away > FAR * (own["null_high"] - own["null_low"]))


def _beyond_chance(own: pd.DataFrame) -> bool:
    """Return whether more matrices lie on one side of noise than chance gives, or one lies far outside."""
    counts = Counter(own["position"])
    many = (counts[side] and chance(counts[side], len(own)) <= LEVEL for side in (BELOW, ABOVE))
    return any(many) or bool(_far(own).any())


def _by_chance(rows: pd.DataFrame, names: Sequence[str]) -> str:
    """Name in one sentence the summaries by which no more matrices lie outside noise than chance gives."""
    texts = []
    for name in names:
        own = rows[(rows["name"] == name) & (rows["position"] != UNKNOWN)]
        counts = Counter(own["position"])
        if len(own) and not _beyond_chance(own):
            sides = [side for side in (BELOW, ABOVE) if counts[side]]
            most = [
                f"{side}: {short(row['site'])}, {_beside(row)}" for side in sides if (row := _most(own, side))
            ]
            texts.append(
                f"{SHOWN[name]} ({'; '.join([f'{counts[BELOW] + counts[ABOVE]} of {len(own)}', *most])})"
            )
    return f"No more matrices lie outside noise than chance gives by {', '.join(texts)}." if texts else ""


def _most(own: pd.DataFrame, side: str) -> dict[Any, Any]:
    """Return the row that lies farthest from noise on one side."""
    here = own[own["position"] == side].to_dict("records")
    return (min if side == BELOW else max)(here, key=lambda row: row["value"] / row["null"])


def _nowhere(rows: pd.DataFrame) -> str:
    """Name the matrices that no summary tells from noise."""
    known = rows[rows["name"].isin([n for n in SHOWN if n not in TAILS]) & (rows["position"] != UNKNOWN)]
    if known.empty:
        return ""
    inside = {site: set(own["position"]) == {INSIDE} for site, own in known.groupby("site", sort=False)}
    names = [short(str(site)) for site, hidden in inside.items() if hidden]
    if not names:
        return ""
    count = f"{len(names)} of {len(inside)} {verb(len(inside), 'matrix', 'matrices')}"
    return f"No summary tells {count} from noise: {some(names, NAMED)}."


def _tail(rows: pd.DataFrame, name: str) -> str:
    """Say how many fits of a tail exponent are accepted, and why the others are not."""
    own = rows[rows["name"] == name]
    good = own[own["status"] == "ok"]
    text = f"{SHOWN[name]}: {len(good)} of {len(own)} {verb(len(own), 'fit', 'fits')} accepted"
    if len(good):
        text += f", {_range([compact(good['value'].min()), compact(good['value'].max())], 'at', 'from')}"
        if noise := int((good["position"] == INSIDE).sum()):
            text += f" ({noise} of them within what noise gives)"
    reasons = Counter(
        meaning
        for reason in own.loc[own["status"] == "flagged", "reason"]
        for part in reason.split("; ")
        for start, meaning in REASONS.items()
        if part.startswith(start)
    )
    why = ", ".join(f"{meaning} in {count}" for meaning, count in reasons.items())
    flagged, unfitted = int((own["status"] == "flagged").sum()), int((own["status"] == "not fitted").sum())
    if flagged:
        text += f"; {flagged} {verb(flagged, 'is', 'are')} flagged ({why}): no tail exponents"
    return text + (f"; {unfitted} could not be fitted." if unfitted else ".")


def _unmeasured(rows: pd.DataFrame) -> str:
    """Name the matrices without a spectrum, with the reason."""
    lost = rows[~rows["site"].isin(rows.loc[rows["name"] != FIRST, "site"])]
    said = [f"{row['site']} ({row['reason'].split(';')[0]})" for row in lost.to_dict("records")]
    return f"Not measured: {some(said, NAMED)}." if said else ""


def _of_text(look: Look) -> list[str]:
    """Say what the text gave: loss, and how activations and gradients lie beside noise."""
    rows = look.rows
    loss = rows[rows["quantity"] == "val_loss"]
    texts = []
    if len(loss) and loss["value"].isna().any():
        texts.append(f"No loss on {look.text}: {loss['reason'].iloc[0]}.")
    elif len(loss):
        size = look.vocabulary
        guess = f", where guessing among {size} tokens gives {math.log(size):.2f}" if size else ""
        value = loss["value"].iloc[0]
        # Of other models than decoders the unit is that of their own loss.
        unit = " nats per token" if size else ""
        texts.append(f"Loss {value:.3f}{unit} on {look.text}{guess}.")
    for what, name in (("activation", "activations"), ("gradient", "per-sample gradients")):
        own = rows[(rows["object"] == what) & (rows["quantity"] == FIRST) & rows["value"].notna()]
        if len(own):
            records = own.to_dict("records")
            least, most = (end(records, key=lambda row: row["value"]) for end in (min, max))
            ends = [f"{compact(row['value'])} at {row['site']}" for row in (least, most)]
            noise = [compact(own["null"].min()), compact(own["null"].max())]
            texts.append(
                f"RankMe of the {name} {_range(ends, 'is', 'goes from')}; noise with as many samples "
                f"{_range(noise, 'gives', 'gives')}."
            )
    return texts


def _range(ends: Sequence[str], one: str, several: str) -> str:
    """Name both ends of a range, or the one value that it is.

    >>> _range(["3 at a", "5 at b"], "is", "goes from"), _range(["3 at a", "3 at a"], "is", "goes from")
    ('goes from 3 at a to 5 at b', 'is 3 at a')
    """
    low, high = ends
    return f"{one} {low}" if low == high else f"{several} {low} to {high}"


def _beside(row: Mapping[Any, Any]) -> str:
    return f"{compact(row['value'])}, noise {compact(row['null'])}"


def _share(part: int, total: int) -> str:
    return f"All {total}" if part == total else f"{part} of {total}"
