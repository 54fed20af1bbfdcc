"""Claim T10: the cost of tying the head to the embedding."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from theory.claim import Assumption, Claim, Domain, Effort, Mutant
from theory.claims.draws import SEEDS, generator, record
from theory.derivations import optimiser as derivations
from theory.formulas import tying
from theory.simulate.readout import best_margin, tied_losses, zero_head_derivatives
from theory.values import Array, Case, Measurement, Sampling, Tolerance


def _half(case: dict[str, Any]) -> dict[str, Any]:
    """Half the circle is the only step but 0 that a symmetric matrix makes: it is drawn on purpose."""
    c, d = case["c"], case["d"]
    return {"c": c, "d": c // 2 if case["half"] and c % 2 == 0 else d}


SYMMETRIC = Claim(
    id="T10.symmetric",
    title="No symmetric logit matrix shifts",
    statement="No symmetric logit matrix (WWᵀ included) realises argmax_y L[x,y] = x+d for all x if 2d ≢ 0 mod c; "
    "if 2d ≡ 0, one does with the full margin. Direct path only: a trunk with an antisymmetric part escapes.",
    meaning="The direct path from an embedding to a head tied to it cannot move every token by the same step, "
    "unless the step is zero or half the circle. In tied models the blocks must do it; an untied head "
    "can take part.",
    latex=r"$L=L^{T},\ \mathrm{argmax}_y\,L[x,y]=x+d\ \forall x\ \Rightarrow\ 2d\equiv 0\ (\mathrm{mod}\ c)$",
    source="L[x,x+d] > L[x,x−d] = L[x−d,x] for all x would rise for ever round the cycle",
    quantity="largest margin over symmetric matrices with |L| ≤ 1, by linear programming",
    domain=Domain(
        record(
            c=st.integers(3, 16), d=st.integers(0, 15), half=st.sampled_from([True, False, False, False])
        ).map(_half),
        (Assumption("d is a residue", lambda x: x["d"] < x["c"]),),
    ),
    predicted=lambda x: np.array([tying.symmetric_margin(x["c"], x["d"])]),
    measured=lambda x, _: Measurement.exact([best_margin(x["c"], x["d"])]),
    tolerance=Tolerance("optimality tolerance of the linear programme", absolute=1e-7),
    mutants=(
        Mutant(
            "an untied (free) matrix cannot either",
            measured=lambda x, _: Measurement.exact([best_margin(x["c"], x["d"], False)]),
        ),
        Mutant("impossible for every d ≠ 0", predicted=lambda x: np.array([2.0 if x["d"] == 0 else 0.0])),
    ),
    quick=Effort(40),
    full=Effort(130),
)

TIED = Claim(
    id="T10.tied",
    title="A tied N(0,1) embedding starts at a loss of about d",
    statement="With zero-initialised output projections the state is the RMS-normalised embedding of the current "
    "token, so a tied head copies. Where the next token is never the current one, the cross-entropy is "
    "√(2d)Γ((d+1)/2)/Γ(d/2) ≈ d − 1/4 nats.",
    meaning="A tied model with a random embedding of unit variance starts by predicting the current token "
    "again, at a loss of about its width in nats. A very high first loss of tied models is this "
    "copying and no fault of training.",
    latex=r"$L_0=\sqrt{2d}\,\Gamma(\frac{d+1}{2})/\Gamma(\frac{d}{2})\simeq d-\frac{1}{4}$",
    source="mean norm of a Gaussian vector",
    quantity="cross-entropy at initialisation, nats",
    domain=Domain(
        record(vocabulary=st.sampled_from([64, 256, 1024]), d=st.sampled_from([16, 48, 64, 96, 128, 192])),
        (Assumption("own logit far above the rest: d ≥ 48 at V ≤ 1024", lambda x: x["d"] >= 48),),
    ),
    predicted=lambda x: np.array([tying.tied_initial_loss(x["d"])]),
    measured=lambda x, s: Measurement.mean_of(tied_losses(s.rng, x["vocabulary"], x["d"], 128, s.draws)),
    tolerance=Tolerance(
        "5 standard errors over independent embeddings; other logits add below 0.02", 0.02, 0.0, 5.0
    ),
    mutants=(
        Mutant(
            "ln V, as for a zero head", predicted=lambda x: np.array([tying.zero_head_loss(x["vocabulary"])])
        ),
        Mutant("√d: logits of an embedding of norm 1", predicted=lambda x: np.array([np.sqrt(x["d"])])),
    ),
    derivation=derivations.tied_head,
    quick=Effort(8, 40),
    full=Effort(15, 400),
)


def _readout(case: Case):
    return zero_head_derivatives(generator(case), case["vocabulary"], case["d"], case["tokens"])


def _zero_head(case: Case) -> Array:
    *_, states, targets = _readout(case)
    v = case["vocabulary"]
    return np.array([tying.zero_head_loss(v), tying.zero_head_gradient_norm(states, targets, v), 0.0])


def _zero_head_measured(case: Case, _: Sampling) -> Measurement:
    loss, head, trunk, *_rest = _readout(case)
    return Measurement.exact([loss, head, trunk])


ZERO = Claim(
    id="T10.zero",
    title="A zero head starts at ln V and moves alone",
    statement="With a zero head the loss is exactly ln V (6.9315 at V = 1024), whatever the trunk, and at the first "
    "step only the head has a non-zero gradient.",
    meaning="With its head at zero a model starts by guessing uniformly, and the first gradient reaches the "
    "head alone. A first loss that differs between tied and untied models comes from how they start, "
    "not from what they learn.",
    latex=r"$L_0=\ln V,\qquad \nabla_{\mathrm{trunk}}L=W^{T}(p-e_y)=0\ \mathrm{at}\ W=0$",
    source="gradient of softmax cross-entropy",
    quantity="loss, gradient norm of the head, gradient norm of everything else (finite differences)",
    domain=Domain(
        record(vocabulary=st.integers(3, 12), d=st.integers(2, 6), tokens=st.integers(2, 12), seed=SEEDS)
    ),
    predicted=_zero_head,
    measured=_zero_head_measured,
    tolerance=Tolerance("central differences with step 1e-5 and float64 rounding", absolute=1e-7),
    mutants=(
        Mutant("the trunk moves as much as the head", predicted=lambda x: _zero_head(x)[[0, 1, 1]]),
        Mutant("log2 V", predicted=lambda x: _zero_head(x) / np.array([np.log(2), 1, 1])),
    ),
    derivation=derivations.zero_head,
    quick=Effort(8),
    full=Effort(60),
)

CLAIMS = (SYMMETRIC, TIED, ZERO)
