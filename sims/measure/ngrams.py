"""Agreement of a language model with the laws of n-grams of its training text, at held-out positions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor

from sims.measure.measurement import Batch, Data, Found, Gatherer, Job, Measurement
from sims.measure.ngram_laws import HeldOut
from sims.measure.rows import MeasurementRows
from sims.models.subject import FINAL
from sims.text.continuations import ORDERS
from spectra import Estimate, jackknife
from theory.ranges import CORRELATION, POSITIVE, SHARE, Range

NGRAM = "ngram"
TRIGRAM_RIGHT, LONGER, NEITHER = "trigram right", "longer context", "neither"
# Laws whose divergence from the predictions is taken: of longer ones most chances are 0.
DIVERGED = (1, 2)
# Chances that are in float64 at a time.
CHANCES = 2**22
# Groups of sequences that are left out in turn for an interval of a correlation.
GROUPS = 20
FEWEST = 3
# What is gathered of every position: ln p(next), whether the likeliest token came, KL from p_1 and from p_2.
OWN, RIGHT, KL = 0, 1, {1: 2, 2: 3}


class NgramData(Data, Protocol):
    """Inputs with held-out positions whose laws are known."""

    @property
    def held_out(self) -> HeldOut:
        """Positions and laws."""
        ...


class Ngrams(Gatherer):
    """Gather what the model predicts at held-out positions, in the pass over its sequences."""

    sites = (FINAL,)

    def __init__(self, job: Job) -> None:
        self.job, self.ranks, self.device = job, job.ranks, job.data.device
        # Counting takes memory, so that one process does it for all.
        held_out = job.ranks.from_first(lambda: cast(NgramData, job.data).held_out)
        self.positions, self.laws = held_out.positions, held_out.laws
        self.vocabulary = len(job.subject.head)
        self.values = torch.zeros(4, len(self.positions.next), dtype=torch.float64, device=self.device)

    @torch.no_grad()
    def batch(self, batch: Batch) -> None:
        """Take the predictions at the positions of these sequences."""
        states = batch.states[FINAL][0]
        rows = self.positions.rows
        start, stop = np.searchsorted(rows, [batch.first, batch.first + len(states)])
        most = max(CHANCES // self.vocabulary, 1)
        for at in range(start, stop, most):
            part = slice(at, min(at + most, stop))
            places = (torch.as_tensor(x[part]) for x in (rows - batch.first, self.positions.places))
            own = states[tuple(place.to(states.device) for place in places)]
            self.values[:, part] = self._numbers(self.job.subject.head_log_probs(own).double(), part)

    def _numbers(self, log_q: Tensor, part: slice) -> Tensor:
        """Return the numbers (4, m) of log predictions (m, V)."""
        token = torch.as_tensor(self.positions.next[part], device=log_q.device)
        own = log_q.gather(1, token[:, None])[:, 0]
        right = log_q.argmax(dim=1) == token
        p = torch.as_tensor(self.laws.unigram, device=log_q.device)
        owners, tokens, chances = (torch.as_tensor(x, device=log_q.device) for x in self._bigrams(part))
        crossed = torch.zeros_like(own).index_add_(0, owners, chances * log_q[owners, tokens])
        first, second = -(log_q[:, : len(p)] @ p), -crossed
        return torch.stack([own, right.double(), first, second])

    def _bigrams(self, part: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the chances p_2 of positions behind each other: which position, which token, its chance."""
        last = self.positions.last[part].tolist()
        tokens = [self.laws.followers[w] for w in last]
        owners = np.repeat(np.arange(len(last)), [len(own) for own in tokens])
        return owners, np.concatenate(tokens), np.concatenate([self.laws.chances[w] for w in last])

    def merge(self) -> None:
        """Add up what the ranks have: each position is of one of them."""
        self.values = self.ranks.sum(self.values)

    def found(self) -> Mapping[str, Tensor]:
        """Return the numbers (1, 4, N) of all positions."""
        return {"values": self.values[None]}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the numbers so far."""
        return {"values": self.values}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore them."""
        self.values = state["values"].to(self.device)

    def rows(self, sheet: MeasurementRows, found: Found) -> None:
        """Add the rows of one model."""
        values = found["values"].numpy()
        for n, name in ORDERS.items():
            _correlation(
                sheet, name, self.laws.orders[n], values[OWN], self.laws.orders[1], self.positions.rows
            )
        for n in DIVERGED:
            self._divergence(sheet, n, values[KL[n]])
        self._accuracy(sheet, values[RIGHT])
        for name, share in self.laws.length_shares().items():
            sheet.row("ngram_length_share", NGRAM, FINAL, share, detail=name)

    def _divergence(self, sheet: MeasurementRows, n: int, crossed: np.ndarray) -> None:
        """Add KL(p_n ‖ p_θ), from its cross-entropies (N,); beside it that of equal chances of all tokens."""
        if n == 1:
            entropy = np.full(len(crossed), _entropy(self.laws.unigram))
        else:
            each = {last: _entropy(p) for last, p in self.laws.chances.items()}
            entropy = np.array([each[last] for last in self.positions.last.tolist()])
        known = np.isfinite(self.laws.orders[n])
        value = grouped_mean((crossed - entropy)[known], self.positions.rows[known], POSITIVE)
        null = math.log(self.vocabulary) - float(entropy[known].mean()) if known.any() else math.nan
        sheet.row("ngram_divergence", NGRAM, FINAL, value, null=null, detail=ORDERS[n])

    def _accuracy(self, sheet: MeasurementRows, right: np.ndarray) -> None:
        """Add the accuracy by needed context; beside it that of the commonest token everywhere."""
        laws, commonest = self.laws, self.positions.next == self.laws.commonest
        kinds = {
            TRIGRAM_RIGHT: laws.trigram,
            LONGER: laws.longer,
            NEITHER: ~(laws.trigram | laws.longer),
        }
        for name, own in kinds.items():
            sheet.row("ngram_share", NGRAM, FINAL, float(own.mean()), detail=name)
            null = float(commonest[own].mean()) if own.any() else math.nan
            value = grouped_mean(right[own], self.positions.rows[own], SHARE)
            sheet.row("ngram_accuracy", NGRAM, FINAL, value, null=null, detail=name)


