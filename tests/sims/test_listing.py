"""Looking at folders of runs: every state is listed, nothing crashes, and what is shown is what is stored."""

import fcntl
import json
import math
import random
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from sims import cli
from sims.analysis import crossing, load, seed_intervals
from sims.analysis.compare import compare
from sims.analysis.runs import read_runs
from sims.commands.compare import run_paths
from sims.config import MeasureConfig
from sims.errors import MissingExtraError, QueryError, StoreError
from sims.listing import STATUSES, connect, listing, listing_of, select
from sims.listing.folders import varying
from sims.listing.tables import json_text
from sims.store import RunFolder, run_folders
from toymodel.config import RunConfig

PLAIN = {"low": math.nan, "high": math.nan, "null": 0.1, "null_high": 0.2, "status": "ok", "reason": ""}


def measured(losses, tokens_per_step, every=10):
    """Rows and spectra of a run whose other numbers follow from its losses."""
    rows, spectra = [], []
    for i, loss in enumerate(losses):
        where = {"step": i * every, "tokens": i * every * tokens_per_step}
        numbers = [
            ("val_loss", "loss", "validation", "", loss),
            ("alpha", "activation", "final", "1-10", loss / 2),
            ("rankme", "activation", "final", "", 10 * loss),
            ("top_share", "activation", "final", "10", 0.5),
            ("h_peak", "probe", "final", "31:20 clean unseen", 0.5 - abs(i - 1) / 10),
            ("h_peak", "probe", "final", "29:0 clean seen", 0.3 - abs(i - 1) / 10),
            ("h_peak", "probe", "final", "29:0 matched seen", 9.0),
            ("rankme", "weight", "embed", "", 99.0),
        ]
        rows += [
            {**where, **PLAIN, "quantity": q, "object": o, "site": s, "detail": d, "value": v}
            for q, o, s, d, v in numbers
        ]
        spectrum = {
            "object": "activation",
            "site": "final",
            "kind": "eigenvalue",
            "n": 8,
            "d": 4,
            "centred": True,
        }
        spectra.append({**where, **spectrum, "values": [loss, loss / 2, loss / 4]})
    return rows, spectra


