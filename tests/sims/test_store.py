"""Folders and files: whole or absent, claimed by one configuration, and clear about damage."""

import errno
import fcntl
import io
import json
import shutil

import pyarrow as pa
import pytest
import torch

from sims.models.reading import checkpoint_files
from sims.runs.columns import WHICH
from sims.runs.folders import listing
from sims.runs.store import RunFolder, run_folders
from sims.runs.tables import _write_csv
from sims.runs.tensors import load_tensors
from sims.sweep.lease import driving
from sims.system.errors import StoreError
from sims.system.files import read_json, write_atomic, write_json
from sims.system.locks import take_lock
from sims.system.provenance import provenance
from sims.training.recorder import record_failure
from toymodel.errors import CheckpointError

ROW = {
    "step": 0,
    "tokens": 0,
    "quantity": "val_loss",
    "object": "loss",
    "site": "validation",
    **WHICH,
    "value": 1.5,
    "low": float("nan"),
    "high": float("nan"),
    "null": float("nan"),
    "null_high": float("nan"),
    "status": "ok",
    "reason": "",
}


SPECTRUM = {"step": 0, "tokens": 0, "object": "weight", "site": "embed", "kind": "singular", "n": 2, "d": 2}
SPECTRUM |= {"centred": False, "values": [1.0, 0.5]}


def started(tmp_path, config, measuring):
    folder = RunFolder(tmp_path / config.run_id)
    folder.start(config, measuring, {"command": "test"})
    return folder


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path, code):
    path = tmp_path / "rows.json"
    write_json(path, {"a": 1})

    def fail(file):
        file.write(b"half")
        raise OSError(code, "the reason")

    with pytest.raises(StoreError, match=r"rows\.json") as caught:
        write_atomic(path, fail)
    if code == errno.ENOSPC:
        assert "free some space" in str(caught.value)
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["rows.json"]


def test_an_interrupted_write_leaves_nothing_behind(tmp_path):
    def interrupt(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "x", interrupt)
    assert not list(tmp_path.iterdir())


def test_json_has_no_nan(tmp_path):
    write_json(tmp_path / "x.json", {"a": float("nan"), "b": [float("inf"), 1.0]})
    assert json.loads((tmp_path / "x.json").read_text(), parse_constant=pytest.fail) == {
        "a": None,
        "b": [None, 1.0],
    }


def test_damaged_json_is_named(tmp_path):
    (tmp_path / "run.json").write_text('{"format": 1, "tra')
    with pytest.raises(StoreError, match="not valid JSON"):
        read_json(tmp_path / "run.json")


def test_why_a_run_failed_is_told_where_it_cannot_be_recorded(tmp_path):
    """The folder of the run was never made."""
    assert (
        record_failure(RunFolder(tmp_path / "none"), RuntimeError("the sky fell"))
        == "RuntimeError: the sky fell"
    )


def test_a_folder_belongs_to_one_configuration(tmp_path, tiny_run, tiny_measure):
    folder = started(tmp_path, tiny_run(), tiny_measure())
    folder.start(tiny_run(), tiny_measure(), {})
    with pytest.raises(StoreError, match=r"measure\.every is 6 there, 7 here"):
        folder.start(tiny_run(), tiny_measure(every=7), {})
    with pytest.raises(StoreError, match="another configuration"):
        folder.start(tiny_run(lr=0.5), tiny_measure(), {})
    assert folder.configs() == (tiny_run(), tiny_measure())


def test_a_folder_of_another_format_is_refused(tmp_path, tiny_run, tiny_measure):
    folder = started(tmp_path, tiny_run(), tiny_measure())
    data = read_json(folder.path / "run.json")
    write_json(folder.path / "run.json", {**data, "format": 99})
    with pytest.raises(StoreError, match="format 99"):
        folder.configs()


def test_parts_later_than_the_state_are_dropped(tmp_path, tiny_run, tiny_measure):
    config = tiny_run()
    folder = started(tmp_path, config, tiny_measure())
    folder.keep_part(3, [ROW], [])
    folder.keep_state(config, 3, {"x": torch.arange(3.0)}, {"training": 2.5})
    folder.keep_part(6, [{**ROW, "step": 6}], [])
    state = folder.resume(config)
    assert (state.step, state.seconds) == (3, {"training": 2.5})
    assert torch.equal(state.tensors["x"], torch.arange(3.0))
    folder.finish({"ended": "finished", "seconds": {}})
    assert folder.rows()["step"].tolist() == [0]
    assert folder.done
    assert not (folder.path / "state.safetensors").exists()
    assert not (folder.path / "parts").exists()


@pytest.mark.parametrize("lost", ["rows-000000003.parquet", "spectra-000000006.parquet", None])
def test_a_state_without_one_of_its_parts_is_refused(tmp_path, tiny_run, tiny_measure, lost):
    """Its rows would be missing in a run that is called complete."""
    config = tiny_run()
    folder = started(tmp_path, config, tiny_measure())
    for step in (3, 6, 9):
        folder.keep_part(step, [{**ROW, "step": step}], [SPECTRUM])
        if step == 6:
            folder.keep_state(config, step, {}, {})
    # Half a file of a process that was killed is no part.
    (folder.path / "parts" / ".tmp-1-rows-000000003.parquet").write_bytes(b"PAR1")
    for file in (folder.path / "parts").iterdir() if lost is None else [folder.path / "parts" / lost]:
        file.unlink()
    with pytest.raises(CheckpointError, match=f"has {0 if lost is None else 3} of the 4 tables"):
        folder.resume(config)


