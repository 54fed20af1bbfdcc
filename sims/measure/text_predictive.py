"""Rows of a language model against approximate laws of the next token: predictions by position, states by context."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import numpy as np
from torch import Tensor

from sims.analysis.ranges import POSITIVE, REAL, Range
from sims.measure.metric import metric_rows
from sims.measure.predictive import NOT_FINITE, OVERLAP, VARIES, last_token_share, share
from sims.measure.rows import MeasurementRows
from sims.measure.text_laws import (
    Operator,
    TextLaw,
    choose_contexts,
    compare_laws,
    final_states,
    random_weights,
)
from sims.models.subject import FINAL, Subject
from sims.runs.measure_config import CONTEXTS_PER_DIMENSION
from spectra import Estimate
from spectra.alignment import held_out_residuals, linear_cka, subspace_overlap
from spectra.errors import InputError

PREDICTIVE = "predictive"
# Numbers of √p of the chosen contexts, 1 GB in float32, and the least number of contexts that is asked for.
ENTRIES, CONTEXTS = 2**28, 2048
# Contexts for each direction of the states that is fitted, and the least number of contexts.
DIRECTIONS, FEWEST = 8, 32
RANDOM = "random weights"


def predictive_rows(
    sheet: MeasurementRows,
    subject: Subject,
    laws: Sequence[TextLaw],
    sequences: Tensor,
    vocabulary: int,
    told: Callable[[str, int, int], None],
) -> None:
    """Add the rows of a model against each law.

    Args:
        sheet: where rows are added.
        subject: the model.
        laws: over the same tokens.
        sequences: (n, T+1) tokens that are compared.
        vocabulary: V of the laws.
        told: called with what is measured, pieces done and pieces in all.
    """
    count = min(max(CONTEXTS, CONTEXTS_PER_DIMENSION * subject.head.shape[1]), ENTRIES // vocabulary)
    chosen = choose_contexts(sequences, count)
    last = sequences[:, :-1].cpu().numpy().ravel()[chosen]
    order = np.random.default_rng(1).permutation(len(chosen))
    other = random_weights(subject)
    states = {
        "": final_states(subject, sequences, chosen),
        RANDOM: final_states(other, sequences, chosen),
    }
    metric_rows(sheet, subject, states[""], other, states[RANDOM])
    del other
    for law in laws:

        def done(k: int, n: int, name: str = law.name) -> None:
            told(f"against {name}", k, n)

        compared = compare_laws(subject, law, sequences, vocabulary, chosen, done)
        columns = {
            "kl_divergence": compared.divergence,
            "entropy_gap": compared.gap,
            "entropy_gap_bound": compared.bound,
            "law_loss": compared.loss,
        }
        _positions(sheet, law.name, columns)
        operator = Operator.of(compared.roots, chosen // (sequences.shape[1] - 1), last, order)
        for which, own in states.items():
            _alignment(sheet, law.name, which, operator, own)
        own_share = last_token_share(last, operator.roots) if len(operator.eigenvalues) else math.nan
        value = _value(own_share, "the laws do not vary over the contexts")
        sheet.row("alignment_bc_last_token", PREDICTIVE, FINAL, value, detail=law.name)


def buckets(length: int) -> list[slice]:
    """Return the positions 1, 2, 3–4, 5–8, … of sequences as slices from 0.

    >>> [(b.start + 1, b.stop) for b in buckets(6)]
    [(1, 1), (2, 2), (3, 4), (5, 6)]
    """
    found, start, stop = [], 0, 1
    while start < length:
        found.append(slice(start, min(stop, length)))
        start, stop = stop, 2 * stop
    return found


def over_sequences(values: np.ndarray, within: Range = REAL) -> Estimate:
    """Return the mean of values (n, k) with a 95 % interval over the n sequences, within what they can be."""
    if not np.isfinite(values).all():
        return Estimate.not_fitted(NOT_FINITE)
    # It loads scipy.stats, which a look at weights does without.
    from sims.analysis.intervals import mean_interval

    return Estimate(*mean_interval(values.mean(axis=1), within))


def leading(states: np.ndarray, roots: np.ndarray) -> np.ndarray:
    """Return states (N, d) along as many leading directions as explain most of √p, (N, k).

    Directions are those of the contexts that are fitted, and their number (a power of 2, or all) is the best on one
    half of these after a fit to the other: rare directions of a text would be extrapolated.
    """
    centred = states - states[::2].mean(axis=0)
    states = centred @ np.linalg.svd(centred[::2], full_matrices=False)[2].T
    most = min(states.shape[1], max(len(states) // DIRECTIONS, 1))
    counts = sorted({2**k for k in range(most.bit_length()) if 2**k < most} | {most})
    shares = [share(*held_out_residuals(states[::2, :k], roots[::2])) for k in counts]
    # NaN where the laws do not vary there: one direction.
    return states[:, : counts[int(np.argmax(np.nan_to_num(shares, nan=-np.inf)))]]


def state_shares(at: Operator, states: np.ndarray) -> dict[str, tuple[float | Estimate, float]]:
    """Return the held-out shares that states (N, d) explain, each with that of permuted contexts; NaN if undefined.

    Shares have 95 % intervals over the scored sequences, which leave out that of the fit.

    Returns:
        "bc" (√p), "linear" (p), "1", "2", … (eigenfunctions), "cka", "overlap", and "directions", how many are fitted.
    """
    functions = [str(i + 1) for i in range(len(at.eigenvalues))]
    sizes = {"bc": at.roots.shape[1], "linear": at.linear.shape[1], **dict.fromkeys(functions, 1)}
    targets = np.hstack([at.roots, at.linear, at.eigenfunctions])
    ends = np.cumsum(list(sizes.values()))[:-1]
    pairs, directions = [], []
    for order in (slice(None), at.order):
        fitted = leading(states, at.roots[order])
        directions.append(fitted.shape[1])
        left, distance = (np.split(x, ends, axis=1) for x in held_out_residuals(fitted, targets[order]))
        pairs.append(list(zip(left, distance, strict=True)))
    found: dict[str, tuple[float | Estimate, float]] = {
        name: (share_interval(own[0], own[1], at.sequences[1::2]), share(null[0], null[1]))
        for name, own, null in zip(sizes, *pairs, strict=True)
    }
    found["cka"] = linear_cka(states, at.roots), linear_cka(states, at.roots[at.order])
    found["directions"] = directions[0], directions[1]
    found["overlap"] = math.nan, OVERLAP / max(len(states) - 1, 1)
    # States or laws of fewer directions have none.
    with suppress(InputError):
        found["overlap"] = (subspace_overlap(states, at.roots, OVERLAP), found["overlap"][1])
    return found


def share_interval(left: np.ndarray, distance: np.ndarray, sequences: np.ndarray) -> float | Estimate:
    """Return the share of `share` with a 95 % interval over the sequences of its rows; NaN where nothing varies."""
    value = share(left, distance)
    _, of = np.unique(sequences, return_inverse=True)
    n = of.max() + 1
    if n < 2 or not math.isfinite(value):
        return value
    from sims.analysis.intervals import student

    lost, spread = (np.bincount(of, np.square(x).sum(axis=1)) for x in (left, distance))
    # A ratio of two sums over sequences: its standard error to first order.
    error = math.sqrt(n / (n - 1) * np.square(lost - (1 - value) * spread).sum()) / spread.sum()
    return Estimate(value, *Range(high=1.0, cut=True).interval(value, student(n - 1) * error))


def _positions(sheet: MeasurementRows, name: str, columns: Mapping[str, np.ndarray]) -> None:
    """Add the means of columns (n, T) over all positions and over each bucket of them."""
    length = columns["kl_divergence"].shape[1]
    places = {name: slice(None)} | {f"{name}: positions {b.start + 1}–{b.stop}": b for b in buckets(length)}
    for detail, part in places.items():
        for quantity, values in columns.items():
            gap = quantity == "entropy_gap"
            value = over_sequences(values[:, part], REAL if gap else POSITIVE)
            if gap and value.status == "ok":
                # Its size, which the bound is of.
                value = Estimate(abs(value.value))
            sheet.row(quantity, PREDICTIVE, FINAL, value, detail=detail)


def _alignment(sheet: MeasurementRows, law: str, which: str, at: Operator, states: np.ndarray) -> None:
    """Add what states explain of the operator of a law."""
    detail = f"{law}: {which}" if which else law
    why = _reason(at, states)
    found = {} if why else state_shares(at, states)
    undefined = (math.nan, math.nan)
    names = {
        "alignment_bc": "bc",
        "alignment_linear": "linear",
        "linear_cka": "cka",
        "directions": "directions",
    }
    for quantity, name in names.items():
        value, null = found.get(name, undefined)
        sheet.row(quantity, PREDICTIVE, FINAL, _value(value, why), null=null, detail=detail)
    value, null = found.get("overlap", undefined)
    few = why or f"states or laws have fewer than {OVERLAP} directions"
    sheet.row("subspace_overlap", PREDICTIVE, FINAL, _value(value, few), null=null, detail=detail)
    for i, eigenvalue in enumerate(at.eigenvalues):
        value, null = found.get(str(i + 1), undefined)
        place = f"{detail}: eigenfunction {i + 1}"
        constant = why or "it does not vary over the scored contexts"
        sheet.row("eigenfunction_share", PREDICTIVE, FINAL, _value(value, constant), null=null, detail=place)
        if not which:
            sheet.row("eigenvalue", PREDICTIVE, FINAL, float(eigenvalue), detail=place)


def _reason(at: Operator, states: np.ndarray) -> str:
    """Return why states have no alignment; "" where they have one."""
    if not np.isfinite(states).all():
        return NOT_FINITE
    if not len(at.eigenvalues):
        return "the laws do not vary over the contexts"
    if len(states) < FEWEST:
        return f"{len(states)} different contexts are too few; measure more text"
    varies = np.abs(states - states.mean(axis=0)).max() > VARIES * np.abs(states).max()
    return "" if varies else "the states do not vary over the contexts"


def _value(value: float | Estimate, reason: str) -> Estimate:
    if isinstance(value, Estimate):
        return value
    return Estimate(value) if math.isfinite(value) else Estimate.not_fitted(reason or "it is not defined")
