"""Compare the states and predictions of a toy with the exact law of the next token, position by position."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor

from sims.measure.contexts import EIGENFUNCTIONS, Contexts, PositionLaws
from sims.measure.measurement import Data, Found, Gatherer, Job, Measurement
from sims.measure.rows import MeasurementRows
from sims.models.transformer import TransformerSubject
from sims.runs.measure_config import CONTEXTS_PER_DIMENSION
from spectra import Estimate
from spectra.alignment import explained_share, held_out_residuals, subspace_overlap
from spectra.errors import InputError
from theory.formulas.markov import entropy_gap_bound, shannon_entropy, total_variation
from theory.ranges import Range
from toymodel.transformer import FINAL

# Leading directions of states and of the kernel that are compared.
OVERLAP = 8
# States whose deviations are below this share of the largest entry differ by rounding in float32.
VARIES = 1e-5
NOT_FINITE = "the states or predictions are not finite numbers"


class ContextData(Data, Protocol):
    """Inputs with contexts whose next tokens have a known law."""

    @property
    def contexts(self) -> Contexts:
        """Contexts and their laws."""
        ...


class Predictive(Gatherer):
    """Compare K models with the laws of the same contexts."""

    stays = ("job", "laws")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.laws = cast(ContextData, job.data).contexts.positions
        self.lengths = [at.tokens for at in self.laws]
        self.counts = [len(at.distinct) for at in self.laws]
        self.eigenvalues = [at.eigenvalues.tolist() for at in self.laws]
        self.last_token = [
            last_token_share(at.last, at.roots) if len(at.eigenvalues) else math.nan for at in self.laws
        ]
        self.width = job.subject.head.shape[1]

    @torch.no_grad()
    def found(self) -> Mapping[str, Tensor]:
        """Return numbers (K, positions, …) of every model."""
        sequences = torch.tensor(
            cast(ContextData, self.job.data).contexts.sequences, device=self.job.data.device
        )
        places = [k - 1 for k in self.lengths]
        parts = [batch[FINAL][:, :, places] for batch in self.job.models.activations(sequences, (FINAL,))]
        states = torch.cat(parts, dim=1)  # (K, N, positions, d)
        each = [
            self._model(cast(TransformerSubject, m), h)
            for m, h in zip(self.job.models.members, states, strict=True)
        ]
        return {name: torch.tensor(np.array([own[name] for own in each])) for name in each[0]}

    def _model(self, model: TransformerSubject, states: Tensor) -> dict[str, np.ndarray]:
        head = model.head.double().cpu().numpy()
        each = []
        for place, at in enumerate(self.laws):
            own = states[:, place]
            logits = model.transformer.logits(model.params, own[None, :, None])[0, :, 0]
            log_q = logits.double().log_softmax(dim=-1).cpu().numpy()
            each.append(
                prediction_numbers(at.laws, log_q)
                | state_numbers(at, own[torch.as_tensor(at.distinct)].double().cpu().numpy(), head)
            )
        return {name: np.array([own[name] for own in each]) for name in each[0]}

    def rows(self, sheet: MeasurementRows, found: Found) -> None:
        """Add the rows of one model at every position."""
        numbers = {name: value.tolist() for name, value in found.items()}
        for place, k in enumerate(self.lengths):
            own = {name: value[place] for name, value in numbers.items()}
            detail = f"position {k}"
            rows = {
                "kl_divergence": (_divergence(own["kl"], own["kl_half"]), math.nan),
                "entropy_gap": (_value(own["gap"], NOT_FINITE), math.nan),
                "entropy_gap_bound": (_value(own["gap_bound"], NOT_FINITE), math.nan),
            }
            why = self._reason(place, own)
            for name in ("bc", "linear", "head"):
                reason = why or "the head gives every context the same mean row"
                rows[f"alignment_{name}"] = (_value(own[name], reason), own[f"{name}_null"])
            rows["alignment_bc_last_token"] = (
                _value(self.last_token[place], "the laws do not vary over the contexts"),
                math.nan,
            )
            rank = why or f"states or laws have fewer than {OVERLAP} directions"
            rows["subspace_overlap"] = (
                _value(own["overlap"], rank),
                OVERLAP / max(self.counts[place] - 1, 1),
            )
            for name, (value, null) in rows.items():
                sheet.row(name, "predictive", FINAL, value, null=null, detail=detail)
            for i, eigenvalue in enumerate(self.eigenvalues[place]):
                which = f"{detail} eigenfunction {i + 1}"
                share = _value(own["share"][i], why or "it does not vary over the scored contexts")
                sheet.row(
                    "eigenfunction_share", "predictive", FINAL, share, null=own["share_null"][i], detail=which
                )
                sheet.row("eigenvalue", "predictive", FINAL, eigenvalue, detail=which)

    def _reason(self, place: int, own: Mapping[str, float]) -> str:
        """Return why states have no alignment; "" where they have one."""
        if not own["finite"]:
            return NOT_FINITE
        if not self.eigenvalues[place]:
            return "the laws do not vary over the contexts"
        if not enough(self.counts[place], self.width):
            least = CONTEXTS_PER_DIMENSION * self.width
            return f"{self.counts[place]} distinct contexts; states of width {self.width} need {least}"
        return "" if own["varies"] else "the states do not vary over the contexts"


def enough(contexts: int, width: int) -> bool:
    """Return whether half of the contexts suffice to fit states of a width."""
    return contexts >= CONTEXTS_PER_DIMENSION * width


def prediction_numbers(laws: np.ndarray, log_q: np.ndarray) -> dict[str, float]:
    """Compare laws p (N, V) with logarithms of predictions q: mean KL(p‖q), |E H(q) − E H(p)| and its bound, nats."""
    from sims.analysis.intervals import student

    divergence, gap, bound = context_numbers(laws, log_q)
    n = len(laws)
    return {
        "kl": float(divergence.mean()),
        "kl_half": student(n - 1) * float(divergence.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan,
        "gap": float(abs(gap.mean())),
        "gap_bound": float(bound.mean()),
    }


def context_numbers(laws: np.ndarray, log_q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return KL(p‖q), H(q) − H(p) and the bound of its size, in nats, (N,) each, of laws p and log predictions q."""
    q = np.exp(log_q)
    entropy = shannon_entropy(laws)
    divergence = -(laws * log_q).sum(axis=1) - entropy
    variation = np.minimum(total_variation(laws, q), 1.0)
    return divergence, shannon_entropy(q) - entropy, entropy_gap_bound(variation, laws.shape[1])


