"""Distances from the initial weights: those of runs here are drawn again from their seed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from simulated import simulated_device
from tiny_runs import MEASURE, RUN

from sims.measure import initial
from sims.measure.initial import initial_distances
from sims.measure.weights import weight_sheet
from sims.models.transformer import TransformerSubject
from sims.runs.lm_config import LmConfig
from sims.runs.store import RunFolder
from sims.training.toy_runner import run_group
from toymodel.ensemble import Ensemble
from toymodel.stages import CHAIN, STAGES
from toymodel.trainable import Trainable


def language_model(stage, seed=3, **sizes):
    config = LmConfig("tiny", stage, 40, 16, 4, 10, seed=seed, **sizes)
    trainable = Trainable(
        config.transformer(), torch.tensor([config.lr]), [None], "float32", torch.device("cpu")
    )
    trainable.initialise([config.seed])
    return TransformerSubject(config, trainable.params, 0)


def toy(stage, seed=3):
    config = replace(RUN, stage=stage, seed=seed)
    return TransformerSubject.of_weights(config, Ensemble([config]).weights(0), 0)


@pytest.mark.parametrize("stage", STAGES)
def test_a_toy_that_is_not_trained_has_not_moved(stage):
    subject = toy(stage)
    found = initial_distances(subject)
    assert found is not None
    for value, matrix in zip(found.tolist(), subject.matrices.values(), strict=True):
        assert value == 0.0 if bool(matrix.any()) else np.isnan(value)


@pytest.mark.parametrize("stage", list(CHAIN))
def test_a_language_model_that_is_not_trained_has_not_moved(stage):
    subject = language_model(stage)
    found = initial_distances(subject)
    assert found is not None
    assert found.nan_to_num().eq(0).all()
    assert found.isnan().sum() == sum(not bool(m.any()) for m in subject.matrices.values())


def test_distances_are_those_of_the_formula_in_float64():
    first, other = toy("rope"), toy("rope", seed=4)
    moved = replace(first, params={n: p + 0.1 * other.params[n] + 0.01 for n, p in first.params.items()})
    found = initial_distances(moved)
    assert found is not None
    for value, (name, start) in zip(found.tolist(), first.matrices.items(), strict=True):
        start, now = start.double().numpy(), moved.matrices[name].double().numpy()
        if not start.any():
            assert np.isnan(value)
            continue
        assert value == pytest.approx(np.linalg.norm(now - start) / np.linalg.norm(start), rel=1e-6)
    rows = {r["site"]: r for r in weight_sheet(moved).rows if r["quantity"] == "initial_distance"}
    assert list(rows) == list(first.matrices)
    for name, start in first.matrices.items():
        if bool(start.any()):
            assert rows[name]["status"] == "ok"
        else:
            assert (rows[name]["status"], rows[name]["reason"]) == (
                "not fitted",
                "the initial matrix is zero",
            )
    with simulated_device():
        there = replace(moved, params={n: p.to("cuda") for n, p in moved.params.items()})
        away = initial_distances(there)
        assert away is not None
        assert away.cpu().nan_to_num().tolist() == pytest.approx(found.nan_to_num().tolist(), rel=1e-6)


def test_initial_weights_are_drawn_once_for_all_looks(monkeypatch):
    drawn = []
    plain = initial.initial_value
    monkeypatch.setattr(initial, "initial_value", lambda spec, seed: drawn.append(seed) or plain(spec, seed))
    for limit, again in ((2**20, False), (0, True)):
        monkeypatch.setattr(initial, "SMALL", limit)
        one, other = language_model("rope", seed=100 + again), language_model("rope", seed=200 + again)
        for subject in (one, one, other, one):
            initial_distances(subject)
        order = [seed for i, seed in enumerate(drawn) if not i or seed != drawn[i - 1]]
        # Of models that are not small only the last is kept.
        assert order == ([101, 201, 101] if again else [100, 200])
        drawn.clear()


def test_runs_store_their_distances(tmp_path):
    config = replace(RUN, steps=12, eval_every=6)
    measure = replace(MEASURE, every=6, tails=True)
    assert not run_group([config, replace(config, seed=5)], measure, tmp_path)
    for own in (config, replace(config, seed=5)):
        rows = RunFolder(tmp_path / own.run_id).rows().query("quantity == 'initial_distance'")
        assert sorted(set(rows["step"])) == [0, 6, 12]
        fitted = rows.query("status == 'ok'")
        assert (fitted.query("step == 0")["value"] == 0).all()
        assert (fitted.query("step == 12")["value"] > 1e-4).all()
        mean = fitted.groupby("step")["value"].mean()
        assert mean[12] > mean[6] > 0
