"""Folders of format 1 are read as if they were of format 2, and complete runs in them are left alone.

tests/data/format-1 and format-2 hold one run (the untied stage, 24 steps), trained and measured by the versions that
wrote these formats; weights of the first and the last measurement are kept.
"""

import itertools
import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sims import cli
from sims.analysis import (
    at_steps,
    compare,
    concentration,
    layers,
    matched,
    paired,
    prediction,
    stages,
    tails,
    taxonomy,
    transitions,
)
from sims.analysis.runs import load
from sims.runs.columns import which
from sims.runs.describe import describe
from sims.runs.folders import listing
from sims.runs.format_1 import split
from sims.runs.layout import ROWS, SPECTRA, read_table
from sims.runs.store import RunFolder
from sims.runs.tensors import load_tensors
from sims.studies.carry_over.questions import QUESTIONS, Tables
from sims.studies.overview.figures import concentration_figure
from sims.studies.theory.checkpoint_tables import gather
from sims.studies.theory.questions import answer
from sims.system.errors import StoreError
from sims.training.toy_runner import run_group

DATA = Path(__file__).resolve().parents[1] / "data"
BANDS = ("17:7 clean seen", "17:7 matched seen", "11:0 clean seen", "11:0 matched seen")
NAME = "untied-b8-lr0.003-s0-285eb4b629"


def stored(version):
    return DATA / f"format-{version}" / NAME


def rewrite(path, **changes):
    """Change columns of a parquet file as they are stored, whatever its format."""
    table = pq.read_table(path)
    for name, change in changes.items():
        i = table.column_names.index(name)
        values = pa.array([change(v) for v in table[name].to_pylist()], table[name].type)
        table = table.set_column(i, name, values)
    pq.write_table(table, path)


def grid(version, out):
    """Twelve runs made of the stored one: other stages, batch sizes and seeds, and every number a little larger."""
    cells = itertools.product(("rope", "muon"), (8, 16), (0, 1, 2))
    for i, (stage, size, seed) in enumerate(cells):
        folder = out / f"{stage}-{size}-{seed}"
        shutil.copytree(stored(version), folder, ignore=shutil.ignore_patterns("checkpoints"))
        data = json.loads((folder / "run.json").read_text())
        data["train"] |= {"stage": stage, "batch_size": size, "seed": seed}
        (folder / "run.json").write_text(json.dumps(data))
        rewrite(folder / "rows.parquet", value=lambda v, i=i: v * (1 + 0.001 * (i + 1)))
        power = 1 + 0.01 * (i + 1)
        rewrite(folder / "spectra.parquet", values=lambda v, power=power: [x**power for x in v])
    return out


@pytest.fixture(scope="module")
def grids(tmp_path_factory):
    return {version: grid(version, tmp_path_factory.mktemp(f"format-{version}")) for version in (1, 2)}


@pytest.mark.parametrize(
    ("quantity", "detail", "columns"),
    [
        ("alpha", "10-40", {"window": "10-40"}),
        (
            "h_s",
            "31:20 clean unseen task",
            {"band": "31:20", "regime": "clean", "seen": False, "set": "task"},
        ),
        (
            "h_s_debiased",
            "97:200 matched seen top7",
            {"band": "97:200", "regime": "matched", "seen": True, "set": "top7"},
        ),
        ("h_peak", "5:0 clean seen", {"band": "5:0", "regime": "clean", "seen": True}),
        (
            "component_share",
            "31:20 clean unseen pc1",
            {"band": "31:20", "regime": "clean", "seen": False, "detail": "pc1"},
        ),
        ("h_s", "my own family peak", {"detail": "my own family", "set": "peak"}),
        ("component_share", "digits pc2", {"detail": "digits pc2"}),
        ("h_peak", "digits", {"detail": "digits"}),
        ("top_share", "10", {"detail": "10"}),
        ("rankme", "", {}),
    ],
)
def test_every_kind_of_detail_becomes_columns_and_keeps_its_name(quantity, detail, columns):
    blank = {"band": "", "regime": "", "seen": None, "set": "", "window": "", "detail": ""}
    assert split(quantity, detail) == {**blank, **columns}
    assert which(split(quantity, detail)) == detail


