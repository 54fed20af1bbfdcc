"""Claims T17 to T22: language models as compositions of Markov kernels (arXiv 2507.19247), made measurable.

Two statements of the source are false as printed. Theorem 7.1 has the constant ½ for the Hellinger distance, which is
that of 1 − Σ√(pq), not of its own d_H² = 2(1 − Σ√(pq)) (T21). Theorem 7.6 calls maximising the mean of ⟨h, ḡ⟩ and
maximising J equivalent: J does not change when the states are rotated, and the mean does (T22).
"""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax

from theory.claim import Assumption, Claim, Domain, Effort, Mutant
from theory.claims.draws import SEEDS, generator, reals, record
from theory.compare import at_most
from theory.derivations import markov as derivations
from theory.formulas import markov
from theory.values import Array, Case, Measurement, Sampling, Tolerance

_SOURCE = "language modelling as a composition of Markov kernels (arXiv 2507.19247)"


def _law(rng: np.random.Generator, size: int) -> Array:
    """A law whose entropy lies anywhere between 0 and ln V."""
    return rng.dirichlet(np.full(size, 10.0 ** rng.uniform(-1.0, 1.0))) + 0.0


# --- T17 ----------------------------------------------------------------------------------------------------


def _support_law(case: Case) -> Array:
    p = _law(generator(case), case["vocab"])
    p[: case["impossible"]] = 0.0
    return p / p.sum()


def _divergences(case: Case, _: Sampling) -> Measurement:
    p, a = _support_law(case), case["order"]
    joint, product = np.diag(p).ravel(), np.outer(p, p).ravel()
    here = joint > 0
    x, y = joint[here], product[here]
    variation = np.abs(joint - product).sum() / 2
    renyi = np.log((x**a * y ** (1 - a)).sum()) / (a - 1)
    return Measurement.exact([rel_entr(joint, product).sum(), variation, (x**2 / y).sum() - 1, renyi])


def _copies(case: Case, order: float | None = None) -> Array:
    return markov.copy_entropies(_support_law(case), case["order"] if order is None else order)


def _chi_as_shannon(case: Case) -> Array:
    shannon, variation, _, renyi = _copies(case)
    return np.array([shannon, variation, shannon, renyi])


COPIES = Claim(
    id="T17",
    title="Entropies of a law, from a token and its copy",
    statement="The divergence of (w, w) from two independent tokens is an entropy of p: Shannon's for KL, 1 − Σp² for "
    "total variation, the support's size − 1 for χ², and Rényi's of order 2 − a for Rényi's divergence of order a.",
    meaning="How uncertain a prediction is can be measured in several ways that share one construction, and "
    "not every one of them measures uncertainty.",
    latex=r"$D_a\left(\sum_w p_w\delta_{(w,w)}\|p\otimes p\right)=H_{2-a}(p)$",
    source=_SOURCE + ", Definition 2.5; the closed forms beyond KL are derived here",
    quantity="the four divergences (KL and Rényi's in nats)",
    domain=Domain(
        record(
            vocab=st.integers(2, 12),
            impossible=st.integers(0, 3),
            order=st.sampled_from([0.25, 0.5, 1.5, 2.0, 3.0]),
            seed=SEEDS,
        ),
        (Assumption("two tokens are possible", lambda x: x["vocab"] - x["impossible"] >= 2),),
    ),
    predicted=_copies,
    measured=_divergences,
    tolerance=Tolerance("float64 sums of powers of chances down to 1e-12", absolute=1e-10, relative=1e-8),
    mutants=(
        Mutant("Rényi's entropy of the same order", predicted=lambda x: _copies(x, 2 - x["order"])),
        Mutant("χ² is Shannon's entropy too", predicted=_chi_as_shannon),
    ),
    derivation=derivations.copy_entropies,
    quick=Effort(40),
    full=Effort(400),
    remark="χ² counts the possible tokens, however rare: it says nothing about how uncertain a law is.",
)

