"""Claim T16: the exact law of the next token of a modular walk."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from theory.claim import Claim, Domain, Effort, Mutant
from theory.claims.draws import SEEDS, generator, record
from theory.formulas.law import Tokens, WalkLaw
from theory.simulate.enumeration import enumerated_law
from theory.simulate.walk_draws import draw_walks
from theory.values import Array, Case, Measurement, Sampling, Tolerance

_LONGEST = 3
_SETTINGS = ("vocab", "modulus_min", "modulus_power", "offset_power", "step_fraction", "noncoprime")
_SOURCE = (
    "Bayes' rule on the task of Liu, Paquette, Sous (arXiv 2605.05683), derived in theory/formulas/law.py"
)


def _settings(case: Case) -> dict[str, Any]:
    return {name: case[name] for name in _SETTINGS if name in case}


def _enumerated(case: Case) -> dict[tuple[int, ...], Array]:
    return enumerated_law(_LONGEST, **_settings(case))


def _prefixes(case: Case) -> list[Tokens]:
    """Every prefix that a walk has, (n, k) for k = 1, 2, …"""
    known = _enumerated(case)
    return [np.array([p for p in known if len(p) == k]) for k in range(1, _LONGEST + 1)]


def _laws(case: Case, last: int | None = None, **wrong: Any) -> Array:
    """Laws of all prefixes, one after the other; only their `last` tokens count, where it is given."""
    law = WalkLaw(**{**_settings(case), **wrong})
    contexts = [p if last is None else p[:, -last:] for p in _prefixes(case)]
    return np.concatenate([law.next_tokens(c).ravel() for c in contexts])


def _measured_laws(case: Case, _: Sampling) -> Measurement:
    known = _enumerated(case)
    return Measurement.exact(
        np.concatenate([known[tuple(row)] for p in _prefixes(case) for row in p.tolist()])
    )


LAW = Claim(
    id="T16",
    title="The law of the next token of a modular walk",
    statement="The law of the next token given any tokens of a modular walk is a sum over moduli c of p(c) p(d|c)/c "
    "times the mass of the offsets that remain: those above t + d − c continue at t + d, the others at t + d − c. "
    "Two prefix sums a modulus give it; after the first token alone d is not known, and is summed over too.",
    meaning="What can be known of the next token from the tokens so far is computed exactly in this task, "
    "so a loss can be set against the lowest one that is possible.",
    latex=r"$p(t_{k+1}|t_{\leq k})\propto\sum_c p(c)\,p(d_c|c)\,c^{-1}\sum_{o}p(o|c)\,"
    r"\mathbf{1}[t_{k+1}=o+(t_k-o+d_c)\,\mathrm{mod}\,c]$",
    source=_SOURCE,
    quantity="p(next | prefix) for every prefix of one to three tokens that a walk has",
    domain=Domain(
        record(
            vocab=st.integers(6, 11),
            modulus_min=st.integers(2, 5),
            modulus_power=st.sampled_from([0.0, 1.3, 3.0]),
            offset_power=st.sampled_from([0.5, 1.2, 2.5]),
            step_fraction=st.sampled_from([0.0, 0.125, 0.4]),
            noncoprime=st.sampled_from([0.3, 0.8]),
        )
    ),
    predicted=_laws,
    measured=_measured_laws,
    tolerance=Tolerance("float64 sums over fewer than 2,000 walks", absolute=1e-12),
    mutants=(
        Mutant("offsets uniform", predicted=lambda x: _laws(x, offset_power=0.0)),
        # A share close to 0 keeps every prefix possible.
        Mutant("steps hardly ever rounded to a divisor", predicted=lambda x: _laws(x, noncoprime=1e-6)),
        Mutant("only the last token counts", predicted=lambda x: _laws(x, last=1)),
        Mutant("only the last two tokens count", predicted=lambda x: _laws(x, last=2)),
    ),
    quick=Effort(20),
    full=Effort(150),
    remark="One walk a sequence, without noise. Mixtures and noise have no law of this cost and are refused.",
)


def _sequences(case: Case) -> Tokens:
    return draw_walks(generator(case), 3_000, case["length"] + 1, **_settings(case))


def _entropies(case: Case, **wrong: Any) -> Array:
    law = WalkLaw(**{**_settings(case), **wrong})
    return law.entropies(_sequences(case)[:, :-1]).mean(axis=0)


def _losses(case: Case, _: Sampling) -> Measurement:
    return Measurement.mean_of(WalkLaw(**_settings(case)).losses(_sequences(case)))


def _losses_of_the_last_token(case: Case, _: Sampling) -> Measurement:
    law, tokens = WalkLaw(**_settings(case)), _sequences(case)
    found = [law.losses(tokens[:, k : k + 2])[:, 0] for k in range(case["length"])]
    return Measurement.mean_of(np.array(found).T)


FLOOR = Claim(
    id="T16.floor",
    title="The floor of the loss",
    statement="The mean entropy of this law over contexts is the lowest mean cross-entropy of any predictor at that "
    "position, and the law itself reaches it on sequences that were drawn afresh.",
    meaning="No model has a mean loss below the floor, and one that knows the task perfectly reaches it; "
    "what a loss has above it is what remains to be learned.",
    latex=r"$\mathbf{E}\left[-\ln p(t_{k+1}|t_{\leq k})\right]=\mathbf{E}\,H(p(\cdot|t_{\leq k}))$",
    source="Gibbs' inequality",
    quantity="mean −ln p of 3,000 fresh sequences by position, against the mean entropy of the same contexts",
    domain=Domain(record(vocab=st.sampled_from([16, 31, 64]), length=st.integers(3, 8), seed=SEEDS)),
    predicted=_entropies,
    measured=_losses,
    tolerance=Tolerance("5 standard errors over sequences", sigmas=5.0),
    mutants=(
        Mutant(
            "entropy of the law with uniform offsets", predicted=lambda x: _entropies(x, offset_power=0.0)
        ),
        Mutant("loss of the law of the last token alone", measured=_losses_of_the_last_token),
    ),
    quick=Effort(8),
    full=Effort(40),
)

CLAIMS = (LAW, FLOOR)
