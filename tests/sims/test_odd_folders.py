"""Folders of runs that nobody planned for: a result that holds, or status 2 and one line; nothing is lost."""

import ast
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from listed import finished, language_model, unsealed

import sims
from sims import cli
from sims.analysis.caveats import caveats
from sims.analysis.cells import usable
from sims.analysis.runs import load
from sims.runs.folders import listing
from sims.runs.layout import TEXT, TOY
from sims.runs.sql import connect
from sims.runs.store import RunFolder
from sims.system.errors import MeasureError, StoreError
from toymodel.config import RunConfig


def rewritten(run, name, change):
    """Write a table again with a change, as another program does; the run then has no digests."""
    file = run / f"{name}.parquet"
    change(pd.read_parquet(file)).to_parquet(file)
    unsealed(run)


def test_a_table_that_pandas_wrote_is_read_where_the_values_are_those_of_the_format(tmp_path, told):
    run = finished(tmp_path, RunConfig()).path
    before = RunFolder(run).rows()
    rewritten(run, "rows", lambda rows: rows)
    pd.testing.assert_frame_equal(RunFolder(run).rows(), before)
    rewritten(run, "rows", lambda rows: rows.iloc[:0])
    for words in (("compare", tmp_path), ("show", run), ("report", tmp_path)):
        assert told(*words)[0] == 0
    rewritten(run, "rows", lambda rows: rows.assign(value="high"))
    for words in (
        ("compare", tmp_path),
        ("show", run),
        ("export", tmp_path, "--to", tmp_path / "x.csv", "--table", "rows"),
    ):
        status, _, said = told(*words)
        assert status == 2
        assert "has value of type" in said.splitlines()[-1]


def test_links_that_lead_nowhere_hide_no_run(tmp_path):
    finished(tmp_path, RunConfig())
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert list(listing(tmp_path)["status"]) == ["done"]


@pytest.mark.parametrize("file", ["rows.parquet", "run.json", "done.json", "new.csv"])
def test_an_export_does_not_replace_files_of_a_run(tmp_path, told, file):
    run = finished(tmp_path, RunConfig()).path
    before = {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}
    status, _, said = told("export", tmp_path, "--to", run / file)
    assert (status, len(said.splitlines())) == (2, 1)
    assert {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()} == before


def test_an_export_does_not_replace_the_record_of_a_sweep(tmp_path, told):
    finished(tmp_path, RunConfig())
    assert told("export", tmp_path, "--to", tmp_path / "campaign.json")[0] == 2
    assert not (tmp_path / "campaign.json").exists()


def test_labels_from_a_damaged_configuration_are_not_shown(tmp_path, told):
    """One changed character of run.json gives every row of the run another stage."""
    run = finished(tmp_path, RunConfig(stage="rope")).path
    file = run / "run.json"
    file.write_text(file.read_text().replace('"rope"', '"muon"'))
    for words in (("show", run), ("export", tmp_path, "--to", tmp_path / "x.csv", "--table", "rows")):
        status, shown, said = told(*words)
        assert (status, shown) == (2, "")
        assert "run.json cannot be read (its SHA-256" in said
    assert not (tmp_path / "x.csv").exists()


@pytest.mark.parametrize("content", ["null", "[]", "7", '"x"'])
def test_a_provenance_that_is_no_record_is_shown_as_none(tmp_path, told, content):
    run = finished(tmp_path, RunConfig()).path
    (run / "provenance.json").write_text(content)
    assert told("show", run)[0] == 0


def test_two_kinds_of_runs_stand_side_by_side_and_are_compared_apart(tmp_path, told):
    toy, text = tmp_path / "toy", tmp_path / "text"
    for seed in (0, 1):
        finished(toy, RunConfig(seed=seed))
        language_model(text, seed)
    status, shown, _ = told("compare", toy, text)
    assert status == 0
    assert "baseline" in shown
    assert len(load(toy, TOY).runs) == len(load(text, TEXT).runs) == 2
    for folders in ((toy, toy), (text, text), (text, toy)):
        status, _, said = told("carry-over", *folders, "--out", tmp_path / "page.html")
        assert (status, len(said.splitlines())) == (2, 1)
        assert "each kind in one of its own" in said
    language_model(toy)
    with pytest.raises(StoreError, match=r"holds runs of language models or watched models \(lm-0\)"):
        load(toy, TOY)


def test_seeds_of_watched_models_form_one_cell(tmp_path, told):
    """Their names, and the ids that tell them apart, are no settings."""
    for seed in (0, 1, 2):
        language_model(tmp_path, seed, losses=(4.0 + seed,), model={"kind": "watched", "id": f"i{seed}"})
    status, shown, _ = told("compare", tmp_path, "--json")
    found = json.loads(shown)
    assert status == 0
    assert found["fields"] == []
    assert [cell["runs"] for cell in found["cells"]] == [3]
    assert len(json.loads(told("compare", tmp_path, "--json", "--each")[1])["cells"]) == 3


