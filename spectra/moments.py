"""Accumulate second moments in chunks, exactly even where the mean dwarfs the spread.

A Gram matrix accumulated without centring loses every digit once mean²·eps exceeds the variance. Here each
chunk is centred on its own mean, in float64, and two sets of moments are merged by the pairwise formula of
Chan, Golub & LeVeque ("Updating formulae and a pairwise algorithm for computing sample variances", 1979):

    n = n_a + n_b,   δ = m_b − m_a,   m = m_a + δ n_b/n,   M = M_a + M_b + δδᵀ n_a n_b/n.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spectra.arrays import EPS, Numbers, brief, flag, require_squares, to_float64, to_tensor, whole
from spectra.covariance import least_length, precision_of, resolved, rounding_margin, to_rows
from spectra.errors import InputError
from spectra.shown import Shown
from spectra.spectrum import Spectrum


class Moments(Shown):
    """Accumulate count, mean and centred second moment of rows.

    Attributes:
        count: number of rows n.
        mean: (d,) mean of the rows, or None before the first.
        m2: (d, d) M = Σ_i (x_i − mean)(x_i − mean)ᵀ, or None before the first row.
        rounding: (d,) Σ_i (m_i x_ij)², m_i the `covariance.rounding_margin` of the dtype that row i was handed in: what
            rounding can add to each column (`covariance.rounding_floor`), squared; None before the first row.

    The state is float64 on the device of the first chunk; later chunks are moved there.

    >>> moments = Moments().update([[1.0, 0.0], [3.0, 0.0]]).update([[2.0, 3.0]])
    >>> moments.count, moments.mean.tolist()
    (3, [2.0, 1.0])
    """

    def __init__(self) -> None:
        self.count: int = 0
        self.mean: torch.Tensor | None = None
        self.m2: torch.Tensor | None = None
        self.rounding: torch.Tensor | None = None

    def _shown(self) -> Mapping[str, object]:
        return {"rows": self.count, "dimension": self.dim}

    @property
    def dim(self) -> int | None:
        """Return the dimension d, or None before the first row."""
        return None if self.mean is None else int(self.mean.shape[0])

    def update(self, x: Numbers, *, precision: float | None = None) -> Moments:
        """Add the rows of x and return self.

        Args:
            x: (m, d) or (d,) numpy array or torch tensor of any real dtype; more leading axes must be
                flattened by the caller. Never written to.
            precision: as in `covariance_spectrum`.

        Raises:
            InputError: empty, NaN or Inf, complex, or a dimension other than the one seen so far.
        """
        rows = x
        if getattr(x, "ndim", None) == 1:
            rows = (x if isinstance(x, torch.Tensor | np.ndarray) else to_float64(x, name="x"))[None, :]
        data = to_tensor(to_rows(rows, "x"), name="x")
        own = precision_of(x, precision)
        margin = rounding_margin(own)
        if self.mean is not None:
            self._require_dim(int(data.shape[1]))
            data = data.to(self.mean.device)
        mean = data.mean(0)
        centred = data - mean
        residual = centred.mean(0)
        centred -= residual
        centre, m2 = mean + residual, centred.T @ centred
        least = least_length(len(data), own)
        rounding = margin**2 * (m2.diagonal() + len(data) * centre**2 + least**2)
        self._absorb(int(data.shape[0]), centre, m2, rounding)
        return self

    def merge(self, other: Moments) -> Moments:
        """Add another set of moments and return self.

        The other set does not change.
        """
        if not isinstance(other, Moments):
            raise InputError(f"{other!r} are no moments; merge what another Moments() has seen")
        if other.mean is not None and other.m2 is not None and other.rounding is not None:
            if self.mean is not None:
                self._require_dim(int(other.mean.shape[0]))
            self._absorb(other.count, other.mean, other.m2, other.rounding)
        return self

    def __add__(self, other: Moments) -> Moments:
        """Return new moments of both; neither operand changes.

        Commutative, and associative up to rounding.
        """
        if not isinstance(other, Moments):
            return NotImplemented
        return self.copy().merge(other)

    def copy(self) -> Moments:
        """Return an independent copy."""
        return Moments().merge(self)

    def covariance(self, center: bool = True) -> np.ndarray:
        """Return the covariance or the uncentred second moment.

        (d, d) numpy array: M/(n−1), or M/n + m mᵀ.

        Raises:
            InputError: fewer than two rows so far, or entries whose squares exceed float64.
        """
        if self.count < 2 or self.mean is None or self.m2 is None:
            raise InputError(f"the moments hold {self.count} row(s); a covariance needs at least two")
        if not bool(torch.isfinite(self.m2).all()):
            raise InputError(
                "the second moments exceed float64; divide the rows by their largest entry first"
            )
        self._require_squares()
        if center:
            matrix = self.m2 / (self.count - 1)
        else:
            matrix = self.m2 / self.count + torch.outer(self.mean, self.mean)
        array = matrix.cpu().numpy()
        return (array + array.T) / 2

    def spectrum(self, center: bool = True) -> Spectrum:
        """Return the eigenvalues of `covariance`.

        With n, d and centring recorded.

        Returns:
            Spectrum of d eigenvalues. What n samples cannot span, and what rounding of the entries as they were
            handed in explains (`covariance.rounding_floor`), is exactly 0. A stored second moment resolves eigenvalues
            down to d·eps·λ₁; where smaller ones matter keep the rows and use `covariance_spectrum`, which can fall
            back on an SVD.

        Raises:
            InputError: fewer than two rows, or rows without variation.
        """
        matrix = self.covariance(flag(center, "center"))
        assert self.rounding is not None  # covariance refuses moments without rows
        values = np.maximum(np.linalg.eigvalsh(matrix)[::-1], 0.0)
        d, freedom = matrix.shape[0], max(self.count - 1 if center else self.count, 1)
        values[values <= d * EPS * values[0]] = 0.0
        values[freedom:] = 0.0
        divisor = max(self.count - 1, 1) if center else self.count
        lengths = np.sort(self.rounding.sqrt().cpu().numpy())[::-1]
        # Of rows, where these are the longer ones, only the mean length is known.
        floor = lengths if d <= self.count else np.full(d, float(np.sum(lengths**2) / self.count) ** 0.5)
        values[resolved(np.sqrt(values * divisor), floor) :] = 0.0
        return Spectrum(values, "eigenvalue", n=self.count, d=d, centred=center)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the state as tensors.

        ``count`` (int64), ``mean`` and ``rounding`` (d,), ``m2`` (d, d); d = 0 before the first row.
        """
        empty = torch.zeros(0, dtype=torch.float64)
        return {
            "count": torch.tensor(self.count, dtype=torch.int64),
            "mean": empty if self.mean is None else self.mean.clone(),
            "m2": empty.reshape(0, 0) if self.m2 is None else self.m2.clone(),
            "rounding": empty if self.rounding is None else self.rounding.clone(),
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Moments:
        """Rebuild moments from `state_dict`.

        A state without ``rounding`` (of an earlier version) is read as one of float64 rows.

        Raises:
            InputError: a missing entry, or count, mean and m2 of inconsistent shapes.
        """
        if not isinstance(state, Mapping):
            raise InputError(f"the state is {brief(state)}; pass what Moments.state_dict() returned")
        missing = {"count", "mean", "m2"} - set(state)
        if missing:
            raise InputError(f"the state lacks {sorted(missing)}; pass what Moments.state_dict() returned")
        count = whole(state["count"], "the count")
        mean, m2 = (_stored(state[name], name) for name in ("mean", "m2"))
        d = mean.shape[0] if mean.ndim == 1 else -1
        energy = m2.diagonal() + count * mean**2 if m2.shape == (d, d) else mean
        rounding = _stored(state.get("rounding", rounding_margin(EPS) ** 2 * energy), "rounding")
        if m2.shape != (d, d) or rounding.shape != (d,) or count < 0 or (count == 0) != (d == 0):
            raise InputError(
                f"count {count}, mean {tuple(mean.shape)} and m2 {tuple(m2.shape)} do not belong together; "
                "they must be n, (d,) and (d, d)"
            )
        if not all(bool(torch.isfinite(part).all()) for part in (mean, m2, rounding)):
            raise InputError("the state has NaN or Inf entries; it was damaged or overflowed, so rebuild it")
        # Of what was accumulated in another order, the two halves differ by rounding.
        scale = float(m2.diagonal().max()) if count else 0.0
        if count and (
            min(float(m2.diagonal().min()), float(rounding.min())) < 0
            or float((m2 - m2.T).abs().max()) > 1e-9 * scale
        ):
            raise InputError(
                "m2 is no sum of squares (a negative length, or not symmetric); pass what Moments.state_dict() returned"
            )
        moments = cls()
        if count:
            moments.count, moments.mean, moments.m2 = count, mean, m2
            moments.rounding = rounding
        return moments

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file atomically.

        A reader sees the old file or the new one, never a part.
        """
        # Only files need it; a bare machine that measures may not have it.
        from safetensors.torch import save

        target = Path(path)
        payload = save({name: t.cpu().contiguous() for name, t in self.state_dict().items()})
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Moments:
        """Read a file written by `save`, on the host.

        Raises:
            InputError: the file was not written by `save`.
        """
        from safetensors.torch import load

        try:
            state = load(Path(path).read_bytes())
        except FileNotFoundError:
            raise
        except Exception as error:
            raise InputError(
                f"{path} is not a saved Moments file ({error}); write it with Moments.save"
            ) from error
        return cls.from_state_dict(state)

    def all_reduce(self, group: torch.distributed.ProcessGroup | None = None) -> Moments:
        """Merge the moments of all torch.distributed ranks.

        Every rank ends with the same moments; returns self.

        n = Σn_r, m = Σ n_r m_r / n, M = Σ M_r + n_r δ_r δ_rᵀ with
        δ_r = m_r − m, a sum of centred terms, so nothing cancels. A rank without rows takes part too.

        Args:
            group: process group, or None for the default one. Without an initialised process group there is
                one rank and nothing happens.

        Raises:
            InputError: ranks with different dimensions (raised on every rank).
        """
        dist = torch.distributed
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size(group) == 1:
            return self
        # NCCL reduces only device memory; gloo and MPI use the host's.
        on_gpu = "nccl" in str(dist.get_backend(group))
        device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
        d = self.dim or 0
        sizes = torch.tensor([d, -d if d else -(2**62)], dtype=torch.int64, device=device)
        dist.all_reduce(sizes, op=dist.ReduceOp.MAX, group=group)
        largest, smallest = int(sizes[0]), -int(sizes[1])
        if largest == 0:
            return self
        if smallest != largest:
            raise InputError(f"ranks hold moments of dimensions {smallest} to {largest}; they must agree")
        mean = torch.zeros(largest, dtype=torch.float64) if self.mean is None else self.mean
        m2 = torch.zeros(largest, largest, dtype=torch.float64) if self.m2 is None else self.m2
        rounding = torch.zeros(largest, dtype=torch.float64) if self.rounding is None else self.rounding
        home = mean.device
        mean, m2, rounding = mean.to(device), m2.to(device), rounding.to(device, copy=True)
        total = torch.tensor(self.count, dtype=torch.int64, device=device)
        dist.all_reduce(total, group=group)
        count = int(total)
        common = mean * (self.count / count)
        dist.all_reduce(common, group=group)
        delta = mean - common
        summed = m2 + self.count * torch.outer(delta, delta)
        dist.all_reduce(summed, group=group)
        dist.all_reduce(rounding, group=group)
        self.count, self.mean, self.m2 = count, common.to(home), summed.to(home)
        self.rounding = rounding.to(home)
        return self

    def __repr__(self) -> str:
        return f"Moments(count={self.count}, d={self.dim})"

    def _require_squares(self) -> None:
        """Refuse rows so small that their squares are 0, or have lost digits."""
        assert self.mean is not None
        assert self.m2 is not None
        spread = float(self.m2.diagonal().max()) / self.count
        size = max(float(self.mean.abs().max()), spread**0.5)
        if size < 1:
            require_squares(size, "the mean or the spread")

    def _require_dim(self, d: int) -> None:
        if d != self.dim:
            raise InputError(
                f"these rows have {d} columns but the moments so far have {self.dim}; they must agree"
            )

    def _absorb(self, count: int, mean: torch.Tensor, m2: torch.Tensor, rounding: torch.Tensor) -> None:
        if self.mean is None or self.m2 is None or self.rounding is None:
            self.count, self.mean, self.m2, self.rounding = count, mean.clone(), m2.clone(), rounding.clone()
            return
        mean, m2, rounding = (part.to(self.mean.device) for part in (mean, m2, rounding))
        total = self.count + count
        delta = mean - self.mean
        # New tensors instead of in-place sums: references returned earlier must not change.
        self.mean = self.mean + delta * (count / total)
        self.m2 = self.m2 + m2 + torch.outer(delta, delta) * (self.count * (count / total))
        self.rounding = self.rounding + rounding
        self.count = total


def _stored(value: Any, name: str) -> torch.Tensor:
    """Return a copy of a stored array in float64, on its device; NaN and Inf pass."""
    tensor = to_tensor(value, name=name)
    if tensor.is_complex():
        raise InputError(f"{name} has dtype {tensor.dtype}; pass real numbers")
    return tensor.to(torch.float64, copy=True)
