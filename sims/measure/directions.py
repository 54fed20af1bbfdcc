"""Measure what the predictions need of the principal directions of the final states: keep only them, or drop them.

    table = measure_directions(model, sequences)

Directions come from the first half of the sequences, losses and accuracies from the second half.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sims.measure.measurement import Found, Gatherer, Job, Measurement
from sims.measure.rows import MeasurementRows
from sims.models.module import ModuleSubject
from sims.models.parts import layout_of
from sims.models.subject import FINAL, Subject
from sims.models.transformer import LOGITS, STATE_LOGITS
from sims.runs.measure_config import LEAST_DIRECTION_SEQUENCES
from sims.system.errors import MeasureError
from spectra import Estimate, InputError, Moments
from theory.ranges import SHARE
from toymodel.precision import full_precision

if TYPE_CHECKING:
    import pandas as pd

# Random subspaces of each dimension.
CONTROLS = 4
# Dimensions of the subspaces: those of arXiv 2509.23024 (1, 10, 50) where the states are wide enough for them.
NARROW, WIDE = (1, 8, 32), (1, 10, 50)
WIDE_FROM = 100
EDITS = ("keep", "drop")
# Positions whose states are held at once.
POSITIONS = 4_096
DIRECTION = "direction"
COLUMNS = (
    *("directions", "edit", "loss", "change", "change_low", "change_high", "change_null"),
    *("accuracy", "accuracy_low", "accuracy_high", "accuracy_null", "n"),
)


class NotFiniteError(MeasureError):
    """States or losses are not finite numbers."""


class Principal(NamedTuple):
    """Hold the mean (d,) of states, their principal directions (d, d) in float64, strongest first, and their rank."""

    mean: Tensor
    basis: Tensor
    rank: int


class Edited(NamedTuple):
    """Hold losses in nats and shares of right tokens of n sequences, each (n,), after one change of the states."""

    losses: np.ndarray
    accuracies: np.ndarray


def default_counts(width: int) -> tuple[int, ...]:
    """Return the numbers of directions that are kept or dropped: all are below the width.

    >>> default_counts(128), default_counts(64), default_counts(8)
    ((1, 10, 50), (1, 8, 32), (1,))
    """
    return tuple(k for k in (WIDE if width >= WIDE_FROM else NARROW) if k < width)


def keep_directions(states: Tensor, mean: Tensor, basis: Tensor) -> Tensor:
    """Return mean + QQᵀ(h − mean) of states (…, d): only the directions Q (d, k), and the mean, are left."""
    centred = states.double() - mean
    return mean + centred @ basis @ basis.T


def drop_directions(states: Tensor, mean: Tensor, basis: Tensor) -> Tensor:
    """Return h − QQᵀ(h − mean) of states (…, d): the directions Q (d, k) have the value of the mean."""
    centred = states.double() - mean
    return states.double() - centred @ basis @ basis.T


@full_precision()
def measure_directions(
    model: Subject | nn.Module,
    sequences: Tensor,
    counts: Sequence[int] | None = None,
    *,
    controls: int = CONTROLS,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure loss and accuracy where only the first k principal directions of the final states are kept, or dropped.

    The mean of the states is kept. Directions and mean come from the first half of the sequences, at all positions.

    Args:
        model: a subject, or a decoder in memory.
        sequences: (n, T+1) tokens, at least 4; intervals are over the second half.
        counts: numbers of directions, from 0 (only the mean is kept) to the width; by default 1, 10 and 50, or 1, 8 and
            32 where the width is below 100, and 0.
        controls: random subspaces of each dimension.
        seed: of these.

    Returns:
        One row for the whole states (edit "whole") and for each number and edit ("keep", "drop"): directions, edit,
        loss (nats), change of it with its paired 95 % Student interval over sequences, accuracy of the most probable
        token with its interval, the mean of both over the random subspaces (change_null, accuracy_null), n. Numbers
        above the rank of the states and below the width are NaN: those directions are not determined.

    Raises:
        MeasureError: too few sequences, numbers out of range, no control, or states or losses that are not finite.

    Source: arXiv 2509.23024, where a task is evaluated on such states.
    """
    subject = ModuleSubject.of(model, layout_of(model), step=0) if isinstance(model, nn.Module) else model
    width = subject.head.shape[1]
    chosen = (0, *default_counts(width)) if counts is None else tuple(dict.fromkeys(counts))
    if wrong := [k for k in chosen if not 0 <= k <= width]:
        raise MeasureError(f"counts has {wrong[0]}; states of width {width} have 0 to {width} directions")
    if controls < 1:
        raise MeasureError(f"controls is {controls}; take at least one random subspace, such as {CONTROLS}")
    if sequences.ndim != 2 or len(sequences) < LEAST_DIRECTION_SEQUENCES:
        raise MeasureError(
            f"sequences have shape {tuple(sequences.shape)}; directions come from one half of (n, T+1) tokens and "
            f"losses from the other: pass n ≥ {LEAST_DIRECTION_SEQUENCES}"
        )
    fitted, rest = halves(sequences.to(subject.head.device))
    principal = principal_directions(subject, fitted)
    found = edited_scores(subject, rest, principal, chosen, controls, seed)
    table = score_table(chosen, found, principal.rank, width)
    if not math.isfinite(table["loss"].iloc[0]):
        raise NotFiniteError("losses have NaN or Inf; measure a checkpoint before the run diverged")
    return table