def test_runs_of_which_nothing_could_be_measured_are_shown_as_diverged(tmp_path, told):
    language_model(tmp_path, losses=(), ended="diverged")
    for command in ("compare", "report"):
        status, shown, _ = told(command, tmp_path)
        assert status == 0
        assert "1, 1 diverged" in shown


@pytest.mark.parametrize(
    ("losses", "ended"), [((4.0, math.nan), "diverged"), ((3.0,), "target")], ids=["diverged", "at once"]
)
def test_runs_that_never_learned_have_a_report_or_a_reason(tmp_path, told, losses, ended):
    for seed in (0, 1):
        finished(tmp_path, replace(RunConfig(), seed=seed), losses, ended)
    status, shown, _ = told("report", tmp_path)
    assert status == 0
    assert ("all of these runs diverged" in shown) == (ended == "diverged")


def test_a_batch_size_that_is_not_there_is_told_those_that_are(tmp_path, told):
    run = finished(tmp_path, RunConfig())
    assert told("bands", tmp_path)[2] == (
        f"speclens: {tmp_path} holds no complete run with checkpoints; make some with `speclens demo`\n"
    )
    (run.path / "checkpoints" / "step-000000000.safetensors").touch()
    assert "but at 32; name one of them" in told("bands", tmp_path, "--batch-size", "7")[2]


@pytest.mark.parametrize("value", ["3", "'x'", "'99999'"])
def test_a_condition_on_a_time_that_is_none_is_refused_in_one_line(tmp_path, told, value):
    finished(tmp_path, RunConfig())
    status, _, said = told("ls", tmp_path, "--where", f"when > {value}")
    assert (status, len(said.splitlines())) == (2, 1)
    assert "write times as" in said


def test_the_table_of_windows_has_an_ending_before_it_is_computed(tmp_path, told):
    status, shown, said = told("windows", tmp_path / "nowhere", "--out", tmp_path / "windows.txt")
    assert (status, shown) == (2, "")
    assert "ends in '.txt'" in said


@pytest.mark.parametrize(
    "words",
    [
        ("robustness", "runs", "--sequences", "0"),
        ("robustness", "runs", "--out", "file"),
        ("bands", "runs", "--out", "file/below"),
        ("theory", "--seed", "-1"),
        ("theory", "--out", "file"),
        ("theory", "--out", "file/page.html"),
        ("train", "lm", "--data", "runs", "--micro-batch", "0"),
        ("train", "lm", "--data", "runs", "--micro-batch", "-3"),
    ],
    ids=" ".join,
)
def test_what_cannot_come_out_is_refused_before_the_work(tmp_path, monkeypatch, told, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "file").write_text("kept")
    status, shown, said = told(*words)
    assert (status, shown, len(said.splitlines())) == (2, "", 1)
    assert any(
        rule in said for rule in ("must be at least", "must lie in", "must be 0 or positive", "a file")
    )
    assert (tmp_path / "file").read_text() == "kept"


def test_two_runs_of_one_seed_are_named_and_none_is_chosen(tmp_path, capsys):
    """They differ in a field that labels do not show: no analysis may take one of them without a word."""
    for seed, steps in ((0, 20), (1, 20), (0, 40)):
        finished(tmp_path, RunConfig(stage="muon", seed=seed, steps=steps))
    runs = load(tmp_path)
    with pytest.raises(MeasureError, match=r"muon at B = 32 has 2 runs of seed 0 \(muon-.*, muon-"):
        usable(runs)
    assert cli.main(["report", str(tmp_path)]) == 0
    assert "2 runs of seed 0" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["{}", "[]", "null", '"done"', '{"ended": "finished"}'])
@pytest.mark.parametrize("words", [("report",), ("compare",), ("export", "--to", "x.csv", "--table", "rows")])
def test_an_outcome_that_says_nothing_is_one_line(tmp_path, monkeypatch, told, content, words):
    """KeyError 'ended'."""
    monkeypatch.chdir(tmp_path)
    run = finished(tmp_path / "runs", RunConfig()).path
    (run / "done.json").write_text(content)
    status, _, said = told(words[0], "runs", *words[1:])
    assert status == 2
    assert "done.json" in said or "complete" in said


@pytest.mark.parametrize("content", ["null", "[]", "3", '"train"', "{"])
def test_a_record_of_a_sweep_that_is_none_is_one_line(tmp_path, told, content):
    """TypeError: 'NoneType' object is not iterable."""
    (tmp_path / "campaign.json").write_text(content)
    status, _, said = told("train", "small", "--out", tmp_path, "--steps", 2)
    assert status == 2
    assert "campaign.json" in said
    assert not list(tmp_path.glob("*/"))


def test_a_name_that_is_not_utf_8_is_named(tmp_path, told):
    """UnicodeEncodeError in compare and report."""
    run = finished(tmp_path, RunConfig()).path
    run.rename(tmp_path / "bad\udcff")
    for words in (("compare", tmp_path), ("report", tmp_path)):
        status, _, said = told(*words)
        assert status == 2
        assert "not UTF-8" in said


