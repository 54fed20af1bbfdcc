"""Which conclusions move when a choice of the measurement changes.

A conclusion is a signed number with one value a unit (a seed). The sign of a difference of two stages is decided
where its 95 % Student-t interval over units leaves 0 out. The sign of a rank correlation over stages is decided by
Page's exact test at the 5 % level: a correlation over four stages takes so few values that three seeds may agree by
chance, with an interval of no width. Beside a variation of the measurement a conclusion

- `stays` where both are decided and agree,
- `moves` where both are decided and disagree,
- `cannot tell` where either is undecided.

A conclusion may stay in sign and still change in size: `shift` is the paired change of the number itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from sims.analysis.cells import in_chain_order
from sims.analysis.intervals import seed_intervals
from sims.analysis.ranges import CORRELATION, REAL, Range
from sims.analysis.resampling import trend_correlations, trend_permutation
from sims.system.errors import MeasureError
from theory.decision import side

REFERENCE = "reference"
LOSS, EXPONENT = "loss", "α"
CORRELATED_WITH = f" with final {LOSS}"
# Over three stages one exchange of ranks decides a rank correlation.
CORRELATED = 4
SIGNIFICANT = 0.05
STAYS, MOVES, CANNOT_TELL = VERDICTS = ("stays", "moves", "cannot tell")


def decided(effect: float, low: float, high: float, p: float = math.nan) -> int:
    """Return the sign of an effect, 0 where undecided: by the p-value where there is one, else by the interval."""
    if not math.isnan(p):
        return int(math.copysign(1, effect)) if p <= SIGNIFICANT and abs(effect) > 0 else 0
    return side(low, high)


def verdict(reference: int, varied: int) -> str:
    """Return stays, moves or cannot tell, from two decided signs."""
    if 0 in (reference, varied):
        return CANNOT_TELL
    return STAYS if reference == varied else MOVES


def conclusions(measured: pd.DataFrame) -> pd.DataFrame:
    """Return signed numbers under each variation, one a conclusion and unit.

    For every measured quantity: the difference between each two neighbouring stages (`muon − rope: RankMe`); for
    every quantity but the loss also Spearman's correlation with the final loss over four stages or more (`RankMe with
    final loss`). A variation that leaves the loss alone is correlated with the reference's.

    Args:
        measured: one row a run, variation and quantity: group, variation, unit, stage, quantity, value.

    Returns:
        group, variation, conclusion, unit, value, p (of a correlation over all units; NaN for a difference). A unit
        that lacks a stage has no value there.

    Raises:
        MeasureError: fewer than two stages.
    """
    stages = in_chain_order(measured["stage"])
    if len(stages) < 2:
        raise MeasureError(
            f"the runs have {len(stages)} stage; a conclusion compares at least two: train another"
        )
    rows = []
    known = measured[measured["quantity"] == LOSS]
    for (group, variation), own in measured.groupby(["group", "variation"], sort=False):
        touched = (known["group"] == group) & (known["variation"] == variation)
        losses = known[touched if touched.any() else known["group"].eq(REFERENCE)]
        losses = losses.pivot_table(index="unit", columns="stage", values="value").reindex(columns=stages)
        wide = own.pivot_table(index=["quantity", "unit"], columns="stage", values="value")
        wide = wide.reindex(columns=stages)
        for before, after in pairwise(stages):
            for (quantity, unit), value in (wide[after] - wide[before]).dropna().items():  # pyright: ignore
                rows.append((group, variation, f"{after} − {before}: {quantity}", unit, value, math.nan))
        if len(stages) >= CORRELATED:
            rows += [(group, variation, *found) for found in _correlations(wide.dropna(), losses.dropna())]
    table = pd.DataFrame(rows, columns=["group", "variation", "conclusion", "unit", "value", "p"])
    return table.dropna(subset=["value"])


def verdicts(values: pd.DataFrame, paired: Sequence[str]) -> pd.DataFrame:
    """Judge every conclusion under every variation against the reference.

    Args:
        values: the result of `conclusions`, one of whose variations is in the group `REFERENCE`.
        paired: groups whose units are those of the reference, so that the shift can be taken unit by unit.

    Returns:
        conclusion, group, variation, n, effect, low, high, p, sign (0: undecided), the same of the reference
        (reference, reference_low, …), verdict, shift, shift_low, shift_high (NaN where not paired).

    Raises:
        MeasureError: no reference.
    """
    by = ["conclusion", "group", "variation"]
    if not (values["group"] == REFERENCE).any():
        raise MeasureError(f"no variation is in the group {REFERENCE!r}; measure the reference too")
    table = seed_intervals(values, by, within=_range, of="conclusion")
    table = table.rename(columns={"mean": "effect"}).drop(columns=["min", "max"])
    table = table.merge(values.groupby(by, sort=False)["p"].first().reset_index(), on=by)
    # A correlation is judged by its test; its interval over few seeds may have no width.
    table.loc[table["p"].notna(), ["low", "high"]] = math.nan
    table["sign"] = [decided(*row) for row in table[["effect", "low", "high", "p"]].to_numpy()]
    known = table[table["group"] == REFERENCE][["conclusion", "effect", "low", "high", "p", "sign"]]
    known = known.rename(columns={"effect": "reference", **{c: f"reference_{c}" for c in known.columns[2:]}})
    table = table[table["group"] != REFERENCE].merge(known, on="conclusion")
    table["verdict"] = [verdict(a, b) for a, b in zip(table["reference_sign"], table["sign"], strict=True)]
    base = values[values["group"] == REFERENCE][["conclusion", "unit", "value"]]
    shifts = values[values["group"].isin(list(paired))].merge(
        base, on=["conclusion", "unit"], suffixes=("", "_base")
    )
    shifts = shifts.assign(shift=shifts["value"] - shifts["value_base"])
    found = seed_intervals(shifts, by, "shift", lambda c: _range(c).change, "conclusion").rename(
        columns={"mean": "shift", "low": "shift_low", "high": "shift_high"}
    )
    return table.merge(found[[*by, "shift", "shift_low", "shift_high"]], on=by, how="left")


def tally(judged: pd.DataFrame) -> pd.DataFrame:
    """Count conclusions that stay, move or cannot be told, by group and variation.

    Returns:
        group, variation, n (units), stays, moves, cannot tell, decided (conclusions that the reference decides), and
        moved (the names of those that move).
    """
    rows = []
    for (group, variation), own in judged.groupby(["group", "variation"], sort=False):
        counts = {name: int((own["verdict"] == name).sum()) for name in VERDICTS}
        moved = "; ".join(own.loc[own["verdict"] == "moves", "conclusion"])
        rows.append(
            {"group": group, "variation": variation, "n": int(own["n"].max()), **counts}
            | {"decided": int((own["reference_sign"] != 0).sum()), "moved": moved}
        )
    return pd.DataFrame(rows)


def _range(conclusion: str) -> Range:
    """Return the values of a conclusion: a rank correlation, or a difference of stages."""
    return CORRELATION if conclusion.endswith(CORRELATED_WITH) else REAL


def _correlations(wide: pd.DataFrame, losses: pd.DataFrame) -> Iterator[tuple[str, int, float, float]]:
    """Yield (conclusion, unit, ρ, p of all units) of rows (quantity, unit) by stage, with the unit's losses."""
    for quantity in wide.index.unique("quantity").drop(LOSS, errors="ignore"):
        values = wide.loc[quantity]
        units = values.index.intersection(losses.index)
        if units.empty:
            continue
        ranked = losses.loc[units].to_numpy(float)
        # Stages in the order of their losses: the trend along the columns is the correlation with the loss.
        ordered = np.take_along_axis(values.loc[units].to_numpy(float), ranked.argsort(axis=1), axis=1)
        _, p, _ = trend_permutation(ordered)
        for unit, rho in zip(units, trend_correlations(ordered), strict=True):
            yield f"{quantity}{CORRELATED_WITH}", unit, float(rho), p
