"""What a look says of a model against laws of the next token: tables for the figure, and sentences."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sims.measure.draft import BASE, DRAFT, MODEL, PERMUTED, STATE, TOKEN
from sims.measure.text_predictive import PREDICTIVE, RANDOM
from sims.pages.number import compact, interval

# What a draft reads, in the order of the figure.
DRAFTS = (STATE, TOKEN, PERMUTED, BASE)
POSITIONS, FUNCTION = "positions ", "eigenfunction "


def law_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows against laws, with what their details say.

    Returns:
        Columns of the rows and law, random (whether of random weights), first and last (positions), function (number of
        the eigenfunction); missing where they do not apply.
    """
    own = rows[rows["object"] == PREDICTIVE].copy()
    told = [_parsed(detail) for detail in own["detail"]]
    for name in ("law", "random", "first", "last", "function"):
        own[name] = [parsed.get(name) for parsed in told]
    return own


def draft_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the acceptance of each draft, in the order of the figure."""
    own = rows[(rows["object"] == DRAFT) & (rows["quantity"] == "acceptance")]
    return own.set_index("detail").reindex([d for d in DRAFTS if d in set(own["detail"])]).reset_index()


def said(rows: pd.DataFrame) -> list[str]:
    """Return sentences: how far the model is from each law, what its states explain of it, and what a draft gains."""
    own = law_rows(rows)
    texts = []
    for law, part in own.groupby("law", sort=False):
        whole = part[part["first"].isna() & part["function"].isna()]
        of = {r["quantity"]: r for r in whole[~whole["random"]].to_dict("records")}
        noise = {r["quantity"]: r for r in whole[whole["random"]].to_dict("records")}
        texts += [_predictions(str(law), of), _states(str(law), of, noise)]
    drafts = {(r["quantity"], r["detail"]): r for r in rows[rows["object"] == DRAFT].to_dict("records")}
    return [text for text in (*texts, _draft(drafts)) if text]


def _predictions(law: str, of: dict[Any, Any]) -> str:
    if of["kl_divergence"]["status"] != "ok":
        return f"Not compared with {law}: {of['kl_divergence']['reason']}."
    return (
        f"KL({law} ‖ model) is {_with(of['kl_divergence'])} nats per token; their mean entropies differ by "
        f"{compact(of['entropy_gap']['value'])} (at most {compact(of['entropy_gap_bound']['value'])}). {law} is an "
        f"approximate law: its own loss on this text is {_with(of['law_loss'])}."
    )


def _states(law: str, of: dict[Any, Any], noise: dict[Any, Any]) -> str:
    own = of["alignment_bc"]
    if own["status"] != "ok":
        return f"What its states explain of {law} was not measured: {own['reason']}."
    others = {
        "the last token alone": of["alignment_bc_last_token"]["value"],
        "random weights": noise["alignment_bc"]["value"],
        "permuted contexts": own["null"],
    }
    beside = ", ".join(f"{name} {compact(value)}" for name, value in others.items())
    return f"Its final states explain {_with(own)} of the variance of √p of {law} ({beside})."


def _draft(drafts: dict[Any, Any]) -> str:
    if not drafts:
        return ""
    state, token = (drafts["acceptance", reads] for reads in (STATE, TOKEN))
    surplus, known = drafts["surplus", ""], drafts["gain", MODEL]
    if any(row["status"] != "ok" for row in (state, token, surplus)):
        return f"No draft head: {surplus['reason'] or state['reason']}."
    return (
        f"A linear draft of the token after next is accepted with chance {_with(state)} ({_with(token)} without the "
        f"state). The state adds {_with(surplus)} nats about that token to the next one (permuted states "
        f"{compact(surplus['null'])}). ln of the model's own chance of it, one token later, minus that of the bigrams "
        f"is {_with(known)}."
    )


def _with(row: dict[Any, Any]) -> str:
    return interval(row["value"], row["low"], row["high"], write=compact)


def _parsed(detail: str) -> dict[str, Any]:
    """Return what the detail of a row says; the name of a law may hold anything."""
    found: dict[str, Any] = {"random": False}
    law, _, last = detail.rpartition(": ")
    if law and last.startswith(POSITIONS):
        first, _, end = last.removeprefix(POSITIONS).partition("–")
        found |= {"first": int(first), "last": int(end)}
    elif law and last.startswith(FUNCTION):
        found["function"] = int(last.removeprefix(FUNCTION))
    else:
        law = detail
    if law.endswith(f": {RANDOM}"):
        law, found["random"] = law.removesuffix(f": {RANDOM}"), True
    return {"law": law, **found}
