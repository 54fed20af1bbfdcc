"""The defect and the accuracy of runs, measured between their steps on schedules of their own."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.stats import binom

from sims.measure.defect import median_interval
from sims.measure.observers import observers
from sims.measure.training_batches import batch_loss, drawn_batches, of_toy
from sims.runs.measure_config import measure_config
from sims.runs.store import RunFolder
from sims.system.errors import MeasureError
from sims.training.toy_runner import run_group
from toymodel import DyckDepth, Ensemble, ModularArithmetic, train
from toymodel.config import as_dict
from toymodel.data import dataset
from toymodel.stages import stage
from toymodel.transformer import Transformer

LOOKS = {"defect": 4, "defect_pairs": 2, "accuracy": 3}
RUN = {"stage": "muon", "steps": 12, "eval_every": 3}


class Everything:
    """Keep the weights and scores after every step."""

    def __init__(self):
        self.weights, self.scores = [], []

    def due(self, step):
        return True

    def look(self, view):
        self.weights.append({name: w.clone() for name, w in view.weights().items()})
        self.scores.append({split: view.scores(split) for split in ("val", "train")})


def observed(configs, measuring):
    found = [observers(measuring, config) for config in configs]
    everything = [Everything() for _ in configs]
    watching: list[list[Any]] = [[*own, seen] for own, seen in zip(found, everything, strict=True)]
    for _ in train(Ensemble(configs), watching):
        pass
    return [{observer.name: observer.flush() for observer in own} for own in found], everything


def rows_of(sheet, **which):
    return {r["quantity"]: r for r in sheet.rows if all(r[c] == v for c, v in which.items())}


def gradients(config, weights, step, which):
    """Return the gradient of a batch by the network as it trains, in float64."""
    transformer = Transformer(stage(config.stage), config.sizes).at(step, config.steps)
    leaves = {n: w.double()[None].requires_grad_() for n, w in weights.items()}
    tokens = torch.tensor(dataset(config.task).train.tokens[which]).long()[None]
    loss = transformer.losses(leaves, tokens)[0]
    return [g.flatten() for g in torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)]


def test_the_defect_is_that_of_gradient_steps(tiny_run, tiny_measure):
    config = tiny_run(**RUN)
    (found,), (everything,) = observed([config], tiny_measure(**LOOKS))
    assert [sheet.step for sheet in found["defect"]] == [0, 4, 8, 12]
    for sheet in found["defect"][1:]:
        drawn = drawn_batches(config, sheet.step, 4, config.batch_size, of_toy(config)).reshape(2, 2, -1)
        weights = everything.weights[sheet.step]
        defects, norms = [], []
        for first, second in drawn:
            g_a, g_b = (torch.cat(gradients(config, weights, sheet.step, which)) for which in (first, second))
            step = 1e-6
            ends = []
            for own, other, which in ((g_a, g_b, first), (g_b, g_a, second)):
                # ∇L of one batch after a step along the gradient of the other.
                moved, start = {}, 0
                for name, weight in weights.items():
                    part = other[start : start + weight.numel()].view_as(weight)
                    moved[name], start = weight.double() - step * part, start + weight.numel()
                ends.append((torch.cat(gradients(config, moved, sheet.step, which)) - own) / step)
            defects.append(float((ends[0] - ends[1]).norm() / g_a.norm() / g_b.norm()))
            norms += [float(g_a.norm()), float(g_b.norm())]
        rows = rows_of(sheet)
        assert rows["defect"]["value"] == pytest.approx(np.median(defects), rel=1e-3)
        assert rows["gradient_norm"]["value"] == pytest.approx(np.median(norms), rel=1e-6)
        assert (rows["defect"]["low"], rows["defect"]["high"]) == pytest.approx(
            (min(defects), max(defects)), rel=1e-3
        )
        assert -1 <= rows["gradient_cosine"]["value"] <= 1


def test_rounding_of_positions_is_flagged(tiny_run, tiny_measure):
    config = tiny_run(**RUN)
    (found,), _ = observed([config], tiny_measure(defect=12, defect_rate=1e-5))
    rows = rows_of(found["defect"][-1])
    # Steps of 1e-5 are lost in float32; gradients subtracted in float64 keep them.
    assert rows["defect_fd32"]["status"] == "flagged"
    assert "rounding" in rows["defect_fd32"]["reason"]
    assert rows["defect_fd"]["status"] == rows["defect"]["status"] == "ok"
    assert rows["defect_fd"]["value"] == pytest.approx(rows["defect"]["value"], rel=1e-2)


def test_accuracy_loss_and_signals_are_those_of_the_run(tiny_run, tiny_measure):
    config = tiny_run(**RUN)
    (found,), (everything,) = observed([config], tiny_measure(**LOOKS))
    assert [sheet.step for sheet in found["accuracy"]] == [0, 3, 6, 9, 12]
    for sheet in found["accuracy"]:
        weights = everything.weights[sheet.step]
        flat = torch.cat([w.flatten() for w in weights.values()]).double()
        for split, site in (("val", "validation"), ("train", "training")):
            scores, rows = everything.scores[sheet.step][split], rows_of(sheet, site=site)
            assert rows["accuracy"]["value"] == scores.accuracy
            assert rows["exact_match"]["value"] == scores.exact <= scores.accuracy
            assert rows["loss"]["value"] == scores.loss
        signals = rows_of(sheet, object="signal")
        assert signals["weight_norm"]["value"] == pytest.approx(float(flat.norm()))
        (which,) = drawn_batches(config, sheet.step, 1, config.batch_size, of_toy(config))
        norm = torch.cat(gradients(config, weights, sheet.step, which)).norm()
        assert signals["gradient_norm"]["value"] == pytest.approx(float(norm), rel=1e-4)
        if sheet.step == 0:
            assert signals["update_norm"]["status"] == signals["cosine_weights"]["status"] == "not fitted"
            continue
        before = torch.cat([w.flatten() for w in everything.weights[sheet.step - 1].values()]).double()
        update = flat - before
        assert signals["update_norm"]["value"] == pytest.approx(float(update.norm()), rel=1e-5)
        cosine = float(update @ before / update.norm() / before.norm())
        assert signals["cosine_weights"]["value"] == pytest.approx(cosine, abs=1e-5)


def test_scores_are_loss_accuracy_and_exact_match(tiny_run):
    ensemble = Ensemble([tiny_run(seed=seed) for seed in (0, 1)])
    ensemble.advance(20)
    scores = ensemble.scores()
    assert [s.loss for s in scores] == pytest.approx(ensemble.evaluate().tolist(), rel=1e-5)
    for split in ("val", "train"):
        scores = ensemble.scores(split=split)
        assert [s.accuracy for s in scores] == ensemble.accuracy(split=split)
        assert [s.exact for s in scores] == ensemble.exact(split=split)


@pytest.mark.parametrize("task", [None, ModularArithmetic(p=7)])
def test_losses_without_a_value_do_not_drop_out_of_the_mean(tiny_run, task):
    config = tiny_run(**({} if task is None else {"task": task, "batch_size": 16, "eval_size": None}))
    ensemble = Ensemble([config, replace(config, seed=1)])
    with torch.no_grad():
        # Only some sequences hold this token.
        ensemble.params["embed"][0, 0] = torch.nan
    broken, whole = ensemble.scores()
    assert math.isnan(broken.loss)
    assert whole.loss == pytest.approx(float(ensemble.evaluate()[1]), rel=1e-5)


def test_predictions_that_overflow_have_no_accuracy(tiny_run, tiny_measure):
    config = tiny_run(stage="mlp", task=ModularArithmetic(p=7), batch_size=16, eval_size=None)
    measuring = tiny_measure(accuracy=1, bands=(), training_bands=0, gradient_sequences=0)
    ensemble = Ensemble([config])
    with torch.no_grad():
        for weight in ensemble.params.values():
            weight.mul_(1e30)
    (observer,) = observers(measuring, config)
    observer.look(ensemble.view(0))
    (sheet,) = observer.flush()
    own = rows_of(sheet, site="validation")
    for quantity in ("loss", "accuracy", "exact_match"):
        assert (own[quantity]["status"], own[quantity]["reason"]) == ("not fitted", "the loss is not finite")


@pytest.mark.parametrize("name", ["baseline", "mlp"])
def test_arithmetic_counts_the_last_target_alone(name, tiny_run, tiny_measure):
    config = tiny_run(stage=name, task=ModularArithmetic(p=7), batch_size=16, eval_size=None, steps=12)
    measuring = tiny_measure(**LOOKS, bands=(), training_bands=0, gradient_sequences=0)
    (found,), (everything,) = observed([config], measuring)
    rows = [rows_of(sheet) for sheet in found["defect"]]
    assert all(row["defect"]["status"] == "ok" and row["defect"]["value"] > 0 for row in rows)
    ensemble = Ensemble([config])
    assert [s.loss for s in ensemble.scores()] == pytest.approx(ensemble.evaluate().tolist(), rel=1e-5)
    for sheet in found["accuracy"]:
        for site in ("validation", "training"):
            own = rows_of(sheet, site=site)
            assert own["accuracy"]["value"] == own["exact_match"]["value"]
    assert everything.scores[-1]["train"].loss < everything.scores[0]["train"].loss


def test_no_row_is_without_a_number_or_a_reason(tiny_run, tiny_measure):
    (found,), _ = observed([tiny_run(**RUN)], tiny_measure(**LOOKS))
    rows = [row for sheets in found.values() for sheet in sheets for row in sheet.rows]
    assert len(rows) == 4 * 5 + 5 * 10
    for row in rows:
        assert math.isfinite(row["value"]) == (row["status"] != "not fitted"), row


def test_members_of_an_ensemble_are_measured_as_if_alone(tiny_run, tiny_measure):
    configs = [tiny_run(**RUN | {"seed": seed, "lr": lr}) for seed, lr in ((0, 3e-3), (1, 1e-3))]
    together, _ = observed(configs, tiny_measure(**LOOKS))
    for config, sheets in zip(configs, together, strict=True):
        (alone,), _ = observed([config], tiny_measure(**LOOKS))
        assert repr(alone) == repr(sheets)


def test_looking_changes_no_weights_and_an_interrupted_run_measures_the_same(
    tmp_path, tiny_run, tiny_measure
):
    configs = [tiny_run(**RUN | {"seed": seed, "eval_every": 1}) for seed in (0, 1)]
    looking, blind = tiny_measure(**LOOKS), tiny_measure()
    assert not run_group(configs, blind, tmp_path / "blind")
    assert not run_group(configs, looking, tmp_path / "whole")
    for until in (2, 5):
        assert not run_group(configs[:1], looking, tmp_path / "parts", until=until)
    assert not run_group(configs, looking, tmp_path / "parts")
    for config in configs:
        unseen, whole, parts = (
            RunFolder(tmp_path / name / config.run_id) for name in ("blind", "whole", "parts")
        )
        assert whole.rows().equals(parts.rows())
        assert {"defect", "prediction", "signal"} <= set(whole.rows()["object"])
        for one, other in zip(unseen.checkpoints(), whole.checkpoints(), strict=True):
            weights, others = load_file(one), load_file(other)
            assert all(torch.equal(weights[name], others[name]) for name in weights)
    measured = RunFolder(tmp_path / "whole" / configs[0].run_id).identity()["measured"]
    assert (measured["defect"], measured["accuracy"]) == (1, 1)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=40))
def test_the_interval_of_a_median_holds_the_median_of_the_values(values):
    low, high = median_interval(values)
    assert min(values) <= low <= np.median(values) <= high <= max(values)


def test_the_interval_of_a_median_has_its_coverage():
    for n in range(6, 60):
        low, high = median_interval(range(n))
        assert low + high == n - 1
        # The median lies outside where at most `low` of the values are on one of its sides.
        outside, narrower = (2 * binom.cdf(low + more, n, 0.5) for more in (0, 1))
        assert outside <= 0.05 < narrower
    assert all(math.isnan(end) for end in median_interval([1.0]))
    assert median_interval(range(10)) == (1, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"defect": -1}, "defect is -1"),
        ({"defect_pairs": 0}, "defect_pairs 0"),
        ({"defect_rate": 0.0}, "defect_rate is 0.0"),
        ({"accuracy": -1}, "measure.accuracy is -1"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message, tiny_measure):
    with pytest.raises(MeasureError, match=message):
        tiny_measure(**changes)


def test_schedules_longer_than_the_run_are_refused(tmp_path, tiny_run, tiny_measure):
    for name in ("defect", "accuracy"):
        with pytest.raises(MeasureError, match=f"measure.{name} is 50, but the run has 12 steps"):
            run_group([tiny_run()], tiny_measure(**{name: 50}), tmp_path)
    assert measure_config(as_dict(tiny_measure(**LOOKS))) == tiny_measure(**LOOKS)
    assert not {"defect", "accuracy", "defect_pairs"} & as_dict(tiny_measure()).keys()


def test_the_loss_of_a_batch_is_of_the_classes_of_its_task(tiny_run):
    task = DyckDepth(pairs=4, train=12, val=8, test=8)
    config = tiny_run(stage="baseline", task=task, batch_size=4, eval_size=None)
    ensemble = Ensemble([config])
    ensemble.advance(2)
    weights, which = ensemble.view(0).weights(), np.arange(5)
    loss = batch_loss(config, 2, list(weights), of_toy(config).take(which), torch.device("cpu"))
    train = dataset(task).train
    inputs = torch.tensor(train.inputs[which]).long()[None]
    params = {name: w[None] for name, w in weights.items()}
    logits = ensemble.transformer.logits(params, ensemble.transformer.hidden(params, inputs))[0]
    assert train.mask is not None
    mask, targets = torch.tensor(train.mask[which]), torch.tensor(train.targets[which]).long()
    expected = torch.nn.functional.cross_entropy(logits[mask], targets[mask])
    torch.testing.assert_close(loss(list(weights.values())), expected)