def test_without_a_state_everything_starts_over(tmp_path, tiny_run, tiny_measure):
    folder = started(tmp_path, tiny_run(), tiny_measure())
    folder.keep_part(3, [ROW], [])
    assert folder.resume(tiny_run()) is None
    assert not list((folder.path / "parts").iterdir())


def test_an_incomplete_run_has_no_tables(tmp_path, tiny_run, tiny_measure):
    folder = started(tmp_path, tiny_run(), tiny_measure())
    with pytest.raises(StoreError, match="not complete"):
        folder.rows()
    assert [f.path for f in run_folders(tmp_path)] == [folder.path]


def test_checkpoints_say_what_is_wrong_with_them(tmp_path, tiny_run, tiny_measure):
    config = tiny_run()
    folder = started(tmp_path, config, tiny_measure())
    folder.keep_checkpoint(config, 6, {"embed": torch.ones(4, 4)})
    (path,) = folder.checkpoints()
    step, weights = load_tensors(path, config)
    assert step == 6
    assert torch.equal(weights["embed"], torch.ones(4, 4))
    with pytest.raises(CheckpointError, match="another configuration"):
        load_tensors(path, tiny_run(seed=5))
    data = path.read_bytes()
    for cut in (0, 5, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(CheckpointError, match="truncated or damaged"):
            load_tensors(path, config)
    from safetensors.torch import save_file

    save_file({"embed": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="not written by this package"):
        load_tensors(path, config)


def test_a_file_where_a_folder_should_be(tmp_path, tiny_run, tiny_measure):
    (tmp_path / "out").write_text("I am a file")
    with pytest.raises(StoreError, match="choose another folder"):
        started(tmp_path / "out", tiny_run(), tiny_measure())


def test_half_written_files_of_a_killed_process_are_removed(tmp_path, tiny_run, tiny_measure):
    folder = started(tmp_path, tiny_run(), tiny_measure())
    for place in (folder.path, folder.path / "checkpoints"):
        (place / ".tmp-1-half").write_bytes(b"half")
    # Only whoever holds the run knows that nobody writes.
    with folder.locked():
        assert not list(folder.path.rglob(".tmp-*"))
    (folder.path / "checkpoints" / ".tmp-1-half").write_bytes(b"half")
    folder.finish({"ended": "finished", "seconds": {}})
    assert not list(folder.path.rglob(".tmp-*"))


def test_hidden_folders_are_no_runs_for_any_reader(tmp_path, tiny_run, tiny_measure):
    folder = started(tmp_path, tiny_run(), tiny_measure())
    shutil.copytree(folder.path, tmp_path / ".earlier")
    assert (
        [f.path.name for f in run_folders(tmp_path)]
        == list(listing(tmp_path)["run_id"])
        == [tiny_run().run_id]
    )


def test_checkpoints_that_are_being_written_are_none(tmp_path):
    for name in ("step-000000003.safetensors", ".tmp-7-step-000000006.safetensors"):
        (tmp_path / name).write_bytes(b"")
    assert [p.name for p in checkpoint_files(tmp_path)] == ["step-000000003.safetensors"]


def test_a_complete_run_without_its_configuration_is_named(tmp_path, tiny_run, tiny_measure):
    """It has no row in any listing, and a sweep would count it as done."""
    folder = started(tmp_path, tiny_run(), tiny_measure())
    folder.finish({"ended": "finished", "seconds": {}})
    (folder.path / "run.json").unlink()
    with pytest.raises(StoreError, match=r"and no run\.json, which every run has"):
        started(tmp_path, tiny_run(), tiny_measure())


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
@pytest.mark.parametrize("hold", [lambda folder: RunFolder(folder).locked(), driving])
def test_a_file_system_without_locks_is_told_so_at_once(tmp_path, monkeypatch, code, hold):
    def missing(*_):
        raise OSError(code, "no locks here")

    monkeypatch.setattr(fcntl, "flock", missing)
    with pytest.raises(StoreError, match=r"cannot be locked \(no locks here\)"), hold(tmp_path):
        pass


@pytest.mark.parametrize("hold", [lambda folder: RunFolder(folder).locked(), driving])
def test_a_lock_that_cannot_be_made_is_an_error_of_the_folder(tmp_path, hold):
    for name in (".lock", ".driver"):
        (tmp_path / name).mkdir()
    with pytest.raises(StoreError, match=r"cannot write .*(lock|driver): Is a directory"), hold(tmp_path):
        pass


def test_a_lock_that_its_holder_deletes_is_still_one_lock(tmp_path, monkeypatch):
    """Whoever waits for the deleted file takes the new one, which another process may hold."""
    monkeypatch.setattr("sims.runs.store.LOCK_SECONDS", 0.0)
    real = fcntl.flock

    def deleted(file, how):
        (tmp_path / ".lock").unlink()
        monkeypatch.setattr(fcntl, "flock", real)
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", deleted)
    assert take_lock(tmp_path / ".lock") is None
    with (
        RunFolder(tmp_path).locked(),
        pytest.raises(StoreError, match="still working"),
        RunFolder(tmp_path).locked(),
    ):
        pass


def test_what_was_not_measured_is_empty_in_csv():
    rows = pa.table({"step": [0, 1, 2], "value": [1.5, float("nan"), float("inf")], "low": [None, 0.5, None]})
    file = io.BytesIO()
    _write_csv(file, iter([rows.slice(0, 1), rows.slice(1)]))
    assert file.getvalue().decode().splitlines() == ['"step","value","low"', "0,1.5,", "1,,0.5", "2,inf,"]


def test_the_record_names_the_card_of_the_run(monkeypatch):
    """The current one may be another."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: f"card {device}")
    assert provenance("cuda:1")["device_name"] == "card cuda:1"
