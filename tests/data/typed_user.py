"""A user's file under pyright's strict mode: what the public packages take and return has types."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes

import spectra
import toymodel
from spectra import (
    Estimate,
    Factors,
    Moments,
    Spectrum,
    alpha_req,
    bootstrap,
    capture_factors,
    covariance_spectrum,
    h_s,
    hill,
    js_divergence,
    noise_quantiles,
    rankme,
    spectral_edge,
    stacked_gradient_spectrum,
    weight_spectrum,
    window_exponent,
    window_exponent_interval,
)
from spectra.testing import Report, check_estimator
from theory import CLAIMS, select, verify


def measured(layer: torch.nn.Linear, data: torch.Tensor) -> dict[str, float]:
    rows = np.random.default_rng(0).standard_normal((64, 16))
    own: Spectrum = covariance_spectrum(rows)
    same: list[Spectrum] = [
        covariance_spectrum(data),
        covariance_spectrum([[1.0, 2.0], [3.0, 5.0]]),
        covariance_spectrum([data[0], data[1]]),
        weight_spectrum(layer.weight),
        Spectrum([3.0, 2.0, 1.0], n=9, d=3),
        Spectrum(torch.ones(3), "singular"),
        Moments().update(rows).update(data).spectrum(),
    ]
    first: float = own.values[0].item()
    fit: Estimate = window_exponent(own, 2, 8)
    interval = window_exponent_interval(rows, 2, 8, np.random.default_rng(0), groups=np.arange(64))
    low, high = noise_quantiles(64, 16, centred=True)
    others = [alpha_req([3.0, 2.0, 1.0]), hill(own), bootstrapped(rows)]
    return {
        "first": first,
        "exponent": fit.value,
        "width": interval.high - interval.low,
        "rankme": rankme(own) + rankme(np.ones(3)) + rankme([1.0, 2.0]),
        "apart": js_divergence(own, own) + sum(len(spectrum) for spectrum in same),
        "noise": float(high[0] - low[0]),
        "concentration": h_s(rows[:11], [1, 10]),
        "edge": spectral_edge([rows[0], rows[1]], draws=10).gap,
        "others": sum(float(other) for other in others),
    }


def bootstrapped(rows: np.ndarray) -> Estimate:
    return bootstrap(rows, lambda x: rankme(covariance_spectrum(x)), np.random.default_rng(0), resamples=100)


def gradients(model: torch.nn.Module, data: torch.Tensor) -> dict[str, Spectrum]:
    with capture_factors(model, ["0"]) as capture:
        losses: torch.Tensor = model(data).square().sum(1)
    found: dict[str, tuple[Factors, ...]] = capture.factors(losses)
    return {name: stacked_gradient_spectrum(terms) for name, terms in found.items()}


def shown(spectrum: Spectrum, estimate: Estimate) -> tuple[str, pd.DataFrame]:
    ax: Axes = spectrum.plot(window=(2, 8), scale="share", label="activations")
    spectrum.plot(ax, window=[(2, 8), (4, 10)], null=False)
    estimate.plot(label="α", null=spectra.BetaNull(2.0, 6.0))
    estimate.plot(label="α", null=(0.1, 0.2))
    return f"{estimate:.2f}", spectrum.to_frame()


def tested() -> Report:
    return check_estimator(rankme, kind="effective rank", max_examples=3, quiet=True)


def trained() -> list[float]:
    config = toymodel.RunConfig(steps=2, seed=0)
    snapshots = toymodel.train(toymodel.Ensemble([config]))
    return [float(loss) for snapshot in snapshots for loss in snapshot.val_losses]


def verified() -> list[bool]:
    names: list[str] = [claim.id for claim in CLAIMS]
    return [verify(claim).status == "true" for claim in select(*names[:1])]


versions: list[str] = [spectra.__version__, toymodel.__version__]
