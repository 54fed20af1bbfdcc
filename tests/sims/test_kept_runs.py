"""A store of finished runs: small, read like run folders, added to and taken from, refused when damaged."""

import json
import shutil
import threading
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sims import cli
from sims.measure.registry import measured_versions
from sims.runs.config_file import CONFIG
from sims.runs.kept import NUMBERS, Keep, _rounded, check_store, pack, restore
from sims.runs.store import RunFolder
from sims.studies.paper.profiles import Profile
from sims.sweep.grid import Grid
from sims.system.errors import StoreError
from sims.system.locks import take_lock
from sims.training.toy_runner import run_group

ALL = Keep(("loss", "activation", "gradient", "weight", "probe"), ("activation", "gradient"))
FEW = Keep(("loss", "activation"), ())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two stages with two seeds, and what was asked for."""
    from dataclasses import replace

    from tiny_runs import MEASURE, RUN

    out = tmp_path_factory.mktemp("trained")
    measure = replace(MEASURE, causal_sequences=0, early=1)
    grid = Grid(RUN, ("rope", "muon"), (8,), (0, 1), base_lrs={}, lrs=(1e-2,))
    for config in grid.configs():
        assert not run_group([config], measure, out)
    return out, grid, measure


@pytest.fixture
def store(trained, tmp_path):
    out, grid, _ = trained
    for config in grid.configs():
        assert pack(RunFolder(out / config.run_id), tmp_path / "kept", ALL) > 0
    return tmp_path / "kept"


def test_numbers_come_back_to_the_precision_of_float32_and_losses_exactly(trained, store):
    out, grid, _ = trained
    for config in grid.configs():
        whole, kept = RunFolder(out / config.run_id), RunFolder(store / config.run_id)
        rows = whole.rows()
        rows = rows[rows["object"] != "table"].reset_index(drop=True)
        exact = rows["object"] == "loss"
        pd.testing.assert_frame_equal(kept.rows()[exact], rows[exact])
        texts = [name for name in rows if name not in NUMBERS]
        pd.testing.assert_frame_equal(kept.rows()[texts], rows[texts])
        for name in NUMBERS:
            np.testing.assert_array_equal(kept.rows()[name][~exact], rows[name][~exact].astype("float32"))
        spectra = whole.spectra()
        spectra = spectra[spectra["object"].isin(ALL.spectra)].reset_index(drop=True)
        for mine, theirs in zip(kept.spectra()["values"], spectra["values"], strict=True):
            np.testing.assert_array_equal(mine, theirs.astype("float32"))
        assert kept.spec == config
        assert not kept.checkpoints()
        assert kept.outcome["seconds"] == whole.outcome["seconds"]
        assert kept.provenance["command"] == whole.provenance["command"]
        assert "float32" in kept.outcome["kept"]


@pytest.mark.slow
@given(st.lists(st.floats(allow_nan=False), max_size=20))
@example([1e39, -1e39, 1e-50, 3.5e38, 1.1e-38, 0.0, -0.0])
@settings(max_examples=100, deadline=None)
def test_rounding_keeps_every_number_to_a_part_in_2_to_the_24(values):
    """Also those beyond float32: none becomes Inf, and none 0."""
    values = np.array(values, float)
    found = _rounded(values)
    assert np.isfinite(found).tolist() == np.isfinite(values).tolist()
    finite = np.isfinite(values)
    assert (np.abs(found - values)[finite] <= 2.0**-24 * np.abs(values)[finite]).all()


def test_a_run_without_its_file_for_people_is_kept_and_taken(trained, tmp_path):
    out, grid, _ = trained
    first = grid.configs()[0].run_id
    shutil.copytree(out / first, tmp_path / "runs" / first)
    (tmp_path / "runs" / first / CONFIG).unlink()
    assert pack(RunFolder(tmp_path / "runs" / first), tmp_path / "kept", FEW) > 0
    assert restore(tmp_path / "kept", tmp_path / "again", [first]) == [first]
    assert RunFolder(tmp_path / "again" / first).done


def test_a_store_is_smaller_and_a_shorter_list_smaller_still(trained, store, tmp_path):
    out, grid, measure = trained
    sizes = check_store(store, measured_versions(measure))
    assert set(sizes) == {c.run_id for c in grid.configs()}
    for name, size in sizes.items():
        whole = sum((out / name / f"{table}.parquet").stat().st_size for table in ("rows", "spectra"))
        assert pack(RunFolder(out / name), tmp_path / "few", FEW) < size < 0.8 * whole
    assert check_store(tmp_path / "none", {}) == {}


def test_a_run_without_room_is_not_added(trained, tmp_path):
    out, grid, _ = trained
    run = RunFolder(out / grid.configs()[0].run_id)
    size = pack(run, tmp_path / "a", ALL)
    assert pack(run, tmp_path / "b", ALL, room=size - 1) == 0
    assert not (tmp_path / "b").exists()
    assert pack(run, tmp_path / "c", ALL, room=size) == size


def test_kept_runs_are_copied_where_they_are_missing_and_replace_what_was_begun(trained, store, tmp_path):
    _, grid, measure = trained
    first, second, *_ = grid.configs()
    new = tmp_path / "new"
    RunFolder(new / first.run_id).start(first, measure, {}, measured_versions(measure))
    assert restore(store, new, [first.run_id, second.run_id, "other"]) == [first.run_id, second.run_id]
    assert restore(store, new, [first.run_id]) == []
    for config in (first, second):
        assert RunFolder(new / config.run_id).done
        assert not (new / config.run_id / "parts").exists()
        pd.testing.assert_frame_equal(
            RunFolder(new / config.run_id).rows(), RunFolder(store / config.run_id).rows()
        )


def test_a_run_that_another_worker_ends_meanwhile_is_left_alone(trained, store, tmp_path, monkeypatch):
    _, grid, _ = trained
    name, locked = grid.configs()[0].run_id, RunFolder.locked

    @contextmanager
    def ended(run):
        with locked(run):
            (run.path / "done.json").write_text("theirs")
            yield

    monkeypatch.setattr(RunFolder, "locked", ended)
    assert restore(store, tmp_path / "new", [name]) == []
    assert (tmp_path / "new" / name / "done.json").read_text() == "theirs"


@pytest.mark.parametrize("name", ["rows.parquet", "spectra.parquet", "run.json", "done.json"])
def test_a_damaged_store_is_refused(trained, store, name):
    _, grid, measure = trained
    file = store / grid.configs()[0].run_id / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(StoreError):
        check_store(store, measured_versions(measure))


def test_other_versions_are_refused_and_runs_without_digests(trained, store):
    _, grid, measure = trained
    versions = measured_versions(measure)
    with pytest.raises(StoreError, match="another version of 'activations'"):
        check_store(store, {**versions, "activations": versions["activations"] + 1})
    with pytest.raises(StoreError, match="another version of 'new' \\(there none, here 1\\)"):
        check_store(store, {**versions, "new": 1})
    file = store / grid.configs()[0].run_id / "done.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in record.items() if k not in ("files", "sha256")}))
    with pytest.raises(StoreError, match="has no digests"):
        check_store(store, versions)


def test_adding_that_was_interrupted_is_done_again(trained, store):
    """done.json is written last: without it a run is neither kept nor taken from there."""
    out, grid, measure = trained
    first = grid.configs()[0].run_id
    (store / first / "done.json").unlink()
    assert first not in check_store(store, measured_versions(measure))
    assert restore(store, out / "elsewhere", [first]) == []
    assert pack(RunFolder(out / first), store, ALL) > 0
    assert first in check_store(store, measured_versions(measure))
    assert not (store / first / ".lock").exists()


def test_one_process_adds_a_run_at_a_time(trained, store, monkeypatch):
    out, grid, _ = trained
    first = grid.configs()[0].run_id
    monkeypatch.setattr("sims.runs.store.LOCK_SECONDS", 0)
    before = (store / first / "done.json").read_bytes()
    with (
        RunFolder(store / first).locked(),
        pytest.raises(StoreError, match="another process is still working"),
    ):
        pack(RunFolder(out / first), store, ALL)
    assert (store / first / "done.json").read_bytes() == before


def test_a_process_that_waited_for_another_to_add_a_run_ends_well(trained, store):
    """It waits for a lock that the other deletes with its last step."""
    out, grid, _ = trained
    first = grid.configs()[0].run_id
    held = take_lock(store / first / ".lock")

    def release():
        (store / first / ".lock").unlink()
        held.close()

    timer = threading.Timer(0.05, release)
    timer.start()
    assert pack(RunFolder(out / first), store, ALL) > 0
    timer.join()
    assert sorted(p.name for p in (store / first).iterdir() if p.name[0] == ".") == []


@pytest.mark.slow
def test_the_command_keeps_runs_goes_on_from_them_and_makes_the_same_page(
    trained, tmp_path, capsys, monkeypatch
):
    """Tables of the page from the store are those from the run folders, to the precision of float32."""
    out, grid, measure = trained
    found = Profile("published", (grid,), (), measure, instalments=True)
    monkeypatch.setattr("sims.studies.paper.profiles.profile", lambda name: found)
    kept, again = tmp_path / "kept", tmp_path / "again"
    line = ["reproduce", "all", "--profile", "published", "--workers", "1", "--keep", str(kept)]
    assert cli.main([*line, "--out", str(out)]) == 0
    assert "4 runs, 4 of them new" in capsys.readouterr().out
    assert cli.main([*line, "--out", str(again), "--cells", "muon:8"]) == 0
    told = capsys.readouterr().out
    assert "4 runs are taken from" in told
    assert "4 runs, 0 of them new" in told
    assert cli.main(["reproduce", "all", "--runs", str(kept), "--out", str(tmp_path / "page")]) == 0
    first = out / "reproduction"
    for folder in (again / "reproduction", tmp_path / "page" / "reproduction"):
        tables = sorted(path.name for path in first.glob("*.csv"))
        assert tables
        assert tables == sorted(path.name for path in folder.glob("*.csv"))
        for name in tables:
            if not (first / name).read_text().strip():
                assert not (folder / name).read_text().strip()
                continue
            pd.testing.assert_frame_equal(
                pd.read_csv(folder / name), pd.read_csv(first / name), rtol=1e-4, atol=1e-6, obj=name
            )


def test_a_store_with_another_run_of_a_name_is_refused(trained, store, tmp_path, capsys, monkeypatch):
    _, grid, measure = trained
    found = Profile("published", (grid,), (), measure, instalments=True)
    monkeypatch.setattr("sims.studies.paper.profiles.profile", lambda name: found)
    file = store / grid.configs()[0].run_id / "run.json"
    record = json.loads(file.read_text())
    record["measure"]["every"] += 1
    file.write_text(json.dumps(record))
    line = ["reproduce", "all", "--profile", "published", "--keep", str(store), "--out", str(tmp_path / "o")]
    assert cli.main([*line, "--workers", "1"]) == 2
    assert "run.json" in capsys.readouterr().err
    assert not list((tmp_path / "o").glob("*-*"))