# --- T18 ----------------------------------------------------------------------------------------------------


def _pair(case: Case) -> tuple[Array, Array]:
    """Two laws: drawn, or a certain token against one that leaves T to all others alike."""
    rng, size = generator(case), case["vocab"]
    if not case["extreme"]:
        p = _law(rng, size)
        share = case["share"]
        return p, (1 - share) * p + share * _law(rng, size)
    t = case["share"] * (1 - 1 / size)
    p, q = np.zeros(size), np.full(size, t / (size - 1))
    p[0], q[0] = 1.0, 1 - t
    return p, q


def _gap(case: Case, _: Sampling) -> Measurement:
    p, q = _pair(case)
    return Measurement.exact([abs(markov.shannon_entropy(p) - markov.shannon_entropy(q))] * 2)


def _bound(case: Case, linear: float = 1.0, coin: float = 1.0, top: float | None = None) -> Array:
    p, q = _pair(case)
    size, pinsker = case["vocab"], math.sqrt(max(rel_entr(p, q).sum(), 0.0) / 2)
    t = np.array([markov.total_variation(p, q), min(pinsker, 1 - 1 / size if top is None else top)])
    alone = markov.entropy_gap_bound(t, 2)
    return linear * (markov.entropy_gap_bound(t, size) - alone) + coin * alone


GAP = Claim(
    id="T18",
    title="How far the entropy of a model is from the true one",
    statement="|H(q) − H(p)| ≤ f(T) ≤ f(min(√(KL/2), 1 − 1/V)), f(T) = T ln(V − 1) + h₂(T), T the total variation of "
    "the model's law q and the true law p: the excess loss KL bounds the gap of entropies.",
    meaning="A model that is close to the true predictions is also about as uncertain as they are, and the "
    "loss above the floor says how far apart the two can be at most.",
    latex=r"$|H(q)-H(p)|\leq f(T)\leq f\left(\min\left(\sqrt{\mathrm{KL}/2},\,1-1/V\right)\right),\qquad "
    r"f(T)=T\ln(V-1)+h_2(T)$",
    source="Fannes–Audenaert inequality for commuting laws, and Pinsker's; gives the rate that Theorem 5.2 of arXiv "
    "2507.19247 lacks",
    quantity="difference of entropies, nats, against both bounds",
    domain=Domain(
        record(
            vocab=st.integers(2, 40),
            extreme=st.booleans(),
            # A share of 1 of a certain token's law attains both bounds, at T = 1 − 1/V.
            share=st.just(1.0) | reals(0.01, 1.0),
            seed=SEEDS,
        )
    ),
    predicted=_bound,
    measured=_gap,
    compare=at_most(attained=lambda case: (case["extreme"], case["extreme"] and case["share"] == 1)),
    tolerance=Tolerance("float64 entropies", absolute=1e-9),
    mutants=(
        Mutant("without the coin h₂(T)", predicted=lambda x: _bound(x, coin=0.0)),
        Mutant("without T ln(V − 1)", predicted=lambda x: _bound(x, linear=0.0)),
        Mutant("√(KL/2) beyond 1 − 1/V, where f falls", predicted=lambda x: _bound(x, top=1.0)),
    ),
    quick=Effort(60),
    full=Effort(1_000),
    remark="f is concave and rises up to 1 − 1/V: the mean gap over contexts is at most f of the mean T, and at most "
    "the second bound of the mean excess loss.",
)

# --- T19, T20 -----------------------------------------------------------------------------------------------


def _head(case: Case) -> Array:
    return generator(case).normal(size=(case["vocab"], case["width"]))


def _states(case: Case) -> tuple[Array, Array]:
    first, second = generator(case, 1).normal(size=(2, case["width"]))
    return first, second


def _direction(case: Case) -> Array:
    second = _states(case)[1]
    return second / np.linalg.norm(second)


