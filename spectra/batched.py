"""Reduce the samples of several models at once, on their device: moments, class means, Gram matrices of gradients.

Every function takes a leading member axis K and works in float64 where the samples are, without asking the device for
a number. Only the results, which do not grow with the number of samples, need to be copied to the host; eigenvalues
and everything that follows is computed from them there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from spectra.arrays import EPS, machine_epsilon
from spectra.bands import listed, require_modulus
from spectra.covariance import least_length, rounding_margin
from spectra.errors import InputError, NotFiniteError
from spectra.factors import Factors
from spectra.gradient_products import WORKING_SET, stacked_gram
from spectra.moments import Moments
from spectra.shown import Shown

# What `MemberMoments` accumulates, by the names of `Moments`.
PARTS = ("mean", "m2", "rounding")


class MemberMoments(Shown):
    """Accumulate the moments of K sets of rows of equal shape; `Moments` of each of them.

    Args:
        members: K.

    Attributes:
        count: number of rows n of each member.

    >>> moments = MemberMoments(2)
    >>> moments.update(torch.tensor([[[1.0], [3.0]], [[0.0], [8.0]]]))
    >>> [(each.count, each.mean.tolist(), each.m2.tolist()) for each in moments.split()]
    [(2, [2.0], [[2.0]]), (2, [4.0], [[32.0]])]
    """

    def __init__(self, members: int) -> None:
        self.members = members
        self.count = 0
        self._parts: dict[str, Tensor] = {}

    def _shown(self) -> Mapping[str, object]:
        return {"members": self.members, "rows": self.count}

    def update(self, x: Tensor) -> None:
        """Add rows (K, m, d), of any float dtype.

        Raises:
            InputError: another number of members or columns, or no rows.
        """
        if x.ndim != 3 or len(x) != self.members or 0 in x.shape:
            raise InputError(f"x has shape {tuple(x.shape)}; pass (K, m, d) with K = {self.members} and rows")
        known = self._parts["mean"].shape[1] if self._parts else x.shape[2]
        if x.shape[2] != known:
            raise InputError(
                f"these rows have {x.shape[2]} columns but the moments so far have {known}; they must agree"
            )
        own, rows = machine_epsilon(x), x.detach().double()
        mean, centred = _centred(rows)
        m2, count = centred.mT @ centred, rows.shape[1]
        squares = m2.diagonal(dim1=1, dim2=2) + count * mean[:, 0] ** 2 + least_length(count, own) ** 2
        self._absorb(count, mean=mean[:, 0], m2=m2, rounding=rounding_margin(own) ** 2 * squares)

    def _absorb(self, count: int, mean: Tensor, m2: Tensor, rounding: Tensor) -> None:
        """Merge further moments by the formula of `spectra.moments`."""
        if not self._parts:
            self.count = count
            self._parts = {"mean": mean, "m2": m2, "rounding": rounding}
            return
        own, total = self._parts, self.count + count
        delta = mean - own["mean"]
        between = delta[:, :, None] * delta[:, None, :] * (self.count * (count / total))
        self._parts = {
            "mean": own["mean"] + delta * (count / total),
            "m2": own["m2"] + m2 + between,
            "rounding": own["rounding"] + rounding,
        }
        self.count = total

    def tensors(self) -> dict[str, Tensor]:
        """Return mean (K, d), m2 (K, d, d) and rounding (K, d), float64 on the device.

        Raises:
            InputError: no rows so far.
        """
        if not self._parts:
            raise InputError("the moments hold no rows")
        return self._parts

    def split(self) -> list[Moments]:
        """Return the moments of each member.

        Raises:
            InputError: NaN or Inf among the rows.
        """
        if not self._parts:
            return [Moments() for _ in range(self.members)]
        each = [{name: part[k] for name, part in self._parts.items()} for k in range(self.members)]
        return [member_moments(self.count, **own) for own in each]

    @classmethod
    def join(cls, members: Sequence[Moments]) -> MemberMoments:
        """Return moments that continue from those of each member, which have equal counts."""
        joined = cls(len(members))
        if members[0].count:
            states = [member.state_dict() for member in members]
            joined.count = members[0].count
            joined._parts = {part: torch.stack([state[part] for state in states]) for part in PARTS}
        return joined


def member_moments(count: int, mean: Tensor, m2: Tensor, rounding: Tensor) -> Moments:
    """Return the moments of one member from its part of `MemberMoments.tensors`.

    Raises:
        InputError: NaN or Inf among the rows.

    >>> moments = MemberMoments(1)
    >>> moments.update(torch.tensor([[[1.0], [3.0]]]))
    >>> parts = {name: part[0] for name, part in moments.tensors().items()}
    >>> member_moments(2, **parts).covariance()
    array([[2.]])
    """
    if not bool(torch.isfinite(mean).all()):
        raise NotFiniteError(f"the {count} rows have NaN or Inf entries; drop or repair these samples first")
    moments = Moments()
    moments.count, moments.mean, moments.m2 = count, mean, m2
    moments.rounding = rounding
    return moments


def effective_dimensions(x: Tensor, repeats: Tensor | None = None) -> Tensor:
    """Return (tr Σ)²/tr Σ² of the rows of each member, the participation ratio of their covariance.

    Both traces come from the covariance itself; no eigenvalue is needed. Columns whose deviations float64 arithmetic
    explains (`covariance.rounding_floor`) do not vary.

    Args:
        x: (K, n, d), any float dtype.
        repeats: (n,) how often each row counts; None counts each once.

    Returns:
        (K,) float64; NaN for rows without variation.

    >>> effective_dimensions(torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]]))
    tensor([2.], dtype=torch.float64)
    """
    rows = x.detach().double()
    # The ratio has no scale: exact division keeps fourth powers within float64.
    rows = rows / _units(rows)
    _, centred = _centred(rows, repeats)
    varies = centred.norm(dim=1) > rounding_margin(EPS) * rows.norm(dim=1)
    centred = torch.where(varies[:, None], centred, 0.0)
    centred = centred / _units(centred)
    if repeats is not None:
        centred = centred * repeats.double().sqrt()[:, None]
    n, d = centred.shape[1:]
    gram = centred.mT @ centred if d <= n else centred @ centred.mT
    trace = gram.diagonal(dim1=1, dim2=2).sum(dim=1)
    return trace.square() / gram.square().sum(dim=(1, 2))


@dataclass(frozen=True, eq=False)
class StateClasses(Shown):
    """Assign samples to the states of a cycle, to average hidden states of any number of models by state.

    A sample that occurs several times is given once, with its number of repeats.

    Args:
        states: (n,) integers in 0..c−1, on the device of the samples.
        c: modulus, at least 3.
        repeats: (n,) how often each sample counts, at least once.

    Raises:
        InputError: a state outside 0..c−1, or one without samples.

    >>> classes = StateClasses(torch.tensor([0, 1, 2]), 3, torch.tensor([2, 1, 1]))
    >>> means, within = classes.means(torch.tensor([[[1.0], [4.0], [5.0]]]))
    >>> means.flatten().tolist(), classes.counts
    ([1.0, 4.0, 5.0], array([2, 1, 1]))
    """

    states: Tensor
    c: int
    repeats: Tensor

    def __post_init__(self) -> None:
        require_modulus(self.c)
        states = self.states.cpu().numpy()
        if states.size == 0 or states.min() < 0 or states.max() >= self.c:
            raise InputError(f"states must be integers in 0..{self.c - 1}, at least one of each")
        missing = np.flatnonzero(self.counts == 0)
        if missing.size:
            raise InputError(
                f"states {listed(missing)} of {self.c} have no sample, so their class means are unknown; "
                "probe with more sequences"
            )

    @cached_property
    def counts(self) -> np.ndarray:
        """Return the (c,) samples of each state, repeats included."""
        states, repeats = self.states.cpu().numpy(), self.repeats.cpu().numpy()
        return np.bincount(states, weights=repeats, minlength=self.c).astype(np.int64)

    @cached_property
    def _share(self) -> Tensor:
        """(c, n) weight of each sample in the mean of each state; its rows sum to 1."""
        share = torch.zeros(self.c, len(self.states), dtype=torch.float64, device=self.states.device)
        share.scatter_(0, self.states.long()[None], self.repeats.double()[None])
        return share / share.sum(dim=1, keepdim=True)

    @cached_property
    def _unbiased(self) -> Tensor:
        """(c,) n_m/(n_m − 1), NaN where n_m = 1."""
        factor = np.where(self.counts > 1, self.counts / np.maximum(self.counts - 1, 1), np.nan)
        return torch.from_numpy(factor).to(self.states.device)

    def means(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `spectra.class_means` does for each member.

        Args:
            h: (K, n, d) hidden states of the samples, any float dtype.

        Returns:
            Means (K, c, d) and within-state traces (K, c), float64; the trace is NaN where a state has one sample.
        """
        # Shifting by the grand mean first keeps the sums small, so that mean ≫ standard deviation costs no digits.
        centre, residual = _centred(h.detach().double(), self.repeats)
        offsets = self._share @ residual
        residual = residual - offsets[:, self.states]
        scatter = residual.square().sum(dim=2) @ self._share.T
        return offsets + centre, scatter * self._unbiased


