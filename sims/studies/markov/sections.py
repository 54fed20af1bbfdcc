"""The sections of the page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import rel_entr

from sims.analysis.intervals import seed_intervals
from sims.analysis.ranges import CORRELATION, EXCESS
from sims.pages.number import ABSENT, cell, interval
from sims.pages.page import Cells, Section
from sims.pages.table import Table
from sims.studies.markov.figures import (
    alignment_figure,
    entropy_figure,
    order_figure,
    position_figure,
    surplus_figure,
)
from sims.studies.markov.measured import LAW, OPERATORS
from sims.studies.markov.order import order_by_run
from sims.studies.markov.questions import APART, CLOSE, Evidence
from sims.studies.markov.study import STUDY

UNTRAINED, TRAINED = "untrained", "trained"
# Positions whose excess loss is drawn; the last one too.
SHOWN = (1, 2, 3, 4, 8, 16)


@dataclass(frozen=True, eq=False)
class MarkovData:
    """Hold what the page is made of: the measurements, and the answers of `questions.answers`."""

    evidence: Evidence
    answers: pd.DataFrame


@STUDY.figure("entropy", "C1 · Are the predictions as uncertain as the task?", order=10)
def entropy(data: MarkovData) -> Section:
    """Show the gap of entropies, its bound and its ratio to the excess loss."""
    looks = data.evidence.looks
    columns = ["stage", "step", "kl", "gap", "signed", "bound", "ratio"]
    table = looks[columns].groupby(["stage", "step"], sort=False).mean().reset_index()
    return Section(
        text="The gap is |E H(q) − E H(p)|, entropies of the predictions q and of the exact law p of the next token, "
        "mean over all positions; the excess loss is E KL(p‖q). Theorem 5.2 says that the gap vanishes with the excess "
        "loss; how fast is said by the bound E[T ln(V − 1) + h₂(T)], T their total variation (claim T18), which the "
        "source lacks. A small gap does not mean that the law is known: a tied head starts sure of wrong tokens, with "
        "a small gap and a large excess; an untied one starts uniform, where gap and excess are one number.",
        figure=entropy_figure(looks, CLOSE, APART),
        caption="Left: gap (solid: mean over seeds; thin: seeds) and bound (dotted). Right: gap over excess loss at "
        f"every look; grey: within {APART:.0%} of 1, predicted until the dashed line.",
        table=Table.of_frame(table.rename(columns={"kl": "excess", "signed": "gap, signed"})),
        tables={"entropy": looks},
    )


@STUDY.figure("alignment", "C2 · Do the states hold the law of the next token?", order=20)
def alignment(data: MarkovData) -> Section:
    """Show how much of the law the states hold, with nulls."""
    rows = data.evidence.tables.alignment
    columns = ["value", "null", "last_token", "decoded", "head"]
    last = rows[rows["step"] == rows.groupby("stage")["step"].transform("max")]
    table = last.groupby(["stage", "position"], sort=False)[columns].mean().reset_index()
    return Section(
        text="The share of the variance of √p over contexts that an affine map of the final state explains, fitted on "
        "half of the contexts and scored on the other half. Beside it: permuted contexts, which are the level of "
        "chance; what the last token alone explains; how much of the last token the states still hold (decoded); and "
        "the share of the mean rows of the head ḡ = Σ p(w) g(w), which is J/J_max of Theorem 7.6 (head).",
        figure=alignment_figure(rows),
        caption="Solid: mean over seeds; thin: seeds. Grey: permuted contexts. Dash-dotted: the last token alone. "
        "Shares below −0.3 are not drawn.",
        table=Table.of_frame(table.rename(columns={"value": "share", "null": "permuted"})),
        tables={"alignment": rows},
    )


@STUDY.figure("order", "C3 · Are eigenfunctions with large eigenvalues learned first?", order=30)
def order(data: MarkovData) -> Section:
    """Show the share of every eigenfunction over training, for the operator of the law and for two others."""
    evidence = data.evidence
    best = _best(evidence)
    rows = evidence.tables.eigenfunctions
    rows = rows[rows["stage"] == best]
    by = ["operator", "position", "index", "tokens"]
    return Section(
        text="An operator compares contexts by what follows them: its kernel is Σ_w √(p_x(w) p_x'(w)), centred over "
        "contexts, and its eigenfunctions with large eigenvalues are the coarse distinctions between contexts. If they "
        "are learned first, dark lines rise before light ones. Two operators are there to fail: that of the law with "
        "contexts permuted, and that of the token before the last. The order is Spearman’s correlation of eigenvalue "
        "and step at which R² reaches ½ (what is never learned comes last), or mean share over training; a negative "
        "one of steps and a positive one of shares mean: leading first.",
        figure=order_figure(rows.groupby(by)["share"].mean().reset_index(), OPERATORS),
        caption=f"Held-out R² of the 16 leading eigenfunctions; {best}, mean over seeds. Dashed: ½.",
        table=_orders(evidence),
        blocks=(
            Cells(_orders_by_position(evidence), "The order of steps by tokens read, operator of the law"),
        ),
        tables={"eigenfunctions": evidence.tables.eigenfunctions, "times": evidence.times},
    )


def _best(evidence: Evidence) -> str:
    """Return the stage with the least excess loss."""
    return str(evidence.looks.groupby("stage")["kl"].min().idxmin())


def _orders(evidence: Evidence) -> Table:
    """Return the order by stage and operator, with how many eigenfunctions were learned."""
    rows = []
    by_time, by_share = (order_by_run(evidence.times, of) for of in ("time", "mean_share"))
    for operator in OPERATORS:
        for stage in evidence.stages:
            own = [t[(t["operator"] == operator) & (t["stage"] == stage)] for t in (by_time, by_share)]
            learned = f"{own[0]['learned'].mean():.3g} of {own[0]['of'].mean():.3g}"
            rows.append((operator, stage, learned, *map(_over_seeds, own)))
    return Table(
        ("operator", "stage", "learned", "order of steps", "order of shares"), tuple(rows), text=(0, 1)
    )


def _orders_by_position(evidence: Evidence) -> Table:
    """Return the order of the operator of the law by stage and position."""
    times = law_times(evidence)
    positions = sorted(times["position"].unique())
    parts = {k: order_by_run(times[times["position"] == k]) for k in positions}
    rows = [
        (stage, *(_over_seeds(part[part["stage"] == stage]) for part in parts.values()))
        for stage in evidence.stages
    ]
    return Table(("stage", *(f"{k} read" for k in positions)), tuple(rows))


def _over_seeds(runs: pd.DataFrame) -> str:
    known = runs.dropna(subset=["value"])
    if known.empty:
        return ABSENT
    row = seed_intervals(known.assign(all=0), ["all"], within=CORRELATION).iloc[0]
    return interval(row["mean"], row["low"], row["high"])


@STUDY.figure("surplus", "C4 · What do the states know beyond the next token?", order=40)
def surplus(data: MarkovData) -> Section:
    """Show the surplus before and after training, by two probes."""
    rows = data.evidence.tables.surplus
    first = rows.groupby("run_id")["step"].transform("min")
    rows = rows.assign(model=np.where(rows["step"] == first, UNTRAINED, TRAINED))
    by = ["stage", "probe", "model"]
    found = seed_intervals(rows, by, "share", EXCESS).drop(columns=["n", "min", "max"])
    table = found.merge(rows.groupby(by, sort=False)[["gain", "ceiling", "null"]].mean().reset_index(), on=by)
    return Section(
        text="The surplus I(H; W' | W) is what a state H says of the token W' after the next one W, once W is known. A "
        "probe starts at the exact law of a token given the one before it and adds a function of state and next "
        "token; what it gains on held-out sequences is a lower bound, here as a share of the ceiling "
        "H(W' | W) − H(W' | X, W), what all tokens read tell. An untrained model is the null: its states hold the "
        "last token and traces of the others. Without a state the probes gain what stands under null. States that hold "
        "the law of the next token and nothing else would have little surplus, where that token is nearly certain.",
        figure=surplus_figure(rows),
        caption="Hollow: untrained; filled: trained; one mark a seed.",
        table=Table.of_frame(table.rename(columns={"mean": "share"})),
        tables={"surplus": rows},
    )


@STUDY.figure("positions", "What is learned when", order=50)
def positions(data: MarkovData) -> Section:
    """Show the excess loss over training by the number of tokens read."""
    rows = data.evidence.tables.predictions
    shown = {k for k in SHOWN if k < rows["position"].max()} | {rows["position"].max()}
    by = ["stage", "tokens", "position"]
    means = rows[rows["position"].isin(shown)].groupby(by, sort=False)["kl"].mean().reset_index()
    wide = means.pivot_table(index=["stage", "tokens"], columns="position", values="kl", sort=False)
    table = wide.rename(columns=lambda k: f"{k} read").reset_index()
    return Section(
        text="Excess loss by the number of tokens read. After one token the best prediction needs a table of pairs of "
        "tokens; after two, how the modulus follows from the step; after many, the rule itself.",
        figure=position_figure(means),
        caption="Mean over seeds; light: more tokens read.",
        table=Table.of_frame(table),
        tables={"predictions": rows},
    )


@STUDY.figure("source", "What speaks against the source", order=60)
def source(data: MarkovData) -> Section:
    """Set the statements of the source that are false, or looser than they read, beside numbers."""
    evidence = data.evidence
    looks, aligned = evidence.looks, evidence.aligned
    trained = looks[looks["step"] > looks.groupby("run_id")["step"].transform("min")]
    far = trained[trained["kl"] >= CLOSE]
    last = aligned[aligned["step"] == aligned.groupby("stage")["step"].transform("max")]
    last = last[last["stage"] == _best(evidence)]
    ratios = far["ratio"].dropna()
    apart = f"at no look after the start the excess is {CLOSE} nats or more, where their ratio is asked about"
    if len(ratios):
        runs = f"{ratios.min():.3g} to {ratios.max():.3g}"
        apart = f"after the start their ratio runs from {runs} while the excess is {CLOSE} nats or more"
    sure = looks.sort_values("ratio").iloc[0]
    p, q = np.array([1.0, 0.0]), np.array([0.99, 0.01])
    hellinger, divergence = 2 * (1 - np.sqrt(p * q).sum()), rel_entr(p, q).sum()
    loose = float((trained["bound"] / trained["gap"]).median())
    rows = (
        (
            "Theorem 7.1 prints d_H² ≤ ½ KL for d_H² = 2(1 − Σ√(pq)).",
            f"False: p = (1, 0), q = (0.99, 0.01) has d_H² = {hellinger:.4g} and KL = {divergence:.4g}, "
            f"a ratio of {hellinger / divergence:.4f}. With C = 1 it holds (T21).",
        ),
        (
            "Theorem 7.6 calls a lower loss and a higher J equivalent.",
            "False: a rotation of the states leaves J, the variance of ḡ that they explain, as it is. One random "
            f"rotation of the final states at the end ({_best(evidence)}) raises the excess loss from "
            f"{last['kl'].mean():.3g} to {last['turned_kl'].mean():.3g} nats, at a share J/J_max of "
            f"{last['head'].mean():.2g} before and after (T22).",
        ),
        (
            "Theorem 5.2: the entropy of the predictions converges to that of the task.",
            "True, without a rate in the source. The bound that gives one (T18) is above the gap by a median factor of "
            f"{loose:.2g} here. The gap is not the excess loss: {apart}. And a small gap is no small excess: "
            f"{sure['stage']}, step {sure['step']:g}, has a gap of {sure['gap']:.3g} at an excess of "
            f"{sure['kl']:.3g} nats.",
        ),
        (
            "Corollary 7.2: similar contexts are pulled together.",
            "Not implied: only directions that the head reads are bounded, and what lies in the null space of E g* is "
            "free (T19, T20).",
        ),
    )
    return Section(
        text="Statements of arXiv 2507.19247 that are false as printed, or say less than they seem to. Counterexamples "
        "and corrected forms are claims of the theory page (`speclens theory`).",
        table=Table(("printed", "what we find"), rows, text=(0, 1)),
    )


@STUDY.figure("answers", "All questions", order=70)
def questions(data: MarkovData) -> Section:
    """List every question with its number, interval, p-value and verdict."""
    table = data.answers
    rows = tuple(
        (
            r["question"],
            r["stage"],
            r["statement"],
            interval(r["value"], r["low"], r["high"]),
            r["predicted"],
            str(r["seeds"]),
            cell(r["p"]),
            cell(r["p_holm"]),
            r["verdict"],
        )
        for r in table.to_dict("records")
    )
    columns = ("", "stage", "statement", "measured [95 %]", "predicted", "seeds", "p", "p (Holm)", "verdict")
    measured = "; ".join(
        f"{name}: {what}" for name, what in table.drop_duplicates("question")[["question", "measured"]].values
    )
    return Section(
        text="Every question was fixed before anything was measured. A question compares one number of each seed with "
        "a limit; it holds, or fails, if its p-value is at most 5 % after Holm’s correction over all of them and its "
        "interval leaves the limit out, and is open otherwise. The p of C3.order is the larger one of a t-test over "
        "seeds and of permutations of the "
        f"eigenfunctions. What is measured: {measured}.",
        table=Table(columns, rows, text=(0, 1, 2, 4, 8)),
        tables={"answers": table},
    )


def law_times(evidence: Evidence) -> pd.DataFrame:
    """Return the learning times of the operator of the law."""
    return evidence.times[evidence.times["operator"] == LAW]