def _quadratic(case: Case, factor: float = 0.5) -> Array:
    v = _direction(case)
    return np.array([factor * v @ markov.fisher_metric(_head(case), _states(case)[0]) @ v])


def _uncentred(case: Case) -> Array:
    g, v = _head(case), _direction(case)
    return np.array([0.5 * softmax(g @ _states(case)[0]) @ (g @ v) ** 2])


def _local_divergence(case: Case, _: Sampling) -> Measurement:
    g, h, v, epsilon = _head(case), _states(case)[0], _direction(case), 1e-3
    q = softmax(g @ h)
    # The mean over both directions has no term in ε³.
    both = [rel_entr(softmax(g @ (h + s * epsilon * v)), q).sum() for s in (1, -1)]
    return Measurement.exact([np.mean(both) / epsilon**2])


LOCAL = Claim(
    id="T19",
    title="The Fisher metric of the head",
    statement="Moving the state by εv changes the law by KL(q_{h+εv} ‖ q_h) = ½ε² vᵀg v + O(ε³), "
    "g = Gᵀ(diag q − qqᵀ)G: directions in the null space of E g are free.",
    meaning="The head decides which small changes of a state change the prediction, and directions that it "
    "does not read can hold anything at no cost in loss.",
    latex=r"$\mathrm{KL}(q_{h+\varepsilon v}\|q_h)=\frac{\varepsilon^2}{2}v^\top G^\top(\mathrm{diag}\,q-qq^\top)Gv$",
    source=_SOURCE + ", Theorem 6.1",
    quantity="KL/ε² at ε = ±0.001, nats",
    domain=Domain(record(vocab=st.integers(2, 30), width=st.integers(1, 8), seed=SEEDS)),
    predicted=_quadratic,
    measured=_local_divergence,
    tolerance=Tolerance("the term in ε⁴, and rounding of KL near 1e-7", absolute=1e-7, relative=2e-4),
    mutants=(
        Mutant("the ½ is dropped", predicted=lambda x: _quadratic(x, 1.0)),
        Mutant("diag q in place of diag q − qqᵀ", predicted=_uncentred),
    ),
    derivation=derivations.local_divergence,
    quick=Effort(40),
    full=Effort(400),
)


def _distance(case: Case, _: Sampling) -> Measurement:
    g, ends = _head(case), _states(case)
    return Measurement.exact([markov.fisher_rao_distance(*(softmax(g @ h) for h in ends))])


def _length(case: Case) -> Array:
    return np.array([markov.path_length(_head(case), *_states(case))])


def _chord(case: Case) -> Array:
    g, (start, end) = _head(case), _states(case)
    change = end - start
    return np.array([math.sqrt(change @ markov.fisher_metric(g, start) @ change)])


PATH = Claim(
    id="T20",
    title="Laws of close states are close",
    statement="The Fisher–Rao distance of two next-token laws is at most the Fisher length of the straight path "
    "between their states; with two tokens they are equal. The converse is false: one law can have distant states.",
    meaning="States that lie close together as the head sees them give similar predictions; similar "
    "predictions do not force their states together.",
    latex=r"$2\arccos\sum\sqrt{q_x q_{x'}}\leq\int_0^1\sqrt{\Delta^\top g(h_s)\,\Delta}\,ds$",
    source=_SOURCE + ", Corollary 7.2",
    quantity="Fisher–Rao distance, radians",
    domain=Domain(record(vocab=st.integers(2, 12), width=st.integers(1, 6), seed=SEEDS)),
    predicted=_length,
    measured=_distance,
    compare=at_most(attained=lambda case: case["vocab"] == 2),
    tolerance=Tolerance("quadrature with 200 nodes", absolute=1e-8),
    mutants=(
        Mutant("the metric of one end for the whole path", predicted=_chord),
        Mutant("half the length", predicted=lambda x: _length(x) / 2),
    ),
    derivation=derivations.two_tokens,
    quick=Effort(60),
    full=Effort(600),
)