def test_the_folder_of_one_run_is_told_from_a_folder_of_runs(tmp_path, told):
    run = finished(tmp_path, RunConfig()).path
    (run / "checkpoints").mkdir(exist_ok=True)
    for words in (("ls", run), ("report", run), ("reproduce", "all", "--runs", run)):
        status, _, said = told(*words)
        assert status == 2
        assert "is the folder of one run" in said
    status, _, said = told("measure", tmp_path)
    assert status == 2
    assert "is not a run folder (it has no run.json)" in said


def test_one_of_a_thing_is_written_so(tmp_path, monkeypatch, told):
    """No count of one stands before a plural, and no noun in the plural before a single name."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    runs = tmp_path / "runs"
    finished(runs, RunConfig(seed=0))
    finished(runs, RunConfig(seed=1), losses=(4.0, 9.0, math.inf), ended="diverged")
    tiny = "--task.vocab 24 --task.length 8 --task.train 64 --model.d-model 8 --model.heads 2 --steps 1 --measure.bands"
    tiny += (
        " --measure.windows 1 5 --measure.training-bands 0 --seeds 0 --batch-sizes 32 --lrs 1 --stages muon"
    )
    pages = [
        told("ls", runs, "--limit", 1),
        told("export", runs, "--to", tmp_path / "x.csv", "--where", "seed == 0"),
        told("compare", runs),
        told("sweep", "small", *tiny.split(), "--dry-run"),
    ]
    assert [status for status, _, _ in pages] == [0] * 4
    assert "1 run diverged, " in " ".join(caveats(load(runs)))
    words = "run|seed|stage|group|row|batch size|worker|checkpoint|cell|learning rate"
    texts = [re.sub(r"\x1b\[[\d;]*m", "", out + said) for _, out, said in pages]
    for text in (*texts, *caveats(load(runs))):
        assert not re.search(rf"\b(1|one) ({words})s\b", text)
        assert not re.search(rf"\b1 ({words}) (are|were|have|do|take)\b", text)
    assert "1 row in " in texts[1]
    assert "1 run in 1 group, " in texts[3]


def test_a_folder_whose_name_has_wildcards_is_queried_alone(tmp_path):
    pytest.importorskip("duckdb", reason="duckdb is not installed: pip install duckdb")
    for name in ("r*", "r1", "r[1]"):
        finished(tmp_path / name, RunConfig(seed=1))
    counts = [
        connect(tmp_path / name).execute("SELECT count(*) FROM rows").fetchone()
        for name in ("r*", "r1", "r[1]")
    ]
    assert counts[0] == counts[1] == counts[2]


@pytest.mark.parametrize("name", ["runs [old]", "a[/b]", "[red]", "a [link=x]"])
def test_brackets_in_the_name_of_a_folder_are_no_markup(tmp_path, monkeypatch, name):
    """What a command prints last is where its page lies, also as rich would read it."""
    from io import StringIO

    from rich.console import Console

    from sims.measure.remeasure import show_last
    from sims.studies.overview import finish

    monkeypatch.setattr(finish, "report_runs", lambda out: (None, []))
    monkeypatch.setattr(finish, "nothing_to_report", lambda runs: None)
    monkeypatch.setattr(finish, "print_summary", lambda runs, notes, console: None)
    monkeypatch.setattr(finish, "write_report", lambda out, runs, notes: out / "report.html")
    console = Console(file=StringIO(), width=200)
    assert finish.finish(tmp_path / name, {}, console) == 0
    show_last(tmp_path / name, language_model(tmp_path, losses=(4.0,)).rows(), console)
    said = console.file.getvalue()
    assert f"report: {tmp_path / name}/report.html\n" in said
    assert f"1 row in {tmp_path / name}\n" in said


def test_a_damaged_run_is_not_left_out_without_a_word(tmp_path, told):
    for seed in range(3):
        language_model(tmp_path, seed)
    rows = tmp_path / listing(tmp_path)["run_id"][1] / "rows.parquet"
    rows.write_bytes(rows.read_bytes()[:-5])
    status, _, said = told("compare", tmp_path)
    assert status == 0
    assert f"note: {rows.parent.name} is damaged and left out: rows.parquet cannot be read" in said
    pytest.importorskip("duckdb", reason="duckdb is not installed: pip install duckdb")
    with pytest.raises(StoreError, match=f"{rows.parent} cannot be read: rows.parquet .*; restore it"):
        connect(tmp_path)


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ((), "; make some with `speclens demo --out"),
        (("config.json", "model.safetensors"), ", but config.json, model.safetensors; give a folder that"),
        (
            ("rope/run.json",),
            r" \(1 begun: `speclens ls .*` shows them\); the command that began them continues",
        ),
    ],
)
def test_a_folder_without_a_complete_run_is_told_by_what_it_holds(tmp_path, there, told):
    for name in there:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    with pytest.raises(StoreError, match="holds no complete run" + told):
        load(tmp_path)


def test_messages_recommend_commands_that_exist():
    texts = [
        node.value
        for file in Path(sims.__file__).parent.rglob("*.py")
        if "speclens " in (source := file.read_text())
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    told = [text for text in texts if re.search(r"speclens (train|sweep) ", text)]
    assert len(told) > 5
    assert not [text for text in told if re.search(r"speclens (train|sweep) -", text)]
