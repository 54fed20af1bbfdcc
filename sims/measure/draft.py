"""Train a draft head, a linear probe from a state to the token after next, and compare it with the model's own law."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sims.analysis.ranges import SHARE
from sims.measure.predictive import VARIES
from sims.measure.rows import MeasurementRows
from sims.measure.text_predictive import over_sequences
from sims.models.subject import EMBED, FINAL, Subject
from sims.system.errors import MeasureError
from sims.text.ngram import NgramLaw

DRAFT = "draft"
# The least number of sequences: six to train on, two to stop by, two to score.
SEQUENCES = 10
# Shares of the sequences that are trained on and that training stops by; the others are scored.
TRAINED, STOPPED = 0.6, 0.2
# Steps at most, and steps without a gain (in nats) after which training stops.
STEPS, PATIENCE, GAIN = 60, 4, 1e-4
# Steps that L-BFGS remembers; contexts at a time at most, and chances.
HISTORY, ROWS, CHANCES = 10, 1024, 2**24
# What a probe reads: the next token, and with it the state of its context, or none, or that of another context.
STATE, TOKEN, PERMUTED = "state", "next token", "permuted state"
BASE, MODEL = "bigram", "model"


@dataclass(frozen=True, eq=False)
class _Split:
    """Contexts of some sequences.

    Attributes:
        states: (m, d) standardised states h_t.
        tokens: (m,) next tokens, which the draft is given.
        targets: (m,) tokens after them, which it predicts.
        sequences: (n, T+1) where the contexts come from; of each its first T − 1.
    """

    states: Tensor
    tokens: Tensor
    targets: Tensor
    sequences: Tensor


@dataclass(frozen=True, eq=False)
class _Probe:
    """ln q(w'|h, w) = ln b(w'|w) + g(w')·W x − norm, g the rows of the model's head, x of state and token.

    Attributes:
        base: the bigram law b.
        head: (V, k) rows g, centred and of mean square 1.
        embedding: (V, e) standardised rows of the embedding.
        reads: STATE, TOKEN or PERMUTED.
        weight: (k, d + e + 1) W, or (k, e + 1); the last column is a constant.
    """

    base: NgramLaw
    head: Tensor
    embedding: Tensor
    reads: str
    weight: Tensor

    def log_q(self, split: _Split, rows: Tensor, log_base: Tensor) -> Tensor:
        """Return (m, V) logarithms of the law of the token after next."""
        token = self.embedding[split.tokens[rows]]
        x = torch.cat((token, token.new_ones(len(token), 1)), dim=1)
        if self.reads != TOKEN:
            x = torch.cat((split.states[rows], x), dim=1)
        return (log_base + x @ self.weight.T @ self.head.T).log_softmax(dim=-1)

    def log_base(self, tokens: Tensor) -> Tensor:
        """Return (m, V) logarithms of the bigram law after tokens."""
        different, places = torch.unique(tokens, return_inverse=True)
        law = self.base.next_tokens(different.cpu().numpy()[:, None])
        return torch.as_tensor(np.log(law), dtype=self.head.dtype, device=self.head.device)[places]


def draft_rows(
    sheet: MeasurementRows,
    subject: Subject,
    base: NgramLaw,
    sequences: Tensor,
    told: Callable[[str, int, int], None],
    seed: int = 0,
) -> None:
    """Add the expected acceptance of draft heads and what their states add about the token after next.

    Args:
        sheet: where rows are added.
        subject: the model.
        base: bigram law that was counted on other text.
        sequences: (n, T+1) tokens, split by sequence into those that are trained on, stopped by and scored.
        told: called with what is measured, pieces done and pieces in all.
        seed: of the split and of the permuted states.
    """
    check_draft(sequences)
    parts = _splits(subject, sequences, seed)
    head, embedding = _standard(subject.head), _standard(subject.matrices[EMBED], by_column=True)

    def probe(reads: str) -> _Probe:
        width = embedding.shape[1] + 1 + (0 if reads == TOKEN else parts[0].states.shape[1])
        return _Probe(base, head, embedding, reads, head.new_zeros(head.shape[1], width))

    gains, accepted = {}, {}
    accepted[BASE], _, gains[MODEL] = _score(subject, probe(TOKEN), parts[2])
    for k, reads in enumerate((STATE, TOKEN, PERMUTED)):
        trained, stopped, scored = (_permuted(p, seed) if reads == PERMUTED else p for p in parts)
        own = probe(reads)
        _train(own, trained, stopped, lambda i, n, k=k: told("draft", k * n + i, 3 * n))
        accepted[reads], gains[reads], _ = _score(subject, own, scored)
    _add(sheet, accepted, gains)


def check_draft(sequences: Tensor) -> None:
    """Refuse sequences that are too few or too short for a draft head.

    Raises:
        MeasureError: fewer than ten sequences, or of fewer than two inputs.
    """
    n, length = len(sequences), sequences.shape[1] - 1
    if n < SEQUENCES or length < 2:
        raise MeasureError(
            f"a draft head is trained, stopped and scored on different sequences: it needs {SEQUENCES} of two or more "
            f"inputs, and there are {n} of {length}; give more text, or shorten the sequences"
        )


def _add(sheet: MeasurementRows, accepted: dict[str, np.ndarray], gains: dict[str, np.ndarray]) -> None:
    for reads, values in accepted.items():
        null = float(accepted[TOKEN].mean()) if reads in (STATE, PERMUTED) else math.nan
        sheet.row("acceptance", DRAFT, FINAL, over_sequences(values, SHARE), null=null, detail=reads)
    for reads, values in gains.items():
        sheet.row("gain", DRAFT, FINAL, over_sequences(values), detail=reads)
    null = float((gains[PERMUTED] - gains[TOKEN]).mean())
    sheet.row("surplus", DRAFT, FINAL, over_sequences(gains[STATE] - gains[TOKEN]), null=null)


@torch.no_grad()
def _splits(subject: Subject, sequences: Tensor, seed: int) -> list[_Split]:
    """Return what is trained on, stopped by and scored; states are standardised by those that are trained on."""
    n = len(sequences)
    ends = [round(n * TRAINED), round(n * (TRAINED + STOPPED))]
    order = torch.as_tensor(np.random.default_rng(seed).permutation(n))
    own = [sequences.cpu()[part].to(subject.head.device, torch.int64) for part in order.tensor_split(ends)]
    states = [
        torch.cat([batch[FINAL][:, :-1].flatten(0, 1) for batch in subject.activations(part, (FINAL,))])
        for part in own
    ]
    mean, spread = states[0].mean(dim=0), states[0].std(dim=0)
    # What varies by rounding alone stays small.
    spread = torch.where(spread > VARIES * states[0].abs().max(), spread, 1.0)
    return [
        _Split((h - mean) / spread, part[:, 1:-1].flatten(), part[:, 2:].flatten(), part)
        for h, part in zip(states, own, strict=True)
    ]


def _permuted(split: _Split, seed: int) -> _Split:
    order = torch.randperm(len(split.states), generator=torch.Generator().manual_seed(seed))
    return _Split(split.states[order.to(split.states.device)], split.tokens, split.targets, split.sequences)


def _standard(rows: Tensor, by_column: bool = False) -> Tensor:
    """Return centred rows of root mean square 1, or of this in every column."""
    centred = (rows - rows.mean(dim=0)).detach()
    size = centred.square().mean(dim=0 if by_column else (0, 1)).sqrt()
    return centred / torch.where(size > VARIES * rows.abs().max(), size, 1.0)


def _train(probe: _Probe, trained: _Split, stopped: _Split, told: Callable[[int, int], None]) -> None:
    """Train the weights from zero by L-BFGS on all contexts; keep those with the lowest loss on the other sequences.

    A probe that gains nothing on the sequences that training stops by stays zero.
    """
    weight = probe.weight.requires_grad_()
    optimiser = torch.optim.LBFGS([weight], max_iter=1, history_size=HISTORY, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimiser.zero_grad()
        return _loss(probe, trained, backward=True)

    best, kept, since = _loss(probe, stopped), weight.detach().clone(), 0
    for done in range(STEPS):
        told(done, STEPS)
        optimiser.step(closure)
        loss = _loss(probe, stopped)
        since = 0 if loss < best - GAIN else since + 1
        if loss < best:
            best, kept = loss, weight.detach().clone()
        if since == PATIENCE or not math.isfinite(loss):
            break
    told(STEPS, STEPS)
    probe.weight.requires_grad_(False).copy_(kept)


def _loss(probe: _Probe, split: _Split, backward: bool = False) -> float:
    """Return the mean −ln q of the tokens that came, and add its gradient to the weights if asked."""
    total = 0.0
    for own in torch.arange(len(split.states), device=probe.head.device).split(_rows(probe)):
        with torch.set_grad_enabled(backward):
            log_q = probe.log_q(split, own, probe.log_base(split.tokens[own]))
            loss = -log_q.gather(1, split.targets[own, None]).sum() / len(split.states)
            if backward:
                loss.backward()
        total += float(loss.detach())
    return total


def _rows(probe: _Probe) -> int:
    """Return how many contexts are predicted at a time."""
    return min(ROWS, max(CHANCES // len(probe.head), 1))


@torch.no_grad()
def _score(subject: Subject, probe: _Probe, split: _Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return Σ min(q_model, q_draft), and ln q − ln b of the token that came for draft and model, each (n, T − 1)."""
    n, length = len(split.sequences), split.sequences.shape[1] - 2
    found = torch.empty(3, n * length, dtype=torch.float64)
    for k, sequence in enumerate(split.sequences):
        # The law of the token after next, which the model has one position later.
        model = subject.log_probs(sequence[None])[0, 1:]
        for places in torch.arange(length, device=model.device).split(_rows(probe)):
            own = places + k * length
            base = probe.log_base(split.tokens[own])
            # A draft that learned nothing gains exactly 0: the base is rounded as it is.
            logs = (probe.log_q(split, own, base), model[places], base.log_softmax(dim=-1))
            draft, mine, alone = (x.double().log_softmax(dim=-1) for x in logs)
            found[0, own.cpu()] = torch.minimum(draft.exp(), mine.exp()).sum(dim=1).clamp(max=1.0).cpu()
            for i, law in ((1, draft), (2, mine)):
                found[i, own.cpu()] = (law - alone).gather(1, split.targets[own, None])[:, 0].cpu()
    acceptance, gain, own_gain = found.view(3, n, length).numpy()
    return acceptance, gain, own_gain
