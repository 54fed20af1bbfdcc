"""Numbers of configurations: equal ones have one form, and what is no number is refused before any work."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toymodel import ModelConfig, RunConfig
from toymodel.ensemble import Ensemble
from toymodel.errors import ConfigError
from toymodel.intervention import Intervention
from toymodel.optim import orthogonalise
from toymodel.rates import Rates
from toymodel.training import train


@settings(max_examples=30, deadline=None)
@given(number=st.integers(1, 40), form=st.sampled_from([int, float, np.int64, np.float64, np.float32]))
def test_equal_configurations_have_one_run_id(number, form):
    one = RunConfig(
        lr=float(number), steps=100 + number, weight_decay=float(number), model=ModelConfig(layers=number)
    )
    other = RunConfig(
        lr=form(number),
        steps=form(100 + number),
        weight_decay=form(number),
        model=ModelConfig(layers=form(number)),
    )
    assert one == other
    assert one.run_id == other.run_id


BAD: list[tuple[type, dict[str, Any], str]] = [
    (RunConfig, {"steps": 2.5}, "steps"),
    (RunConfig, {"seed": True}, "seed"),
    (RunConfig, {"lr": "0.1"}, "lr"),
    (RunConfig, {"eval_size": 1.5}, "eval_size"),
    (ModelConfig, {"heads": "4"}, "heads"),
    (Intervention, {"kind": "decay", "start": 0.5}, "start"),
    (Intervention, {"kind": "decay", "factor": "half"}, "factor"),
]


@pytest.mark.parametrize(("kind", "values", "name"), BAD)
def test_what_is_no_number_of_its_field_is_refused(kind, values, name):
    with pytest.raises(ConfigError, match=rf"^{name} is .*; pass a (whole )?number$"):
        kind(**values)


TYPED: list[tuple[type, dict[str, Any], str]] = [
    (RunConfig, {"compile": "no"}, "compile is 'no'; pass True or False"),
    (RunConfig, {"compile": 1}, "compile is 1; pass True or False"),
    (RunConfig, {"stage": ["rope"]}, "stage is ['rope']; pass a text"),
    (RunConfig, {"model": 2}, "model is 2; pass a ModelConfig"),
    (RunConfig, {"rates": "farms"}, "rates is 'farms'; pass a Rates"),
    (RunConfig, {"intervention": {}}, "intervention is {}; pass a Intervention"),
]


@pytest.mark.parametrize(("kind", "values", "said"), TYPED)
def test_values_of_another_type_are_refused(kind, values, said):
    with pytest.raises(ConfigError) as refused:
        kind(**values)
    assert str(refused.value) == said


def test_truth_values_have_one_form():
    assert RunConfig(compile=np.True_).run_id == RunConfig(compile=True).run_id


def test_rates_have_one_form():
    assert repr(Rates("farms", low=0, high=2)) == repr(Rates("farms", low=0.0, high=2.0))


def test_a_whole_weight_decay_is_scaled_by_an_intervention(tiny):
    # As 64-bit integers the decays of the members times a factor of ½ were cut to 0.
    base = tiny(stage="muon", intervention=Intervention("decay", start=2, factor=0.5))
    ends = []
    for decay in (1, 1.0):
        ensemble = Ensemble([replace(base, weight_decay=decay)])
        ensemble.advance(4)
        shares = ensemble.view(0).decay()
        assert float(shares["embed"].max()) == pytest.approx(0.5 * base.lr, rel=1e-4)
        ends.append(ensemble.weights(0))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_the_exact_polar_factor_of_a_diverged_matrix_is_nan_and_of_others_as_ever():
    matrices = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    broken = matrices.clone()
    broken[1, 2, 0], broken[3, 0, 0] = torch.nan, torch.inf
    found, whole = orthogonalise(broken, arithmetic="exact"), orthogonalise(matrices, arithmetic="exact")
    assert found[[1, 3]].isnan().all()
    assert torch.equal(found[[0, 2]], whole[[0, 2]])


def test_a_member_that_diverges_under_the_exact_polar_factor_leaves_the_others_alone(tiny):
    base = tiny(stage="untied", newton_schulz="exact")
    *_, last = train(Ensemble([base, replace(base, lr=1e30)]))
    *_, alone = train(Ensemble([base]))
    assert last.configs == (base,)
    assert last.val_losses == alone.val_losses
