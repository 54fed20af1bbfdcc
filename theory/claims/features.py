"""Claim T13: free features under a head, what gradient flow keeps of them, and how their modes grow."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from theory.claim import Assumption, Claim, Domain, Effort, Mutant
from theory.claims.draws import SEEDS, generator, reals, record
from theory.derivations import features as derivations
from theory.formulas import features
from theory.simulate.features import (
    FeatureState,
    FeatureTask,
    balanced_start,
    descend,
    feature_flow,
    iid_start,
)
from theory.simulate.flows import runge_kutta
from theory.values import Array, Case, Measurement, Sampling, Tolerance

_SOURCE = "Theorems 1 and 2 on free features of arXiv 2509.23024"


def _task(case: Case) -> FeatureTask:
    """Rows of drawn frequencies; their laws lie between uniform and certain."""
    rng = generator(case)
    weights = rng.dirichlet(np.ones(case["rows"])) + 0.05
    return FeatureTask(weights / weights.sum(), rng.dirichlet(np.full(case["vocab"], 0.5), case["rows"]))


def _start_seed(case: Case) -> int:
    """Return the seed of the start; that of the case has drawn the task, and numpy takes [seed, 0] for seed."""
    return int(generator(case, 2).integers(2**32))


def _start(case: Case) -> FeatureState:
    return iid_start(_task(case), case["width"], case["std"], (_start_seed(case),))


def _flat_balance(state: FeatureState) -> Array:
    return features.balance(state.features[0], state.head[0]).ravel()


_SIZES: dict[str, st.SearchStrategy[Any]] = {
    "rows": st.integers(2, 7),
    "vocab": st.integers(2, 6),
    "width": st.integers(1, 4),
    "seed": SEEDS,
}

# --- T13 ----------------------------------------------------------------------------------------------------

_SUBSTEPS = {"cross-entropy": 200, "squared": 800}


def _after_flow(head_speed: float = 1.0, decay: float = 0.0):
    def measured(case: Case, _: Sampling) -> Measurement:
        end = feature_flow(
            _task(case),
            _start(case),
            case["time"],
            substeps=_SUBSTEPS[case["loss"]],
            loss=case["loss"],
            head_speed=head_speed,
            decay=decay,
        )
        return Measurement.exact(_flat_balance(end))

    return measured


BALANCE = Claim(
    id="T13",
    title="Features and head stay as balanced as they start",
    statement="Free features θ (n, d) under a head W (d, V), with any loss of the logits θW: gradient flow keeps every "
    "entry of θᵀθ − WWᵀ.",
    meaning="Representations and the head that reads them grow together: along each direction the difference of "
    "their sizes is the same at the end of training as at its start.",
    latex=r"$\frac{d}{dt}\left(\theta^\top\theta-WW^\top\right)=0$",
    source=_SOURCE,
    quantity="entries of θᵀθ − WWᵀ after a time of gradient flow",
    domain=Domain(
        record(
            **_SIZES,
            std=reals(0.3, 1.0),
            time=reals(0.5, 4.0),
            loss=st.sampled_from(["cross-entropy", "squared"]),
        )
    ),
    predicted=lambda case: _flat_balance(_start(case)),
    measured=_after_flow(),
    tolerance=Tolerance(
        "fourth-order integration in 200 steps, 800 for squared errors, whose rates grow with the states",
        absolute=1e-6,
        relative=1e-6,
    ),
    mutants=(
        Mutant("a head that learns twice as fast", measured=_after_flow(head_speed=2.0)),
        Mutant("with weight decay", measured=_after_flow(decay=0.1)),
        Mutant("always balanced", predicted=lambda case: 0 * _flat_balance(_start(case))),
    ),
    derivation=derivations.conserved_balance,
    quick=Effort(15),
    full=Effort(200),
    remark="Weight decay λ of both shrinks the difference by exp(−2λt); optimisers other than gradient descent have "
    "no such law.",
)

# --- T13.drift ----------------------------------------------------------------------------------------------


def _drift(case: Case, back: bool = True) -> Array:
    """Integrate the drift along the flow, for a rate of 1."""
    task, start = _task(case), _start(case)
    shapes, d = (start.features.shape[1:], start.head.shape[1:]), case["width"]
    cuts = np.cumsum([np.prod(shape) for shape in shapes])

    def field(x: Array) -> Array:
        theta, head, _ = np.split(x, cuts)
        theta, head = theta.reshape(shapes[0]), head.reshape(shapes[1])
        gradient = features.logit_gradient(task.weights, task.targets, theta, head)
        drift = features.balance_drift(gradient, theta, head)
        if not back:
            drift -= head @ gradient.T @ gradient @ head.T
        return np.concatenate([-(gradient @ head.T).ravel(), -(theta.T @ gradient).ravel(), drift.ravel()])

    packed = np.concatenate([start.features.ravel(), start.head.ravel(), np.zeros(d * d)])
    return runge_kutta(field, packed, [case["time"]], 100)[0, -d * d :]


def _descent_drift(case: Case, _: Sampling) -> Measurement:
    """Extrapolate the drift over the rate to a rate of 0 from three rates."""
    task, start = _task(case), _start(case)
    found = []
    for steps in (100, 200, 400):
        rate = case["time"] / steps
        end = descend(task, start, rate, (steps,)).final
        found.append((_flat_balance(end) - _flat_balance(start)) / rate)
    coarse, middle, fine = found
    return Measurement.exact((8 * fine - 6 * middle + coarse) / 3)


DRIFT = Claim(
    id="T13.drift",
    title="Gradient descent loses the balance in proportion to its rate",
    statement="Gradient descent of rate η changes θᵀθ − WWᵀ up to a time t by "
    "η∫(W GᵀG Wᵀ − θᵀG Gᵀθ)dt + O(η²), G the gradient in the logits.",
    meaning="With finite learning rates the balance of representations and head drifts, and a tenth of the rate "
    "drifts a tenth as far over the same amount of training.",
    latex=r"$\Delta\left(\theta^\top\theta-WW^\top\right)=\eta\int_0^t\left(WG^\top GW^\top-"
    r"\theta^\top GG^\top\theta\right)dt+O(\eta^2)$",
    source="second order of one step of gradient descent",
    quantity="drift of the entries of θᵀθ − WWᵀ over η, at η → 0",
    domain=Domain(record(**_SIZES, std=reals(0.3, 1.2), time=reals(1.0, 4.0))),
    predicted=_drift,
    measured=_descent_drift,
    tolerance=Tolerance(
        "extrapolation from three rates, the largest a hundredth of the time", absolute=1e-5, relative=1e-3
    ),
    mutants=(
        Mutant("without the part of the features", predicted=lambda case: _drift(case, back=False)),
        Mutant("of the same size at every rate", predicted=lambda case: _drift(case) / (case["time"] / 400)),
    ),
    derivation=derivations.conserved_balance,
    quick=Effort(10),
    full=Effort(100),
)

# --- T13.modes ----------------------------------------------------------------------------------------------


def _sigma(case: Case) -> Array:
    """Singular values from 0.5 upwards, each at least 0.15 above the next."""
    gaps = generator(case, 1).uniform(0.15, 0.6, case["width"])
    return 0.35 + np.cumsum(gaps)[::-1]


def _modes_start(case: Case, balanced: bool = True) -> FeatureState:
    start = balanced_start(_task(case), _sigma(case), _start_seed(case))
    if balanced:
        return start
    return FeatureState(start.features, 1.3 * start.head, start.bias)


def _mode_speeds(balanced: bool = True, probabilities: bool = True):
    """Make the prediction g_i σ_i for features and head at the time of the case."""

    def predicted(case: Case) -> Array:
        task = _task(case)
        state = feature_flow(task, _modes_start(case, balanced), case["time"])
        theta, head, d = state.features[0], state.head[0], case["width"]
        gradient = features.logit_gradient(task.weights, task.targets, theta, head)
        if not probabilities:
            gradient = task.weights[:, None] * (theta @ head - task.targets)
        # The logits have the singular vectors that both share, in the same order.
        left, _, right = np.linalg.svd(theta @ head)
        growth = features.mode_growth(gradient, left[:, :d], right[:d].T)
        sizes = [np.linalg.svd(x, compute_uv=False)[:d] for x in (theta, head)]
        return np.concatenate([growth * s for s in sizes])

    return predicted


def _singular_speeds(balanced: bool = True):
    def measured(case: Case, _: Sampling) -> Measurement:
        task, h = _task(case), 1e-3
        state = feature_flow(task, _modes_start(case, balanced), case["time"])

        def at(k: int) -> NDArray[np.floating]:
            near = feature_flow(task, state, k * h, substeps=4)
            return np.array(
                [np.linalg.svd(x[0], compute_uv=False)[: case["width"]] for x in (near.features, near.head)]
            )

        return Measurement.exact((8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * h))

    return measured


def _apart(case: Case) -> bool:
    state = feature_flow(_task(case), _modes_start(case), case["time"])
    s = np.linalg.svd(state.features[0], compute_uv=False)
    return bool((np.append(s[:-1] - s[1:], s[-1]) > 0.05).all())


MODES = Claim(
    id="T13.modes",
    title="Modes of balanced features grow at rates of their own",
    statement="From θᵀθ = WWᵀ, features and head share singular values and vectors, θ = UΣRᵀ and W = RΣQᵀ, and "
    "dσ_i/dt = g_i σ_i with g_i = −u_iᵀ G q_i.",
    meaning="Each direction of the representation grows in proportion to its own size, at a rate that says how much "
    "of the remaining error lies on it: large directions with much error pull ahead.",
    latex=r"$\dot\sigma_i=g_i\sigma_i,\qquad g_i=-u_i^\top G\,q_i$",
    source=_SOURCE,
    quantity="dσ_i/dt of the features, then of the head",
    domain=Domain(
        record(**_SIZES, time=reals(0.0, 2.0)),
        (
            Assumption(
                "width is at most rows and tokens", lambda x: x["width"] <= min(x["rows"], x["vocab"])
            ),
            Assumption("singular values are 0.05 apart", _apart),
        ),
    ),
    predicted=_mode_speeds(),
    measured=_singular_speeds(),
    tolerance=Tolerance(
        "fourth-order differences over steps of 1e-3 of flows in 200 steps", absolute=1e-6, relative=1e-6
    ),
    mutants=(
        Mutant(
            "from an unbalanced start",
            predicted=_mode_speeds(balanced=False),
            measured=_singular_speeds(False),
        ),
        Mutant("gradient without softmax", predicted=_mode_speeds(probabilities=False)),
    ),
    derivation=derivations.balanced_modes,
    quick=Effort(15),
    full=Effort(100),
)

CLAIMS = (BALANCE, DRIFT, MODES)
