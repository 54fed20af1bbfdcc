"""Measure stored checkpoints against the exact law of the task: predictions, states, and what they know of the future.

Three tables. `predictions` has one row a position: how far the predictions are from the law, and how much too uncertain
they are. `alignment` has one row a position: how much of the law the states hold, beside nulls, and what a rotation of
the states does. `eigenfunctions` has one row for each eigenfunction of three operators: that of the law, and two others
that nothing should follow. `surplus`, of the first and the last checkpoint, has one row a probe: what the states know
of the token after the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import track
from scipy.stats import special_ortho_group
from torch import Tensor

from sims.analysis.task_floor import exact_law
from sims.measure.cache import CheckpointMeasurement, Tables, measured
from sims.measure.contexts import EIGENFUNCTIONS, Contexts, PositionLaws, draw_contexts
from sims.measure.predictive import context_numbers, enough, last_token_share, share, state_numbers
from sims.measure.surplus import KINDS, Kind, surplus
from sims.models.transformer import TransformerSubject
from sims.runs.measure_config import CONTEXTS_PER_DIMENSION
from sims.runs.store import RunFolder
from sims.studies.stored import chosen_runs, require_one_end, require_one_task
from sims.system.errors import MeasureError
from spectra.alignment import explained_share, held_out_residuals
from toymodel.config import RunConfig
from toymodel.data import dataset
from toymodel.task import Task
from toymodel.tasks.modular_walks import draw_split, modular_walks
from toymodel.transformer import FINAL

# Spawn key of the random stream of the walks; that of contexts is 4.
_WALKS = 5
# Of what `looked_at` and `surplus_of` measure; raise it when the numbers change.
VERSION = 1
LAW, PERMUTED, PREVIOUS = OPERATORS = ("next token", "permuted next tokens", "previous token")
TABLES = ("predictions", "alignment", "eigenfunctions", "surplus")
# Numbers p(w | x) that are held for all positions, 16 MB, and the fewest contexts that this has to hold.
_CELLS, _FEWEST = 2**21, 256
Record = dict[str, Any]
Run = tuple[RunFolder, RunConfig]


@dataclass(frozen=True)
class MarkovPlan:
    """Set what is measured.

    Args:
        contexts: sequences outside training on which models are compared with the law, and sequences of the law, in
            training or not, on which probes of the surplus are fitted and scored.
        batch_size: the runs of this batch size; None takes the smallest.
    """

    contexts: int = 2_048
    batch_size: int | None = None


@dataclass(frozen=True, eq=False)
class MarkovTables:
    """Hold what was measured: one row each with stage, seed, run_id, step and tokens.

    Attributes:
        predictions: position, kl, gap (entropy of predictions less that of the law, signed), bound; nats.
        alignment: position, value, null (permuted contexts), last_token (what the last token alone explains), decoded
            (how much of the last token the states still hold), head (the same as value for the mean rows of the head),
            kl, and turned_kl (nats): the same after one random rotation of the states.
        eigenfunctions: position, operator, index, eigenvalue, share (held-out R²).
        surplus: probe, gain and ceiling (nats), share, null (the share of the same probe without the state).
    """

    predictions: pd.DataFrame
    alignment: pd.DataFrame
    eigenfunctions: pd.DataFrame
    surplus: pd.DataFrame


def measure_runs(out: Path, plan: MarkovPlan, console: Console) -> MarkovTables:
    """Measure every stored checkpoint of a folder; what has been measured before is read.

    Args:
        out: folder of complete runs with checkpoints.
        plan: what is measured.
        console: shows the progress.

    Raises:
        MeasureError: no such runs, runs of several tasks, runs of one stage that ended at different steps, a task whose
            law is not known exactly, too few contexts, or no finite checkpoint.
    """
    runs = runs_with_looks(out, plan)
    looks = [(folder, config, file) for folder, config in runs for file in folder.checkpoints()]
    found: dict[str, list[Record]] = {name: [] for name in TABLES}
    shown = track(looks, description="measuring", console=console, disable=not console.is_terminal)
    for folder, config, file in shown:
        ends = file in (folder.checkpoints()[0], folder.checkpoints()[-1])
        parts = [_look(config, plan), _surplus(config, plan)] if ends else [_look(config, plan)]
        tables = [measured(folder, file, config, part) or {} for part in parts]
        label = {"stage": config.stage, "seed": config.seed, "run_id": folder.path.name}
        for name, rows in ((name, rows) for own in tables for name, rows in own.items()):
            found[name] += [label | row | {"tokens": row["step"] * config.tokens_per_step} for row in rows]
    if not found["predictions"]:
        raise MeasureError(f"no checkpoint of {out} has finite weights; train the runs again, at lower rates")
    if not found["alignment"]:
        raise MeasureError(
            f"{plan.contexts} contexts have too few distinct beginnings for states of this width; raise --contexts"
        )
    return MarkovTables(**{name: pd.DataFrame(rows) for name, rows in found.items()})


def runs_with_looks(out: Path, plan: MarkovPlan) -> list[Run]:
    """Return the runs that are measured, after checking what can be checked before.

    Raises:
        MeasureError: as `measure_runs`.
    """
    runs = chosen_runs(out, plan.batch_size)
    require_one_task(runs)
    require_one_end(runs)
    for folder, config in runs:
        exact_law(config.task)
        least = CONTEXTS_PER_DIMENSION * config.model.d_model
        if plan.contexts < least:
            raise MeasureError(
                f"--contexts is {plan.contexts}, and states of width {config.model.d_model} need {least} or more"
            )
        if len(folder.checkpoints()) < 2:
            raise MeasureError(
                f"{folder.path} has {len(folder.checkpoints())} checkpoint; changes over training need the first, "
                "the last and some between: train it with --measure.checkpoints"
            )
    return runs


def looked_at(subject: TransformerSubject, contexts: Contexts, laws: np.ndarray) -> Tables:
    """Return the three tables of one model.

    Args:
        subject: the model.
        contexts: (N, T+1) sequences with the kernels of some positions.
        laws: (n, T, V) laws of the next token at every position of the first n contexts.
    """
    sequences = torch.tensor(contexts.sequences)
    states = torch.cat([batch[FINAL] for batch in subject.activations(sequences, (FINAL,))])  # (N, T, d)
    head = subject.head.double().numpy()
    rows = [_state_rows(subject, at, states[:, at.tokens - 1], head) for at in contexts.positions]
    return {
        "predictions": list(_prediction_rows(subject, states[: len(laws)], laws)),
        "alignment": [row | {"step": subject.step} for own, _ in rows for row in own],
        "eigenfunctions": [row | {"step": subject.step} for _, own in rows for row in own],
    }


def _prediction_rows(subject: TransformerSubject, states: Tensor, laws: np.ndarray) -> Iterator[Record]:
    for k in range(laws.shape[1]):
        numbers = context_numbers(laws[:, k], _log_predictions(subject, states[:, k]))
        yield {"step": subject.step, "position": k + 1} | {
            name: float(values.mean()) for name, values in zip(("kl", "gap", "bound"), numbers, strict=True)
        }


def _log_predictions(subject: TransformerSubject, states: Tensor) -> np.ndarray:
    """Return ln q (n, V) of states (n, d)."""
    logits = subject.transformer.logits(subject.params, states[None, :, None])[0, :, 0]
    return logits.double().log_softmax(dim=-1).numpy()


def _state_rows(
    subject: TransformerSubject, at: PositionLaws, states: Tensor, head: np.ndarray
) -> tuple[list[Record], list[Record]]:
    """Return rows about the states at one position: the alignment, and the shares of eigenfunctions."""
    h = states[torch.as_tensor(at.distinct)].double().numpy()
    if at.tokens < 2 or not enough(*h.shape):
        # After one token there are as many contexts as tokens.
        return [], []
    numbers: dict[str, Any] = state_numbers(at, h, head)
    aligned = {
        "position": at.tokens,
        "value": numbers["bc"],
        "null": numbers["bc_null"],
        "last_token": last_token_share(at.last, at.roots),
        "decoded": explained_share(h, _one_hot(at.last)),
        "head": numbers["head"],
    }
    turn = torch.tensor(special_ortho_group.rvs(h.shape[1], random_state=0), dtype=states.dtype)
    for name, own in (("kl", states), ("turned_kl", states @ turn)):
        aligned[name] = float(context_numbers(at.laws, _log_predictions(subject, own))[0].mean())
    shares = {LAW: numbers["share"], PERMUTED: numbers["share_null"]}
    eigenvalues = dict.fromkeys(shares, at.eigenvalues)
    eigenvalues[PREVIOUS], functions = leading_eigenfunctions(_one_hot(at.before))
    left, distance = held_out_residuals(h, functions)
    shares[PREVIOUS] = [share(left[:, [i]], distance[:, [i]]) for i in range(functions.shape[1])]
    rows = [
        {"position": at.tokens, "operator": name, "index": i + 1, "eigenvalue": float(mu), "share": r}
        for name in OPERATORS
        for i, (mu, r) in enumerate(zip(eigenvalues[name], shares[name], strict=False))
    ]
    return [aligned], rows


def leading_eigenfunctions(embedding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the leading eigenvalues (r,) of the centred kernel of an embedding (n, k), and eigenfunctions (n, r)."""
    u, s, _ = np.linalg.svd(embedding - embedding.mean(axis=0), full_matrices=False)
    rank = min(int((s > 1e-9 * s[0]).sum()), EIGENFUNCTIONS)
    return s[:rank] ** 2 / len(u), u[:, :rank] * np.sqrt(len(u))


