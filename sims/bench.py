"""Fast routes against the slow ones they replace: ratios of one run, with the error between the results.

A case is a function registered with `case`; it builds its data and returns a `Trial` of two callables.
Times are process times of one thread, interleaved (slow, fast, slow, fast, …) so that a busy machine
troubles both alike, and their medians are compared. A ratio is not a unit test: it is printed beside its
goal.

To add a case, write one function here, or import `case` and register it elsewhere before `run_benchmarks`
is called.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spectra.covariance import covariance_spectrum
from spectra.gradients import Factors, capture_factors, sample_gradient_spectra, stacked_gradient_spectrum
from spectra.updates import UpdateWindow, spectral_edge


@dataclass(frozen=True)
class Trial:
    """What a case compares.

    Attributes:
        setting: the sizes, in words.
        slow, fast: two routes to the same result; arrays, or whatever `error` compares.
        error: their distance; by default max |slow − fast| / max |slow|.
        cost: what one call of a route costs; None for its process time.
        unit: of the cost.
    """

    setting: str
    slow: Callable[[], Any]
    fast: Callable[[], Any]
    error: Callable[[Any, Any], float] | None = None
    cost: Callable[[Callable[[], Any]], float] | None = None
    unit: str = "s"


@dataclass(frozen=True)
class Case:
    """A registered comparison: name, goals, and the function that builds its trial (smaller when quick)."""

    name: str
    goal: float
    max_error: float
    build: Callable[[bool], Trial]


@dataclass(frozen=True)
class Row:
    """One line of the report.

    Attributes:
        name, setting: what was compared, and at which size.
        slow, fast: median costs: process times of one thread, unless the unit says otherwise.
        unit: of the costs.
        ratio: slow over fast.
        goal: the ratio hoped for, None at quick sizes, to which the goals do not apply.
        error: distance between the two results.
        max_error: the distance allowed.
    """

    name: str
    setting: str
    slow: float
    fast: float
    unit: str
    ratio: float
    goal: float | None
    error: float
    max_error: float

    @property
    def reached(self) -> bool:
        """Whether ratio (where it has a goal) and error both meet their goals."""
        return (self.goal is None or self.ratio >= self.goal) and self.error <= self.max_error

    def __str__(self) -> str:
        verdict = "reached" if self.reached else "MISSED"
        goal = "no goal" if self.goal is None else f"goal {self.goal:g}x"
        return (
            f"{self.name:<48} {self.setting:<42} {self.slow:10.4f} {self.unit:<3} {self.fast:10.4f} {self.unit:<3} "
            f"{self.ratio:7.1f}x ({goal})  error {self.error:.1e} (goal "
            f"{self.max_error:.0e})  {verdict}"
        )


CASES: list[Case] = []


def case(
    name: str, *, goal: float, max_error: float
) -> Callable[[Callable[[bool], Trial]], Callable[[bool], Trial]]:
    """Register a function ``build(quick) -> Trial`` under a name with its goals."""

    def register(build: Callable[[bool], Trial]) -> Callable[[bool], Trial]:
        CASES.append(Case(name, goal, max_error, build))
        return build

    return register


def run_benchmarks(quick: bool, *, report: Callable[[str], None] = print) -> list[Row]:
    """Run every registered case and report its row as it comes.

    Args:
        quick: small sizes and three repetitions (seconds in all), whose ratios are not those of the goals;
            otherwise the sizes of the goals and nine repetitions.
        report: where the lines go.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = []
        for entry in CASES:
            row = measure(entry, quick)
            report(str(row))
            rows.append(row)
        return rows
    finally:
        torch.set_num_threads(threads)


def measure(entry: Case, quick: bool) -> Row:
    """Interleaved medians of one case, after one untimed round that also gives the error."""
    trial = entry.build(quick)
    compare = trial.error or largest_difference
    error = compare(trial.slow(), trial.fast())
    cost = trial.cost or _timed
    slow_costs, fast_costs = [], []
    for _ in range(3 if quick else 9):
        slow_costs.append(cost(trial.slow))
        fast_costs.append(cost(trial.fast))
    slow, fast = statistics.median(slow_costs), statistics.median(fast_costs)
    # The clock has steps of a microsecond or more; a quick case may fall below one.
    ratio = slow / max(fast, 1e-6)
    goal = None if quick else entry.goal
    return Row(entry.name, trial.setting, slow, fast, trial.unit, ratio, goal, error, entry.max_error)


def largest_difference(slow: Any, fast: Any) -> float:
    """max |slow − fast| / max |slow| of two arrays of one shape."""
    slow, fast = np.asarray(slow, dtype=np.float64), np.asarray(fast, dtype=np.float64)
    return float(np.abs(slow - fast).max() / np.abs(slow).max())


def _timed(function: Callable[[], Any]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


@case("covariance spectrum / float64 svdvals", goal=1.8, max_error=1e-6)
def covariance(quick: bool) -> Trial:
    """Eigenvalues of a 512×128 sample with a power-law covariance (α = 1)."""
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
    """Two layers of the toy's shape, written with torch's own modules, which is what the slow loop would be run on."""

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
    """Spectra of the four measured matrices of the last block, from a model and a batch to singular values."""
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
    """The calibration setting, where the loop is bound by its dispatches."""
    return _stacked_gradients(*((8, 8, 16, 32) if quick else (64, 32, 64, 64)))


@case("M×P gradient spectrum / per-sample loop, toy", goal=4.5, max_error=1e-6)
def stacked_gradients_toy(quick: bool) -> Trial:
    """The toy's own setting, where forward and backward arithmetic bound both routes."""
    return _stacked_gradients(*((8, 8, 16, 64) if quick else (64, 64, 128, 1024)))


@case("each-sample gradient spectra / loop over samples", goal=2.2, max_error=1e-5)
def own_gradients(quick: bool) -> Trial:
    """Singular values of every sample's own gradient, from its factors in float32."""
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
    """One step of training: the newest update in, the singular values of the window out."""
    size = 10_000 if quick else 1_000_000
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(10, size, generator=generator)
    window = UpdateWindow(10)
    for row in rows:
        window.push(row)
    newest = {"slot": 0}

    def by_window() -> np.ndarray:
        # The same ten updates in turn, so that the window always holds what the slow route decomposes.
        window.push(rows[newest["slot"]])
        newest["slot"] = (newest["slot"] + 1) % 10
        return spectral_edge(window, draws=1).spectrum.values

    return Trial(f"W=10 P={size}", lambda: torch.linalg.svdvals(rows.double()).numpy(), by_window)