def halves(sequences: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sequences that directions are taken from, and those on which losses are measured."""
    middle = len(sequences) // 2
    return sequences[:middle], sequences[middle:]


def principal_directions(subject: Subject, sequences: Tensor) -> Principal:
    """Return the principal directions of the final states at all positions.

    Raises:
        MeasureError: states that are not finite.
    """
    moments = Moments()
    for _, states in _final_states(subject, sequences):
        if not bool(states.isfinite().all()):
            raise NotFiniteError("the states have NaN or Inf; measure a checkpoint before the run diverged")
        moments.update(states.flatten(0, -2))
    try:
        rank = int(np.count_nonzero(moments.spectrum().values))
    except InputError:
        rank = 0
    _, vectors = np.linalg.eigh(moments.covariance())
    assert moments.mean is not None
    basis = torch.tensor(vectors[:, ::-1].copy(), device=sequences.device)
    return Principal(moments.mean.to(sequences.device), basis, rank)


def edited_scores(
    subject: Subject, sequences: Tensor, principal: Principal, counts: Sequence[int], controls: int, seed: int
) -> list[list[Edited]]:
    """Return what whole states give (one entry), then for each number and edit the directions and the controls."""
    bases = [
        [
            principal.basis[:, :k],
            *(random_subspace(principal.basis, k, [seed, k, i]) for i in range(controls)),
        ]
        for k in counts
    ]
    parts: list[list[list[tuple[Tensor, Tensor]]]] = []
    for tokens, states in _final_states(subject, sequences):
        targets = tokens[:, 1:].long()
        found = [[_scores(subject, states, targets)]]
        for own in bases:
            for change in (keep_directions, drop_directions):
                edited = (change(states, principal.mean, basis).to(states) for basis in own)
                found.append([_scores(subject, x, targets) for x in edited])
        parts.append(found)
    return [
        [
            Edited(*(torch.cat([part[i][j][which] for part in parts]).cpu().numpy() for which in (0, 1)))
            for j in range(len(row))
        ]
        for i, row in enumerate(parts[0])
    ]


def score_table(
    counts: Sequence[int], found: Sequence[Sequence[Edited]], rank: int, width: int
) -> pd.DataFrame:
    """Return the table of `measure_directions` from the scores of `edited_scores`."""
    import pandas as pd

    from sims.analysis.intervals import mean_interval

    whole, n = found[0][0], len(found[0][0].losses)
    loss = float(whole.losses.mean())
    no_interval = (0.0, math.nan, math.nan)
    rows: list[tuple[int | float | str, ...]] = [
        (width, "whole", loss, *no_interval, math.nan, *mean_interval(whole.accuracies, SHARE), math.nan, n)
    ]
    names = [(k, edit) for k in counts for edit in EDITS]
    for (k, edit), (own, *others) in zip(names, found[1:], strict=True):
        if rank < k < width:
            rows.append((k, edit, *[math.nan] * 9, n))
            continue
        loss_null = float(np.mean([x.losses.mean() for x in others])) - loss
        accuracy_null = float(np.mean([x.accuracies.mean() for x in others]))
        change, accuracy = mean_interval(own.losses - whole.losses), mean_interval(own.accuracies, SHARE)
        rows.append((k, edit, float(own.losses.mean()), *change, loss_null, *accuracy, accuracy_null, n))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _final_states(subject: Subject, sequences: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield sequences (b, T+1) with their final states (b, T, d)."""
    for some in sequences.split(max(1, POSITIONS // sequences.shape[1])):
        start = 0
        for seen in subject.activations(some, (FINAL,)):
            states = seen[FINAL]
            yield some[start : start + len(states)], states
            start += len(states)


def _scores(subject: Subject, states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean loss and the share of right tokens (b,) of states (b, T, d)."""
    rows = max(1, STATE_LOGITS.get(states.device.type, LOGITS) // len(subject.head))
    parts = []
    for h, y in zip(states.flatten(0, 1).split(rows), targets.flatten().split(rows), strict=True):
        log_probs = subject.head_log_probs(h)
        losses = -log_probs.gather(-1, y.unsqueeze(-1)).squeeze(-1)
        parts.append(torch.stack([losses.double(), (log_probs.argmax(dim=-1) == y).double()]))
    losses, hits = torch.cat(parts, dim=1).view(2, *targets.shape).mean(dim=2)
    return losses, hits


def random_subspace(basis: Tensor, k: int, seed: list[int]) -> Tensor:
    """Draw a uniform k-dimensional subspace (d, k) of the space of a basis (d, d)."""
    drawn = np.random.default_rng(seed).standard_normal((len(basis), k))
    return torch.tensor(np.linalg.qr(drawn)[0], device=basis.device)


class Directions(Gatherer):
    """Add the changes of loss and the accuracies of `measure_directions`."""

    stays = ("job",)

    def __init__(self, job: Job) -> None:
        self.job = job
        self.width = job.subject.head.shape[1]
        self.counts = (0, *default_counts(self.width))

    def found(self) -> Mapping[str, Tensor]:
        """Return the table (K, rows, columns) of every model, from the first sequences of the data."""
        import pandas as pd

        data = self.job.data
        sequences = data.tokens(slice(0, data.config.directions))
        tables = []
        for model in self.job.models.members:
            try:
                table = measure_directions(model, sequences, self.counts).drop(columns="edit")
            except NotFiniteError:
                table = pd.DataFrame(math.nan, range(1 + 2 * len(self.counts)), COLUMNS).drop(columns="edit")
            tables.append(table.to_numpy(float))
        return {"tables": torch.tensor(np.array(tables))}

    def rows(self, sheet: MeasurementRows, found: Found) -> None:
        """Add change of loss and accuracy for every number and edit, and the accuracy of whole states."""
        columns = [name for name in COLUMNS if name != "edit"]
        whole, *edited = (dict(zip(columns, row, strict=True)) for row in found["tables"].tolist())
        finite = math.isfinite(whole["loss"])
        why = "the rank of the states is lower" if finite else "the states or losses are not finite numbers"
        self._row(sheet, "keep_accuracy", "all", whole, "accuracy", why)
        names = [(k, edit) for k in self.counts for edit in EDITS]
        for (k, edit), own in zip(names, edited, strict=True):
            # Of none there is nothing to drop.
            if k or edit == "keep":
                detail = f"top {k}" if k else "none"
                self._row(sheet, f"{edit}_loss", detail, own, "change", why)
                self._row(sheet, f"{edit}_accuracy", detail, own, "accuracy", why)

    def _row(
        self,
        sheet: MeasurementRows,
        quantity: str,
        detail: str,
        own: Mapping[str, float],
        name: str,
        why: str,
    ) -> None:
        value, low, high, null = (own[f"{name}{end}"] for end in ("", "_low", "_high", "_null"))
        estimate = Estimate(value, low, high) if math.isfinite(value) else Estimate.not_fitted(why)
        sheet.row(quantity, DIRECTION, FINAL, estimate, null=null, detail=detail)


DIRECTIONS = Measurement(
    "directions",
    version=2,
    meaning="loss and accuracy with only the first principal directions of the final state, and without them",
    needs=frozenset({"activations"}),
    begin=Directions,
    wanted=lambda config: config.directions > 0,
    null=True,
)
