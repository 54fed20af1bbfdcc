"""Results of stored checkpoints: measured once, the same as without the cache, and again when anything changes."""

import os
import shutil
from dataclasses import replace

import pandas as pd
import pytest
from rich.console import Console

from sims import cli
from sims.measure import cache
from sims.measure.cache import CheckpointMeasurement, cached, measured
from sims.runs.folders import listing
from sims.runs.store import RunFolder, run_folders
from sims.studies.bands.measured import BandPlan, measure_bands
from sims.studies.robustness.measured import RobustnessPlan, robustness_report
from sims.studies.theory import checkpoint_tables
from sims.training.toy_runner import run_group
from toymodel import TaskConfig
from toymodel.errors import CheckpointError

TASK = TaskConfig(vocab=80, length=8, train=2_000, val=64, test=16)
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two stages and seeds, with checkpoints."""
    from tiny_runs import MEASURE, RUN

    out = tmp_path_factory.mktemp("runs")
    configs = [
        replace(RUN, stage=stage, seed=seed, task=TASK) for stage in ("rope", "untied") for seed in (0, 1)
    ]
    measuring = replace(
        MEASURE, gradient_sequences=0, causal_sequences=0, training_bands=0, bands=((23, 10),)
    )
    for config in configs:
        assert not run_group([config], measuring, out)
    return out


@pytest.fixture
def runs(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "runs")


@pytest.fixture
def loaded(monkeypatch):
    """The checkpoints that were loaded."""
    found = []
    for module in (cache, checkpoint_tables):

        def load(path, config, original=module.load_tensors):
            found.append(path)
            return original(path, config)

        monkeypatch.setattr(module, "load_tensors", load)
    return found


BANDS = BandPlan(bands=4, positions=(0,), fractions=(0.5, 1.0), mixed_per_state=8)
ROBUSTNESS = RobustnessPlan(sequences=64, fewer=(32,), window=(1, 10), windows=((2, 12),))


def theory_tables(folder):
    found = vars(checkpoint_tables.gather(folder, QUIET))
    return {name: table for name, table in found.items() if isinstance(table, pd.DataFrame)}


STUDIES = {
    "bands": (lambda f: {"bands": measure_bands(f, BANDS, QUIET)}, 8),
    "robustness": (lambda f: robustness_report(f, ROBUSTNESS, QUIET).tables, 4),
    # Three checkpoints a run, and the first of each once more, for the change since then.
    "theory": (theory_tables, 4 * 4),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_a_second_call_measures_nothing(runs, loaded, monkeypatch, name):
    study, count = STUDIES[name]
    with monkeypatch.context() as without:
        without.setattr(cache, "_read", lambda path, key: None)
        without.setattr(cache, "write_atomic", lambda path, write: None)
        plain = study(runs)
    loaded.clear()
    first = study(runs)
    assert len(loaded) == count
    loaded.clear()
    second = study(runs)
    assert loaded == []
    for table in plain:
        for other in (first, second):
            pd.testing.assert_frame_equal(other[table], plain[table], check_exact=True)


def test_another_study_or_setting_measures_again(runs, loaded):
    measure_bands(runs, BANDS, QUIET)
    loaded.clear()
    # Another choice of checkpoints measures only the new ones.
    measure_bands(runs, replace(BANDS, fractions=(0.0, 0.5, 1.0)), QUIET)
    assert [p.stem for p in loaded] == ["step-000000000"] * 4
    loaded.clear()
    measure_bands(runs, replace(BANDS, per_state=9), QUIET)
    assert len(loaded) == 8


def records(subject):
    return {"numbers": [{"step": subject.step, "x": 0.1}, {"x": float("nan"), "name": "a"}], "none": []}


NUMBERS = CheckpointMeasurement("numbers", 1, {"k": (1, 2)}, records)


@pytest.fixture
def one(runs):
    folder = run_folders(runs)[0]
    return folder, folder.checkpoints()[-1], folder.configs()[0]


def files(folder):
    return sorted((folder.path / "measured").glob("*"))


def test_what_is_stored_is_what_was_measured(one, loaded):
    first, second = measured(*one, NUMBERS), measured(*one, NUMBERS)
    assert len(loaded) == 1
    assert repr(first) == repr(second)
    assert repr(second) == repr(records(type("Subject", (), {"step": 12})))
    assert len(files(one[0])) == 1


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"settings": {"k": (1, 3)}}, {"name": "others"}],
)
def test_every_part_of_the_key_counts(one, loaded, change):
    measured(*one, NUMBERS)
    measured(*one, replace(NUMBERS, **change))
    assert len(loaded) == 2
    assert len(files(one[0])) == 2


def test_another_checkpoint_is_measured_anew(one, loaded):
    folder, file, config = one
    measured(folder, file, config, NUMBERS)
    other = folder.checkpoints()[0]
    measured(folder, other, config, NUMBERS)
    assert len(files(folder)) == 2
    # The file now holds other weights.
    shutil.copy(other, file)
    os.utime(file, ns=(1, 1))
    assert measured(folder, file, config, NUMBERS)["numbers"][0]["step"] == 0
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        measured(folder, file, config, NUMBERS)


def test_damaged_files_are_measured_again(one, loaded):
    measured(*one, NUMBERS)
    (path,) = files(one[0])
    whole = path.read_bytes()
    # A flipped bit anywhere, names of columns included, a missing end, nothing at all, something else.
    places = range(0, len(whole), len(whole) // 50)
    flips = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in places]
    for damage in (*flips, whole[:-5], b"", b"text"):
        path.write_bytes(damage)
        loaded.clear()
        assert repr(measured(*one, NUMBERS)) == repr(records(type("Subject", (), {"step": 12})))
        assert len(loaded) == 1
        assert path.read_bytes() == whole


def test_a_file_of_another_key_is_not_taken(one, loaded):
    measured(*one, NUMBERS)
    (path,) = files(one[0])
    measured(*one, replace(NUMBERS, version=2))
    (other,) = set(files(one[0])) - {path}
    shutil.copy(other, path)
    loaded.clear()
    measured(*one, NUMBERS)
    assert len(loaded) == 1


def test_a_folder_that_cannot_be_written_gives_the_numbers_all_the_same(one, loaded):
    (one[0].path / "measured").write_text("a file in the way")
    with pytest.warns(UserWarning, match="is not stored"):
        found = measured(*one, NUMBERS)
    assert found["numbers"][0]["step"] == 12


def test_settings_must_be_plain(tmp_path):
    with pytest.raises(TypeError, match="is no plain value"):
        cached(tmp_path, "x", 1, object(), dict)


def test_listing_export_and_tidying_are_not_disturbed(runs, one, tmp_path, capsys):
    before = listing(runs)
    rows = one[0].rows()
    for folder in run_folders(runs):
        measured(folder, folder.checkpoints()[-1], folder.configs()[0], NUMBERS)
    pd.testing.assert_frame_equal(listing(runs), before)
    pd.testing.assert_frame_equal(one[0].rows(), rows)
    assert cli.main(["export", str(runs), "--to", str(tmp_path / "rows.csv"), "--table", "rows"]) == 0
    assert len(pd.read_csv(tmp_path / "rows.csv")) == sum(len(f.rows()) for f in run_folders(runs))
    folder = RunFolder(one[0].path)
    (folder.path / "measured" / ".tmp-1-numbers").write_text("left by a killed process")
    folder.tidy()
    assert [p.name.split("-")[0] for p in files(folder)] == ["numbers"]