# --- T21 ----------------------------------------------------------------------------------------------------


def _compared(case: Case) -> tuple[Array, Array]:
    """Two laws: drawn, a certain token against a nearly certain one, or two nearly fair coins."""
    rng, size, small = generator(case), case["vocab"], case["small"]
    if case["pair"] == "drawn":
        return _law(rng, size), rng.dirichlet(np.ones(size))
    if case["pair"] == "certain":
        return np.array([1.0, 0.0]), np.array([1 - small, small])
    return np.array([0.5 + small, 0.5 - small]), np.array([0.5, 0.5])


def _distances(case: Case, _: Sampling) -> Measurement:
    p, q = _compared(case)
    hellinger = ((np.sqrt(p) - np.sqrt(q)) ** 2).sum()
    return Measurement.exact([hellinger, markov.total_variation(p, q) ** 2])


def _kl_bounds(case: Case, hellinger: float = 1.0, variation: float = 0.5) -> Array:
    divergence = rel_entr(*_compared(case)).sum()
    return np.array([hellinger * divergence, variation * divergence])


HELLINGER = Claim(
    id="T21",
    title="What the excess loss bounds",
    statement="d_H² = 2(1 − Σ√(pq)) ≤ C·KL(p‖q) holds with C = 1 and no smaller one, and T² ≤ ½KL. The constant "
    "½ that is printed for d_H² belongs to 1 − Σ√(pq).",
    meaning="A small loss above the floor keeps predictions close to the true ones in other distances too, "
    "with twice the constant that the paper prints for one of them.",
    latex=r"$2\left(1-\sum\sqrt{pq}\right)\leq\mathrm{KL}(p\|q),\qquad T^2\leq\frac{1}{2}\mathrm{KL}(p\|q)$",
    source=_SOURCE
    + ", Theorem 7.1, which prints C = ½ for its d_H² and is false there; ln x ≤ x − 1, and Pinsker",
    quantity="squared Hellinger distance and squared total variation",
    domain=Domain(
        record(
            pair=st.sampled_from(["drawn", "certain", "coins"]),
            vocab=st.integers(2, 20),
            small=reals(0.0005, 0.002),
            seed=SEEDS,
        )
    ),
    predicted=_kl_bounds,
    measured=_distances,
    compare=at_most(attained=lambda case: (case["pair"] == "certain", case["pair"] == "coins")),
    tolerance=Tolerance("the limits are reached to a share of 0.002 at these distances", relative=2e-3),
    mutants=(
        Mutant("C = ½, as printed", predicted=lambda x: _kl_bounds(x, hellinger=0.5)),
        Mutant("¼ for the total variation", predicted=lambda x: _kl_bounds(x, variation=0.25)),
    ),
    quick=Effort(60),
    full=Effort(1_000),
    remark="Counterexample to C = ½: p = (1, 0), q = (0.99, 0.01) has d_H² = 0.01003 and KL = 0.01005, a ratio of "
    "0.9975. Near p = q the ratio is ¼ of χ² over ½ of it: ½ is right there only.",
)

# --- T22 ----------------------------------------------------------------------------------------------------


def _whitened(case: Case) -> Array:
    """States (N, d) with mean 0 and covariance 1."""
    h = generator(case).normal(size=(case["contexts"], case["width"]))
    u = np.linalg.svd(h - h.mean(axis=0), full_matrices=False)[0]
    return u * math.sqrt(len(h))


def _targets(case: Case) -> Array:
    """ḡ (N, d): mean rows of a head with unit rows under the true laws."""
    rng = generator(case, 1)
    head = rng.normal(size=(2 * case["width"], case["width"]))
    head /= np.linalg.norm(head, axis=1, keepdims=True)
    return rng.dirichlet(np.full(len(head), 0.3), size=case["contexts"]) @ head


