"""Windows of parameter updates, measured between the steps of a run: stored, resumed, and of no effect on it."""

from dataclasses import replace

import pytest
import torch
from listed import unsealed
from safetensors.torch import load_file

from sims.analysis.caveats import caveats
from sims.analysis.runs import load
from sims.measure.rows import MeasurementRows
from sims.measure.update_rows import window_rows
from sims.measure.updates import UPDATES
from sims.runs.store import RunFolder
from sims.system.errors import MeasureError, StoreError
from sims.system.files import read_json, write_json
from sims.training.toy_runner import run_group
from spectra import UpdateWindow
from toymodel.config import as_dict

WINDOWS = {"updates": 4, "update_window": 3}


def test_the_p_value_is_the_larger_one_where_the_directions_of_noise_are_not_known():
    window, sheet = UpdateWindow(4), MeasurementRows(10, 10)
    for update in torch.randn(4, 1500, generator=torch.Generator().manual_seed(2), dtype=torch.float64):
        window.push(update)
    window_rows(sheet, "all", window.last(4), window.last(4), momentum=0.0, stride=1, draws=99)
    rows = {(row["object"], row["quantity"]): row for row in sheet.rows}
    for object_ in ("update", "normalised_update"):
        p = rows[object_, "p_momentum"]
        assert p["low"] < p["value"] == p["high"]


def rows_of(folder):
    return folder.rows().drop(columns=["reason"]), folder.spectra()


@pytest.mark.parametrize("until", [3, 6])
def test_a_run_resumed_within_a_window_measures_what_an_undisturbed_one_does(
    until, tmp_path, tiny_run, tiny_measure
):
    configs = [tiny_run(seed=s, steps=12, eval_every=3, stage="muon") for s in (0, 1)]
    measuring = tiny_measure(**WINDOWS)
    assert not run_group(configs, measuring, tmp_path / "whole")
    assert not run_group(configs[:1], measuring, tmp_path / "parts", until=until)
    assert not run_group(configs, measuring, tmp_path / "parts")
    for config in configs:
        whole, parts = (RunFolder(tmp_path / name / config.run_id) for name in ("whole", "parts"))
        for one, other in zip(rows_of(whole), rows_of(parts), strict=True):
            assert one.equals(other)
        edges = whole.rows().query("quantity == 'edge_k'")
        assert set(edges["step"]) == {4, 8, 12}
        assert set(edges["site"]) == {"adamw", "muon"}


def test_looking_changes_neither_losses_nor_weights(tmp_path, tiny_run, tiny_measure):
    config = tiny_run(steps=12, eval_every=3)
    for name, more in (("with", WINDOWS), ("without", {})):
        assert not run_group([config], tiny_measure(**more), tmp_path / name)
    seen, unseen = (RunFolder(tmp_path / name / config.run_id) for name in ("with", "without"))
    rows = seen.rows().query("object not in ('update', 'normalised_update')").reset_index(drop=True)
    assert rows.equals(unseen.rows())
    assert seen.checkpoints()
    for one, other in zip(seen.checkpoints(), unseen.checkpoints(), strict=True):
        weights, others = load_file(one), load_file(other)
        assert weights.keys() == others.keys()
        assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_run_json_records_what_was_measured_with_versions(tmp_path, tiny_run, tiny_measure):
    config = tiny_run()
    run_group([config], tiny_measure(**WINDOWS), tmp_path)
    measured = read_json(tmp_path / config.run_id / "run.json")["measured"]
    assert measured["updates"] == UPDATES.version
    assert measured["activations"] >= 1
    # Settings at their defaults are not written, so that folders from before they existed are the same run.
    assert not {"updates", "update_window"} & as_dict(tiny_measure()).keys()


def test_rows_of_two_versions_do_not_mix(tmp_path, tiny_run, tiny_measure):
    config, measuring = tiny_run(), tiny_measure()
    run_group([config], measuring, tmp_path, until=3)
    file = tmp_path / config.run_id / "run.json"
    record = read_json(file)
    begun = record["measured"]
    for other, said in (
        ({**begun, "weights": 99}, f"there 99, here {begun['weights']}"),
        ({**begun, "cakes": 1}, "there 1, here not measured"),
        (
            {name: begun[name] for name in begun if name != "weights"},
            f"there not measured, here {begun['weights']}",
        ),
    ):
        write_json(file, {**record, "measured": other})
        (reason,) = run_group([config], measuring, tmp_path).values()
        assert said in reason
    write_json(file, record)
    assert not run_group([config], measuring, tmp_path)
    with pytest.raises(StoreError, match="another configuration"):
        RunFolder(file.parent).check(config, replace(measuring, updates=4))


