"""The study of learning rates by layer: runs that are there, and the command that trains them."""

import json
from dataclasses import replace
from itertools import product

import pandas as pd
import pytest
from planted_rates import (
    base,
    measure_of,
)

from sims import cli
from sims.analysis.pruning import OPEN
from sims.runs.lm_config import LmConfig
from sims.studies import claims as words
from sims.studies.rates import measured, preset
from sims.studies.rates.measured import matrix_rows, rates_data
from sims.system.errors import MeasureError
from sims.training.rates import layerwise
from sims.training.toy_runner import run_group
from toymodel import Ensemble
from toymodel.config import RunConfig
from toymodel.rates import Rates


@pytest.fixture(autouse=True)
def few_models(monkeypatch):
    monkeypatch.setattr(measured, "NOISE_MODELS", 8)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = tmp_path_factory.mktemp("rates")
    for by in ("uniform", "farms"):
        configs = [
            replace(base(), seed=seed, lr=lr, rates=Rates(by)) for seed in (0, 1) for lr in (1e-3, 2e-3)
        ]
        assert not run_group(configs, measure_of(), out)
    return out


def test_arms_rates_and_seeds_are_read_from_the_configurations(runs):
    data = rates_data([runs])
    assert data.cells == ["rope"]
    assert set(zip(data.losses["arm"], data.losses["lr"], data.losses["seed"], strict=True)) == set(
        product(("uniform", "farms"), (1e-3, 2e-3), (0, 1))
    )
    one = data.losses.iloc[0]
    assert one["loss"] == data.folders[one["run"]].outcome["val_loss"]
    assert rates_data([data.folders[one["run"]].path]).losses["run"].tolist() == [one["run"]]


def test_multipliers_are_those_that_the_controller_chooses(runs):
    data = rates_data([runs])
    run = data.losses.loc[data.losses["arm"] == "farms", "run"].iloc[0]
    table = measured.exponents(data, [run])
    first = table[table["step"] == 0].set_index("matrix")["multiplier"]
    config = data.specs[run]
    assert isinstance(config, RunConfig)
    ensemble = Ensemble([config], controller=layerwise)
    (controller,) = ensemble.trainable.controllers
    chosen = controller.choose(ensemble.view(0))
    assert {name: first[name] for name in chosen} == pytest.approx(dict(chosen), rel=1e-5)
    assert first.nunique() > 1
    # Of zeros at the start.
    assert first["blocks.0.attn.o"] == 1
    assert table.loc[(table["step"] == 0) & (table["matrix"] == "blocks.0.attn.o"), "hill"].isna().all()
    bad = {name: weight * float("nan") for name, weight in ensemble.weights(0).items()}
    assert list(matrix_rows(0, bad, Rates())) == []


def test_unlike_runs_are_refused(runs, tmp_path):
    assert not run_group([replace(base(), steps=5)], measure_of(), tmp_path / "steps")
    with pytest.raises(MeasureError, match="differ in steps"):
        rates_data([runs, tmp_path / "steps"])
    assert not run_group([replace(base(), rates=Rates("depth", low=0.1))], measure_of(), tmp_path / "low")
    with pytest.raises(MeasureError, match=r"differ in rates\.low"):
        rates_data([runs, tmp_path / "low"])
    other = replace(base(), lr=4e-3, task=replace(base().task, seed=7), rates=Rates("farms"))
    assert not run_group([other], measure_of(), tmp_path / "data")
    with pytest.raises(MeasureError, match=r"differ in task\.seed: their losses are of other data"):
        rates_data([runs, tmp_path / "data"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(MeasureError, match="no run that was trained to its end"):
        rates_data([tmp_path / "empty"])


def test_language_models_on_other_data_are_refused():
    one = LmConfig("tiny", "rope", 300, 16, 2, 5, data="a")
    specs = {"one": one, "other": replace(one, data="b", rates=Rates("farms"))}
    table = pd.DataFrame([{**measured._row(spec), "run": run} for run, spec in specs.items()])
    with pytest.raises(MeasureError, match="differ in data"):
        measured._require_alike(table, specs)
    measured._require_alike(table, {**specs, "other": replace(specs["other"], data="a")})


def test_the_command_answers_of_runs_that_are_there(runs, tmp_path, capsys, undrawn):
    assert cli.main(["rates", str(runs), "--out", str(tmp_path / "page"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {claim["outcome"] for claim in found["claims"]} == {words.OPEN}
    assert [row["verdict"] for row in found["summary"]] == [OPEN]
    assert sum(row["runs"] for row in found["missing"]) == 2 * 2 * 3 + 10 * 2 * 5
    assert (tmp_path / "page" / "index.html").exists()


@pytest.mark.slow
def test_the_command_trains_what_is_missing_and_goes_on(tmp_path, capsys, monkeypatch, undrawn):
    small = preset.Profile(base().task, base().model, 4, steps=3)
    monkeypatch.setitem(preset.PROFILES, "quick", small)
    monkeypatch.setattr(preset, "ARMS", ("uniform", "farms"))
    monkeypatch.setattr(preset, "rates_measurements", lambda *_: replace(measure_of(), every=3))
    line = [
        "rates",
        "--seeds",
        "1",
        "--shuffles",
        "1",
        "--workers",
        "1",
        "--out",
        str(tmp_path / "out"),
        "--json",
    ]
    assert cli.main(line) == 0
    found = json.loads(capsys.readouterr().out)
    assert not found["failed"]
    folders = sorted((tmp_path / "out").glob("*/done.json"))
    assert len(folders) == 9
    before = [path.stat().st_mtime_ns for path in folders]
    gone = folders[0].parent
    for file in sorted(gone.rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    gone.rmdir()
    assert cli.main(line) == 0
    after = [path.stat().st_mtime_ns for path in folders]
    assert after[1:] == before[1:]
    assert after[0] != before[0]
    assert cli.main([*line[:-1], "--steps", "2"]) != 0
    assert "another" in capsys.readouterr().err


def test_the_preset_pairs_everything_but_the_multipliers():
    configs = preset.rates_configs()
    assert len({config.run_id for config in configs}) == 225
    alike = {replace(config, rates=Rates(), lr=1.0, seed=0) for config in configs}
    assert len(alike) == 1
    assert len(preset.rates_configs(("rope", "muon"), range(2), shuffles=0)) == 2 * 2 * 3 * 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "0"], "--seeds is 0"),
        (["--shuffles", "-1"], "--shuffles is -1"),
        (["--steps", "0"], "--steps is 0"),
        (["--stage", "rope", "rope"], "name each stage once"),
        (["FOLDER", "--seeds", "3", "--dry-run"], "leave out --seeds, --dry-run"),
    ],
)
def test_bad_options_are_refused(tmp_path, capsys, words, message):
    given = [str(tmp_path) if word == "FOLDER" else word for word in words]
    with pytest.raises(SystemExit) as stop:
        raise SystemExit(cli.main(["rates", *given]))
    assert stop.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