def _correlation(
    sheet: MeasurementRows, name: str, p: np.ndarray, log_q: np.ndarray, unigram: np.ndarray, rows: np.ndarray
) -> None:
    """Add the rank correlation with one law, the share of positions behind it, and that of the unigram law."""
    known = np.nan_to_num(p) > 0
    pairs = np.column_stack([np.log(p, where=known, out=np.zeros_like(p)), log_q])[known]
    # Of permuted positions the mean is 0 and the variance 1/(m − 1).
    high = 1.96 / math.sqrt(max(len(pairs) - 1, 1))
    value = rank_correlation(pairs, rows[known])
    sheet.row("ngram_correlation", NGRAM, FINAL, value, null=0.0, null_high=high, detail=name)
    sheet.row("ngram_share", NGRAM, FINAL, float(known.mean()), detail=name)
    if name != ORDERS[1]:
        # Every law of a text agrees with that of single tokens: what a model that knows no more than it would have.
        also = known & (unigram > 0)
        pairs = np.column_stack([p, unigram])[also]
        value = rank_correlation(pairs, rows[also])
        sheet.row("ngram_frequency_correlation", NGRAM, FINAL, value, detail=name)


def rank_correlation(pairs: np.ndarray, groups: np.ndarray) -> Estimate:
    """Return Spearman's correlation of pairs (N, 2) with a 95 % interval over groups (N,) that are drawn together."""
    from sims.analysis.intervals import student
    from sims.analysis.resampling import spearman

    def statistic(own: np.ndarray) -> float:
        return float(spearman(own[:, 0], own[:, 1]))

    different = len(np.unique(groups))
    if different < FEWEST:
        return Estimate.not_fitted(f"positions of {different} sequences; a correlation needs {FEWEST}")
    if not np.isfinite(pairs).all():
        return Estimate.not_fitted("the predictions are not finite numbers")
    value = statistic(pairs)
    if math.isnan(value):
        return Estimate.not_fitted("the law, or the predictions, are the same at every position")
    error = jackknife(pairs, statistic, groups=groups, blocks=GROUPS if different >= GROUPS else None)
    stderr = error.details.get("stderr", math.nan)
    half = student(min(different, GROUPS) - 1) * stderr
    return Estimate(value, *CORRELATION.interval(value, half)) if math.isfinite(half) else Estimate(value)


def grouped_mean(values: np.ndarray, groups: np.ndarray, within: Range) -> Estimate:
    """Return the mean of values (N,) with a 95 % interval over groups (N,) that are drawn together."""
    from sims.analysis.intervals import student

    if not len(values):
        return Estimate.not_fitted("no held-out position is of this kind")
    if not np.isfinite(values).all():
        return Estimate.not_fitted("the predictions are not finite numbers")
    mean = float(values.mean())
    _, of = np.unique(groups, return_inverse=True)
    n = int(of.max()) + 1
    if n < FEWEST:
        return Estimate(mean)
    # A ratio of two sums over groups: its standard error to first order.
    error = math.sqrt(n / (n - 1) * np.square(np.bincount(of, values - mean)).sum()) / len(values)
    return Estimate(mean, *within.interval(mean, student(n - 1) * error))


def _entropy(p: np.ndarray) -> float:
    own = p[p > 0]
    return float(-(own * np.log(own)).sum())


NGRAMS = Measurement(
    "ngrams",
    version=1,
    meaning="agreement with the n-grams of the training text at held-out positions (`--measuring.ngrams`)",
    needs=frozenset({"text"}),
    begin=Ngrams,
    wanted=lambda config: config.ngrams,
    null=True,
)
