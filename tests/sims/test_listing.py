"""Looking at folders of runs: every state is listed, nothing crashes, and what is shown is what is stored."""

import fcntl
import json
import math
import random
import shutil
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from listed import every_state, finished, run_id

from sims.analysis.runs import load, read_runs
from sims.runs.digests import sealed
from sims.runs.folders import listing, varying
from sims.runs.measure_config import MeasureConfig
from sims.runs.select import select
from sims.runs.sql import connect
from sims.runs.status import STATUSES
from sims.runs.store import RunFolder, run_folders
from sims.system.as_json import json_text
from sims.system.errors import MissingExtraError, QueryError, StoreError
from toymodel.config import RunConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return every_state(tmp_path_factory.mktemp("runs"))


def test_every_state_is_listed(folder):
    with open(folder / run_id("untied", 1) / ".lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        table = listing(folder)
    assert list(table["run_id"]) == sorted(p.name for p in folder.iterdir() if (p / "run.json").exists())
    states = table.groupby("stage")["status"].agg(list).to_dict()
    assert states["baseline"] == states["muon"] == ["done", "done"]
    assert sorted(states["rope"]) == ["diverged", "pruned", "target"]
    assert states["untied"] == ["waiting", "running", "waiting", "failed"]
    by_id = table.set_index("run_id")
    failed = by_id.loc[run_id("untied", 3)]
    assert (failed["reason"], failed["step"], failed["tokens"], failed["val_loss"]) == (
        "OSError: no space left",
        50,
        50 * 32 * 64,
        3.5,
    )
    assert "continues from its last stored state" in by_id.loc[run_id("untied", 2), "reason"]
    assert by_id.loc[run_id("untied", 1), "reason"] == ""
    assert pd.isna(by_id.loc[run_id("untied", 0), "step"])


def test_a_listing_says_what_the_folders_say(folder):
    """The slow way: every folder by the reader that checks configurations."""
    table = listing(folder).set_index("run_id")
    for run in run_folders(folder):
        row, (config, _) = table.loc[run.path.name], run.configs()
        assert (row["stage"], row["batch_size"], row["lr"]) == (config.stage, config.batch_size, config.lr)
        assert (row["seed"], row["steps"]) == (config.seed, config.steps)
        assert row["target_loss"] == config.target_loss or (
            config.target_loss is None and math.isnan(row["target_loss"])
        )
        if run.done:
            outcome = run.outcome
            assert (row["step"], row["tokens"]) == (outcome["step"], outcome["tokens"])
            assert row["val_loss"] == outcome["val_loss"] or outcome["val_loss"] is None
            assert row["seconds_training"] == outcome["seconds"]["training"]
            written = (run.path / "done.json").stat().st_mtime
            assert 0 <= written - row["when"].timestamp() < 1
    assert table["val_loss"].isna().sum() == 2  # diverged, and not begun
    # Fields in which all runs agree are no columns.
    assert not any(name.startswith(("task.", "model.", "measure.")) for name in table.columns)


def test_fields_that_differ_are_columns(tmp_path, tiny_run, tiny_measure):
    finished(tmp_path, tiny_run())
    finished(tmp_path, RunConfig(), measure=tiny_measure(windows=None))
    table = listing(tmp_path)
    assert dict(zip(table["batch_size"], table["task.length"], strict=True)) == {8: 8, 32: 64}
    assert set(table["measure.bands"]) == {"[[11, 7]]", json.dumps(MeasureConfig().bands)}
    assert "task.pareto" not in table
    assert (
        select(table, where="task.length == 8 and `model.d_model` < 20")["run_id"].item() == tiny_run().run_id
    )


def test_varying_ignores_what_is_absent_everywhere():
    assert varying([{"a": 1, "b": None, "c": 2}, {}, {"a": 2, "b": None, "c": 2}]) == ["a"]
    assert varying([{"a": 1}, {"a": 1, "new": 3}]) == ["new"]
    assert varying([{"a": 1}, {"a": 2}], known=("a",)) == []


DAMAGE = {
    "run.json": [b"", b"\xff\xfe", b"[]", b'{"format": 2}', b'{"format": 2, "train": {}, "measure": {}}'],
    "done.json": [
        b"{",
        b"7",
        b"{}",
        b'{"ended": "finished"}',
        b'{"ended": "finished", "step": "x", "tokens": 1, "val_loss": 1, "seconds": {}}',
        b'{"ended": "finished", "step": 1, "tokens": 1e400, "val_loss": 1, "seconds": {}}',
        b'{"ended": "finished", "step": 1, "tokens": 1, "val_loss": [1], "seconds": {}}',
        b'{"ended": "finished", "step": 1, "tokens": 1, "val_loss": 1, "seconds": {"training": "long"}}',
        b'{"ended": "vanished", "step": 1, "tokens": 1, "val_loss": 1, "seconds": {}}',
        b'{"ended": ["x"], "step": 1, "tokens": 1, "val_loss": 1, "seconds": {}}',
    ],
}


DEBRIS = [
    b"",
    b"\xff",
    b"\\ud800",
    b'"',
    b"{",
    b"[",
    b"9" * 400,
    b"-",
    b"null",
    b"1e999",
    b"NaN",
    b"[" * 100_000,
    b"true",
]


@pytest.mark.parametrize(("name", "content"), [(n, c) for n, contents in DAMAGE.items() for c in contents])
def test_a_damaged_folder_is_a_row_with_a_reason(tmp_path, name, content):
    good = finished(tmp_path, RunConfig(seed=1))
    bad = finished(tmp_path, RunConfig(seed=0))
    (bad.path / name).write_bytes(content)
    row, other = (listing(tmp_path).set_index("run_id").loc[f.path.name] for f in (bad, good))
    assert row["status"] == "damaged"
    assert name in row["reason"]
    assert other["status"] == "done"
    assert other["seed"] == 1


def test_other_damage(tmp_path):
    folder = finished(tmp_path, RunConfig(seed=0))
    (folder.path / "spectra.parquet").unlink()
    assert listing(tmp_path)["reason"].item() == "it is marked complete without spectra.parquet"
    data = json.loads((folder.path / "run.json").read_text())
    (folder.path / "run.json").write_text(json.dumps({**data, "format": 99}))
    row = listing(tmp_path).iloc[0]
    assert row["status"] == "foreign"
    assert row["reason"] == "its format is 99, this version reads 1 and 2"
    (folder.path / "run.json").unlink()
    assert listing(tmp_path)["reason"].item() == "it has no run.json"
    # A process that dies while it makes the folder leaves this; the run is as if it had not begun.
    (folder.path / "parts").mkdir()
    assert listing(tmp_path)["status"].item() == "waiting"


def test_folders_of_results_are_known_by_their_files(tmp_path):
    run = finished(tmp_path, RunConfig(seed=0))
    written = {
        "report": ["rankme.svg", "rankme.png", "rankme.csv"],
        "bands": ["index.html", "tables.md", "bands.csv", ".tmp-1-bands.csv"],
        "look-gpt2": ["index.html", "rows.csv", "rows.parquet", "spectra.parquet"],
        "my pictures of the sweep": ["loss.png"],
        "errors": ["run.txt"],
        "trackers": [],
    }
    for name, files in written.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).touch()
    assert listing(tmp_path)["run_id"].tolist() == [run.path.name]
    # A run that has lost its run.json is shown, and so is whatever else it may be; names alone say nothing.
    for name in ("report-of-others", "bands-2", "look-x"):
        (tmp_path / name).mkdir()
    (tmp_path / "bands-2" / "rows.parquet").touch()
    (tmp_path / "look-x" / "index.html").touch()
    (tmp_path / "look-x" / "weights.pt").touch()
    assert sorted(listing(tmp_path)["reason"]) == ["", *["it has no run.json"] * 3]
    for name in ("errors", "trackers", "report"):
        shutil.copytree(run.path, tmp_path / name, dirs_exist_ok=True)
    assert set(listing(tmp_path).query("status == 'done'")["run_id"]) == {
        run.path.name,
        "errors",
        "trackers",
        "report",
    }