def test_the_stored_runs_hold_the_same_numbers():
    old, new = (RunFolder(stored(version)) for version in (1, 2))
    assert "window" not in pq.read_schema(old.path / "rows.parquet").names
    assert pq.read_schema(new.path / "rows.parquet").names == ROWS.names
    assert read_table(old.path / "rows.parquet").schema == ROWS
    assert read_table(old.path / "spectra.parquet").schema == SPECTRA
    pd.testing.assert_frame_equal(old.rows(), new.rows(), check_exact=True)
    pd.testing.assert_frame_equal(old.spectra(), new.spectra(), check_exact=True)
    assert old.configs() == new.configs()
    assert set(old.rows()["set"]) == {"", "task", "peak", "top3"}
    assert set(old.rows()["regime"]) == {"", "clean", "matched"}


ANALYSES = {
    "outcomes": stages.outcome_table,
    "concentration": stages.concentration_summary,
    "differences": stages.stage_differences,
    "link": stages.link_to_activations,
    "trajectories": concentration.trajectories,
    "changes": lambda runs: concentration.concentration_changes(runs, [("rope", "muon")]),
    "at steps": lambda runs: at_steps.concentration_at_steps(runs, (6, 12)),
    "transition divergence": at_steps.transition_divergence,
    "matched": lambda runs: matched.matched_spectra(runs, interpolate=True),
    "batch divergence": lambda runs: matched.batch_divergence(matched.matched_spectra(runs)),
    "exponents": tails.matched_exponents,
    "trend": lambda runs: tails.tail_trend(tails.matched_exponents(runs)),
    "early": prediction.early_exponents,
    "layers": lambda runs: layers.exponents_by_layer(runs, "1-10"),
    "paired": lambda runs: paired.compare_stages(runs, "rope", "muon"),
    "gains": transitions.gains_by_seed,
    "taxonomy": taxonomy.taxonomy,
    "cells": lambda runs: compare.compare(runs, runs.runs[["run_id", "stage", "batch_size", "seed"]]).numbers,
}


@pytest.mark.parametrize("name", ANALYSES)
def test_every_analysis_gives_the_same_table(name, grids):
    old, new = (ANALYSES[name](load(grids[version])) for version in (1, 2))
    assert len(old)
    pd.testing.assert_frame_equal(old, new, check_exact=True)


def test_every_question_has_the_same_answer(grids):
    answers = []
    for version in (1, 2):
        tables, found = Tables(load(grids[version])), {}
        for question in QUESTIONS:
            try:
                found[question.name] = repr(question.read(tables))
            except Exception as error:
                found[question.name] = repr(error)
        answers.append(found)
    assert answers[0] == answers[1]
    assert sum("Error" not in answer for answer in answers[0].values()) >= 10


def test_the_theory_asks_runs_of_either_format(grids):
    from rich.console import Console

    first, second = (answer(gather(grids[version], Console(quiet=True))) for version in (1, 2))
    assert [(o.claim, o.verdict, o.reason, repr(o.effect)) for o in first] == [
        (o.claim, o.verdict, o.reason, repr(o.effect)) for o in second
    ]


@pytest.mark.parametrize(
    "arguments", [("ls", "--json"), ("compare",), ("export", "--table", "rows", "--to", "OUT.csv")]
)
def test_commands_take_either_format(arguments, grids, tmp_path, capsys):
    said, written = [], []
    for version in (1, 2):
        folder = shutil.copytree(grids[version], tmp_path / f"runs-{version}" / "runs")
        given = [a.replace("OUT", str(tmp_path / "table")) for a in arguments]
        assert cli.main([given[0], str(folder), *given[1:]]) == 0
        text = capsys.readouterr().out.replace(str(folder), "FOLDER")
        said.append(_without_times(text) if arguments[0] == "ls" else text)
        written.append([p.read_bytes() for p in tmp_path.glob("table*")])
    assert said[0] == said[1]
    assert written[0] == written[1]


def _without_times(text):
    return [{k: v for k, v in r.items() if k != "when" and "seconds" not in k} for r in json.loads(text)]


