"""Figures 4b and 11b: Fourier concentration over training, and its changes beside the gains of transitions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd

from sims.analysis.cells import transitions
from sims.analysis.concentration import concentration_changes, trajectories
from sims.analysis.floor import mean_floor, too_large
from sims.analysis.intervals import complete_seeds, seed_intervals, t_test
from sims.analysis.ranges import Range
from sims.analysis.stages import concentration_summary
from sims.analysis.summaries import range_in
from sims.analysis.transitions import (
    TRANSITION,
    gain_link,
    gains_by_seed,
    mean_over_batches,
    reasons,
    transition_gains,
)
from sims.pages.number import counted, interval, number, verb
from sims.pages.outcomes import floor_note
from sims.pages.page import Finding, Section
from sims.pages.table import Table
from sims.studies.paper.figure_data import (
    AGAINST,
    SUPPORTS,
    FigureData,
    checker,
    told,
    with_reasons,
)
from sims.studies.paper.figures.transitions import gains_figure, trajectory_figure
from sims.studies.paper.language import BANDS
from sims.studies.paper.published import PUBLISHED, arrow
from sims.studies.paper.study import STUDY
from sims.studies.paper.verdicts import SIGNIFICANT, Check, Ours, absolute
from sims.studies.study import OPEN
from sims.system.errors import MeasureError
from theory.decision import side

PEAK = "H_peak"
# A top stands above what follows by selection alone; a fall counts from this share of the rise on.
SHARE_FALLEN = 0.1


@STUDY.figure("fig4b", "Figure 4b: concentration over training", order=50, rank=2, runs="A", refused=BANDS)
def fig4b(data: FigureData) -> Section:
    """Show H_S and H_peak against tokens and against loss, with the null."""
    table = trajectories(data.a)
    means = _over_bands(table)
    falls = _rise_and_fall(means, lambda name: range_in(data.a, name).change)
    judge = checker("fig4b", data)
    checks, findings = [], []
    own = falls[(falls["stage"] == "untied") & (falls["quantity"] == PEAK)]
    for r in own.to_dict("records"):
        checks.append(judge("above untied", Ours(r["excess"], r["excess_low"], r["excess_high"], r["n"])))
        findings.append(_transient(r))
    rows = tuple(
        (
            r["quantity"],
            r["stage"],
            number(r["start"]),
            number(r["top"]),
            number(r["end"]),
            number(r["null_high"]),
            interval(r["excess"], r["excess_low"], r["excess_high"]),
            interval(r["fall"], r["fall_low"], r["fall_high"]),
            str(r["n"]),
        )
        for r in falls.to_dict("records")
    )
    columns = ("quantity", "stage", "start", "top", "end", "null 97.5 %", "mean − null", "top − end", "seeds")
    floor = mean_floor(data.a)
    return Section(
        text="H_peak and the task-band H_S of the class means, mean over probe bands, against tokens and against loss. "
        "The top over training is above start and end by selection alone. So the excess is the mean over training "
        f"minus that of the null, and a fall counts when its interval lies above {SHARE_FALLEN:.0%} of the rise.",
        figure=trajectory_figure(means, floor),
        caption="Thin lines are seeds, thick lines their mean, shading their range. Dotted: the mean of the null, grey "
        "up to its 97.5 % level, averaged over the runs (against loss: over their measurements, too)."
        + floor_note(floor, too_large(data.a)),
        table=Table(columns, rows, text=(0, 1)),
        tables={
            "fig4b-trajectories": table,
            "fig4b-rise-and-fall": falls,
            "fig4b-bands": concentration_summary(data.a),
        },
        checks=tuple(checks),
        findings=tuple(findings),
    )


@STUDY.figure(
    "fig11b", "Figure 11b: gains of transitions, and concentration", order=90, rank=1, runs="A", refused=BANDS
)
def fig11b(data: FigureData) -> Section:
    """Show gains of transitions, and whether concentration goes with them."""
    by_seed = gains_by_seed(data.a)
    cells, overall = transition_gains(by_seed), transition_gains(by_seed, by_batch=False)
    pairs = transitions(data.a)
    at = [None, *data.steps]
    changes = pd.concat(
        concentration_changes(data.a, pairs, PEAK, step).assign(
            at="equal loss" if step is None else f"step {step}"
        )
        for step in at
    )
    by = [*TRANSITION, "at"]
    within = range_in(data.a, PEAK).change
    means = seed_intervals(mean_over_batches(changes, ["change"], by), by, "change", within)
    means = means.merge(reasons(changes, by), on=by)
    link, reason = _link(data)
    early = f"step {data.steps[0]}"
    return Section(
        text="The token gain is D_before/D_after − 1, mean over five common loss levels, paired by batch size and "
        "seed; ΔH_peak is the change of the concentration at those losses, mean over probe bands." + reason,
        figure=gains_figure(by_seed, cells, changes[changes["at"] == "equal loss"]),
        caption="Left: small dots are seeds, large ones their mean with 95 % Student-t intervals; the line at 0 is the "
        "null. Right: one small dot a seed and batch size, large ones their mean; without a link there is no slope.",
        table=_gains_table(overall, means),
        tables={
            "fig11b-gains": cells,
            "fig11b-gains-overall": overall,
            "fig11b-changes": means,
            "fig11b-link": link,
        },
        checks=tuple(_gain_checks(data, overall, means, link, early)),
        findings=(gain_finding(overall), *_clock_finding(means, early), *_link_finding(link)),
    )


def _gain_checks(
    data: FigureData, overall: pd.DataFrame, means: pd.DataFrame, link: pd.DataFrame, early: str
) -> Iterator[Check]:
    """Yield checks of directions: gains, changes of H_peak, and their link at the published early step."""
    judge = checker("fig11b", data)
    for r in overall.to_dict("records"):
        key = f"gain sign {arrow(r['before'], r['after'])}"
        if key in PUBLISHED:
            yield judge(key, Ours(*_gain(r), note=r["reason"]))
    for r in means[means["at"] == early].to_dict("records"):
        key = f"dh sign {arrow(r['before'], r['after'])}"
        if key in PUBLISHED:
            yield judge(key, Ours(r["mean"], r["low"], r["high"], r["n"], note=f"at {early}"))
    for r in link.to_dict("records"):
        if r["at"] == early:
            bounds = absolute(r["low"], r["high"])
            note = f"at {early}, with the gain in tokens to equal loss"
            yield judge("link", Ours(abs(r["rho"]), *bounds, r["seeds"], r["p"], r["p_min"], note))


def _over_bands(table: pd.DataFrame) -> pd.DataFrame:
    by = ["quantity", "run_id", "stage", "batch_size", "seed", "step", "tokens", "loss"]
    return table.groupby(by, sort=False)[["value", "null", "null_high"]].mean().reset_index()


def _rise_and_fall(means: pd.DataFrame, within: Callable[[str], Range]) -> pd.DataFrame:
    """Return start, top and end of each quantity by stage, its fall from the top and its excess over the null.

    The excess is the mean over training after the start, minus that of the null: unlike a top, a mean is not selected.
    Fall and excess have intervals over seeds, and the excess the p-value of a two-sided t-test of 0. Seeds count that
    have every batch size of the stage.
    """
    rows = []
    for (quantity, stage, size, seed), own in means.groupby(
        ["quantity", "stage", "batch_size", "seed"], sort=False
    ):
        own = own.sort_values("step")
        value = own["value"]
        label = {"quantity": quantity, "stage": stage, "batch_size": size, "seed": seed}
        start, top, end = value.iloc[0], value.max(), value.iloc[-1]
        null = own["null_high"].iloc[int(value.to_numpy().argmax())]
        excess = (own["value"] - own["null"])[own["step"] > 0].mean()
        rows.append({**label, "start": start, "top": top, "end": end, "null_high": null, "excess": excess})
    by = ["quantity", "stage"]
    whole = complete_seeds(pd.DataFrame(rows), by, ["batch_size"])
    numbers = ["start", "top", "end", "null_high", "excess"]
    per_seed = whole.groupby([*by, "seed"], sort=False)[numbers].mean().reset_index()
    per_seed = per_seed.assign(fall=per_seed["top"] - per_seed["end"])
    table = per_seed.groupby(by, sort=False)[["start", "top", "end", "null_high"]].mean().reset_index()
    for name in ("excess", "fall"):
        part = seed_intervals(per_seed, by, name, within).drop(columns=["min", "max"])
        part = part.rename(columns={"mean": name, "low": f"{name}_low", "high": f"{name}_high"})
        if name == "excess":
            part[f"{name}_p"] = per_seed.groupby(by, sort=False)[name].agg(t_test).to_numpy()
        table = table.merge(part if name == "excess" else part.drop(columns="n"), on=by)
    return table


def _transient(r: dict) -> Finding:
    numbers = (
        f"H_peak in untied goes {r['start']:.3f} → {r['top']:.3f} → {r['end']:.3f} (start, top, end; means over bands, "
        f"batch sizes and {_seeds(r['n'])}; null 97.5 % at the top {r['null_high']:.3f}; fall from the top "
        f"{interval(r['fall'], r['fall_low'], r['fall_high'])})"
    )
    excess = interval(r["excess"], r["excess_low"], r["excess_high"])
    compared = f"mean over training minus the mean of the null {excess} over {_seeds(r['n'])}, {_tested(r['excess_p'])}"
    if side(r["excess_low"], r["excess_high"]) <= 0 or r["top"] <= r["null_high"]:
        text = (
            f"Whether H_peak in untied stands above its null over training cannot be told ({compared}). A top is above "
            f"its start by selection alone and decides nothing: {numbers}."
        )
        return Finding(text, OPEN)
    numbers = f"{numbers}; {compared}"
    if side(r["fall_low"], r["fall_high"], SHARE_FALLEN * (r["top"] - r["start"])) > 0:
        text = (
            f"Concentration is a transient of learning and not where it ends up: {numbers}. An end point alone would "
            "miss it."
        )
        return Finding(text, SUPPORTS)
    return Finding(
        f"Concentration rises above its null and has not demonstrably fallen again by the end: {numbers}.",
        SUPPORTS,
    )


def _tested(p: float) -> str:
    return "without a spread to test it against" if math.isnan(p) else f"t-test p = {p:.2g}"


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count > 1)}"


def _p_value(r: dict) -> str:
    if math.isnan(r["p"]):
        return "not tested: one of the two does not vary"
    return f"p = {r['p']:.2g}, smallest possible {r['p_min']:.2g}"


def _gain(r: dict) -> tuple[float, float, float, int]:
    return r["proximal"], r["proximal_low"], r["proximal_high"], r["n"]


def _link(data: FigureData) -> tuple[pd.DataFrame, str]:
    try:
        return gain_link(data.a, (None, *data.steps)), ""
    except MeasureError as error:
        return pd.DataFrame(), f" The correlation of the two was not tested: {error}."


def _gains_table(overall: pd.DataFrame, changes: pd.DataFrame) -> Table:
    known = changes[changes["at"] == "equal loss"]
    both = overall.merge(known, on=TRANSITION, how="left", suffixes=("", "_change"))
    why = both[["reason", "reason_change"]].fillna("")
    rows = tuple(
        (
            arrow(r["before"], r["after"]),
            interval(*_gain(r)[:3]),
            interval(r["gain"], r["gain_low"], r["gain_high"]),
            interval(r["mean"], r["low"], r["high"]),
            str(r["n"]),
        )
        for r in both.to_dict("records")
    )
    columns = (
        "transition",
        "token gain, mean over losses",
        "at the lowest common loss",
        "ΔH_peak at equal loss",
        "seeds",
    )
    return with_reasons(Table(columns, rows), [a or b for a, b in why.itertuples(index=False)])


def gain_finding(overall: pd.DataFrame) -> Finding:
    """Return which transitions save tokens (of `transition_gains` over all batch sizes)."""
    shown = {arrow(r["before"], r["after"]): r for r in overall.to_dict("records")}
    sure = {n: r for n, r in shown.items() if told(r["proximal_low"], r["proximal_high"])}
    losses = [n for n, r in sure.items() if r["proximal"] < 0]
    gains = [n for n, r in sure.items() if r["proximal"] > 0]
    uneven = overall["batch_sizes"].nunique() > 1
    numbers = "; ".join(
        f"{n}{f' at B = {sizes}' * uneven} {interval(*_gain(r)[:3], 2)}"
        for (n, r), sizes in zip(shown.items(), overall["batch_sizes"], strict=True)
    )
    head = (
        f"{len(gains)} of {counted(len(shown), 'transition')} {verb(len(gains), 'saves', 'save')} tokens at equal loss "
        f"beyond the spread of {counted(int(overall['n'].min()), 'seed')}"
    )
    if losses:
        head += f", and {', '.join(losses)} {'costs' if len(losses) == 1 else 'cost'} tokens"
    stance = AGAINST if losses else SUPPORTS if len(gains) == len(shown) else OPEN
    return Finding(f"{head} (token gain, 95 % interval: {numbers}).", stance)


def _clock_finding(means: pd.DataFrame, early: str) -> list[Finding]:
    """Return transitions whose ΔH_peak has one sign at equal steps and the other, or none, at equal loss."""
    at = {name: own.set_index(["before", "after"]) for name, own in means.groupby("at")}
    if not {early, "equal loss"} <= set(at):
        return []
    changed = []
    rows: Any = at[early].iterrows()
    for pair, row in rows:
        if pair not in at["equal loss"].index:
            continue
        other = at["equal loss"].loc[pair]
        if other["reason"]:
            continue
        same = told(other["low"], other["high"]) and other["mean"] * row["mean"] > 0
        if told(row["low"], row["high"]) and not same:
            shown = [interval(r["mean"], r["low"], r["high"]) for r in (row, other)]
            changed.append(f"{arrow(*pair)} {shown[0]} at {early}, {shown[1]} at equal loss")
    if not changed:
        return []
    text = (
        f"What a transition does to H_peak depends on the clock: {'; '.join(changed)} (ΔH_peak, 95 % over seeds). The "
        "published changes are at equal steps, where the better stage is also further in training."
    )
    return [Finding(text, AGAINST)]


def _link_finding(link: pd.DataFrame) -> list[Finding]:
    found = []
    for r in link.to_dict("records")[:1]:
        related = r["p"] <= SIGNIFICANT
        said = "A link of ΔH_peak with the token gain is not shown"
        if related:
            said = f"The change of H_peak {'rises' if r['rho'] > 0 else 'falls'} with the token gain"
        text = (
            f"{said}: ρ = {interval(r['rho'], r['low'], r['high'], 2)} at {r['at']} over {r['cells']} cells and "
            f"{r['seeds']} seeds ({_p_value(r)})."
        )
        found.append(Finding(text, SUPPORTS if related and r["rho"] > 0 else OPEN))
    return found