def test_a_folder_of_mixed_versions_has_a_caveat(tmp_path, tiny_run, tiny_measure):
    configs = [tiny_run(seed=s) for s in (0, 1)]
    run_group(configs, tiny_measure(), tmp_path)
    assert not load(tmp_path).mixed
    file = tmp_path / configs[1].run_id / "run.json"
    unsealed(file.parent)
    record = read_json(file)
    write_json(file, {**record, "measured": {**record["measured"], "weights": 99}})
    runs = load(tmp_path)
    assert runs.mixed == ("weights",)
    assert any("measured by different versions" in said and "weights" in said for said in caveats(runs))


def test_each_measurement_has_a_schedule_of_its_own(tmp_path, tiny_run, tiny_measure):
    config = tiny_run(steps=12, eval_every=3)
    often = tiny_measure(every=6, schedules=("weights=2", "activations=4"))
    assert not run_group([config], tiny_measure(every=6), tmp_path / "usual")
    assert not run_group([config], often, tmp_path / "whole")
    assert not run_group([config], often, tmp_path / "parts", until=3)
    assert not run_group([config], often, tmp_path / "parts")
    usual, whole, parts = (RunFolder(tmp_path / name / config.run_id) for name in ("usual", "whole", "parts"))
    for one, other in zip(rows_of(whole), rows_of(parts), strict=True):
        assert one.equals(other)
    spectra = whole.spectra().groupby("object")["step"].unique()
    assert {name: sorted(steps) for name, steps in spectra.items()} == {
        "weight": list(range(0, 13, 2)),
        "activation": [0, 4, 8, 12],
        # The first gradients of most matrices are zero.
        "gradient": [6, 12],
    }
    # At the steps that both have, the numbers are the same.
    keys = ["step", "quantity", "object", "site", "band", "regime", "set", "window", "detail"]
    ours, theirs = (folder.rows().set_index(keys)["value"] for folder in (whole, usual))
    shared = theirs.index.intersection(ours.index)
    assert {"weight", "activation", "gradient", "probe"} <= set(shared.get_level_values("object"))
    assert ours[shared].equals(theirs[shared])


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (("weights",), "write name=steps, such as weights=25"),
        (("weights=0",), "write name=steps"),
        (("weights=5+0/decade",), "write name=steps"),
        (("weights=5+3",), "weights=25\\+28/decade"),
        (("weights=500+3/decade",), "the run has .* steps"),
        (("weights=2", "weights=3"), "names 'weights' twice"),
        (("cakes=2",), "'cakes', which is not measured here; choose from activations"),
        (("updates=2",), "'updates', which is not measured here"),
    ],
)
def test_schedules_that_cannot_be_are_refused_before_training(
    entries, message, tmp_path, tiny_run, tiny_measure
):
    with pytest.raises(MeasureError, match=message):
        run_group([tiny_run()], tiny_measure(schedules=entries), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_stopped_at_its_start_has_its_first_rows_once(tmp_path, tiny_run, tiny_measure):
    config, measuring = tiny_run(), tiny_measure(schedules=("weights=2",))
    assert not run_group([config], measuring, tmp_path / "whole")
    assert not run_group([config], measuring, tmp_path / "parts", stopped=lambda: True)
    assert not RunFolder(tmp_path / "parts" / config.run_id).done
    assert not run_group([config], measuring, tmp_path / "parts")
    whole, parts = (RunFolder(tmp_path / name / config.run_id) for name in ("whole", "parts"))
    for one, other in zip(rows_of(whole), rows_of(parts), strict=True):
        assert one.equals(other)


def test_a_run_that_diverges_between_evaluations_ends_as_diverged(tmp_path, tiny_run, tiny_measure):
    config = tiny_run(stage="baseline", lr=3e38, steps=12, eval_every=6)
    assert not run_group(
        [config], tiny_measure(updates=2, update_window=2, schedules=("weights=1",)), tmp_path
    )
    folder = RunFolder(tmp_path / config.run_id)
    assert folder.outcome["ended"] == "diverged"
    rows = folder.rows().query("object in ('weight', 'update') and status == 'ok'")
    assert rows["value"].notna().all()
