"""Train free features under a head by full-batch gradient descent, many starts at once.

The model of a bottleneck: every row (a context, say) has a free feature vector θ_i (d,), the logits are θ_i W + b, and
the loss is a mean over rows. Arrays of several starts have the starts first: features (S, n, d), head (S, d, V),
bias (S, V).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from theory.formulas.entropy import effective_rank
from theory.simulate.flows import runge_kutta
from theory.values import Array

Loss = Literal["cross-entropy", "squared"]

RANKS = ("weighted", "weighted, uncentred", "unweighted", "unweighted, uncentred")


@dataclass(frozen=True, eq=False)
class FeatureTask:
    """Hold the rows of a task: how often each occurs, and the law of its token.

    Attributes:
        weights: (n,) positive frequencies with sum 1.
        targets: (n, V) laws of the token (one-hot labels, or laws with an entropy floor).

    >>> FeatureTask.counted((2, 1)).targets
    array([[1., 0.],
           [1., 0.],
           [0., 1.]])
    """

    weights: Array
    targets: Array

    def __post_init__(self) -> None:
        fits = self.weights.ndim == 1 and self.targets.ndim == 2 and len(self.weights) == len(self.targets)
        if not fits or not (self.weights > 0).all() or not np.isclose(self.weights.sum(), 1):
            raise ValueError("weights (n,) must be positive with sum 1, one for each row of targets (n, V)")
        if (self.targets < 0).any() or not np.allclose(self.targets.sum(1), 1):
            raise ValueError("each row of targets must be a law: chances ≥ 0 with sum 1")

    @classmethod
    def counted(cls, counts: Sequence[int]) -> FeatureTask:
        """Make equally frequent rows, ``counts[c]`` of them with the label c.

        Raises:
            ValueError: a count below 1.
        """
        if not counts or min(counts) < 1:
            raise ValueError(f"counts {tuple(counts)}; pass at least one row for every class")
        labels = np.repeat(np.arange(len(counts)), counts)
        return cls(np.full(len(labels), 1 / len(labels)), np.eye(len(counts))[labels])

    @classmethod
    def zipf(cls, vocabulary: int, exponent: float = 1.0) -> FeatureTask:
        """Make one row for each token, row i with frequency ∝ i^−exponent (0: uniform).

        >>> FeatureTask.zipf(2).weights.round(4)
        array([0.6667, 0.3333])
        """
        weights = np.arange(1, vocabulary + 1, dtype=float) ** -exponent
        return cls(weights / weights.sum(), np.eye(vocabulary))

    def with_floor(self, share: float, law: ArrayLike | None = None) -> FeatureTask:
        """Mix a law into every target, so that the loss has a floor: (1 − share) Y + share·law.

        Args:
            share: 0 ≤ share ≤ 1.
            law: (V,), or (n, V); by default the unigram law of the task.

        Raises:
            ValueError: a share outside [0, 1], or a law that is none.

        >>> FeatureTask.zipf(2).with_floor(0.3).targets.round(2)
        array([[0.9, 0.1],
               [0.2, 0.8]])
        """
        if not 0 <= share <= 1:
            raise ValueError(f"the share of the floor is {share}; pass a number from 0 to 1")
        mixed = self.unigram if law is None else np.asarray(law, float)
        return FeatureTask(self.weights, (1 - share) * self.targets + share * mixed)

    @property
    def unigram(self) -> Array:
        """Return the (V,) mean law of a token."""
        return self.weights @ self.targets


@dataclass(frozen=True, eq=False)
class FeatureState:
    """Hold features (S, n, d), head (S, d, V) and bias (S, V) of several starts.

    >>> FeatureState(np.ones((1, 3, 2)), np.zeros((1, 2, 4)), np.zeros((1, 4))).head.shape
    (1, 2, 4)
    """

    features: Array
    head: Array
    bias: Array


def iid_start(task: FeatureTask, width: int, std: float, seeds: Sequence[int]) -> FeatureState:
    """Draw features and head with independent N(0, std²) entries, one start for each seed; the bias is 0.

    >>> iid_start(FeatureTask.zipf(4), width=2, std=0.1, seeds=(0, 1)).features.shape
    (2, 4, 2)
    """
    rows, vocabulary = task.targets.shape
    if width < 1 or not std > 0:
        raise ValueError(f"width {width} and std {std}; pass a width of at least 1 and a positive std")
    draws = [std * np.random.default_rng(s).standard_normal((rows + vocabulary, width)) for s in seeds]
    both = np.array(draws).reshape(-1, rows + vocabulary, width)
    head = np.ascontiguousarray(both[:, rows:].transpose(0, 2, 1))
    return FeatureState(both[:, :rows].copy(), head, np.zeros((len(both), vocabulary)))


def constructed_start(task: FeatureTask, jitter: float, seeds: Sequence[int]) -> FeatureState:
    """Place the rows of the two first classes in clusters and all others together at 0, at width 2; the head is 0.

    The clusters are at (1, 0) and (0, 1). Independent N(0, jitter²) is added to features and head.

    >>> constructed_start(FeatureTask.counted((1, 1, 1)), 0.0, seeds=(0,)).features[0]
    array([[1., 0.],
           [0., 1.],
           [0., 0.]])
    """
    if jitter < 0 or task.targets.shape[1] < 2:
        raise ValueError(f"jitter {jitter}; pass a jitter ≥ 0 and a task with two classes or more")
    noise = iid_start(task, 2, 1.0, seeds)
    labels = task.targets.argmax(1)
    place = np.stack([labels == 0, labels == 1], axis=1).astype(float)
    return FeatureState(place + jitter * noise.features, jitter * noise.head, noise.bias)


def balanced_start(task: FeatureTask, sigma: ArrayLike, seed: int) -> FeatureState:
    """Draw one start with θᵀθ = WWᵀ and the given singular values (d,), d ≤ n and V.

    >>> start = balanced_start(FeatureTask.zipf(4), [2.0, 1.0], seed=0)
    >>> np.linalg.svd(start.head[0], compute_uv=False).round(6)
    array([2., 1.])
    """
    values, (rows, vocabulary) = np.asarray(sigma, float), task.targets.shape
    d, rng = len(values), np.random.default_rng(seed)
    if d > min(rows, vocabulary):
        raise ValueError(
            f"{d} singular values; pass at most {min(rows, vocabulary)}, one for each row and token"
        )
    left, right, turn = (np.linalg.qr(rng.standard_normal((k, d)))[0] for k in (rows, vocabulary, d))
    features, head = (left * values) @ turn.T, turn @ (right * values).T
    return FeatureState(features[None], head[None], np.zeros((1, vocabulary)))


def _gradient(task: FeatureTask, state: FeatureState, loss: Loss) -> tuple[Array, Array]:
    """Return the gradient in the logits (S, n, V), and the losses (S,) without those of the targets themselves."""
    z = state.features @ state.head + state.bias[:, None, :]
    if loss == "squared":
        error = z - task.targets
        return task.weights[:, None] * error, 0.5 * np.einsum("n,snv->s", task.weights, error**2)
    z -= z.max(-1, keepdims=True)
    p = np.exp(z)
    total = p.sum(-1, keepdims=True)
    p /= total
    value = np.einsum("n,sn->s", task.weights, np.log(total[..., 0]) - (task.targets * z).sum(-1))
    return task.weights[:, None] * (p - task.targets), value


def _directions(state: FeatureState, gradient: Array) -> tuple[Array, Array, Array]:
    """Return the negative gradients of features, head and bias."""
    back = gradient @ state.head.swapaxes(1, 2)
    return -back, -(state.features.swapaxes(1, 2) @ gradient), -gradient.sum(1)


def feature_flow(
    task: FeatureTask,
    start: FeatureState,
    time: float,
    substeps: int = 200,
    loss: Loss = "cross-entropy",
    head_speed: float = 1.0,
    decay: float = 0.0,
) -> FeatureState:
    """Integrate gradient flow without a bias for some time, by fourth-order Runge–Kutta.

    Args:
        task: the rows and their laws.
        start: the state at time 0.
        time: may be negative.
        substeps: steps of the integration.
        loss: mean cross-entropy, or half the mean squared error of the logits.
        head_speed: factor of the head's rate; 1 is gradient flow.
        decay: weight decay of both matrices; 0 is gradient flow of the loss alone.

    >>> task = FeatureTask.zipf(4)
    >>> start = iid_start(task, 2, 0.1, seeds=(0,))
    >>> kept = feature_flow(task, start, time=1.0)
    >>> from theory.formulas.features import balance
    >>> before, after = (balance(s.features[0], s.head[0]) for s in (start, kept))
    >>> bool(np.allclose(before, after, atol=1e-12))
    True
    """
    cut = start.features.size

    def unpack(x: Array) -> FeatureState:
        return FeatureState(
            x[:cut].reshape(start.features.shape), x[cut:].reshape(start.head.shape), start.bias
        )

    def field(x: Array) -> Array:
        state = unpack(x)
        features, head, _ = _directions(state, _gradient(task, state, loss)[0])
        moves = (features - decay * state.features, head_speed * (head - decay * state.head))
        return np.sign(time) * np.concatenate([move.ravel() for move in moves])

    packed = np.concatenate([start.features.ravel(), start.head.ravel()])
    return unpack(runge_kutta(field, packed, [abs(time)], substeps)[0])


@dataclass(frozen=True, eq=False)
class FeatureRun:
    """Hold what `descend` saw of S starts at T looks.

    Attributes:
        looks: (T,) steps.
        ranks: RankMe on energies (T, S) by the names of `RANKS`: of the features weighted by the frequencies of their
            rows or each row once, with their mean removed or not.
        spectra: (T, S, d) eigenvalues of the weighted centred covariance, descending.
        loss: (T, S) mean loss.
        final: state after the last step.

    >>> task = FeatureTask.zipf(8)
    >>> run = descend(task, iid_start(task, 2, 0.1, seeds=(0,)), rate=1.0, looks=(0, 10, 100))
    >>> run.looks, run.spectra.shape
    ((0, 10, 100), (3, 1, 2))
    """

    looks: tuple[int, ...]
    ranks: Mapping[str, Array]
    spectra: Array
    loss: Array
    final: FeatureState


def log_looks(steps: int, count: int) -> tuple[int, ...]:
    """Return up to ``count`` steps from 0 to ``steps``, evenly spaced in their logarithm.

    Raises:
        ValueError: fewer than one step or three looks.

    >>> log_looks(100, 4)
    (0, 1, 10, 100)
    """
    if steps < 1 or count < 3:
        raise ValueError(f"{count} looks at {steps} steps; pass at least 1 step and 3 looks")
    return tuple(sorted({0} | {round(x) for x in np.geomspace(1, steps, count - 1)}))


def feature_spectra(features: Array, weights: Array, centred: bool) -> Array:
    """Return the eigenvalues (S, d) of the weighted covariance of features (S, n, d), descending.

    They are 0 where only rounding is left.

    >>> feature_spectra(np.array([[[1.0], [-1.0]]]), np.array([0.5, 0.5]), centred=True)
    array([[1.]])
    """
    x = features - (weights @ features)[:, None, :] if centred else features
    values = np.linalg.svd(np.sqrt(weights)[:, None] * x, compute_uv=False) ** 2
    # Equal features have no variance; what subtraction of their mean leaves is rounding.
    values[values.sum(-1) <= 1e-26 * np.einsum("n,snd->s", weights, features**2)] = 0.0
    found = np.zeros((len(values), features.shape[2]))
    found[:, : values.shape[1]] = values
    return found


@np.errstate(over="ignore", invalid="ignore")
def descend(
    task: FeatureTask,
    start: FeatureState,
    rate: float,
    looks: Sequence[int],
    bias: bool = False,
    loss: Loss = "cross-entropy",
) -> FeatureRun:
    """Run full-batch gradient descent on all starts together, up to the last look.

    Args:
        task: the rows and their laws.
        start: the states before step 1.
        rate: learning rate, the same for features, head and bias.
        looks: steps after which RankMe is taken, ascending; 0 is the start.
        bias: whether the logits have a bias that is learned.
        loss: mean cross-entropy, or half the mean squared error of the logits.

    Raises:
        ValueError: looks that do not ascend from 0 or later, or a rate at which the loss is not finite any more.

    >>> task = FeatureTask.zipf(8)
    >>> run = descend(task, iid_start(task, 2, 0.1, seeds=(0, 1)), rate=1.0, looks=(0, 10))
    >>> run.ranks["weighted"].shape, bool((run.loss[1] < run.loss[0]).all())
    ((2, 2), True)
    """
    if not looks or looks[0] < 0 or any(b <= a for a, b in pairwise(looks)):
        raise ValueError(f"looks {tuple(looks)}; pass ascending steps, the first at least 0")
    state = FeatureState(start.features.copy(), start.head.copy(), start.bias.copy())
    uniform, wanted = np.full_like(task.weights, 1 / len(task.weights)), set(looks)
    ranks: dict[str, list[Array]] = {name: [] for name in RANKS}
    spectra, losses = [], []
    for step in range(looks[-1] + 1):
        gradient, value = _gradient(task, state, loss)
        if step in wanted:
            if not np.isfinite(value).all():
                raise ValueError(f"the loss is not finite after {step} steps of rate {rate}; lower the rate")
            kinds = [(weights, centred) for weights in (task.weights, uniform) for centred in (True, False)]
            found = [feature_spectra(state.features, *kind) for kind in kinds]
            for name, values in zip(RANKS, found, strict=True):
                ranks[name].append(effective_rank(values))
            spectra.append(found[0])
            losses.append(value)
        if step < looks[-1]:
            features, head, offset = _directions(state, gradient)
            state.features[:] += rate * features
            state.head[:] += rate * head
            state.bias[:] += rate * bias * offset
    paths = {name: np.array(path) for name, path in ranks.items()}
    return FeatureRun(tuple(looks), paths, np.array(spectra), np.array(losses), state)


@dataclass(frozen=True, eq=False)
class Decline:
    """Hold how far RankMe falls after its minimum, as shares of the value that it falls from.

    Attributes:
        largest: (S,) largest fall between two looks after the minimum, made up for later or not.
        last: (S,) fall from the largest value after the minimum to the last look.

    >>> Decline(largest=np.array([0.2]), last=np.array([0.1])).last
    array([0.1])
    """

    largest: Array
    last: Array


def decline(path: Array) -> Decline:
    """Measure the fall of RankMe (T, S) after its minimum: the third phase of a path that falls, rises and falls.

    Raises:
        ValueError: a value that is not positive and finite.

    >>> found = decline(np.array([[4.0], [2.0], [5.0], [4.0], [4.5]]))
    >>> found.largest.round(3), found.last.round(3)
    (array([0.2]), array([0.1]))
    """
    if path.ndim != 2 or not (np.isfinite(path) & (path > 0)).all():
        raise ValueError(
            f"a RankMe is not finite or not positive, or the path of shape {path.shape} is none of (T, S); pass one "
            "without gaps"
        )
    after = np.arange(len(path))[:, None] >= path.argmin(0)
    peak = np.maximum.accumulate(np.where(after, path, 0.0))
    # Before the minimum there is no peak yet, and no fall.
    falls = np.where(after, 1 - path / np.where(peak > 0, peak, np.inf), 0.0)
    return Decline(falls.max(0), falls[-1])