def test_figures_of_concentration_are_drawn_of_either_format(grids):
    for version in (1, 2):
        rows = concentration.concentration_rows(load(grids[version]))
        figure = concentration_figure(rows[rows["quantity"] == "H_peak"], "H_peak")
        assert {ax.get_title(loc="left") for ax in figure.axes} == {
            f"{band}, B = {size}" for band in BANDS for size in (8, 16)
        }


def test_show_names_bands_and_windows(capsys):
    assert cli.main(["show", str(stored(1))]) == 0
    old = capsys.readouterr().out
    assert "activation\tfinal\talpha\t1-10\t" in old
    assert "probe\tfinal\th_s\t17:7 clean seen task\t" in old
    assert cli.main(["show", str(stored(2))]) == 0
    assert capsys.readouterr().out.partition("last measured")[2] == old.partition("last measured")[2]


def test_views_join_both_formats(tmp_path):
    pytest.importorskip("duckdb", reason="duckdb is not installed: pip install duckdb")
    from sims.runs.sql import connect

    for version in (1, 2):
        shutil.copytree(stored(version), tmp_path / f"run-{version}")
    where = "\"window\" = '1-10' AND object = 'activation' AND step = 24"
    query = f"SELECT run_id, value FROM rows WHERE {where} ORDER BY run_id"
    first, second = connect(tmp_path).execute(query).fetchall()
    assert (first[0], second[0]) == ("run-1", "run-2")
    assert first[1] == second[1]
    assert connect(tmp_path).execute("SELECT count(*) FROM spectra").fetchone()[0] == 2 * len(
        RunFolder(stored(1)).spectra()
    )


def copied(tmp_path, version=1):
    return RunFolder(shutil.copytree(stored(version), tmp_path / NAME))


def test_a_complete_run_is_left_alone(tmp_path):
    folder = copied(tmp_path)
    before = {p: p.read_bytes() for p in folder.path.rglob("*") if p.is_file()}
    config, measuring = folder.configs()
    assert config.run_id == NAME
    assert folder.check(config, measuring)
    assert run_group([config], measuring, tmp_path) == {}
    assert {p: p.read_bytes() for p in folder.path.rglob("*") if p.is_file() and p.name != ".lock"} == before
    step, weights = load_tensors(folder.checkpoints()[-1], config)
    assert (step, "embed" in weights) == (24, True)


def test_a_complete_run_of_another_configuration_is_refused(tmp_path):
    folder = copied(tmp_path)
    config, measuring = RunFolder(stored(2)).configs()
    data = json.loads((folder.path / "run.json").read_text())
    data["train"]["lr"] = 0.5
    (folder.path / "run.json").write_text(json.dumps(data))
    with pytest.raises(StoreError, match=r"another configuration \(train.lr is 0.5 there, 0.003 here\)"):
        folder.check(config, measuring)


def test_an_incomplete_run_is_read_and_not_continued(tmp_path):
    folder = copied(tmp_path)
    config, measuring = folder.configs()
    (folder.path / "done.json").unlink()
    (folder.path / "parts").mkdir()
    shutil.move(folder.path / "rows.parquet", folder.path / "parts" / "rows-000000024.parquet")
    before = {p: p.read_bytes() for p in folder.path.rglob("*") if p.is_file()}
    with pytest.raises(StoreError, match=r"incomplete run of format 1.* or delete that folder"):
        folder.check(config, measuring)
    with pytest.raises(StoreError, match="incomplete run of format 1"):
        folder.start(config, measuring, {})
    assert {p: p.read_bytes() for p in folder.path.rglob("*") if p.is_file()} == before
    row = listing(tmp_path).iloc[0]
    assert (row["status"], row["step"]) == ("waiting", 24)
    assert "incomplete, in format 1" in row["reason"]
    last = describe(folder.path).last
    assert "1-10" in set(last["window"])


def test_columns_of_no_known_format_are_refused(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"step": [1], "value": [2.0]}), path)
    with pytest.raises(StoreError, match="the columns step, value, which are those of no known format"):
        read_table(path)
