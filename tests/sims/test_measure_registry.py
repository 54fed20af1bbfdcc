"""The registry: which measurements a configuration asks for, what one more costs, and what looks between steps."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from sims.measure import registry
from sims.measure.engine import measure
from sims.measure.measurement import Gatherer, Measurement
from sims.measure.observers import observers
from sims.measure.registry import REGISTRY, check_stored, measured_versions
from sims.measure.toy import prepare
from sims.models.transformer import TransformerSubject
from sims.runs.lm_measure_config import LmMeasureConfig
from sims.system.errors import MeasureError
from spectra import spectral_edge
from toymodel import Ensemble, train
from toymodel.data import dataset


def test_names_are_unique_and_versions_recorded(tiny_measure):
    assert len({m.name for m in REGISTRY}) == len(REGISTRY)
    usual = measured_versions(tiny_measure())
    assert usual == {m.name: m.version for m in REGISTRY if m.name in usual}
    assert {"activations", "gradients", "weights", "probe_bands", "causal", "tables"} <= usual.keys()
    assert {"updates", "families", "loss"}.isdisjoint(usual)
    assert measured_versions(tiny_measure(updates=5)).keys() - usual.keys() == {"updates"}
    less = measured_versions(tiny_measure(gradient_sequences=0, causal_sequences=0))
    assert usual.keys() - less.keys() == {"gradients", "causal"}
    text = measured_versions(LmMeasureConfig(loss_tokens=0))
    assert {"activations", "gradients", "weights", "families"} <= text.keys()
    assert {"loss", "probe_bands", "tables"}.isdisjoint(text)
    assert "loss" in measured_versions(LmMeasureConfig())
    assert measured_versions(object()) == {}


def test_a_measurement_more_is_one_object_in_the_registry(tiny_measure, tiny_run, monkeypatch):
    class Norms(Gatherer):
        sites = ("embed",)

        def __init__(self, job):
            self.job, self.total = job, torch.zeros(())

        def batch(self, batch):
            self.total = self.total + batch.states["embed"].square().sum(dim=(1, 2, 3))

        def found(self):
            return {"total": self.total}

        def rows(self, sheet, found):
            sheet.row("square_sum", "activation", "embed", float(found["total"]))

    norms = Measurement(
        "norms", version=3, meaning="sum of squares", needs=frozenset({"activations"}), begin=Norms
    )
    config = tiny_run()
    subject = TransformerSubject.of_weights(config, Ensemble([config]).weights(0), 0)
    # The activation spectra take only the last position of one site, in a faster pass.
    data = prepare(tiny_measure(), config, dataset(config.task))
    before = measure(subject, data).rows
    monkeypatch.setattr(registry, "REGISTRY", (*REGISTRY, norms))
    rows = measure(subject, data).rows
    added = [r for r in rows if r["quantity"] == "square_sum"]
    states = torch.cat([a["embed"] for a in subject.activations(data.sequences, ("embed",))])
    assert added[0]["value"] == pytest.approx(float(states.square().sum()))
    assert repr([r for r in rows if r["quantity"] != "square_sum"]) == repr(before)
    assert measured_versions(tiny_measure())["norms"] == 3


def test_a_measurement_between_steps_needs_a_schedule():
    nobody: Any = lambda config, run, training: None  # noqa: E731
    with pytest.raises(ValueError, match="schedule and observer"):
        Measurement("x", 1, "none", frozenset({"updates"}), observer=nobody)
    with pytest.raises(ValueError, match="either begin or observer"):
        Measurement("x", 1, "none", frozenset({"updates"}))


def test_stored_checkpoints_have_no_updates(tiny_measure):
    check_stored(tiny_measure())
    with pytest.raises(MeasureError, match="updates can be measured only between the steps"):
        check_stored(tiny_measure(updates=5))
    with pytest.raises(MeasureError, match="update_window is 1"):
        tiny_measure(update_window=1)


def observed(config, measuring) -> Any:
    """Train with observers; return what each found, and the weights after every step."""
    found = observers(measuring, config)

    class Everything:
        def __init__(self):
            self.weights = []

        def due(self, step):
            return True

        def look(self, view):
            self.weights.append({n: w.clone() for n, w in view.weights().items()})

    everything = Everything()
    watching: list[Any] = [*found, everything]
    for _ in train(Ensemble([config]), [watching]):
        pass
    return found, everything.weights


@pytest.mark.parametrize(("stage", "groups"), [("rope", ["adamw"]), ("muon", ["adamw", "muon"])])
def test_windows_of_updates_are_those_of_the_weights(tiny_run, tiny_measure, stage, groups):
    config = tiny_run(stage=stage)
    ((observer,), weights) = observed(config, tiny_measure(updates=5, update_window=3))
    sheets = observer.flush()
    assert observer.flush() == []
    assert [s.step for s in sheets] == [5, 10]
    raw = [[s for s in sheet.spectra if s["object"] == "update"] for sheet in sheets]
    assert [s["site"] for s in raw[0]] == groups
    for sheet, spectra in zip(sheets, raw, strict=True):
        assert sheet.tokens == sheet.step * config.tokens_per_step
        sizes = 0
        for spectrum in spectra:
            names = observer.members[spectrum["site"]]
            flat = [torch.cat([w[n].flatten() for n in names]) for w in weights]
            updates = torch.stack([flat[s] - flat[s - 1] for s in range(sheet.step - 2, sheet.step + 1)])
            plain = torch.linalg.svdvals(updates.double()).numpy()
            np.testing.assert_allclose(spectrum["values"], plain, rtol=1e-6)
            assert (spectrum["kind"], spectrum["n"], spectrum["d"]) == ("singular", 3, updates.shape[1])
            sizes += updates.shape[1]
            edge = spectral_edge(updates, momentum=0.9 if spectrum["site"] == "adamw" else 0.95, stride=1)
            own = [r for r in sheet.rows if (r["object"], r["site"]) == ("update", spectrum["site"])]
            rows = {r["quantity"]: r for r in own}
            assert (rows["edge_k"]["value"], rows["edge_k"]["null"]) == (edge.k, edge.null_k)
            assert rows["edge_gap"]["value"] == pytest.approx(edge.gap)
            assert rows["edge_p"]["value"] == edge.p_value
        assert sizes == sum(w.numel() for w in weights[0].values())


def test_only_the_steps_of_a_window_are_looked_at(tiny_run, tiny_measure):
    ((observer,), _) = observed(tiny_run(), tiny_measure(updates=50, update_window=4))
    assert [s for s in range(101) if observer.due(s)] == [0, *range(45, 51), *range(95, 101)]
    assert observer.flush() == []


def test_an_interrupted_window_continues_to_the_same_bits(tiny_run, tiny_measure):
    config, measuring = tiny_run(stage="muon"), tiny_measure(updates=4, update_window=3)
    ((whole,), _) = observed(config, measuring)
    first = observers(measuring, config)
    snapshot = next(s for s in train(Ensemble([config]), [first]) if s.step == 6)
    found, state = first[0].flush(), first[0].state_dict()
    run_state = snapshot.ensemble.state(0)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    second = observers(measuring, config)
    second[0].load_state_dict(state)
    for _ in train(Ensemble.from_states([config], [run_state], 6), [second]):
        pass
    sheets = [*found, *second[0].flush()]
    assert repr([dataclasses.astuple(s) for s in sheets]) == repr(
        [dataclasses.astuple(s) for s in whole.flush()]
    )


def test_a_diverged_window_gives_no_rows(tiny_run, tiny_measure):
    observer: Any = observers(tiny_measure(updates=4, update_window=3), tiny_run())[0]

    @dataclasses.dataclass
    class View:
        step: int
        tokens: int = 0

        def weights(self):
            shift = float("nan") if self.step >= 7 else self.step**2
            return {n: torch.arange(8.0) * shift for names in observer.members.values() for n in names}

    for step in range(9):
        if observer.due(step):
            observer.look(View(step))
    (sheet,) = observer.flush()
    assert sheet.step == 4
    rows = {r["quantity"]: r for r in sheet.rows}
    # All updates have one direction.
    assert (rows["edge_k"]["value"], rows["edge_gap"]["status"]) == (1, "not fitted")
