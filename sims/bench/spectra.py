"""Benchmark cases of the estimators."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sims.bench.benchmark import Trial, case
from spectra.covariance import covariance_spectrum
from spectra.gradients import Factors, capture_factors, sample_gradient_spectra, stacked_gradient_spectrum
from spectra.updates import UpdateWindow, spectral_edge


@case("covariance spectrum / float64 svdvals", goal=1.8, max_error=1e-6)
def covariance(quick: bool) -> Trial:
    """Compare eigenvalues of a 512×128 sample with a power-law covariance (α = 1)."""
    n, d = (128, 32) if quick else (512, 128)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator) * torch.arange(1, d + 1) ** -0.5

    def by_svd() -> np.ndarray:
        rows = x.double()
        return (torch.linalg.svdvals(rows - rows.mean(0)) ** 2 / (n - 1)).numpy()

    return Trial(f"n={n} d={d}", by_svd, lambda: covariance_spectrum(x).values)


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width, bias=False), nn.Linear(2 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = F.rms_norm(x, x.shape[-1:])
        q, k, v = (layer(h).unflatten(-1, (4, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.down(F.relu(self.up(F.rms_norm(x, x.shape[-1:]))).square())


class _Transformer(nn.Module):
    """Two layers of the toy's shape, written with modules of torch, on which the slow loop would be run."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList([_Block(width) for _ in range(2)])
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(F.rms_norm(x, x.shape[-1:]))


def _stacked_gradients(samples: int, positions: int, width: int, vocabulary: int) -> Trial:
    """Compare spectra of four matrices of the last block, from a model and a batch to singular values."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _Transformer(vocabulary, width)
        tokens = torch.randint(0, vocabulary, (samples, positions + 1))
    x, y = tokens[:, :-1], tokens[:, 1:]
    names = [f"blocks.1.{name}" for name in ("out", "down", "q", "v")]
    weights = [model.get_parameter(f"{name}.weight") for name in names]

    def by_loop() -> np.ndarray:
        rows: list[list[Tensor]] = [[] for _ in names]
        for m in range(samples):
            model.zero_grad()
            F.cross_entropy(model(x[m : m + 1]).flatten(0, 1), y[m]).backward()
            for row, weight in zip(rows, weights, strict=True):
                assert weight.grad is not None
                row.append(weight.grad.flatten().clone())
        return np.stack([torch.linalg.svdvals(torch.stack(row).double()).numpy() for row in rows])

    def by_factors() -> np.ndarray:
        with capture_factors(model, names) as capture:
            token_losses = F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="none")
            losses = token_losses.view(samples, positions).mean(1)
        factors = capture.factors(losses)
        return np.stack([stacked_gradient_spectrum(factors[name]).values for name in names])

    return Trial(f"M={samples} T={positions} d={width} V={vocabulary}, 4 matrices", by_loop, by_factors)


@case("M×P gradient spectrum / per-sample loop, small", goal=4.5, max_error=1e-6)
def stacked_gradients_small(quick: bool) -> Trial:
    """Compare at a size where the loop is bound by the number of operations."""
    return _stacked_gradients(*((8, 8, 16, 32) if quick else (64, 32, 64, 64)))


@case("M×P gradient spectrum / per-sample loop, toy", goal=4.5, max_error=1e-6)
def stacked_gradients_toy(quick: bool) -> Trial:
    """Compare at the size of the toy, where arithmetic bounds both routes."""
    return _stacked_gradients(*((8, 8, 16, 64) if quick else (64, 64, 128, 1024)))


@case("each-sample gradient spectra / loop over samples", goal=2.2, max_error=1e-5)
def own_gradients(quick: bool) -> Trial:
    """Compare singular values of every sample's gradient, from its factors in float32."""
    samples, positions, width = (8, 8, 16) if quick else (64, 64, 128)
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(samples, positions, width, generator=generator)
    d = torch.randn(samples, positions, width, generator=generator) * torch.arange(1, width + 1) ** -0.5

    def by_loop() -> np.ndarray:
        return np.stack([torch.linalg.svdvals((d[m].T @ a[m]).double()).numpy() for m in range(samples)])

    setting = f"M={samples} T={positions} d={width}"
    return Trial(setting, by_loop, lambda: sample_gradient_spectra(Factors(a, d)))


@case("update window, one step / svdvals", goal=15.0, max_error=1e-5)
def update_window(quick: bool) -> Trial:
    """Compare one training step: push the newest update, then the singular values of the window."""
    size = 10_000 if quick else 1_000_000
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(10, size, generator=generator)
    window = UpdateWindow(10)
    for row in rows:
        window.push(row)
    newest = {"slot": 0}

    def by_window() -> np.ndarray:
        # The same ten updates in turn, so that the window always has the rows that the slow route decomposes.
        window.push(rows[newest["slot"]])
        newest["slot"] = (newest["slot"] + 1) % 10
        return spectral_edge(window, draws=1).spectrum.values

    return Trial(f"W=10 P={size}", lambda: torch.linalg.svdvals(rows.double()).numpy(), by_window)