def state_numbers(at: PositionLaws, states: np.ndarray, head: np.ndarray) -> dict[str, float | list[float]]:
    """Return the held-out shares that states (n, d) of the distinct contexts explain, and those of permuted contexts.

    One fit serves all of them. What is undefined is NaN.
    """
    names = ("bc", "linear", "head", "bc_null", "linear_null", "head_null", "overlap")
    finite = bool(np.isfinite(states).all() and np.isfinite(head).all())
    found: dict[str, float | list[float]] = dict.fromkeys(names, math.nan)
    found |= {"finite": float(finite), "varies": 0.0}
    found |= {"share": [math.nan] * EIGENFUNCTIONS, "share_null": [math.nan] * EIGENFUNCTIONS}
    if not finite:
        return found
    largest = np.abs(states).max()
    varies = np.abs(states - states.mean(axis=0)).max() > VARIES * largest
    found["varies"] = float(varies)
    rank = len(at.eigenvalues)
    if not (varies and rank and enough(*states.shape)):
        return found
    p, u = at.roots**2, at.eigenfunctions
    for suffix, order in (("", np.arange(len(states))), ("_null", at.order)):
        targets = np.hstack([at.roots, p, u])[order]
        left, distance = held_out_residuals(states, targets)
        parts = np.split(np.arange(targets.shape[1]), [p.shape[1], 2 * p.shape[1]])
        found[f"bc{suffix}"] = share(left[:, parts[0]], distance[:, parts[0]])
        found[f"linear{suffix}"] = share(left[:, parts[1]], distance[:, parts[1]])
        # The fit is linear in its targets: that of the mean rows Σ p g of the head is that of p, times the head.
        found[f"head{suffix}"] = share(left[:, parts[1]] @ head, distance[:, parts[1]] @ head)
        shares = [share(left[:, [i]], distance[:, [i]]) for i in parts[2]]
        found[f"share{suffix}"] = shares + [math.nan] * (EIGENFUNCTIONS - rank)
    if rank >= OVERLAP:
        # States of fewer directions have none.
        with suppress(InputError):
            found["overlap"] = subspace_overlap(states, u[:, :OVERLAP], OVERLAP)
    return found


def last_token_share(last: np.ndarray, roots: np.ndarray) -> float:
    """Return the share of √p (n, V) that the last token (n,) explains, one-hot; NaN where the laws do not vary."""
    tokens, codes = np.unique(last, return_inverse=True)
    if len(last) < 4:
        return math.nan
    # The laws may vary over the fitted contexts only.
    with suppress(InputError):
        return explained_share(np.eye(len(tokens))[codes], roots)
    return math.nan


def share(left: np.ndarray, distance: np.ndarray) -> float:
    """Return the share that residuals leave explained, 1 − Σ left²/Σ distance²; NaN where nothing varies."""
    total = np.square(distance).sum()
    return float(1 - np.square(left).sum() / total) if total > 1e-24 * distance.size else math.nan


def _divergence(value: float, half: float) -> Estimate:
    if not (math.isfinite(value) and math.isfinite(half)):
        return Estimate.not_fitted(NOT_FINITE)
    return Estimate(value, *Range(0.0, cut=True).interval(value, half))


def _value(value: float, reason: str) -> Estimate:
    return Estimate(value) if math.isfinite(value) else Estimate.not_fitted(reason)


PREDICTIVE = Measurement(
    "predictive",
    version=1,
    meaning="states and predictions against the exact law of the next token (`--measure.predictive`)",
    needs=frozenset({"law"}),
    begin=Predictive,
    wanted=lambda config: config.predictive > 0,
    null=True,
)