def _one_hot(tokens: np.ndarray) -> np.ndarray:
    seen, codes = np.unique(tokens, return_inverse=True)
    return np.eye(len(seen))[codes]


@lru_cache(maxsize=2)
def known_contexts(task: Task, count: int) -> tuple[Contexts, np.ndarray]:
    """Return contexts of a task, and the laws at every position of the first of them, (n, T, V)."""
    contexts, law = draw_contexts(task, dataset(task), count), exact_law(task)
    sequences = contexts.sequences
    first = sequences[: max(_FEWEST, _CELLS // (task.length * task.vocab)), :-1]
    laws = np.stack([law.next_tokens(first[:, : k + 1]) for k in range(first.shape[1])], axis=1)
    return contexts, laws


@lru_cache(maxsize=2)
def known_walks(task: Task, count: int) -> tuple[np.ndarray, dict[Kind, float]]:
    """Return sequences (N, T+1) of the law of a task, and the share that each probe gains without a state."""
    rng = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(_WALKS,)))
    sequences = draw_split(modular_walks(task), rng, count).tokens
    nothing = torch.zeros(count, sequences.shape[1] - 1, 1)
    return sequences, {kind: surplus(nothing, sequences, exact_law(task), kind).share for kind in KINDS}


def surplus_of(subject: TransformerSubject, task: Task, count: int) -> Tables:
    """Return the rows of `surplus` of one model."""
    sequences, nulls = known_walks(task, count)
    states = torch.cat([b[FINAL] for b in subject.activations(torch.tensor(sequences), (FINAL,))])
    rows = []
    for kind in KINDS:
        found = surplus(states, sequences, exact_law(task), kind)
        numbers = {"gain": found.gain, "ceiling": found.ceiling, "share": found.share, "null": nulls[kind]}
        rows.append({"step": subject.step, "probe": kind} | numbers)
    return {"surplus": rows}


def _surplus(config: RunConfig, plan: MarkovPlan) -> CheckpointMeasurement:
    """Return the measurement of the surplus of one checkpoint."""

    def measure(subject: TransformerSubject) -> Tables:
        return surplus_of(subject, config.task, plan.contexts)

    return CheckpointMeasurement("surplus", VERSION, replace(plan, batch_size=None), measure)


def _look(config: RunConfig, plan: MarkovPlan) -> CheckpointMeasurement:
    """Return the measurement of one checkpoint of a run against the law."""

    def measure(subject: TransformerSubject) -> Tables:
        return looked_at(subject, *known_contexts(config.task, plan.contexts))

    # Which runs are measured is no part of what is measured.
    return CheckpointMeasurement("markov", VERSION, replace(plan, batch_size=None), measure)
