"""Claim T8, continued: the tail exponent of learned weights at matched loss, by batch size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from hypothesis import strategies as st

from theory.claim import Assumption, Claim, Domain, Effort, Mutant
from theory.claims.draws import reals, record
from theory.compare import at_least
from theory.formulas import lms
from theory.formulas.dynamics import exponent
from theory.simulate import lms as simulate
from theory.values import Array, Case, Measurement, Sampling, Tolerance


@dataclass(frozen=True)
class MatchedLoss:
    """Describe a linear student that is stopped at a loss.

    λ_j = j^{−decay}, teacher w_j² = j^{−task}/λ_j, started at 0.
    """

    decay: float = 1.2
    task: float = 1.6
    d: int = 128
    target: float = 0.15

    @property
    def spectrum(self) -> Array:
        """Return the (d,) eigenvalues λ_j."""
        return np.arange(1, self.d + 1.0) ** -self.decay

    @property
    def teacher(self) -> Array:
        """Return the (d,) teacher weights w*_j."""
        return np.sqrt(np.arange(1, self.d + 1.0) ** -self.task / self.spectrum)

    def steps(self, eta: float, batch: int) -> int:
        """Return the expected number of steps to the target."""
        return _steps(self, eta, batch)

    def alpha(self, eta: float, batch: int) -> float:
        """Return α(50:128) of λ_j E ŵ_j² at the matched loss."""
        return _alpha(self, eta, batch)


@cache
def _steps(setting: MatchedLoss, eta: float, batch: int) -> int:
    return lms.steps_to_loss(setting.spectrum, setting.teacher, eta, batch, setting.target)


@cache
def _alpha(setting: MatchedLoss, eta: float, batch: int) -> float:
    lam, steps = setting.spectrum, setting.steps(eta, batch)
    return exponent(lam * lms.second_moments(lam, setting.teacher, eta, batch, steps)[1], 50, 128)


SETTING = MatchedLoss()
RATES = {
    "fixed": lambda batch: 0.3,
    "sqrt": lambda batch: 0.1 * np.sqrt(batch / 4),
    "linear": lambda batch: 0.05 * batch / 4,
}
# α(50:128) at B = 4 and B = 64.
TABLE = {"fixed": (2.58, 3.43), "sqrt": (2.84, 3.32), "linear": (3.08, 3.08)}


def _row(case: Case) -> Array:
    return np.array(TABLE[case["scaling"]])


TABULATED = Claim(
    id="T8.table",
    title="Exponents at matched loss, B = 4 and 64",
    statement="d = 128, λ_j = j^−1.2, teacher w_j² = j^−1.6/λ_j, from 0 to loss ½Σλ_j E e_j² = 0.15: α(50:128) of "
    "λ_j E ŵ_j² goes 2.58 → 3.43 at fixed η = .3, 2.84 → 3.32 at η = .1√(B/4), 3.08 → 3.08 at η = .05·B/4.",
    meaning="In one worked example of the linear model, a batch sixteen times larger makes the tail much "
    "steeper at equal loss if the learning rate is kept, less so if the rate grows with the square "
    "root, and no steeper if it grows in proportion.",
    latex=r"$\alpha_{50:128}(B=4\rightarrow 64):\ 2.58\rightarrow 3.43,\ 2.84\rightarrow 3.32,\ 3.08\rightarrow 3.08$",
    source="T8.moments, evaluated",
    quantity="α(50:128) at B = 4 and at B = 64",
    domain=Domain(record(scaling=st.sampled_from(list(TABLE))), minimum=3),
    predicted=_row,
    measured=lambda x, _: Measurement.exact([SETTING.alpha(RATES[x["scaling"]](b), b) for b in (4, 64)]),
    tolerance=Tolerance("the table is rounded to two decimals", absolute=0.005),
    mutants=(
        Mutant("small batches steeper", predicted=lambda x: _row(x)[::-1]),
        Mutant(
            "loss without the factor ½",
            measured=lambda x, _: Measurement.exact(
                [MatchedLoss(target=0.075).alpha(RATES[x["scaling"]](b), b) for b in (4, 64)]
            ),
        ),
    ),
    quick=Effort(3),
    full=Effort(3),
)


def _learned(case: Case) -> Array:
    return np.array([SETTING.alpha(RATES[case["scaling"]](case["batch"]), case["batch"])])


def _learned_draws(case: Case, sampling: Sampling) -> Measurement:
    eta, batch = RATES[case["scaling"]](case["batch"]), case["batch"]
    steps = SETTING.steps(eta, batch)
    runs = simulate.learned_energies(
        sampling.rng, SETTING.spectrum, SETTING.teacher, eta, batch, steps, sampling.draws
    )
    groups = np.array_split(runs, 10)
    # α is not linear in the energies, so its error and bias come from a jackknife over groups.
    whole = exponent(SETTING.spectrum * runs.mean(0), 50, 128)
    left = np.array(
        [
            exponent(SETTING.spectrum * np.concatenate(groups[:i] + groups[i + 1 :]).mean(0), 50, 128)
            for i in range(10)
        ]
    )
    corrected = 10 * whole - 9 * left.mean()
    return Measurement(np.array([corrected]), np.array([np.sqrt(0.9 * ((left - left.mean()) ** 2).sum())]))


def _noiseless(case: Case) -> Array:
    eta = RATES[case["scaling"]](case["batch"])
    steps = SETTING.steps(eta, case["batch"])
    lam, w = SETTING.spectrum, SETTING.teacher
    return np.array([exponent(lam * (w * (1 - (1 - eta * lam) ** steps)) ** 2, 50, 128)])


LEARNED = Claim(
    id="T8.learned",
    title="Tail exponent of learned weights, by Monte Carlo",
    statement="The exponent that the moment recursion gives for λ_j E ŵ_j² at matched loss is the one that simulated "
    "runs show.",
    meaning="Simulated training of the linear model shows the tail exponents that its noise equations give. "
    "What this family says about batch size therefore does not rest on the equations alone.",
    latex=r"$\mathbf{E}\,\hat w_j^2=w_j^{*2}-2w_j^{*2}(1-\eta\lambda_j)^t+p_j(t)$",
    source="T8.moments, by simulation",
    quantity="α(50:128) of λ_j E ŵ_j² at loss 0.15",
    domain=Domain(record(scaling=st.sampled_from(list(TABLE)), batch=st.sampled_from([4, 16])), minimum=4),
    predicted=_learned,
    measured=_learned_draws,
    tolerance=Tolerance("5 jackknife standard errors over ten groups of runs", sigmas=5.0),
    mutants=(Mutant("gradient noise ignored", predicted=_noiseless),),
    quick=Effort(4, 100),
    full=Effort(6, 1_000),
)


SCALINGS = ("fixed", "sqrt", "linear")


def _matched(case: Case) -> tuple[MatchedLoss, float]:
    """The setting and the learning rate at the small batch."""
    setting = MatchedLoss(case["decay"], case["task"])
    initial = 0.5 * float(setting.spectrum @ setting.teacher**2)
    setting = MatchedLoss(case["decay"], case["task"], target=case["share"] * initial)
    return setting, case["eta"] * lms.critical_rate(setting.spectrum, case["batch"])


def _scaled(eta: float, ratio: int, scaling: str) -> float:
    return eta * {"fixed": 1.0, "sqrt": ratio**0.5, "linear": float(ratio)}[scaling]


def _large_is_calm(case: Case) -> bool:
    setting, eta = _matched(case)
    limit = lms.critical_rate(setting.spectrum, case["batch"] * case["times"])
    return _scaled(eta, case["times"], "linear") < 0.6 * limit


def _enough_steps(case: Case) -> bool:
    setting, eta = _matched(case)
    try:
        return setting.steps(_scaled(eta, case["times"], "linear"), case["batch"] * case["times"]) >= 10
    except ValueError:
        return False


def _small_alpha(case: Case) -> Array:
    setting, eta = _matched(case)
    return np.full(len(SCALINGS), setting.alpha(eta, case["batch"]))


def _large_alpha(case: Case, scalings: tuple[str, ...] = SCALINGS) -> Array:
    setting, eta = _matched(case)
    batch, ratio = case["batch"] * case["times"], case["times"]
    return np.array([setting.alpha(_scaled(eta, ratio, s), batch) for s in scalings])


ORDER = Claim(
    id="T8.order",
    title="Smaller batches are flatter or equal",
    statement="At matched loss this model gives the larger batch the steeper tail α(50:128) at fixed η and under √B "
    "scaling, and under linear scaling, up to 0.6 of the critical rate, the same tail to within 0.05. Figure 11a of "
    "the paper shows the opposite: this is a competitor to be refuted by training, not an explanation.",
    meaning="In the linear model, at equal loss, the larger batch has the steeper tail, or nearly the same "
    "one if its learning rate grows in proportion. The published figure shows the opposite; trained "
    "runs can tell which of the two they follow.",
    latex=r"$\alpha_{50:128}(B')\ \geq\ \alpha_{50:128}(B),\quad B'>B,\ \mathrm{equal}\ L$",
    source="gradient noise adds energy to modes not yet learned; under linear scaling ηλ and η/B match per unit time",
    quantity="α(50:128) at the larger batch (fixed η, √B, linear), bounded by the one at the smaller",
    domain=Domain(
        record(
            decay=reals(1.0, 2.0),
            task=reals(1.2, 2.2),
            share=reals(0.1, 0.5),
            batch=st.sampled_from([2, 4, 8]),
            times=st.sampled_from([2, 4, 8]),
            eta=st.sampled_from([0.02, 0.04, 0.08, 0.16, 0.3]),
        ),
        (
            Assumption(
                "under linear scaling the larger batch stays below 0.6 of its critical rate", _large_is_calm
            ),
            Assumption("at least 10 steps to the target", _enough_steps),
        ),
    ),
    predicted=_small_alpha,
    measured=lambda x, _: Measurement.exact(_large_alpha(x)),
    tolerance=Tolerance(
        "fixed η and √B: an inequality, with 0.002 for crossing the loss between two steps. Linear scaling: an "
        "equality to first order in η only, and to one step of at least ten; the largest deviation "
        "found in 788 cases is 0.038, of either sign (nearer the critical rate it grows to 0.12)",
        absolute=(0.002, 0.002, 0.05),
    ),
    mutants=(
        Mutant(
            "smaller batches are steeper (the published figure)",
            predicted=_large_alpha,
            measured=lambda x, _: Measurement.exact(_small_alpha(x)),
        ),
        Mutant(
            "linear scaling like fixed η: no equality",
            measured=lambda x, _: Measurement.exact(_large_alpha(x, ("fixed", "sqrt", "fixed"))),
        ),
    ),
    compare=at_least(lambda _: (False, False, True)),
    quick=Effort(10),
    full=Effort(150),
    remark="Under linear scaling the smaller batch can be the steeper one, by up to 0.04: the noise η/B matches, "
    "the damping ηλ does not.",
)

CLAIMS = (TABULATED, LEARNED, ORDER)