def _polar(case: Case) -> Array:
    """The rotation or reflection of the states whose mean of ⟨h, ḡ⟩ is highest."""
    u, _, v = np.linalg.svd(_whitened(case).T @ _targets(case))
    return u @ v


def _pairs(h: Array, g: Array) -> float:
    """J: the mean of ⟨h, h'⟩⟨ḡ, ḡ'⟩ over all pairs of contexts."""
    return float(((h @ h.T) * (g @ g.T)).mean())


def _alignment(h: Array, g: Array) -> float:
    return float((h * g).sum(axis=1).mean())


def _rotated(case: Case, _: Sampling) -> Measurement:
    h, g, turn = _whitened(case), _targets(case), _polar(case)
    return Measurement.exact(
        [
            *(_pairs(x, g) for x in (h, h @ turn, -h @ turn)),
            *(_alignment(x, g) for x in (h @ turn, -h @ turn)),
        ]
    )


def _explained(case: Case, share: bool = False) -> Array:
    h, g = _whitened(case), _targets(case)
    j = markov.explained_variance(h, g) / (g.var(axis=0).sum() if share else 1.0)
    nuclear = np.linalg.norm(h.T @ g / len(h), "nuc")
    return np.array([j, j, j, nuclear, -nuclear])


def _equivalent(case: Case) -> Array:
    """What an equivalence of the two objectives would give: equal J, equal alignment."""
    j, *_, nuclear, _ = _explained(case)
    return np.array([j, j, j, nuclear, nuclear])


def _aligned_in_place_of_pairs(case: Case, _: Sampling) -> Measurement:
    h, g, turn = _whitened(case), _targets(case), _polar(case)
    each = [_alignment(x, g) for x in (h, h @ turn, -h @ turn)]
    return Measurement.exact([*each, *each[1:]])


ROTATION = Claim(
    id="T22",
    title="What the spectral objective sees of the states",
    statement="For whitened states J = E⟨h,h'⟩⟨ḡ,ḡ'⟩ is the variance of ḡ that h explains linearly, tr Σ·R², and "
    "rotations and reflections of h leave it unchanged, while E⟨h,ḡ⟩ runs from the nuclear norm of E hḡᵀ, its "
    "maximum, to minus that. "
    "So maximising J is not equivalent to maximising E⟨h,ḡ⟩.",
    meaning="The spectral objective in the paper cannot tell a good state from the same state turned round, "
    "while the loss can, so lowering the loss and raising that objective are different things.",
    latex=r"$J=\|\mathbf{E}\,h\bar g^\top\|_F^2=\mathrm{tr}\,\Sigma_{\bar g}\,R^2(\bar g|h)$",
    source=_SOURCE
    + ", Theorem 7.6, whose equivalence is false as printed; least squares, von Neumann's trace inequality",
    quantity="J of h, of its best rotation R and of −R; mean of ⟨h, ḡ⟩ under R and −R",
    domain=Domain(
        record(contexts=st.integers(20, 60), width=st.integers(2, 6), seed=SEEDS),
    ),
    predicted=_explained,
    measured=_rotated,
    tolerance=Tolerance("float64 products of matrices up to 60×60", absolute=1e-10),
    mutants=(
        Mutant("E⟨h,ḡ⟩ in place of J", measured=_aligned_in_place_of_pairs),
        Mutant("R² in place of tr Σ·R²", predicted=lambda x: _explained(x, share=True)),
        Mutant("the two objectives are equivalent", predicted=_equivalent),
    ),
    quick=Effort(30),
    full=Effort(300),
    remark="Counterexample to the equivalence: h R and −h R have one J, and means of ⟨h, ḡ⟩ of opposite sign. True is "
    "one direction: states whose E⟨h,ḡ⟩ is the highest of all have the highest J. With as many dimensions as "
    "the kernel has ranks, whitening makes every eigenspace equal, and “leading eigenspaces” says nothing.",
)

CLAIMS = (COPIES, GAP, LOCAL, PATH, HELLINGER, ROTATION)