def test_no_damage_is_a_crash(tmp_path):
    """Files with bytes changed, cut or put in at random, one after the other."""
    dice = random.Random(0)
    finished(tmp_path, RunConfig(seed=0))
    begun = RunFolder(tmp_path / "begun-\udcff")  # a name that is not UTF-8
    begun.start(RunConfig(seed=1), MeasureConfig(), {})
    (begun.path / "progress.json").write_text('{"step": 5, "steps": 5000, "val_loss": 3.5, "ended": null}')
    begun.fail("OSError", "Traceback")
    files = [f for run in tmp_path.iterdir() for f in run.glob("*.json") if f.name != "provenance.json"]
    seen = set()
    for _ in range(120):
        file = dice.choice(files)
        good = file.read_bytes()
        bad = bytearray(good)
        for _ in range(dice.randint(1, 3)):
            at = dice.randrange(len(bad))
            bad[at : at + dice.randint(0, 2)] = dice.choice(DEBRIS)
        file.write_bytes(bad)
        table = listing(tmp_path)
        json_text(table.astype(object).where(table.notna(), None).to_dict("records"))
        assert len(table) == 2
        assert set(table["status"]) <= set(STATUSES)
        assert all(table.loc[table["status"].isin(["damaged", "foreign"]), "reason"])
        seen |= set(table["status"])
        file.write_bytes(good)
    assert seen >= {"done", "failed", "damaged"}


