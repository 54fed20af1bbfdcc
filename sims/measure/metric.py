"""Measure which directions of the final state the predictions of a language model depend on."""

from __future__ import annotations

import math

import numpy as np
import torch

from sims.measure.rows import MeasurementRows
from sims.measure.summarise import each_summary
from sims.models.subject import FINAL, Subject
from spectra import Estimate, InputError, Spectrum
from spectra.alignment import head_metric

METRIC = "metric"
# States that the metric is a mean over, and logits that are in memory at a time.
STATES, LOGITS = 256, 2**24
# Nats by which softmax(G h) may differ from the predictions: float32.
CLOSE = 1e-3


def metric_rows(
    sheet: MeasurementRows, subject: Subject, states: np.ndarray, other: Subject, other_states: np.ndarray
) -> None:
    """Add the spectrum of the mean Fisher metric of the head over states, with its summaries.

    A step v of a state changes the predictions by ½vᵀ(metric)v in KL divergence, to second order.

    Args:
        sheet: where rows are added.
        subject: the model.
        states: (N, d) its final states; at most 256 are used.
        other: the same model with random weights, whose summaries are the null.
        other_states: (N, d) its final states.
    """
    try:
        own, null = _spectrum(subject, states), _spectrum(other, other_states)
    except InputError as error:
        sheet.row("rankme", METRIC, FINAL, Estimate.not_fitted(str(error)))
        return
    sheet.spectrum(METRIC, FINAL, own)
    for summary, arguments, which in each_summary(()):
        level = float(summary.of(null, *arguments)) if summary.null else math.nan
        sheet.row(summary.name, METRIC, FINAL, summary.of(own, *arguments), null=level, **which)


def _spectrum(subject: Subject, states: np.ndarray) -> Spectrum:
    """Return the eigenvalues of the metric.

    Raises:
        InputError: the predictions are not softmax(G h), or states or head are no finite numbers, or all zero.
    """
    head = subject.head.detach().double().cpu().numpy()
    h = states[: max(min(STATES, LOGITS // len(head)), 1)]
    if not (np.isfinite(h).all() and np.isfinite(head).all()):
        raise InputError("the states or the head are not finite numbers")
    targets = np.arange(len(h)) % len(head)
    logits = h @ head.T
    largest = logits.max(axis=1, keepdims=True)
    plain = np.log(np.exp(logits - largest).sum(axis=1)) + largest[:, 0] - logits[np.arange(len(h)), targets]
    device = subject.head.device
    said = subject.head_losses(torch.tensor(h, device=device).float(), torch.tensor(targets, device=device))
    if not np.abs(said.double().cpu().numpy() - plain).max() < CLOSE * max(1.0, np.abs(plain).max()):
        raise InputError(
            "the predictions are not softmax(G h): the head has a bias, or its logits a scale or bound"
        )
    values = np.linalg.eigvalsh(head_metric(head, h))
    return Spectrum(np.maximum(values, 0.0), n=len(h), d=head.shape[1], centred=False)