def finished(out, config, losses=(4.0, 3.0, 2.5), ended="finished", measure=None):
    """A complete run folder, as a run leaves it, without the training."""
    folder = RunFolder(out / config.run_id)
    folder.start(config, measure or MeasureConfig(), {"command": "test", "git": {"dirty": False}})
    folder.keep_part(0, *measured(losses, config.tokens_per_step))
    step = 10 * (len(losses) - 1)
    outcome = {"ended": ended, "step": step, "tokens": step * config.tokens_per_step, "val_loss": losses[-1]}
    folder.finish({**outcome, "seconds": {"training": 30.0, "measurement": 10.0}})
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two stages × two seeds complete, beside every other state that a run can be in."""
    out = tmp_path_factory.mktemp("runs")
    for i, stage in enumerate(("baseline", "muon")):
        for seed in (0, 1):
            finished(out, RunConfig(stage=stage, seed=seed, lr=1e-3), (4.0, 3.0 - i, 2.5 - i + seed / 10))
    finished(out, RunConfig(stage="rope", lr=9.0), (4.0, math.nan), "diverged")
    finished(out, RunConfig(stage="rope", lr=2e-3, target_loss=2.6), ended="target")
    finished(out, RunConfig(stage="rope", lr=3e-3), ended="pruned")
    for seed, state in enumerate(("waiting", "running", "interrupted", "failed")):
        config = RunConfig(stage="untied", seed=seed)
        begun = RunFolder(out / config.run_id)
        begun.start(config, MeasureConfig(), {})
        if state != "waiting":
            progress = {"step": 50, "steps": config.steps, "val_loss": 3.5, "ended": None}
            (begun.path / "progress.json").write_text(json.dumps(progress))
            (begun.path / ".lock").touch()
        if state == "failed":
            begun.fail("OSError: no space left", "Traceback …\n")
    (out / "trackers").mkdir()
    (out / ".hidden").mkdir()
    (out / "report.html").write_text("no folder")
    return out


def run_id(stage, seed=0, **changes):
    return RunConfig(stage=stage, seed=seed, **changes).run_id


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
    assert "goes on from its last stored state" in by_id.loc[run_id("untied", 2), "reason"]
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
    "run.json": [b"", b"\xff\xfe", b"[]", b'{"format": 1}', b'{"format": 1, "train": {}, "measure": {}}'],
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
    assert row["reason"] == "its format is 99, this version reads 1"
    (folder.path / "run.json").unlink()
    assert listing(tmp_path)["reason"].item() == "it has no run.json"
    # A process that dies while it makes the folder leaves this; the run is as if it had not begun.
    (folder.path / "parts").mkdir()
    assert listing(tmp_path)["status"].item() == "waiting"


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
    with pytest.raises(QueryError, match="there are run_id, status"):
        select(table, sort="loss")


def many(out, runs):
    """Finished run folders by writing the same few files again and again."""
    first = finished(out, RunConfig(seed=0)).path
    data = json.loads((first / "run.json").read_text())
    rest = {name: (first / name).read_bytes() for name in ("done.json", "rows.parquet", "spectra.parquet")}
    for seed in range(1, runs):
        data["train"]["seed"], data["train"]["task"]["length"] = seed, (64, 32)[seed % 2]
        path = out / f"baseline-b32-lr0.0006-s{seed}-{seed:010d}"
        path.mkdir()
        (path / "run.json").write_text(json.dumps(data))
        for name, content in rest.items():
            (path / name).write_bytes(content)


def seconds_to_list(out, runs):
    began = time.process_time()
    table = listing(out)
    elapsed = time.process_time() - began
    assert (table["status"] == "done").sum() == len(table) == runs
    assert table["seed"].nunique() == runs
    assert set(table["task.length"]) == {32, 64}
    return elapsed


def test_five_hundred_runs_are_listed_in_half_a_second(tmp_path):
    many(tmp_path, 500)
    # 10,000 in 5 s is 0.25 s for 500; the rest is for a machine that does other things besides.
    assert seconds_to_list(tmp_path, 500) < 0.5


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


# --- commands -------------------------------------------------------------------------------------------------


def shown(capsys, *arguments):
    assert cli.main([str(a) for a in arguments]) == 0
    return capsys.readouterr().out


def test_ls_is_machine_readable_in_a_pipe(folder, capsys):
    table = listing(folder)
    lines = [line.split("\t") for line in shown(capsys, "ls", folder).splitlines()]
    assert lines[0] == list(table.columns)
    assert len(lines) == len(table) + 1
    found = {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines[1:]}
    assert float(found[run_id("muon", 1, lr=1e-3)]["val_loss"]) == 2.5 - 1 + 0.1
    assert found[run_id("untied", 0)]["val_loss"] == ""
    best = shown(capsys, "ls", folder, "--sort", "val_loss", "--limit", "1").splitlines()[1]
    assert best.startswith(run_id("muon", 0, lr=1e-3))


def test_ls_json(folder, capsys):
    records = json.loads(shown(capsys, "ls", folder, "--json", "--status", "diverged", "done"))
    assert len(records) == 5
    (diverged,) = [r for r in records if r["status"] == "diverged"]
    assert (diverged["val_loss"], diverged["lr"], diverged["target_loss"], diverged["step"]) == (
        None,
        9.0,
        None,
        10,
    )
    assert json.loads(shown(capsys, "ls", folder, "--json", "--where", "lr > 100")) == []


def test_ls_on_a_terminal(folder, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    page = shown(capsys, "ls", folder)
    assert "11 runs: 4 done, 1 target, 1 diverged, 1 pruned, 3 waiting, 1 failed" in page
    assert "OSError: no space left" in page
    assert "the first 2 are shown" in shown(capsys, "ls", folder, "--limit", "2")


@pytest.mark.parametrize("command", ["ls", "show", "compare", "export"])
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0
    page = capsys.readouterr().out
    assert f"usage: speclens {command}" in page
    assert f"    speclens {command} runs" in page.partition("Examples:")[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ls", "/nowhere"], "cannot be listed"),
        (["ls", "FOLDER", "--where", "stage = 1"], "--where 'stage = 1'"),
        (["ls", "FOLDER", "--sort", "loss"], "there are run_id"),
        (["ls", "FOLDER", "--limit", "0"], "--limit is 0"),
        (["show", "FOLDER"], "is not a run folder (it has no run.json)"),
        (["show", "/nowhere"], "is not a run folder"),
        (["compare", "/nowhere"], "is not a run folder and holds none"),
        (["compare", "FOLDER", "--status", "failed"], "none of the 11 folders"),
        (["export", "FOLDER", "--to", "runs.xlsx"], "ends in '.xlsx'; the formats are .csv, .parquet, .json"),
        (["export", "FOLDER", "--to", "/nowhere/runs.csv"], "/nowhere/runs.csv"),
    ],
)
def test_bad_questions_are_one_line_and_status_2(folder, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert cli.main([str(folder) if a == "FOLDER" else a for a in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_show(folder, capsys):
    page = shown(capsys, "show", folder / run_id("muon", 1, lr=1e-3))
    lines = [line.split("\t") for line in page.splitlines()]
    assert lines[0] == [f"{run_id('muon', 1, lr=1e-3)}: done"]
    for expected in (
        ["task.length", "64"],
        ["measure.every", "250"],
        ["git.dirty", "False"],
        ["ended", "finished"],
        ["training", "30.0", "75.0%"],
        ["20", "activation", "final", "rankme", "", "16", "0.1", "0.2", "ok"],
    ):
        assert expected in lines
    assert not any(line[:2] == ["20", "weight"] for line in lines)
    everything = shown(capsys, "show", folder / run_id("muon", 1, lr=1e-3), "--everything")
    assert "20\tweight\tembed\trankme" in everything


def test_show_a_run_that_is_not_complete(folder, capsys):
    page = shown(capsys, "show", folder / run_id("untied", 3))
    assert page.startswith(f"{run_id('untied', 3)}: failed (OSError: no space left)")
    assert "val_loss\t3.5" in page


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_export(folder, tmp_path, capsys, ending):
    def read_json(path):
        # That of pandas loses the last digits.
        return pd.DataFrame(json.loads(path.read_text()))

    def read(name):
        path = tmp_path / f"{name}.{ending}"
        assert f"rows in {path}" in shown(capsys, "export", folder, "--to", path, "--table", name)
        return {"csv": pd.read_csv, "parquet": pd.read_parquet, "json": read_json}[ending](path)

    runs, all_runs = read("runs"), listing(folder)
    assert list(runs.columns) == list(all_runs.columns)
    np.testing.assert_array_equal(runs["val_loss"], all_runs["val_loss"])
    loaded = read_runs(run_folders(folder))
    rows = read("rows").sort_values(["run_id", "step", "quantity", "detail", "object"], ignore_index=True)
    slow = loaded.rows.sort_values(["run_id", "step", "quantity", "detail", "object"], ignore_index=True)
    for column in ("run_id", "stage", "seed", "lr", "step", "tokens", "value", "null"):
        np.testing.assert_array_equal(rows[column], slow[column])
    assert "target_loss" in rows
    spectra = read("spectra")
    values = [json.loads(v) if ending == "csv" else list(v) for v in spectra["values"]]
    own = dict(
        zip(
            loaded.spectra["run_id"] + loaded.spectra["step"].astype(str),
            loaded.spectra["values"],
            strict=True,
        )
    )
    for name, found in zip(spectra["run_id"] + spectra["step"].astype(str), values, strict=True):
        np.testing.assert_array_equal([math.nan if v is None else v for v in found], own[name])
    assert not list(tmp_path.glob(".tmp-*"))


def test_an_export_that_fails_leaves_the_old_file(tmp_path, capsys):
    finished(tmp_path / "runs", RunConfig(seed=0))
    bad = finished(tmp_path / "runs", RunConfig(seed=1)).path / "rows.parquet"
    bad.write_bytes(b"no table")
    (tmp_path / "rows.csv").write_text("old")
    assert (
        cli.main(["export", str(tmp_path / "runs"), "--to", str(tmp_path / "rows.csv"), "--table", "rows"])
        == 2
    )
    assert str(bad) in capsys.readouterr().err
    assert (tmp_path / "rows.csv").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rows.csv", "runs"]


def compared(folder, where, each=False):
    chosen = select(listing(folder), where=where)
    paths = [folder / name for name in chosen["run_id"]]
    own = listing_of(paths)
    return compare(
        read_runs([RunFolder(p) for p in paths]), own[["run_id", "stage", "lr", "seed"]], each
    ), paths


def test_compare_makes_cells_of_seeds(folder):
    found, _ = compared(folder, "stage in ('baseline', 'muon')")
    assert found.fields == ("stage",)
    assert list(found.cells["stage"]) == ["baseline", "muon"]
    assert list(found.cells["runs"]) == [2, 2]
    # The worst of the best losses: baseline's second seed.
    assert found.common_loss == pytest.approx(2.6)
    numbers = found.numbers.set_index(["cell", "quantity"])
    expected = seed_intervals(pd.DataFrame({"g": 0, "value": [1.5, 1.6]}), ["g"]).iloc[0]
    row = numbers.loc[(1, "val_loss")]
    assert (row["n"], row["mean"], row["low"], row["high"]) == pytest.approx(
        (2, expected["mean"], expected["low"], expected["high"])
    )
    curve = pd.DataFrame({"tokens": [0, 20480, 40960], "value": [4.0, 3.0, 2.5]})
    assert numbers.loc[(0, "tokens_to_common"), "mean"] == pytest.approx((crossing(curve, 2.6) + 40960) / 2)
    assert numbers.loc[(0, "alpha 1-10"), "mean"] == pytest.approx((2.5 + 2.6) / 4)
    assert numbers.loc[(0, "rankme"), "mean"] == pytest.approx(25.5)
    # Over the two clean bands, the matched one left out.
    assert numbers.loc[(0, "h_peak_top"), "mean"] == pytest.approx(0.4)
    assert numbers.loc[(0, "h_peak_end"), "mean"] == pytest.approx(0.3)


def test_compare_each_run_and_diverged_ones(folder):
    found, _ = compared(folder, "stage == 'baseline'", each=True)
    assert found.fields == ("seed",)
    assert list(found.cells["seed"]) == [0, 1]
    assert found.numbers["low"].isna().all()
    found, _ = compared(folder, "stage == 'rope' and status != 'pruned'")
    assert dict(zip(found.cells["lr"], found.cells["diverged"], strict=True)) == {2e-3: 0, 9.0: 1}
    assert set(found.numbers["cell"]) == {int(found.cells.index[found.cells["lr"] == 2e-3][0])}
    only, _ = compared(folder, "lr == 9.0")
    assert only.numbers.empty
    assert math.isnan(only.common_loss)


def test_compare_on_the_command_line(folder, capsys):
    assert cli.main(["compare", str(folder)]) == 0
    page = capsys.readouterr()
    assert "5 of 11 runs are not complete, or pruned, and left out" in page.err
    lines = {line.split("\t")[0]: line.split("\t")[1:] for line in page.out.splitlines()}
    assert sorted(lines["lr"]) == ["0.001", "0.001", "0.002", "9"]
    assert lines["runs"] == ["2", "2", "1", "1, 1 diverged"] or sorted(lines["runs"]) == [
        "1",
        "1, 1 diverged",
        "2",
        "2",
    ]
    assert "M tokens to 2.600" in lines
    both = [folder / run_id(stage, 0, lr=1e-3) for stage in ("baseline", "muon")]
    lines = [line.split("\t") for line in shown(capsys, "compare", *both).splitlines()]
    assert lines[0] == ["", *(p.name for p in both)]
    assert ["final loss (nats)", "2.5", "1.5"] in lines


def test_compare_takes_runs_and_folders_once(folder, tmp_path):
    run = folder / run_id("muon", 0, lr=1e-3)
    assert len(run_paths([folder, run])) == 11
    copy = finished(tmp_path, RunConfig(stage="muon", seed=0, lr=1e-3))
    with pytest.raises(QueryError, match="runs of one configuration"):
        run_paths([run, copy.path])


def test_a_reader_that_has_seen_enough_is_no_error(folder):
    command = f"{sys.executable} -m sims.cli ls {folder} | true"
    done = subprocess.run(
        ["bash", "-c", command + "; exit ${PIPESTATUS[0]}"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