def test_an_empty_folder_and_no_folder(tmp_path):
    table = listing(tmp_path)
    assert len(table) == 0
    assert {"run_id", "status", "lr", "val_loss", "when", "reason"} <= set(table.columns)
    with pytest.raises(StoreError, match="No such file"):
        listing(tmp_path / "nowhere")


def test_selection(folder):
    table = listing(folder)
    chosen = select(table, ("done",), "stage == 'muon' and lr < 1e-2", "val_loss", descending=True)
    assert list(chosen["run_id"]) == [run_id("muon", s, lr=1e-3) for s in (1, 0)]
    # A run without a value meets no condition on it, and comes last in either order.
    assert len(select(table, where="val_loss > 0")) + len(select(table, where="not val_loss > 0")) == len(
        table
    )
    for descending in (False, True):
        assert select(table, sort="val_loss", descending=descending)["val_loss"].isna().tolist()[-2:] == [
            True,
            True,
        ]
    for where in ("nothing == 1", "lr", "lr <", "stage < 3", "lr + 1", "'muon'", ""):
        with pytest.raises(QueryError, match="--where"):
            select(table, where=where)
    with pytest.raises(QueryError, match="columns are run_id, status"):
        select(table, sort="loss")


def test_the_configuration_of_another_run_is_damage(tmp_path):
    first, second = (finished(tmp_path, RunConfig(seed=seed)).path for seed in (0, 1))
    shutil.copy(first / "run.json", second / "run.json")
    table = listing(tmp_path).set_index("run_id")
    assert list(table.loc[[first.name, second.name], "status"]) == ["done", "damaged"]
    assert "run.json cannot be read (its SHA-256" in table.loc[second.name, "reason"]


def many(out, runs):
    """Finished run folders by writing the same few files again and again."""
    first = finished(out, RunConfig(seed=0)).path
    data = json.loads((first / "run.json").read_text())
    outcome = RunFolder(first).outcome
    rest = {name: (first / name).read_bytes() for name in ("rows.parquet", "spectra.parquet")}
    for seed in range(1, runs):
        data["train"]["seed"], data["train"]["task"]["length"] = seed, (64, 32)[seed % 2]
        path = out / f"baseline-b32-lr0.0006-s{seed}-{seed:010d}"
        path.mkdir()
        (path / "run.json").write_text(json.dumps(data))
        for name, content in rest.items():
            (path / name).write_bytes(content)
        (path / "done.json").write_text(json.dumps(sealed(path, outcome)))


def seconds_to_list(out, runs):
    began = time.process_time()
    table = listing(out)
    elapsed = time.process_time() - began
    assert (table["status"] == "done").sum() == len(table) == runs
    assert table["seed"].nunique() == runs
    assert set(table["task.length"]) == {32, 64}
    return elapsed


def seconds_to_read(out):
    """Two small files of each run, and nothing done with them."""
    began = time.process_time()
    for path in out.iterdir():
        for name in ("run.json", "done.json"):
            json.loads((path / name).read_bytes())
    return time.process_time() - began


