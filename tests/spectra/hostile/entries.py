"""How each public function is called, on which example, and what it must return there by another computation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import spectra
from spectra import UpdateWindow

from .examples import (
    CUBE,
    ENERGIES,
    GRADIENTS,
    INPUTS,
    INPUTS_2,
    MEAN,
    OUTPUTS,
    OUTPUTS_2,
    ROWS,
    STATES,
    VALUES,
    WIDE,
    H,
    W,
    X,
    Y,
    averages,
    covariance,
    debiased,
    descending,
    energies_of,
    entropy_rank,
    fresh,
    hill_by_sum,
    js,
    kept,
    masses,
    shares,
    slope,
    squares,
)

# Results and records that functions return; they are tried through these.
HOLDERS = {
    *("BetaNull", "BiasPrediction", "Capture", "ClassMeans", "ComponentFrequencies", "Defect", "EdgeNull"),
    *("EdgeTest",),
    *(
        "Estimate",
        "InputError",
        "SampledNull",
        "SketchError",
        "SpectralEdge",
        "Verdict",
        "WindowEdges",
        "WindowGram",
    ),
}


@dataclass(frozen=True)
class Entry:
    """One public function.

    Attributes:
        call: the call, with arrays first and then scalars by name.
        arrays: the arrays of the example.
        right: what it must return for arrays like these, computed otherwise; None where it draws at random.
        degree: exponents of a common scale of the arrays in the numbers of the result, None where it has none.
        scalars: scalars of the example by name.
        fixed: the arrays that a scale does not apply to (labels).
        takes: inputs of the corpus that hold no array of this shape, and mean something here all the same.
    """

    call: Callable[..., Any]
    arrays: tuple[np.ndarray, ...] = ()
    right: Callable[..., Any] | None = None
    degree: float | None = None
    scalars: tuple[tuple[str, Any], ...] = ()
    fixed: tuple[int, ...] = ()
    takes: tuple[str, ...] = ()


def pushed(window: Any, rows: Any) -> np.ndarray:
    matrix = (
        isinstance(rows, np.ndarray | torch.Tensor)
        and not getattr(rows, "is_nested", False)
        and rows.ndim == 2
    )
    for row in rows if matrix or isinstance(rows, list | tuple) else [rows, rows]:
        window.push(row)
    return window.gram


def loss(predict: Any, x: torch.Tensor) -> torch.Tensor:
    return predict(x).sum()


def captured_factors(model: Any, names: Any) -> Any:
    with spectra.capture_factors(model, names) as capture:
        losses = model(torch.ones(4, 3)).square().sum(1)
    return float(sum(factors[0].a.sum() for factors in capture.factors(losses).values()))


def captured_moments(model: Any, names: Any) -> Any:
    with spectra.capture_moments(model, names) as moments:
        model(torch.arange(12.0).reshape(4, 3))
    return [own.count for own in moments.values()]


# An update may have any shape, and a window without updates has no Gram matrix.
UPDATES = ("0-d tensor", "4-d", "0 entries", "empty list")

E = Entry
ENTRIES: dict[str, Entry] = {
    "Factors": E(
        lambda a, d: spectra.stacked_gradient_spectrum(spectra.Factors(a, d)), (INPUTS, OUTPUTS), squares, 2
    ),
    "Inputs": E(lambda a: spectra.Inputs(a).rows, (INPUTS,), lambda a: a, 1),
    "MarchenkoPastur": E(
        lambda gamma, variance: spectra.MarchenkoPastur(gamma, variance).edges,
        scalars=(("gamma", 0.25), ("variance", 1.0)),
    ),
    "Moments": E(lambda x: spectra.Moments().update(x).spectrum(), (X,), covariance, 2),
    "OneHot": E(
        lambda index, size: spectra.OneHot(index, size).index,
        (np.array([[0, 1], [2, 0]]),),
        scalars=(("size", 4),),
    ),
    "SketchedWindow": E(
        lambda rows, size, seed, window: pushed(spectra.SketchedWindow(size, seed, window), rows),
        (GRADIENTS,),
        degree=2,
        scalars=(("size", 8), ("seed", 0), ("window", 6)),
        takes=UPDATES,
    ),
    "Spectrum": E(lambda values: spectra.Spectrum(values), (ENERGIES,), descending, 1),
    "UpdateWindow": E(
        lambda rows, window: pushed(UpdateWindow(window), rows),
        (GRADIENTS,),
        lambda rows: rows @ rows.T,
        2,
        scalars=(("window", 6),),
        takes=UPDATES,
    ),
    "alpha_req": E(
        lambda v, lo, hi: spectra.alpha_req(v, lo, hi),
        (ENERGIES,),
        lambda v: slope(v, 1, 7, 1 / np.arange(1, 8)),
        0,
        scalars=(("lo", 1), ("hi", 7)),
    ),
    "band_energies": E(spectra.band_energies, (H,), energies_of, 2),
    "band_masses": E(spectra.band_masses, (H,), masses, 0),
    "bbp_overlap": E(spectra.bbp_overlap, scalars=(("spike", 3.0), ("gamma", 0.5))),
    "bbp_position": E(spectra.bbp_position, scalars=(("spike", 3.0), ("gamma", 0.5))),
    "bbp_threshold": E(spectra.bbp_threshold, scalars=(("gamma", 0.5),)),
    "bootstrap": E(
        lambda x, **scalars: spectra.bootstrap(x, np.mean, fresh(), **scalars),
        (VALUES,),
        np.mean,
        1,
        scalars=(("resamples", 100), ("level", 0.9), ("method", "bca")),
    ),
    "capture_factors": E(captured_factors, scalars=(("model", torch.nn.Sequential(MEAN)), ("names", ["0"]))),
    "capture_moments": E(captured_moments, scalars=(("model", torch.nn.Sequential(MEAN)), ("names", ["0"]))),
    "class_means": E(
        lambda h, states, c: spectra.class_means(h, states, c).means,
        (ROWS, STATES),
        averages,
        1,
        scalars=(("c", 3),),
        fixed=(1,),
    ),
    "clauset": E(spectra.clauset, (VALUES,), None, 0, scalars=(("xmin", None), ("cutoff", False))),
    "closed_set": E(spectra.closed_set, scalars=(("frequencies", [1, 3]), ("c", 7))),
    "component_frequencies": E(
        lambda h, k: spectra.component_frequencies(h, k).share, (H,), None, 0, scalars=(("k", 2),)
    ),
    "control_subspace": E(
        lambda h, generator: np.linalg.norm(spectra.control_subspace(h, [1, 6], generator), axis=0),
        (WIDE,),
        lambda h: np.ones(2),
        0,
        scalars=(("generator", fresh()),),
    ),
    "convert_exponent": E(
        spectra.convert_exponent, scalars=(("value", 1.5), ("source", "rank"), ("target", "density"))
    ),
    "covariance_spectrum": E(
        lambda x, precision: spectra.covariance_spectrum(x, precision=precision),
        (X,),
        covariance,
        2,
        scalars=(("precision", None),),
    ),
    "debiased_participation_ratio": E(
        spectra.debiased_participation_ratio, (X,), None, 0, scalars=(("assume", "nothing"),)
    ),
    "dominant_frequency": E(spectra.dominant_frequency, (H,), lambda h: 1 + np.argmax(masses(h)[1:4]), 0),
    "drop_frequencies": E(
        lambda h, frequencies: spectra.drop_frequencies(h, frequencies),
        (H,),
        lambda h: kept(h, False),
        1,
        scalars=(("frequencies", [1, 6]),),
    ),
    "effective_dimension": E(
        spectra.effective_dimension, (ENERGIES,), lambda v: 1 / (shares(v) ** 2).sum(), 0
    ),
    "farms": E(
        lambda w, aspect, size, k, **more: spectra.farms(w, aspect, size, k, **more),
        (W,),
        None,
        0,
        scalars=(
            *(("aspect", 1.0), ("size", 6), ("k", 5), ("precision", None)),
            *(("sampling", "tiles"), ("ops", 3), ("tests", True)),
        ),
    ),
    "frequency_subspace": E(
        lambda h: np.linalg.norm(spectra.frequency_subspace(h, [1, 6]), axis=0), (H,), lambda h: np.ones(2), 0
    ),
    "gini": E(spectra.gini, (ENERGIES,), lambda v: np.abs(v[:, None] - v).mean() / (2 * v.mean()), 0),
    "gradient_inner_products": E(
        lambda a, d, b, e: spectra.gradient_inner_products(spectra.Factors(a, d), spectra.Factors(b, e)),
        (INPUTS, OUTPUTS, INPUTS_2, OUTPUTS_2),
        lambda a, d, b, e: np.einsum("mto,mti,nso,nsi->mn", d, a, e, b),
        4,
    ),
    "gradient_mean_position": E(
        spectra.gradient_mean_position, scalars=(("strength", 2.0), ("samples", 4), ("dimension", 9))
    ),
    "gram_spectrum": E(
        lambda gram, size, precision: spectra.gram_spectrum(gram, size, precision=precision),
        (GRADIENTS @ GRADIENTS.T,),
        lambda gram: np.sqrt(descending(np.linalg.eigvalsh(gram))),
        0.5,
        scalars=(("size", 12), ("precision", None)),
    ),
    "h_peak": E(spectra.h_peak, (H,), lambda h: masses(h)[1:4].max(), 0),
    "h_peak_null": E(lambda c, d: spectra.h_peak_null(c, d).mean, scalars=(("c", 7), ("d", 4.0))),
    "h_s": E(
        lambda h, frequencies: spectra.h_s(h, frequencies),
        (H,),
        lambda h: masses(h)[[1, 6]].sum(),
        0,
        scalars=(("frequencies", [1, 6]),),
    ),
    "h_s_debiased": E(
        lambda h, states: spectra.h_s_debiased(spectra.class_means(h, states, 3), [1, 2]),
        (ROWS, STATES),
        debiased,
        0,
        fixed=(1,),
    ),
    "h_s_null": E(
        lambda c, d, frequencies: spectra.h_s_null(c, d, frequencies).mean,
        scalars=(("c", 7), ("d", 4.0), ("frequencies", [1, 6])),
    ),
    "h_top_k_null": E(
        lambda c, d, k: spectra.h_top_k_null(c, d, k).mean, scalars=(("c", 7), ("d", 4.0), ("k", 2))
    ),
    "hill": E(
        spectra.hill, (VALUES,), hill_by_sum, 0, scalars=(("k", None), ("tests", True), ("precision", None))
    ),
    "hill_null": E(spectra.hill_null, scalars=(("n", 9), ("d", 12), ("k", None))),
    "hill_z": E(
        lambda w, k: spectra.hill_z(spectra.weight_spectrum(w), k), (W,), None, 0, scalars=(("k", None),)
    ),
    "jackknife": E(
        lambda x, **scalars: spectra.jackknife(x, np.mean, **scalars),
        (VALUES,),
        np.mean,
        1,
        scalars=(("blocks", None), ("level", 0.9), ("groups", None)),
    ),
    "js_divergence": E(spectra.js_divergence, (ENERGIES, ENERGIES[::-1] ** 2), js, 0),
    "js_excess": E(
        lambda x, y, **scalars: spectra.js_excess(x, y, fresh(), **scalars),
        (X, Y),
        None,
        0,
        scalars=(("splits", 3), ("precision", None)),
    ),
    "js_floor": E(
        lambda x, rng, **scalars: spectra.js_floor(x, fresh() if rng is None else rng, **scalars),
        (X,),
        None,
        0,
        scalars=(("rng", None), ("splits", 3), ("precision", None)),
    ),
    "keep_frequencies": E(lambda h: spectra.keep_frequencies(h, [1, 6]), (H,), lambda h: kept(h, True), 1),
    "noise_exponent": E(spectra.noise_exponent, scalars=(("n", 20), ("d", 6), ("lo", 1), ("hi", 6))),
    "noise_quantiles": E(spectra.noise_quantiles, scalars=(("n", 20), ("d", 6), ("q", 0.5), ("ranks", None))),
    "nonlinear_shrinkage": E(
        lambda x: spectra.nonlinear_shrinkage(spectra.covariance_spectrum(x)), (X,), None, 2
    ),
    "participation_ratio": E(
        spectra.participation_ratio, (ENERGIES,), lambda v: 1 / (shares(v) ** 2).sum(), 0
    ),
    "participation_ratio_interval": E(
        lambda x, **scalars: spectra.participation_ratio_interval(x, fresh(), **scalars),
        (X,),
        None,
        0,
        scalars=(("draws", 20), ("level", 0.9), ("precision", None)),
    ),
    "peak_band": E(spectra.peak_band, (H,), None, 0),
    "per_sample_gradients": E(
        lambda model, parameter: spectra.per_sample_gradients(model, parameter, loss, torch.ones(4, 3)),
        scalars=(("model", MEAN), ("parameter", "weight")),
    ),
    "predict_bias": E(
        lambda rng, **s: spectra.predict_bias(**s, rng=fresh() if rng is None else rng),
        scalars=(("n", 20), ("d", 6), ("alpha", 1.0), ("lo", 1), ("hi", 5), ("rng", None), ("repeats", 5)),
    ),
    "product_spectra": E(
        lambda a, b: np.concatenate([s.values for s in spectra.product_spectra(a, b)]),
        (np.stack([W.T, W.T]), np.stack([W, 3 * W])),
        lambda a, b: np.linalg.svd(a @ b, compute_uv=False)[:, : a.shape[2]].ravel(),
        2,
    ),
    "product_spectrum": E(
        spectra.product_spectrum,
        (W.T, W),
        lambda a, b: np.linalg.svd(a @ b, compute_uv=False)[: a.shape[1]],
        2,
    ),
    "rank": E(spectra.rank, (ENERGIES,), np.count_nonzero, 0, scalars=(("rtol", 0.0),)),
    "rankme": E(
        spectra.rankme,
        (ENERGIES,),
        entropy_rank,
        0,
        scalars=(("on", "energy"),),
    ),
    "rankme_interval": E(
        lambda x, **scalars: spectra.rankme_interval(x, fresh(), **scalars),
        (X,),
        None,
        0,
        scalars=(("draws", 20), ("groups", None), ("precision", None)),
    ),
    "reliability": E(
        lambda **s: spectra.reliability(**s),
        scalars=(("n", 200), ("d", 20), ("alpha", 1.0), ("lo", 3), ("hi", 10)),
    ),
    "sample_gradient_spectra": E(
        spectra.sample_gradient_spectra, (CUBE,), lambda g: np.linalg.svd(g, compute_uv=False), 1
    ),
    "stable_rank": E(spectra.stable_rank, (ENERGIES,), lambda v: 1 / shares(v)[0], 0),
    "stacked_gradient_spectrum": E(
        spectra.stacked_gradient_spectrum,
        (GRADIENTS,),
        lambda g: np.linalg.svd(g, compute_uv=False),
        1,
        takes=("4-d",),
    ),
    "task_band": E(spectra.task_band, scalars=(("c", 23),)),
    "task_kernel": E(spectra.task_kernel, scalars=(("c", 23),)),
    "top_k_band": E(spectra.top_k_band, (H,), None, 0, scalars=(("k", 2),)),
    "top_share": E(spectra.top_share, (ENERGIES,), lambda v: shares(v)[:2].sum(), 0, scalars=(("k", 2),)),
    "tracy_widom_cdf": E(spectra.tracy_widom_cdf, scalars=(("s", 0.5),)),
    "tracy_widom_quantile": E(spectra.tracy_widom_quantile, scalars=(("q", 0.5),)),
    "tracy_widom_sf": E(spectra.tracy_widom_sf, scalars=(("s", 0.5),)),
    "tracy_widom_test": E(
        lambda x, variance: spectra.tracy_widom_test(spectra.covariance_spectrum(x), variance).statistic,
        (X,),
        None,
        0,
        scalars=(("variance", None),),
    ),
    "weight_spectra": E(
        lambda w, precision: np.concatenate(
            [s.values for s in spectra.weight_spectra(w, precision=precision)]
        ),
        (np.stack([W, 2 * W]),),
        lambda w: np.linalg.svd(w, compute_uv=False).ravel(),
        1,
        scalars=(("precision", None),),
    ),
    "weight_spectrum": E(spectra.weight_spectrum, (W,), lambda w: np.linalg.svd(w, compute_uv=False), 1),
    "window_exponent": E(
        spectra.window_exponent,
        (ENERGIES,),
        lambda v: slope(v, 2, 6),
        0,
        scalars=(("lo", 2), ("hi", 6), ("method", "ols"), ("on", "energy")),
    ),
    "window_exponent_bootstrap": E(
        lambda x, lo, hi: spectra.window_exponent_bootstrap(x, lo, hi, fresh(), resamples=100),
        (X,),
        lambda x: slope(covariance(x), 1, 4),
        0,
        scalars=(("lo", 1), ("hi", 4)),
    ),
    "window_exponent_interval": E(
        lambda x, lo, hi, precision: spectra.window_exponent_interval(
            x, lo, hi, fresh(), draws=20, precision=precision
        ),
        (X,),
        None,
        0,
        scalars=(("lo", 1), ("hi", 4), ("precision", None)),
    ),
}