def stacked_gradient_grams(a: Tensor, d: Tensor) -> Tensor:
    """Return the inner products of per-sample gradients G_m = Σ_t d_t^m (a_t^m)ᵀ, member by member.

    Args:
        a: (K, M, T, in) input rows.
        d: (K, M, T, out) output gradients.

    Returns:
        (K, M, M) float64, for `spectra.gram_spectrum`; not finite where the factors are not.

    >>> stacked_gradient_grams(torch.ones(1, 2, 1, 3), torch.ones(1, 2, 1, 4)).tolist()
    [[[12.0, 12.0], [12.0, 12.0]]]
    """
    members, samples, positions, inner = a.shape
    out = d.shape[3]
    by_factors = 0.5 * (samples * positions) ** 2 * (out + inner)
    by_rows = samples * (positions + 0.5 * samples) * out * inner
    held = samples * out * inner
    if by_factors < by_rows or held > WORKING_SET:
        # Each member fills the device by itself.
        return torch.stack([stacked_gram((Factors(x, y),)) for x, y in zip(a, d, strict=True)])
    step = max(1, WORKING_SET // held)
    grams = []
    for start in range(0, members, step):
        own = slice(start, start + step)
        flat = (d[own].double().mT @ a[own].double()).flatten(2)  # (k, M, out·in)
        grams.append(flat @ flat.mT)
    return grams[0] if len(grams) == 1 else torch.cat(grams)


def _units(x: Tensor) -> Tensor:
    """Return a power of two near the largest entry of each member (K, 1, 1) of (K, n, d); NaN where all are zero."""
    size = x.abs().amax(dim=(1, 2), keepdim=True)
    return size / (2 * torch.frexp(size).mantissa)


def _centred(rows: Tensor, repeats: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the means (K, 1, d) of (K, n, d) rows and the centred rows; repeats (n,) weigh the rows."""
    weights = None if repeats is None else (repeats.double() / repeats.sum())[None, None]

    def average(x: Tensor) -> Tensor:
        return x.mean(dim=1, keepdim=True) if weights is None else weights.expand(len(x), -1, -1) @ x

    mean = average(rows)
    centred = rows - mean
    # The rounding of a large mean survives one subtraction; a second one removes it.
    residual = average(centred)
    centred -= residual
    return mean + residual, centred
