"""The commands that look at runs: ls, show, export, compare."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from listed import every_state, finished, run_id

from sims import cli
from sims.analysis.cells import crossing
from sims.analysis.compare import compare
from sims.analysis.intervals import seed_intervals
from sims.analysis.ranges import POSITIVE
from sims.analysis.runs import read_runs
from sims.runs.folders import listing, listing_of
from sims.runs.select import select
from sims.runs.store import RunFolder, run_folders
from sims.studies.overview.side_by_side import run_paths, show_cells
from sims.studies.overview.tables import FLAG_NOTE
from toymodel.config import RunConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return every_state(tmp_path_factory.mktemp("runs"))


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
        (["ls", "FOLDER", "--sort", "loss"], "The columns are run_id"),
        (["ls", "FOLDER", "--limit", "0"], "--limit is 0"),
        (["show", "FOLDER"], "is not a run folder (it has no run.json)"),
        (["show", "/nowhere"], "is not a run folder"),
        (["compare", "/nowhere"], "/nowhere does not exist; give folders made by speclens"),
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
    order = ["run_id", "step", "quantity", "band", "regime", "object"]
    rows = read("rows").sort_values(order, ignore_index=True)
    slow = loaded.rows.sort_values(order, ignore_index=True)
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
    numbers = {(r["cell"], r["quantity"]): r for r in found.numbers.to_dict("records")}
    expected = seed_intervals(pd.DataFrame({"g": 0, "value": [1.5, 1.6]}), ["g"], within=POSITIVE).iloc[0]
    row = numbers[1, "val_loss"]
    assert (row["n"], row["mean"], row["low"], row["high"]) == pytest.approx(
        (2, expected["mean"], expected["low"], expected["high"])
    )
    curve = pd.DataFrame({"tokens": [0, 20480, 40960], "value": [4.0, 3.0, 2.5]})
    assert numbers[0, "tokens_to_common"]["mean"] == pytest.approx((crossing(curve, 2.6) + 40960) / 2)
    assert numbers[0, "alpha 1-10"]["mean"] == pytest.approx((2.5 + 2.6) / 4)
    assert numbers[0, "rankme"]["mean"] == pytest.approx(25.5)
    # Over the two clean bands, the matched one left out.
    assert numbers[0, "h_peak_top"]["mean"] == pytest.approx(0.4)
    assert numbers[0, "h_peak_end"]["mean"] == pytest.approx(0.3)


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
    assert "tokens to 2.600" in lines
    both = [folder / run_id(stage, 0, lr=1e-3) for stage in ("baseline", "muon")]
    lines = [line.split("\t") for line in shown(capsys, "compare", *both).splitlines()]
    assert lines[0] == ["", *(p.name for p in both)]
    assert ["final loss (nats)", "2.5", "1.5"] in lines


def test_compare_marks_fits_that_are_flagged_in_some_run(folder, capsys):
    runs, names = read_runs([f for f in run_folders(folder) if f.done]), listing(folder)
    own = (runs.rows["quantity"] == "alpha") & (runs.rows["run_id"] == run_id("muon", 1, lr=1e-3))
    flagged = replace(runs, rows=runs.rows.assign(status=runs.rows["status"].mask(own, "flagged")))
    found = compare(flagged, names[["run_id", "stage", "lr", "seed"]])
    marked = found.numbers[found.numbers["flagged"]]
    assert marked["quantity"].tolist() == ["alpha 1-10"]
    assert found.cells.loc[marked["cell"], "stage"].tolist() == ["muon"]
    show_cells(found.fields, found.cells, found.numbers, found.common_loss)
    told = capsys.readouterr()
    assert sum(cell.endswith("!") for cell in told.out.split("\t")) == 1
    assert told.err == f"{FLAG_NOTE}\n"
    plain = compare(runs, names[["run_id", "stage", "lr", "seed"]])
    show_cells(plain.fields, plain.cells, plain.numbers, plain.common_loss)
    assert "!" not in "".join(capsys.readouterr())


def test_compare_takes_runs_and_folders_once(folder, tmp_path):
    run = folder / run_id("muon", 0, lr=1e-3)
    assert len(run_paths([folder, run])) == 11
    # A copy is a folder of its own here; that it is the same run is seen when both are read (test_origins).
    copy = finished(tmp_path, RunConfig(stage="muon", seed=0, lr=1e-3))
    assert len(run_paths([run, copy.path])) == 2


def test_a_reader_that_has_seen_enough_is_no_error(folder):
    command = f"{sys.executable} -m sims.cli ls {folder} | true"
    done = subprocess.run(
        ["bash", "-c", command + "; exit ${PIPESTATUS[0]}"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
