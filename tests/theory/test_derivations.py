"""Derivations are executed: a change of the formula in use must break the comparison."""

import pytest
import sympy

from theory.derivations import detection, dynamics, features, fourier, markov, optimiser
from theory.derivations.tools import agree
from theory.formulas import dynamics as dynamics_formulas
from theory.formulas import entropy as entropy_formulas
from theory.formulas import features as features_formulas
from theory.formulas import fourier as fourier_formulas
from theory.formulas import lms, matrices, tying
from theory.formulas import markov as markov_formulas
from theory.formulas import optimiser as optimiser_formulas

ALL = [
    fourier.shift,
    fourier.circulant,
    fourier.bigram,
    dynamics.replicator,
    dynamics.power_law_loss,
    dynamics.exponents,
    dynamics.moment_recursion,
    optimiser.amplitudes,
    optimiser.newton_schulz,
    optimiser.zero_head,
    optimiser.tied_head,
    detection.covariance_spike,
    detection.mean_gradient,
    features.conserved_balance,
    features.balanced_modes,
    features.entropy_balance,
    markov.copy_entropies,
    markov.local_divergence,
    markov.two_tokens,
]


@pytest.mark.parametrize("derive", ALL, ids=lambda f: f.__name__)
def test_sympy_agrees_with_the_formula_in_use(derive):
    result = derive()
    assert result.holds, [a for a in result.agreements if not a.holds]
    assert result.steps
    assert all(s.latex for s in result.steps)


@pytest.mark.parametrize(
    ("derive", "module", "name"),
    [
        (fourier.bigram, fourier_formulas, "bigram_modulus"),
        (dynamics.power_law_loss, dynamics_formulas, "power_law_loss"),
        (dynamics.moment_recursion, lms, "stability_sum"),
        (optimiser.newton_schulz, optimiser_formulas, "newton_schulz_slope"),
        (optimiser.tied_head, tying, "tied_initial_loss"),
        (detection.covariance_spike, matrices, "spike_overlap"),
        (detection.mean_gradient, matrices, "mean_gradient_energy"),
        (features.conserved_balance, features_formulas, "balance_drift"),
        (features.conserved_balance, features_formulas, "logit_gradient"),
        (features.balanced_modes, features_formulas, "mode_growth"),
        (features.entropy_balance, entropy_formulas, "entropy_rate"),
        (markov.copy_entropies, markov_formulas, "copy_entropies"),
        (markov.local_divergence, markov_formulas, "fisher_metric"),
        (markov.two_tokens, markov_formulas, "path_length"),
    ],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_a_factor_of_two_in_the_formula_is_caught(derive, module, name: str, monkeypatch: pytest.MonkeyPatch):
    right = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *a: 2 * right(*a))
    assert not derive().holds


def test_nothing_agrees_without_points():
    assert not agree("square", sympy.Integer(1), (), lambda: 1.0, []).holds
    assert agree("one", sympy.Integer(1), (), lambda: 1.0, [()]).holds