def test_runs_are_listed_in_little_more_than_the_time_to_read_them(tmp_path):
    """About 3.5 times, 0.1 s for 500 runs; 8 times with a check of each configuration, 100 with the rows."""
    many(tmp_path, 500)
    listed, read = (
        min(f() for _ in range(3))
        for f in (lambda: seconds_to_list(tmp_path, 500), lambda: seconds_to_read(tmp_path))
    )
    assert listed < 6 * read


@pytest.mark.slow
def test_ten_thousand_runs_are_listed_in_five_seconds(tmp_path):
    many(tmp_path, 10_000)
    assert seconds_to_list(tmp_path, 10_000) < 5
    connection = connect(tmp_path)
    assert connection.execute("SELECT count(DISTINCT run_id) FROM rows").fetchall() == [(10_000,)]


def test_listing_does_not_load_torch(folder):
    code = f"import sys; from sims import cli; cli.main(['ls', {str(folder)!r}]); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 12


# --- tables of all runs ---------------------------------------------------------------------------------------


def test_all_runs_as_tables(folder):
    """Against reading them one by one."""
    runs = read_runs(run_folders(folder))
    assert len(runs.runs) == 7
    # Pruned runs are named, not analysed.
    assert len(load(folder).runs) == 7 - len(load(folder).pruned) == 6
    assert set(runs.incomplete) == {run_id("untied", s) for s in range(4)}
    assert list(runs.runs["stage"].unique()) == ["baseline", "rope", "muon"]
    for name, table in (("rows", runs.rows), ("spectra", runs.spectra)):
        labels = ["run_id", "stage", "batch_size", "lr", "seed"]
        slow = pd.concat(
            [
                getattr(RunFolder(folder / run["run_id"]), name)().assign(**{k: run[k] for k in labels})
                for run in runs.runs.to_dict("records")
            ],
            ignore_index=True,
        )
        if name == "spectra":
            assert all(
                np.array_equal(a, b, equal_nan=True)
                for a, b in zip(table["values"], slow["values"], strict=True)
            )
            table, slow = table.drop(columns="values"), slow.drop(columns="values")
        pd.testing.assert_frame_equal(table, slow)


def test_a_damaged_table_is_named(tmp_path):
    path = finished(tmp_path, RunConfig()).path / "rows.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StoreError, match=r"rows\.parquet cannot be read"):
        load(tmp_path)


def test_sql_over_all_runs(folder):
    pytest.importorskip("duckdb", reason="duckdb is not installed: pip install duckdb")
    connection = connect(folder)
    runs = read_runs(run_folders(folder))

    def ask(query, *values):
        return connection.execute(query, values).fetchall()

    counts = dict(ask("SELECT run_id, count(*) FROM rows GROUP BY run_id"))
    assert counts == runs.rows["run_id"].value_counts().to_dict()
    means = "SELECT stage, avg(value) FROM rows JOIN runs USING (run_id) WHERE quantity = ? AND object = ? GROUP BY 1"
    expected = runs.values("rankme", "activation").groupby("stage")["value"].mean()
    assert dict(ask(means, "rankme", "activation"))["muon"] == pytest.approx(expected["muon"])
    own = runs.spectra[runs.spectra["stage"] == "muon"]["values"]
    ((total,),) = ask("SELECT sum(list_sum(\"values\")) FROM spectra WHERE run_id LIKE 'muon%'")
    assert total == pytest.approx(sum(v.sum() for v in own))
    assert ask("SELECT run_id FROM runs WHERE status = 'failed'") == [(run_id("untied", 3),)]


def test_sql_without_a_complete_run_and_under_a_difficult_name(tmp_path):
    pytest.importorskip("duckdb", reason="duckdb is not installed: pip install duckdb")
    out = tmp_path / "it's [a] *folder"
    out.mkdir()
    assert connect(out).execute("SELECT count(*), max(run_id) FROM rows").fetchall() == [(0, None)]
    finished(out, RunConfig())
    assert connect(out).execute("SELECT DISTINCT run_id FROM rows").fetchall() == [(run_id("baseline"),)]


def test_duckdb_missing(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'spectral-lens\[sql\]'"):
        connect(tmp_path)
