"""Settings that a run does not read are told, and change none of its numbers."""

from dataclasses import replace

import pytest
from tiny_runs import MEASURE, RUN

from sims import cli
from sims.sweep.unread import notes, unread
from sims.system.errors import StoreError
from toymodel import Ensemble
from toymodel.tasks import ModularArithmetic

MLP = replace(RUN, stage="mlp", task=ModularArithmetic(p=5), batch_size=4, eval_size=None)
OTHER = {"newton_schulz": "exact", "task.pareto": 1.5, "task.noise_df": 5.0}
OTHER |= {"model.heads": 1, "model.layers": 2, "model.mlp_ratio": 3}


def changed(config, name, value):
    group, _, field = name.rpartition(".")
    return replace(
        config, **({group: replace(getattr(config, group), **{field: value})} if group else {name: value})
    )


def losses(config):
    ensemble = Ensemble([config])
    return ensemble.advance(2).tolist(), ensemble.evaluate().tolist()


@pytest.mark.parametrize("config", [replace(RUN, stage="rope"), MLP], ids=lambda config: config.stage)
def test_what_is_said_to_change_nothing_changes_nothing_but_the_name(config):
    assert unread(config)
    for name in unread(config):
        other = changed(config, name, OTHER[name])
        assert other.run_id != config.run_id
        assert losses(other) == losses(config)
        (note,) = notes([other], config)
        assert note.startswith(f"{name} is {OTHER[name]} and changes nothing")


@pytest.mark.parametrize("name", OTHER)
def test_what_is_read_is_not_told(name):
    """A stage with Muon and blocks, on mixtures with noise, reads all of them."""
    walks = replace(RUN.task, components_max=2, noise=1.0)
    config = replace(RUN, stage="muon", task=walks)
    assert not list(notes([changed(config, name, OTHER[name])], config))
    assert losses(changed(config, name, OTHER[name])) != losses(config)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"update_window": 5}, "measure.update_window is 5 and changes nothing (measure.updates is 0)"),
        ({"defect_pairs": 2}, "measure.defect_pairs is 2 and changes nothing (measure.defect is 0)"),
        (
            {"updates": 6, "update_window": 5, "update_windows": (2, 3)},
            "measure.update_windows has all windows",
        ),
        ({"training_bands": 0, "training_band_min": 9}, "measure.training_bands is 0"),
        ({"gradient_sequences": 0, "gradient_matrices": ("attn.o",)}, "measure.gradient_sequences is 0"),
    ],
)
def test_settings_of_what_is_not_measured_are_told(given, said):
    (note,) = notes([RUN], RUN, replace(MEASURE, **given), MEASURE)
    assert said in note
    assert not list(notes([RUN], RUN, MEASURE, MEASURE))


@pytest.mark.parametrize(
    ("eval_every", "every", "told"), [(4, 6, 12), (5, 3, 15), (3, 9, None), (3, 6, None)]
)
def test_a_period_that_evaluations_do_not_meet_is_told(eval_every, every, told):
    """The steps that are told are those at which runs are measured."""
    config, measuring = replace(RUN, steps=100, eval_every=eval_every), replace(MEASURE, every=every)
    found = list(notes([config], RUN, measuring, MEASURE))
    due = [s for s in range(1, 100) if s % eval_every == 0 and s % every == 0]
    assert due[0] == (told or every)
    assert len(found) == (told is not None)
    assert all(f"measured at evaluations, of which every {told} steps one is due" in note for note in found)


def test_the_command_tells_it_before_any_work(tmp_path, monkeypatch):
    def enough(sweep, console, tell):
        tell()
        raise StoreError("enough")

    monkeypatch.setattr("sims.sweep.sweep_run.run_all", enough)
    line = ("train", "small", "--stage", "rope", "--newton-schulz", "exact", "--out", str(tmp_path / "out"))
    with pytest.warns(
        UserWarning, match="newton_schulz is exact and changes nothing .stage rope has no Muon"
    ):
        assert cli.main([*line, "--workers", "1"]) == 2
